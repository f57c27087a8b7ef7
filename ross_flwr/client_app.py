"""The Flower ClientApp: the agents of one node."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.typing import Mod

from ross_flwr.algorithms import ALGORITHMS
from ross_flwr.certificates import Credentials
from ross_flwr.config import Config, ConfigError, resolve
from ross_flwr.experiment import Experiment
from ross_flwr.report.folder import RunFolder
from ross_flwr.transport.direct import Session
from ross_flwr.transport.host import Host
from ross_flwr.transport.peer import Neighbor, check_address
from ross_flwr.transport.records import from_json, pack, record_of, tensors_of, to_json, unpack

__all__ = ["app", "peer_app"]


def peer_app(mods: list[Mod] | None = None) -> ClientApp:
    """Return a ClientApp that hosts agents: one ``train.<step>`` handler for every step of every registered method.

    Parameters
    ----------
    mods : list of Mod, optional
        Flower mods to wrap around each handler.
    """
    peer = ClientApp(mods=mods)
    for name in sorted({step for algorithm in ALGORITHMS.values() for step in algorithm.steps}):
        peer.train(name)(activate)
    peer.query("models")(models)
    peer.query("who")(who)
    peer.train("segment")(segment)
    return peer


def activate(message: Message, context: Context) -> Message:
    """Run the step that the message names, and the next round's first step after a round's last.

    The message holds what arrived for the agents here, the reply what leaves them. All that the agents carry to the
    next activation stands in ``context.state``.
    """
    content = message.content
    if "setup" in content.config_records:
        begin(content, context)
    host, experiment = wake(context)
    call = from_json(content.config_records["call"])
    iteration, step, total, passes, every = (
        call[name] for name in ("iteration", "step", "total", "passes", "evaluate-every")
    )
    leaving = host.activate(iteration, step, unpack(content, experiment.device))
    reply = RecordDict()
    last = len(host.algorithm.steps) - 1
    if step == last:
        host.end_pass()
        number, inside = divmod(iteration + 1, passes)
        if inside == 0:
            evaluate = number % every == 0 or iteration + 1 == total
            reply["report"] = to_json([asdict(report) for report in host.end_round(evaluate=evaluate)])
        if last > 0 and iteration + 1 < total:
            leaving = host.activate(iteration + 1, 0)
    for key, record in pack(leaving).items():
        reply[key] = record
    rest(host, experiment, context)
    return Message(reply, reply_to=message)


def models(message: Message, context: Context) -> Message:
    """Reply with the model of every agent here, each under its own parameter names."""
    host, experiment = wake(context)
    reply = RecordDict()
    for index, agent in host.agents.items():
        reply[f"agent.{index}"] = record_of(experiment.model.named(agent["model"]))
    return Message(reply, reply_to=message)


def who(message: Message, context: Context) -> Message:
    """Reply with the name and address under which neighbours find this node, or with what is wrong with them."""
    options = from_json(message.content.config_records["options"])
    try:
        name, address, _ = _identity(context, resolve(options))
        answer = {"name": name, "address": address}
    except ConfigError as error:
        answer = {"problem": str(error)}
    return Message(RecordDict({"who": to_json(answer)}), reply_to=message)


def segment(message: Message, context: Context) -> Message:
    """Run the rounds that the message names, talking to the neighbours directly; reply with what happened in each."""
    content = message.content
    begin(content, context)
    host, experiment = wake(context)
    call = from_json(content.config_records["segment"])
    config, passes = experiment.config, experiment.config.batches_per_round
    _, address, credentials = _identity(context, config)
    rows, columns = (
        {int(i): [{int(j): w for j, w in place.items()} for place in places] for i, places in call[side].items()}
        for side in ("rows", "columns")
    )

    def place(agent: int, iteration: int) -> tuple[Mapping[int, float], Mapping[int, float]]:
        number = min(iteration - call["begins"], len(rows[agent]) - 1)
        return rows[agent][number], columns[agent][number]

    host.places = place
    edges = {(j, i) for i, places in rows.items() for row in places for j in row if j not in host.agents}
    neighbors = [Neighbor(name, address, tuple(agents)) for name, address, agents in call["neighbors"]]
    finished = max((iteration for iteration, _ in host.progress.values()), default=-1) + 1
    first = max(call["first"], finished // passes + 1)  # the process before this one may have died on its way
    every, total = config.evaluate_every, config.num_rounds
    rounds = []
    with Session(
        host,
        neighbors,
        address=address,
        topology=call["topology"],
        layout=experiment.model.digest,
        patience=config.phase_timeout,
        edges=edges,
        credentials=credentials,
    ) as session:
        for round in session.rounds(first, call["last"], passes=passes, evaluate_every=every, total=total):
            rounds.append([round.number, round.seconds, [asdict(report) for report in round.reports]])
            if config.state_dir and config.checkpoint_every and round.number % config.checkpoint_every == 0:
                rest(host, experiment, context)
    reply = RecordDict({"rounds": to_json(rounds), "dropped": to_json(dict(host.dropped))})
    host.dropped.clear()
    rest(host, experiment, context)
    if config.return_model == "final" and call["last"] == total:
        for index, agent in host.agents.items():
            reply[f"agent.{index}"] = record_of(experiment.model.named(agent["model"]))
    return Message(reply, reply_to=message)


def _identity(context: Context, config: Config) -> tuple[str, str, Credentials | None]:
    """Return this node's name and address among its neighbours, and what proves the name."""
    address, certs = (str(context.node_config.get(key, "")) for key in ("peer-address", "peer-certs"))
    if not (certs or config.peer_insecure):
        raise ConfigError(
            "transport = 'direct' needs certificates: start each SuperNode with peer-address and peer-certs in its "
            "--node-config, or say peer-insecure = true"
        )
    credentials = None if config.peer_insecure else Credentials.read(Path(certs))
    check_address(address, secure=credentials is not None, remote=config.peer_insecure_remote)
    return credentials.name if credentials else f"node-{context.node_id}", address, credentials


def begin(content: RecordDict, context: Context) -> None:
    """Set up the agents that the message assigns to this node, unless they already are."""
    setup = content.config_records["setup"]
    if context.state.config_records.get("setup") == setup:
        return
    context.state = RecordDict({"setup": setup})
    host, experiment = _host.__wrapped__(_setup(context))
    if experiment.config.state_dir and _state_folder(host, experiment, context).read_checkpoint():
        return  # a process that died has left it
    initial = experiment.model.flatten(tensors_of(content.array_records["initial"], experiment.device))
    for agent in host.agents.values():
        agent["model"] = initial.clone()
        host.algorithm.start(agent)
    rest(host, experiment, context)


def wake(context: Context) -> tuple[Host, Experiment]:
    """Return the host as `rest` left it."""
    if "setup" not in context.state.config_records:
        raise RuntimeError("this node holds no agents: the relay has not set it up in this run")
    host, experiment = _host(_setup(context))
    if experiment.config.state_dir:
        checkpoint = _state_folder(host, experiment, context).read_checkpoint()
        if checkpoint is None:
            raise RuntimeError(f"state-dir = '{experiment.config.state_dir}' no longer holds this node's state")
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
    if experiment.config.state_dir:
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


def _state_folder(host: Host, experiment: Experiment, context: Context) -> RunFolder:
    return RunFolder(Path(experiment.config.state_dir) / f"{host.run}-{context.node_id}")


@lru_cache(maxsize=256)  # in a simulation one process plays many nodes, again and again
def _host(setup: str) -> tuple[Host, Experiment]:
    parts = json.loads(setup)
    experiment = _experiment(json.dumps(parts["options"]))
    places = {
        int(i): ({int(j): w for j, w in row.items()}, {int(j): w for j, w in column.items()})
        for i, (row, column) in parts["places"].items()
    }
    host = Host(
        parts["run"],
        experiment.algorithm,
        experiment.agents(places),
        places=experiment.places,
        adversary=experiment.adversary,
        faults=experiment.faults,
    )
    return host, experiment


@lru_cache(maxsize=2)
def _experiment(options: str) -> Experiment:
    config = resolve(json.loads(options))
    if config.threads:
        torch.set_num_threads(config.threads)
    return Experiment(config)


app = peer_app()
