"""The Flower ClientApp: the agents of one node."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import LocalDpMod, adaptiveclipping_mod, fixedclipping_mod
from flwr.clientapp.typing import Mod
from torch import nn

from ross_flwr.algorithms import ALGORITHMS
from ross_flwr.config import Config, ConfigError
from ross_flwr.flower import handlers
from ross_flwr.flower.hosting import MakeTask
from ross_flwr.flower.protocol import Setup
from ross_flwr.learning.objective import Loss, Metric
from ross_flwr.runs.assemble import choose_device
from ross_flwr.runs.options import MachineOptions
from ross_flwr.tasks.loaded import Data
from ross_flwr.tasks.options import DataOptions
from ross_flwr.tasks.own import Own
from ross_flwr.tasks.task import Task

__all__ = ["app", "peer_app"]


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

    def task(self, setup: Setup, config: Config, context: Context) -> Own:
        """Return the task of this node's one agent, with the model and data made for the node."""
        if len(setup.places) > 1:
            raise ConfigError(
                f"num-agents puts {len(setup.places)} agents on a node, and this app has the data of one: start "
                "PeerRelay without num_agents, or as many nodes"
            )
        held_out = self.validation_data
        return Own(
            self.model(context),
            lambda _: self.train_data(context),
            lambda _: self.test_data(context),
            (lambda _: held_out(context)) if held_out else None,
            loss=self.loss,
            metrics=self.metrics,
            utility=self.utility,
            pair=self.pair,
            batch_size=config.part(DataOptions).batch_size,
            device=choose_device(config.part(MachineOptions).device),
        )


_REPORTED = ("loss", "accuracy", "attack-success")
"""Names that metrics cannot have, because every test reports them."""


def _refuse_mods(mods: Iterable[Mod]) -> None:
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
        From the node's Context to the module that its agent trains. Its initial values are not used.
    train_data, test_data : callable, optional
        From the node's Context to a map-style Dataset, or a DataLoader of one: what the agent learns from, and what its
        model is tested on. A DataLoader's own batch size applies; otherwise the run's `batch-size`.
    validation_data : callable, optional
        The same for Q_i, on which methods such as ROSS judge models; the agent should not learn from it.
    loss : callable (default: cross-entropy)
        Mean loss of (outputs, targets).
    metrics : mapping of str to callable, optional
        Numbers of (outputs, targets) on the test data, reported beside loss and accuracy.
    utility : callable, optional
        What a model is worth, as a number of (outputs, targets) on Q_i, when the run says ``utility = "own"``; more is
        better.
    pair : callable, optional
        From a collated batch to (inputs, targets), for data whose batches are not such pairs, such as dictionaries.

    Raises
    ------
    ConfigError
        When only some of model, train_data and test_data are given, or a task beside them, a metric has a name that is
        taken, or a mod rewrites the one model that it expects in a message.

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
    _refuse_mods(mods or [])
    if taken := [name for name in metrics or {} if name in _REPORTED]:
        raise ConfigError(f"metrics have the name '{taken[0]}', which every test reports: use another name")
    functions = (model, train_data, validation_data, test_data, metrics, utility, pair)
    if task and any(functions):
        raise ConfigError("peer_app takes a task, or functions for a model and data: give it one of the two")
    make_task: MakeTask | None = None
    if task:
        make_task = _alone(task)
    elif model and train_data and test_data:
        make_task = Functions(
            model=model,
            train_data=train_data,
            validation_data=validation_data,
            test_data=test_data,
            loss=loss,
            metrics=metrics or {},
            utility=utility,
            pair=pair,
        ).task
    elif any(functions):
        needed = {"model": model, "train_data": train_data, "test_data": test_data}
        missing = [name for name, function in needed.items() if function is None]
        raise ConfigError(f"an app of its own needs {', '.join(missing)} too: give peer_app all of {', '.join(needed)}")
    peer = ClientApp() if app is None else app
    for name in sorted({step for algorithm in ALGORITHMS.values() for step in algorithm.steps}):
        peer.train(name, mods=mods)(partial(handlers.activate, make_task=make_task))
    peer.query("models", mods=mods)(partial(handlers.models, make_task=make_task))
    peer.query("who", mods=mods)(handlers.who)
    peer.query("done", mods=mods)(handlers.done)
    peer.train("segment", mods=mods)(partial(handlers.segment, make_task=make_task))
    return peer


def _alone(task: Callable[[Context], Task]) -> MakeTask:
    return lambda _setup, _config, context: task(context)


app = peer_app()
