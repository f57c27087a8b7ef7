"""The Flower ClientApp: the agents of one node."""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import LocalDpMod, adaptiveclipping_mod, fixedclipping_mod
from flwr.clientapp.typing import Mod
from torch import nn

from ross_flwr.algorithms import ALGORITHMS
from ross_flwr.config import Config, ConfigError, resolve
from ross_flwr.direct.certificates import Credentials
from ross_flwr.direct.loop import Session
from ross_flwr.direct.peer import Neighbor, check_address
from ross_flwr.engine.host import Host
from ross_flwr.engine.rounds import end_pass
from ross_flwr.flower.options import FlowerOptions
from ross_flwr.flower.records import from_json, pack, record_of, tensors_of, to_json, unpack
from ross_flwr.graph.topology import Place
from ross_flwr.learning.flat import FlatModel
from ross_flwr.learning.objective import Loss, Metric, ModuleObjective
from ross_flwr.runs.assemble import Experiment, choose_device
from ross_flwr.runs.folder import RunFolder
from ross_flwr.runs.options import MachineOptions, RunOptions
from ross_flwr.tasks.loaded import Data, Loaded
from ross_flwr.tasks.options import DataOptions

__all__ = ["app", "peer_app"]


@dataclass(frozen=True, kw_only=True)
class Own:
    """The user's functions; `peer_app` tells what they are."""

    model: Callable[[Context], nn.Module]
    train_data: Callable[[Context], Data]
    validation_data: Callable[[Context], Data] | None
    test_data: Callable[[Context], Data]
    loss: Loss
    metrics: Mapping[str, Metric]
    utility: Metric | None
    pair: Callable[[Any], Iterable[Any]] | None

    def experiment(self, setup: Mapping[str, Any], context: Context) -> Experiment:
        """Return what the set-up of this node's agent stands for, with the model and data made for the node."""
        if len(setup["places"]) > 1:
            raise ConfigError(
                f"num-agents puts {len(setup['places'])} agents on a node, and this app has the data of one: start "
                "PeerRelay without num_agents, or as many nodes"
            )
        config = resolve(setup["options"])
        machine = config.part(MachineOptions)
        if machine.threads:
            torch.set_num_threads(machine.threads)
        device = choose_device(machine.device)
        train = Loaded(self.train_data(context), "train_data", device, self.pair)
        test = Loaded(self.test_data(context), "test_data", device, self.pair, keep=True)
        held_out = self.validation_data
        validation = Loaded(held_out(context), "validation_data", device, self.pair) if held_out else None
        objective = ModuleObjective(
            FlatModel(self.model(context).to(device)),
            train,
            validation,
            test,
            self.loss,
            metrics=self.metrics,
            own_utility=self.utility,
        )
        batch_size = train.batch_size or config.part(DataOptions).batch_size
        return Experiment(resolve({**config.values, "batch-size": batch_size}), objective)


_REPORTED = ("loss", "accuracy", "attack-success")
"""Names that metrics cannot have: what every test reports."""


def peer_app(
    mods: list[Mod] | None = None,
    *,
    app: ClientApp | None = None,
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

    With a model and data of its own a node hosts one agent; without, the run configuration names them.

    Parameters
    ----------
    mods : list of Mod, optional
        Flower mods to wrap around each handler.
    app : ClientApp, optional
        Where to register the handlers, beside those it has; a new one without.
    model : callable, optional
        From the node's Context to the module that its agent learns. Its own initial values are not used.
    train_data, test_data : callable, optional
        From the node's Context to a map-style Dataset, or a DataLoader of one: what the agent learns from, and what its
        model is tested on. The batch size of a DataLoader counts, and else `batch-size` of the run.
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
        From a collated batch to (inputs, targets), for data whose batches are not such pairs: dictionaries, say.

    Raises
    ------
    ConfigError
        When only some of model, train_data and test_data are given, a metric has a name that is taken, or a mod
        rewrites the one model that it expects in a message.
    """
    for mod in mods or []:
        if mod in (fixedclipping_mod, adaptiveclipping_mod) or isinstance(mod, LocalDpMod):
            name = getattr(mod, "__name__", type(mod).__name__)
            raise ConfigError(
                f"{name} rewrites the model update in a reply to a server, and agents send each other models and "
                "gradients instead: use it on train functions of your own, with @app.train(mods=[...])"
            )
    if taken := [name for name in metrics or {} if name in _REPORTED]:
        raise ConfigError(f"metrics have the name '{taken[0]}', which every test reports: use another name")
    own = None
    if model and train_data and test_data:
        own = Own(
            model=model,
            train_data=train_data,
            validation_data=validation_data,
            test_data=test_data,
            loss=loss,
            metrics=metrics or {},
            utility=utility,
            pair=pair,
        )
    elif any((model, train_data, validation_data, test_data, metrics, utility, pair)):
        needed = {"model": model, "train_data": train_data, "test_data": test_data}
        missing = [name for name, function in needed.items() if function is None]
        raise ConfigError(f"an app of its own needs {', '.join(missing)} too: give peer_app all of {', '.join(needed)}")
    peer = ClientApp() if app is None else app
    for name in sorted({step for algorithm in ALGORITHMS.values() for step in algorithm.steps}):
        peer.train(name, mods=mods)(partial(activate, own=own))
    peer.query("models", mods=mods)(partial(models, own=own))
    peer.query("who", mods=mods)(who)
    peer.train("segment", mods=mods)(partial(segment, own=own))
    return peer


def activate(message: Message, context: Context, own: Own | None = None) -> Message:
    """Run the step that the message names, and the next round's first step after a round's last if it comes this way.

    The message holds what arrived for the agents here, the reply what leaves them. All that the agents carry to the
    next activation stands in ``context.state``.
    """
    content = message.content
    if "setup" in content.config_records:
        begin(content, context, own)
    host, experiment = wake(context, own)
    host.places = experiment.places  # and not those of a segment before
    call = from_json(content.config_records["call"])
    pass_number, number = call["pass"], call["step"]
    leaving = host.activate(pass_number, number, unpack(content, experiment.device))
    reply = RecordDict()
    last = len(host.algorithm.steps) - 1
    if number == last:
        schedule = replace(experiment.schedule, num_rounds=call["total"])
        if ended := end_pass(host, schedule, pass_number):
            _, reports = ended
            reply["report"] = to_json([asdict(report) for report in reports])
        if last > 0 and pass_number + 1 < call["end"]:
            leaving = host.activate(pass_number + 1, 0)
    for key, record in pack(leaving).items():
        reply[key] = record
    rest(host, experiment, context)
    return Message(reply, reply_to=message)


def models(message: Message, context: Context, own: Own | None = None) -> Message:
    """Reply with the model of every agent here, each under its own parameter names."""
    host, experiment = wake(context, own)
    return Message(_named_models(host, experiment), reply_to=message)


def _named_models(host: Host, experiment: Experiment) -> RecordDict:
    """Return the model of every agent here, under the key by which the ServerApp knows it."""
    named = {i: experiment.model.named(agent["model"]) for i, agent in host.agents.items()}
    return RecordDict({f"agent.{i}": record_of(tensors) for i, tensors in named.items()})


def who(message: Message, context: Context) -> Message:
    """Reply with the part of the data that is here, if Flower numbers the parts, and with what neighbours have to know.

    That is the name and address under which they find this node, or what is wrong with them.
    """
    options = from_json(message.content.config_records["options"])
    part = context.node_config.get("partition-id")
    answer: dict[str, int | str] = {"partition": part} if isinstance(part, int) else {}
    try:
        answer["name"], answer["address"], _ = _identity(context, resolve(options))
    except ConfigError as error:
        answer["problem"] = str(error)
    return Message(RecordDict({"who": to_json(answer)}), reply_to=message)


def segment(message: Message, context: Context, own: Own | None = None) -> Message:
    """Run the rounds that the message names, talking to the neighbours directly; reply with what happened in each."""
    content = message.content
    begin(content, context, own)
    host, experiment = wake(context, own)
    call = from_json(content.config_records["segment"])
    config = experiment.config
    run, machine, flower = config.part(RunOptions), config.part(MachineOptions), config.part(FlowerOptions)
    passes = run.batches_per_round
    _, address, credentials = _identity(context, config)
    begins = int(call["begins"])
    places = {int(i): [_place(told) for told in several] for i, several in call["places"].items()}

    def place(agent: int, pass_number: int) -> Place:
        return places[agent][min(pass_number - begins, len(places[agent]) - 1)]

    host.places = place
    edges = {(j, i) for i, several in places.items() for row, _ in several for j in row if j not in host.agents}
    neighbors = [Neighbor(name, address, tuple(agents)) for name, address, agents in call["neighbors"]]
    finished = max((ran for ran, _ in host.ran.values()), default=-1) + 1
    first = max(call["first"], finished // passes + 1)  # the process before this one may have died on its way
    rounds = []
    with Session(
        host,
        neighbors,
        address=address,
        topology=call["topology"],
        layout=experiment.model.digest,
        patience=flower.phase_timeout,
        edges=edges,
        credentials=credentials,
    ) as session:
        for round in session.rounds(experiment.schedule, first, call["last"]):
            rounds.append([round.number, round.seconds, [asdict(report) for report in round.reports]])
            if flower.state_dir and machine.checkpoint_every and round.number % machine.checkpoint_every == 0:
                rest(host, experiment, context)
    reply = RecordDict({"rounds": to_json(rounds), "dropped": to_json(dict(host.dropped))})
    host.dropped.clear()
    rest(host, experiment, context)
    if flower.return_model == "final" and call["last"] == run.num_rounds:
        reply.update(_named_models(host, experiment))
    return Message(reply, reply_to=message)


def _identity(context: Context, config: Config) -> tuple[str, str, Credentials | None]:
    """Return this node's name and address among its neighbours, and what proves the name."""
    address, certs = (str(context.node_config.get(key, "")) for key in ("peer-address", "peer-certs"))
    flower = config.part(FlowerOptions)
    if not (certs or flower.peer_insecure):
        raise ConfigError(
            "transport = 'direct' needs certificates: start each SuperNode with peer-address and peer-certs in its "
            "--node-config, or say peer-insecure = true"
        )
    credentials = None if flower.peer_insecure else Credentials.read(Path(certs))
    check_address(address, secure=credentials is not None, remote=flower.peer_insecure_remote)
    return credentials.name if credentials else f"node-{context.node_id}", address, credentials


def begin(content: RecordDict, context: Context, own: Own | None = None) -> None:
    """Set up the agents that the message assigns to this node, unless they already are."""
    setup = content.config_records["setup"]
    if context.state.config_records.get("setup") == setup:
        return
    context.state["setup"] = setup
    host, experiment = _hosted(_setup(context), context, own, anew=True)
    if _state_dir(experiment) and _state_folder(host, experiment, context).read_checkpoint():
        return  # a process that died has left it
    initial = experiment.model.flatten(tensors_of(content.array_records["initial"], experiment.device))
    for agent in host.agents.values():
        agent["model"] = initial.clone()
        host.algorithm.start(agent)
    rest(host, experiment, context)


def wake(context: Context, own: Own | None = None) -> tuple[Host, Experiment]:
    """Return the host as `rest` left it."""
    if "setup" not in context.state.config_records:
        raise RuntimeError("this node holds no agents: the relay has not set it up in this run")
    host, experiment = _hosted(_setup(context), context, own)
    if _state_dir(experiment):
        checkpoint = _state_folder(host, experiment, context).read_checkpoint()
        if checkpoint is None:
            raise RuntimeError(f"state-dir = '{_state_dir(experiment)}' no longer holds this node's state")
        _, tensors, remainder = checkpoint
        tensors = {key: tensor.to(experiment.device) for key, tensor in tensors.items()}
    else:
        tensors = tensors_of(context.state.array_records["tensors"], experiment.device)
        remainder = from_json(context.state.config_records["rest"])
    host.restore(tensors, remainder)
    return host, experiment


def rest(host: Host, experiment: Experiment, context: Context) -> None:
    """Put what the host carries into the node's state, or into its file under `state-dir`."""
    tensors, remainder = host.snapshot()
    if _state_dir(experiment):
        _state_folder(host, experiment, context).write_checkpoint(0, tensors, remainder)
    else:
        context.state["tensors"] = record_of(tensors)
        context.state["rest"] = to_json(remainder)


def _setup(context: Context) -> str:
    """Return the set-up of the agents here; that of a device whose node configuration has its own data names that data.

    Its agent holds all of what lies under the node's `data-path` (and is of the node's `dataset`, if it names one):
    nothing is dealt, and the validation set is drawn from it.
    """
    setup = str(context.state.config_records["setup"]["json"])
    if "data-path" not in context.node_config:
        return setup
    parts = json.loads(setup)
    if len(parts["places"]) > 1:
        raise ConfigError(
            f"data-path = '{context.node_config['data-path']}' of this node is the data of one agent, and it hosts "
            f"{len(parts['places'])}: start as many nodes as num-agents"
        )
    own = {key: context.node_config[key] for key in ("dataset", "data-path") if key in context.node_config}
    parts["options"].update(own, **{"partition": "all", "examples-per-agent": 0})
    return json.dumps(parts)


def _state_dir(experiment: Experiment) -> str:
    return experiment.config.part(FlowerOptions).state_dir


def _state_folder(host: Host, experiment: Experiment, context: Context) -> RunFolder:
    return RunFolder(Path(_state_dir(experiment)) / f"{host.run}-{context.node_id}")


def _place(told: Iterable[Mapping[str, float]]) -> Place:
    """Return row and column of W from JSON, which makes keys texts."""
    row, column = ({int(j): weight for j, weight in side.items()} for side in told)
    return row, column


_HELD = 256
"""So many hosts are kept: in a simulation one process plays many nodes, again and again."""

_held: dict[str, tuple[Host, Experiment]] = {}


def _hosted(setup: str, context: Context, own: Own | None, *, anew: bool = False) -> tuple[Host, Experiment]:
    """Return the host of a set-up as it was left in this process, or `anew`; data is loaded once."""
    if anew or setup not in _held:
        parts = json.loads(setup)
        experiment = own.experiment(parts, context) if own else _experiment(json.dumps(parts["options"]))
        host = experiment.host(parts["run"], {int(i): _place(told) for i, told in parts["places"].items()})
        if len(_held) >= _HELD:
            del _held[next(iter(_held))]
        _held[setup] = host, experiment
    return _held[setup]


@lru_cache(maxsize=2)
def _experiment(options: str) -> Experiment:
    config = resolve(json.loads(options))
    threads = config.part(MachineOptions).threads
    if threads:
        torch.set_num_threads(threads)
    return Experiment(config)


app = peer_app()
