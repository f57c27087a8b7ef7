"""The agents of a node between two messages: how they are set up, stored in the node's state, and restored."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from functools import lru_cache
from shutil import rmtree
from typing import Any

from flwr.app import ArrayRecord, Context, RecordDict
from torch import Tensor

from ross_flwr.algorithms import ALGORITHMS
from ross_flwr.config import Config, ConfigError, Scalar, resolve
from ross_flwr.engine.host import Host
from ross_flwr.files import home, inside
from ross_flwr.flower.options import FlowerOptions
from ross_flwr.flower.protocol import Setup
from ross_flwr.flower.records import from_json, record_of, tensors_of, to_json
from ross_flwr.runs.assemble import assemble, limit_threads
from ross_flwr.runs.assembly import Assembly
from ross_flwr.runs.folder import RunFolder, refuse_changes
from ross_flwr.runs.options import MachineOptions
from ross_flwr.tasks.task import Task

__all__ = ["HOSTS", "LEFT_OUT", "Hosted", "Hosts", "MakeTask", "begin", "config_of", "forget", "left", "rest", "wake"]

MAY_CHANGE = {each.name.replace("_", "-") for each in fields(FlowerOptions)}
"""The keys that may differ when a run is resumed, beside those that may in one process."""

FROZEN, LEFT_OUT = "frozen", "left-out"
"""What a node's state holds of the initial model: frozen parameters that the module was not made with, and the names of
float buffers that it lacks."""

MakeTask = Callable[[Setup, Config, Context], Task]
"""Makes the task of a node, if the app brings its own."""


def config_of(setup: Setup) -> Config:
    """Return the configuration that a node receives.

    Raises
    ------
    ConfigError
        When the method is not known here.
    """
    name = str(setup.options.get("algorithm"))
    if name not in ALGORITHMS:
        raise ConfigError(
            f"algorithm = '{name}' is not known on the nodes: import the module that registers it where the client app "
            "is made"
        )
    return resolve(setup.options)


@dataclass(frozen=True)
class Hosted:
    """The agents of a node, and what they were made from."""

    host: Host
    assembly: Assembly
    config: Config

    @property
    def finished(self) -> int:
        """The rounds that the agents have finished; those that sit out do not count."""
        last = len(self.host.algorithm.steps) - 1
        passes = max((ran + (step == last) for ran, step in self.host.ran.values()), default=0)
        return passes // self.assembly.schedule.passes


@dataclass
class Hosts:
    """The hosts that this process has made, by set-up.

    In a simulation, one process repeatedly plays many nodes; data is loaded only once.

    Parameters
    ----------
    size : int (default: 256)
        How many are kept.
    """

    size: int = 256
    held: dict[str, Hosted] = field(default_factory=dict)

    def get(self, setup: str, context: Context, make_task: MakeTask | None, *, anew: bool = False) -> Hosted:
        """Return the agents of a set-up (JSON), as this process left them, or new ones if `anew`."""
        if anew or setup not in self.held:
            parts = Setup.from_text(setup)
            options = json.dumps(dict(parts.options))
            if make_task:
                config = _configure(options)
                assembly = assemble(config, make_task(parts, config, context))
            else:
                assembly, config = _assembly(options)
            secret = context.node_config.get("reproducible-noise") is not True
            host = assembly.host(parts.run, parts.places, config.part(MachineOptions).engine, secret=secret)
            if len(self.held) >= self.size:
                del self.held[next(iter(self.held))]
            self.held[setup] = Hosted(host, assembly, config)
        return self.held[setup]


HOSTS = Hosts()
"""The hosts of this process. Flower may copy the app with every message, but not the modules."""


@lru_cache(maxsize=2)
def _assembly(options: str) -> tuple[Assembly, Config]:
    config = _configure(options)
    return assemble(config), config


def _configure(options: str) -> Config:
    limit_threads()
    return config_of(Setup("", json.loads(options), {}))


def begin(content: RecordDict, context: Context, make_task: MakeTask | None = None) -> None:
    """Set up the agents that the message assigns to this node, unless that is done."""
    setup = content.config_records[Setup.key]
    if context.state.config_records.get(Setup.key) == setup:
        return
    hosted = HOSTS.get(_setup_of(str(setup["json"]), context, make_task), context, make_task, anew=True)
    context.state[Setup.key] = setup
    initial = _begin_from(hosted, content.array_records["initial"], context)
    for agent in hosted.host.agents.values():
        agent["model"] = initial.clone()
        hosted.host.algorithm.start(agent)
    saved = _state_folder(hosted).read_checkpoint() if _state_dir(hosted) else None  # by a process that died
    if saved is None:
        rest(hosted, context)
        return
    there = _agents_in(_state_folder(hosted), saved[2])
    if there != sorted(hosted.host.agents):
        raise ConfigError(
            f"state-dir = '{_state_dir(hosted)}' holds agents {', '.join(map(str, there))} of this run, and the "
            f"node hosts {', '.join(map(str, hosted.host.agents))}: use num-agents and num-nodes of before"
        )
    _restore(hosted, hosted.host.resume, *saved[1:])


def _begin_from(hosted: Hosted, initial: ArrayRecord, context: Context) -> Tensor:
    """Return the initial model as a vector, shape [P], and keep in the node's state how it differs from the module.

    Frozen parameters have the values that the module was made with, unless the initial model holds others. It may leave
    out frozen parameters and buffers; the nodes' models then leave them out too.
    """
    model = hosted.assembly.task.model
    named = tensors_of(initial, model.device)
    if frozen := model.freeze(named):
        context.state[FROZEN] = record_of(frozen)
    buffers = {name: part for name, part in model.named(model.initial).items() if name in model.buffers}
    context.state[LEFT_OUT] = to_json([name for name in buffers if name not in named])
    return model.flatten({**buffers, **named})


def wake(context: Context, make_task: MakeTask | None = None) -> Hosted:
    """Return the agents as `rest` left them."""
    if Setup.key not in context.state.config_records:
        raise RuntimeError("this node holds no agents: the ServerApp has not set it up in this run")
    setup = str(context.state.config_records[Setup.key]["json"])
    hosted = HOSTS.get(_setup_of(setup, context, make_task), context, make_task)
    device = hosted.assembly.task.model.device
    if FROZEN in context.state.array_records:
        hosted.assembly.task.model.freeze(tensors_of(context.state.array_records[FROZEN], device))
    if _state_dir(hosted):
        checkpoint = _state_folder(hosted).read_checkpoint()
        if checkpoint is None:
            raise RuntimeError(f"state-dir = '{_state_dir(hosted)}' no longer holds this node's state")
        _restore(hosted, hosted.host.restore, *checkpoint[1:])
    else:
        remainder = from_json(context.state.config_records["rest"])
        hosted.host.restore(tensors_of(context.state.array_records["tensors"], device), remainder)
    return hosted


def _restore(
    hosted: Hosted,
    restore: Callable[[dict[str, Tensor], dict[str, Any]], None],
    tensors: dict[str, Tensor],
    remainder: dict[str, Any],
) -> None:
    """Let the host `restore` or `resume` what a checkpoint under `state-dir` holds."""
    device = hosted.assembly.task.model.device
    try:
        restore({key: tensor.to(device) for key, tensor in tensors.items()}, remainder)
    except ValueError as error:
        raise ConfigError(f"{_state_folder(hosted).path} cannot be resumed: {error}") from None


def rest(hosted: Hosted, context: Context) -> None:
    """Put what the host carries into the node's state, or into its file under `state-dir`."""
    tensors, remainder = hosted.host.snapshot()
    if _state_dir(hosted):
        remainder = {**remainder, "config": dict(hosted.config.values)}
        _state_folder(hosted).write_checkpoint(hosted.finished, tensors, remainder)
    else:
        context.state["tensors"] = record_of(tensors)
        context.state["rest"] = to_json(remainder)


def _setup_of(setup: str, context: Context, make_task: MakeTask | None) -> str:
    """Return a node's set-up; on a device whose node configuration names its own data, with that data.

    The device's agent holds all data under the node's `data-path` (of the node's `dataset`, if it names one). Nothing
    is dealt, and the validation set is drawn from that data. An app with a task of its own reads its data itself.
    """
    if make_task or "data-path" not in context.node_config:
        return setup
    parts = Setup.from_text(setup)
    if len(parts.places) > 1:
        raise ConfigError(
            f"data-path = '{context.node_config['data-path']}' of this node is the data of one agent, and it hosts "
            f"{len(parts.places)}: start as many nodes as num-agents"
        )
    own: dict[str, Scalar] = {
        key: context.node_config[key] for key in ("dataset", "data-path") if key in context.node_config
    }
    own |= {"partition": "all", "examples-per-agent": 0}
    return replace(parts, options={**parts.options, **own}).to_text()


def _state_dir(hosted: Hosted) -> str:
    return hosted.config.part(FlowerOptions).state_dir


def _state_folder(hosted: Hosted) -> RunFolder:
    return RunFolder(inside(home(_state_dir(hosted)), hosted.host.run, f"agent-{min(hosted.host.agents)}"))


def left(setup: Setup, context: Context, make_task: MakeTask | None = None) -> dict[int, int]:
    """Return what is under `state-dir` of the run that `setup` resumes: finished rounds, by the first agent of a node.

    Raises
    ------
    ConfigError
        When it is damaged, or of another configuration.
    """
    config = config_of(Setup.from_text(_setup_of(setup.to_text(), context, make_task)))
    root = inside(home(config.part(FlowerOptions).state_dir), setup.run)
    found = {}
    for path in sorted(root.glob("agent-*")):
        folder = RunFolder(inside(root, path.name))
        if checkpoint := folder.read_checkpoint():
            finished, _, remainder = checkpoint
            refuse_changes(path, remainder.get("config", {}), config.values, MAY_CHANGE)
            found[_agents_in(folder, remainder)[0]] = finished
    return found


def _agents_in(folder: RunFolder, remainder: Mapping[str, Any]) -> list[int]:
    try:
        if agents := sorted(map(int, remainder["state"])):
            return agents
    except (KeyError, ValueError):
        pass
    raise ConfigError(f"{folder.path} is damaged: its checkpoint holds no state of agents")


def forget(context: Context) -> None:
    """Forget the agents of a run that is done, and remove what `state-dir` holds of them."""
    if Setup.key not in context.state.config_records:
        return
    setup = Setup.of(context.state)
    state_dir = str(setup.options.get("state-dir", ""))
    if state_dir:
        run = inside(home(state_dir), setup.run)
        rmtree(inside(run, f"agent-{min(setup.places)}"), ignore_errors=True)
        with suppress(OSError):
            run.rmdir()  # unless other nodes on this machine have not finished yet
    for key in [Setup.key, FROZEN, LEFT_OUT, "tensors", "rest"]:
        context.state.pop(key, None)
