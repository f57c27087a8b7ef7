"""The Flower ClientApp: the agents of one node."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cache, partial
from inspect import signature
from logging import INFO, getLogger
from typing import Any

from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import LocalDpMod, adaptiveclipping_mod, fixedclipping_mod
from flwr.clientapp.typing import Mod
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from ross_flwr.algorithms import ALGORITHMS
from ross_flwr.config import Config, ConfigError, shown
from ross_flwr.flower import handlers
from ross_flwr.flower.hosting import MakeTask
from ross_flwr.flower.protocol import Setup
from ross_flwr.flower.settings import described
from ross_flwr.learning.outputs import Loss, Metric
from ross_flwr.runs.assemble import choose_device, read_aggregator
from ross_flwr.runs.assembly import needs_validation
from ross_flwr.runs.options import MachineOptions, RunOptions
from ross_flwr.tasks.loaded import Data
from ross_flwr.tasks.options import DataOptions
from ross_flwr.tasks.own import Own, Tested
from ross_flwr.tasks.task import Task

__all__ = ["app", "peer_app"]

logger = getLogger("flwr")


@dataclass(frozen=True, kw_only=True)
class Functions:
    """The user's functions; `peer_app` tells what they are."""

    model: Callable[[Context], nn.Module]
    train_data: Callable[[Context], Data]
    validation_data: Callable[[Context], Data] | None
    test_data: Callable[[Context], Data]
    loss: Loss
    metrics: Mapping[str, Metric]
    utility: Metric | None
    pair: Callable[[Any], Iterable[Any]] | None
    train: Callable[[nn.Module, DataLoader[Any], Context], object] | None
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None
    test: Callable[[nn.Module, DataLoader[Any], Context], Tested] | None

    def task(self, setup: Setup, config: Config, context: Context) -> Own:
        """Return the task of this node's one agent, with the model and data made for the node."""
        if len(setup.places) > 1:
            raise ConfigError(
                f"num-agents puts {len(setup.places)} agents on a node, and this app has the data of one: start "
                "PeerRelay without num_agents, or as many nodes"
            )
        held_out, train, test = self.validation_data, self.train, self.test
        self.check(config)
        own = Own(
            _apart(self.model(context)),
            lambda _: self.train_data(context),
            lambda _: self.test_data(context),
            (lambda _: held_out(context)) if held_out else None,
            loss=self.loss,
            metrics=self.metrics,
            utility=self.utility,
            pair=self.pair,
            train=(lambda module, loader: train(module, loader, context)) if train else None,
            optimizer=self.optimizer,
            test=(lambda module, loader: test(module, loader, context)) if test else None,
            batch_size=config.part(DataOptions).batch_size,
            hold_out=self._hold_out(config),
            seed=config.part(RunOptions).seed,
            device=choose_device(config.part(MachineOptions).device),
        )
        size = own.batch_size(min(setup.places))
        if size != config.part(DataOptions).batch_size != DataOptions().batch_size:
            raise _unused(config, "batch-size", f"the DataLoader of this app has batches of {size}")
        return own

    def check(self, config: Config) -> None:
        """Refuse a method that cannot work with the app's own training, and keys for which the app has functions."""
        algorithm = config.part(ALGORITHMS[config.part(RunOptions).algorithm])
        if self.validation_data and config.part(DataOptions).validation_size != DataOptions().validation_size:
            raise _unused(config, "validation-size", "this app has validation_data")
        if self.train is None and self.optimizer is None:
            return
        own = "train" if self.train else "optimizer"
        if not (algorithm.takes_own_steps if self.train else algorithm.takes_own_optimizer):
            raise ConfigError(
                f"algorithm = '{algorithm.name}' has no local steps that this app's own {own} could make: leave {own} "
                "out, or use algorithm = 'local-dsgd', say"
            )
        if algorithm.learning_rate != type(algorithm)().learning_rate:
            raise _unused(config, "learning-rate", "this app trains its model itself")
        if getattr(algorithm, "optimizer", "sgd") != getattr(type(algorithm)(), "optimizer", "sgd"):
            raise _unused(config, "optimizer", f"this app has its own {own}")

    def _hold_out(self, config: Config) -> int:
        """Return how many examples may be held out for Q_i, which is said once in a process."""
        algorithm = config.part(ALGORITHMS[config.part(RunOptions).algorithm])
        size = config.part(DataOptions).validation_size
        needy = needs_validation(algorithm, algorithm.rule or read_aggregator(config))
        if self.validation_data or not needy:
            return 0
        _say(
            f"{needy} needs a validation set Q_i, and peer_app got no validation_data: a fifth of the training data of "
            f"each agent, at most validation-size = {size} examples, is held out for it"
        )
        return size


def _apart(module: nn.Module) -> nn.Module:
    """Return a copy: an app may keep its module, and give it to several nodes of a process."""
    if not isinstance(module, nn.Module):
        raise ConfigError(f"model returned {described(module)}: expected the nn.Module that the agent trains")
    try:
        return deepcopy(module)
    except RuntimeError:  # it holds results of computations, as those of `torch.nn.utils.weight_norm`
        return module


def _unused(config: Config, key: str, reason: str) -> ConfigError:
    return ConfigError(f"{key} = {shown(config.values[key])} has no effect, since {reason}: leave the key out")


@cache
def _say(text: str) -> None:
    logger.log(INFO, "%s", text)


_REPORTED = ("loss", "accuracy", "attack-success")
"""Names that metrics cannot have, because every test reports them."""


def _refuse_mods(mods: list[Mod]) -> None:
    if not isinstance(mods, list):
        raise ConfigError(f"mods is a {type(mods).__name__}, not a list: give an app by name, peer_app(app=app, …)")
    for mod in mods:
        if mod in (fixedclipping_mod, adaptiveclipping_mod) or isinstance(mod, LocalDpMod):
            name = getattr(mod, "__name__", type(mod).__name__)
            raise ConfigError(
                f"{name} rewrites the model update in a reply to a server, and agents send each other models and "
                "gradients instead: use it on train functions of your own, with @app.train(mods=[...])"
            )


def peer_app(
    mods: list[Mod] | None = None,
    *,
    app: ClientApp | None = None,
    task: Callable[[Context], Task] | None = None,
    model: Callable[[Context], nn.Module] | None = None,
    train_data: Callable[[Context], Data] | None = None,
    validation_data: Callable[[Context], Data] | None = None,
    test_data: Callable[[Context], Data] | None = None,
    loss: Loss = nn.functional.cross_entropy,
    metrics: Mapping[str, Metric] | None = None,
    utility: Metric | None = None,
    pair: Callable[[Any], Iterable[Any]] | None = None,
    train: Callable[[nn.Module, DataLoader[Any], Context], object] | None = None,
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer] | None = None,
    test: Callable[[nn.Module, DataLoader[Any], Context], Tested] | None = None,
) -> ClientApp:
    """Return a ClientApp that hosts agents: one ``train.<step>`` handler for every step of every registered method.

    With `task`, a node hosts any number of agents; with functions for a model and data, it hosts one. Without either,
    the run configuration names the task.

    Parameters
    ----------
    mods : list of Mod, optional
        Flower mods to wrap around each handler.
    app : ClientApp, optional
        The app that gets the handlers, beside its own; without it, a new app.
    task : callable, optional
        From the node's Context to the `Task` of the whole run, which has an objective for each agent.
    model : callable, optional
        From the node's Context to the module that its agent trains. Of its initial values, those of frozen parameters
        are used, unless the initial model of the run holds others.
    train_data, test_data : callable, optional
        From the node's Context to a map-style Dataset, or a DataLoader of one: what the agent learns from, and what its
        model is tested on. A DataLoader's own batch size applies; otherwise the run's `batch-size`. Batches are
        (inputs, targets), or dictionaries with one label; inputs in a dictionary go to the module by keyword.
    validation_data : callable, optional
        The same for Q_i, on which methods such as ROSS judge models; the agent should not learn from it. Without it, a
        fifth of the training data is held out where the method needs it, at most `validation-size` examples.
    loss : callable (default: cross-entropy)
        Mean loss of (outputs, targets). A loss of ``torch.nn`` gets the scores in outputs that are tuples or have
        ``logits``; any other gets them as they are, and the module if it has an argument ``model``.
    metrics : mapping of str to callable, optional
        Numbers of (outputs, targets) on the test data, reported beside loss and accuracy.
    utility : callable, optional
        What a model is worth, as a number of (outputs, targets) on Q_i, when the run says ``utility = "own"``; more is
        better.
    pair : callable, optional
        From a collated batch to (inputs, targets), for any other batches.
    train : callable, optional
        The app's own training, from (module, DataLoader, Context), in place of the local steps of a method that has
        them: the change that it makes to the model is the step. The loader has as many batches as `local-steps` says.
    optimizer : callable, optional
        From the parameters to the optimizer of these local steps, such as ``partial(AdamW, lr=1e-3)``. What it
        remembers goes on from pass to pass; in `ross` it begins anew in each.
    test : callable, optional
        The app's own test, from (module, DataLoader, Context) to (loss, accuracy) or to a mapping with ``"loss"``.
        Accuracy is a share, from 0 to 1.

    Raises
    ------
    ConfigError
        When an object stands where a function belongs, only some of model, train_data and test_data are given, or a
        task beside them, a metric has a name that is taken, or a mod rewrites the one model that it expects in a
        message.

    Examples
    --------
    >>> app = peer_app(
    ...     model=lambda context: nn.Linear(64, 10),
    ...     train_data=lambda context: ...,
    ...     test_data=lambda context: ...,
    ... )
    >>> isinstance(app, ClientApp)
    True
    """
    _refuse_mods([] if mods is None else mods)
    _refuse_objects(task=task, model=model, train_data=train_data, validation_data=validation_data, test_data=test_data)
    _refuse_objects(loss=loss, utility=utility, pair=pair, train=train, optimizer=optimizer, test=test)
    _refuse_metrics(metrics or {})
    scoring = (loss is not nn.functional.cross_entropy, metrics, utility, test)
    functions = (model, train_data, validation_data, test_data, pair, train, optimizer, *scoring)
    if train and optimizer:
        raise ConfigError("peer_app takes train, or an optimizer for the local steps: give it one of the two")
    if task and any(functions):
        raise ConfigError("peer_app takes a task, or functions for a model and data: give it one of the two")
    make_task: MakeTask | None = _alone(task) if task else None
    check: Callable[[Config], None] | None = None
    if model and train_data and test_data:
        own = Functions(
            model=model,
            train_data=train_data,
            validation_data=validation_data,
            test_data=test_data,
            loss=loss,
            metrics=metrics or {},
            utility=utility,
            pair=pair,
            train=train,
            optimizer=optimizer,
            test=test,
        )
        make_task, check = own.task, own.check
    elif any(functions):
        needed = {"model": model, "train_data": train_data, "test_data": test_data}
        missing = [name for name, function in needed.items() if function is None]
        raise ConfigError(f"an app of its own needs {', '.join(missing)} too: give peer_app all of {', '.join(needed)}")
    return _handling(ClientApp() if app is None else app, make_task, check, mods)


def _handling(
    peer: ClientApp, make_task: MakeTask | None, check: Callable[[Config], None] | None, mods: list[Mod] | None
) -> ClientApp:
    """Return the app with a handler for everything that a strategy asks."""
    for name in sorted({step for algorithm in ALGORITHMS.values() for step in algorithm.steps}):
        peer.train(name, mods=mods)(partial(handlers.activate, make_task=make_task))
    peer.query("models", mods=mods)(partial(handlers.models, make_task=make_task))
    peer.query("who", mods=mods)(partial(handlers.who, make_task=make_task, check=check))
    peer.query("done", mods=mods)(handlers.done)
    peer.train("segment", mods=mods)(partial(handlers.segment, make_task=make_task))
    return peer


def _refuse_metrics(metrics: Mapping[str, Metric]) -> None:
    if not isinstance(metrics, Mapping):
        raise ConfigError(
            f"metrics is {described(metrics)}: give peer_app functions of (outputs, targets) by name, {{'f1': f1}}"
        )
    if taken := [name for name in metrics if name in _REPORTED]:
        raise ConfigError(f"metrics have the name '{taken[0]}', which every test reports: use another name")
    for name, metric in metrics.items():
        _refuse_object(f"the metric '{name}'", metric, ("outputs", "targets"), f"metrics={{'{name}': ")


_TAKES = {
    "loss": ("outputs", "targets"),
    "utility": ("outputs", "targets"),
    "pair": ("batch",),
    "train": ("module", "loader", "context"),
    "test": ("module", "loader", "context"),
    "optimizer": ("parameters",),
}
"""What a function of the user's takes; any other takes the node's Context."""

_INSTEAD = {"loss": "nn.functional.cross_entropy", "optimizer": "partial(torch.optim.Adam, lr=1e-3)"}
"""What to give where people write the name of one."""


def _refuse_objects(**functions: object) -> None:
    """Refuse what is no function, or cannot be called as it will be."""
    for name, given in functions.items():
        if given is not None:
            _refuse_object(name, given, _TAKES.get(name, ("context",)), f"{name}=")


def _refuse_object(name: str, given: object, takes: Sequence[str], written: str) -> None:
    arguments = ", ".join(takes)
    right = f"give peer_app a function, {written}{_INSTEAD.get(name, f'lambda {arguments}: …')}"
    if not callable(given) or (isinstance(given, nn.Module) and takes == ("context",)):
        raise ConfigError(f"{name} is {described(given)}: {right}")
    if name == "loss" and isinstance(given, type):
        raise ConfigError(f"{name} is {described(given)}: give peer_app an object of it, {written}{given.__name__}()")
    try:
        called = signature(given)
    except (TypeError, ValueError):  # of a function in C
        return
    named = {"model": None} if name == "loss" and "model" in called.parameters else {}
    try:
        called.bind(*takes, **named)
    except TypeError as error:
        raise ConfigError(f"{name} cannot be called with ({arguments}), {error}: {right}") from None


def _alone(task: Callable[[Context], Task]) -> MakeTask:
    return lambda _setup, _config, context: task(context)


app = peer_app()
