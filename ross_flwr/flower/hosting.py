"""The agents of a node between two messages: set up, left in the node's state, and woken again."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import torch
from flwr.app import Context, RecordDict

from ross_flwr.algorithms import ALGORITHMS
from ross_flwr.config import Config, ConfigError, Scalar, resolve
from ross_flwr.engine.host import Host
from ross_flwr.flower.options import FlowerOptions
from ross_flwr.flower.protocol import Setup
from ross_flwr.flower.records import from_json, record_of, tensors_of, to_json
from ross_flwr.runs.assemble import Experiment
from ross_flwr.runs.folder import RunFolder
from ross_flwr.runs.options import MachineOptions

__all__ = ["HOSTS", "Build", "Hosts", "begin", "config_of", "rest", "wake"]

Build = Callable[[Setup, Context], Experiment]
"""Makes what a node's set-up stands for, where the app has a model and data of its own."""


def config_of(setup: Setup) -> Config:
    """Return the configuration that a node is told.

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


@dataclass
class Hosts:
    """The hosts that this process has made, by their set-up.

    In a simulation one process plays many nodes, again and again; data is loaded once.

    Parameters
    ----------
    size : int (default: 256)
        How many are kept.
    """

    size: int = 256
    held: dict[str, tuple[Host, Experiment]] = field(default_factory=dict)

    def get(self, setup: str, context: Context, build: Build | None, *, anew: bool = False) -> tuple[Host, Experiment]:
        """Return the host of a set-up, in JSON, as it was left in this process, or `anew`."""
        if anew or setup not in self.held:
            parts = Setup.from_text(setup)
            experiment = build(parts, context) if build else _experiment(json.dumps(dict(parts.options)))
            host = experiment.host(parts.run, parts.places)
            if len(self.held) >= self.size:
                del self.held[next(iter(self.held))]
            self.held[setup] = host, experiment
        return self.held[setup]


HOSTS = Hosts()
"""Flower may send a copy of the app with every message, but not of the modules."""


@lru_cache(maxsize=2)
def _experiment(options: str) -> Experiment:
    config = config_of(Setup("", json.loads(options), {}))
    threads = config.part(MachineOptions).threads
    if threads:
        torch.set_num_threads(threads)
    return Experiment(config)


def begin(content: RecordDict, context: Context, build: Build | None = None) -> None:
    """Set up the agents that the message assigns to this node, unless they already are."""
    setup = content.config_records[Setup.key]
    if context.state.config_records.get(Setup.key) == setup:
        return
    host, experiment = HOSTS.get(_setup_of(str(setup["json"]), context), context, build, anew=True)
    context.state[Setup.key] = setup
    if _state_dir(experiment) and _state_folder(host, experiment, context).read_checkpoint():
        return  # a process that died has left it
    initial = experiment.model.flatten(tensors_of(content.array_records["initial"], experiment.device))
    for agent in host.agents.values():
        agent["model"] = initial.clone()
        host.algorithm.start(agent)
    rest(host, experiment, context)


def wake(context: Context, build: Build | None = None) -> tuple[Host, Experiment]:
    """Return the host as `rest` left it."""
    if Setup.key not in context.state.config_records:
        raise RuntimeError("this node holds no agents: the ServerApp has not set it up in this run")
    setup = str(context.state.config_records[Setup.key]["json"])
    host, experiment = HOSTS.get(_setup_of(setup, context), context, build)
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


def _setup_of(setup: str, context: Context) -> str:
    """Return a node's set-up; on a device whose node configuration names data of its own, with that data.

    Its agent holds all of what lies under the node's `data-path` (and is of the node's `dataset`, if it names one):
    nothing is dealt, and the validation set is drawn from it.
    """
    if "data-path" not in context.node_config:
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


def _state_dir(experiment: Experiment) -> str:
    return experiment.config.part(FlowerOptions).state_dir


def _state_folder(host: Host, experiment: Experiment, context: Context) -> RunFolder:
    return RunFolder(Path(_state_dir(experiment)) / f"{host.run}-{context.node_id}")
