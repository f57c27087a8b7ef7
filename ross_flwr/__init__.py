"""Peer-to-peer learning on Flower.

The names below are the public API. Each is imported when it is first asked for: `ross-flwr --help` does not wait for
PyTorch, and methods and learning need no Flower.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ross_flwr.config import Config, ConfigError, keys, option, resolve
from ross_flwr.config.groups import declared_in

if TYPE_CHECKING:
    from ross_flwr.algorithms import Algorithm, Form, Inbox, MessageTransform, Outbox, broadcast, register, step
    from ross_flwr.algorithms.dpsgd import DPSGD
    from ross_flwr.algorithms.ross import ROSS
    from ross_flwr.algorithms.ross_plus import ROSSPlus
    from ross_flwr.flower.client_app import peer_app
    from ross_flwr.flower.strategies import PeerDirect, PeerHybrid, PeerRelay
    from ross_flwr.learning.agent import Agent
    from ross_flwr.privacy import Privacy
    from ross_flwr.runs.simulate import Result, simulate
    from ross_flwr.tasks.task import Task
    from ross_flwr.threats.threats import Threats

__all__ = [
    "DPSGD",
    "ROSS",
    "Agent",
    "Algorithm",
    "Config",
    "ConfigError",
    "Form",
    "Inbox",
    "MessageTransform",
    "Outbox",
    "PeerDirect",
    "PeerHybrid",
    "PeerRelay",
    "Privacy",
    "ROSSPlus",
    "Result",
    "Task",
    "Threats",
    "broadcast",
    "option",
    "peer_app",
    "register",
    "resolve",
    "simulate",
    "step",
]

_IN = {
    "DPSGD": "algorithms.dpsgd",
    "ROSS": "algorithms.ross",
    "Agent": "learning.agent",
    "Algorithm": "algorithms",
    "Form": "algorithms",
    "Inbox": "algorithms",
    "MessageTransform": "algorithms",
    "Outbox": "algorithms",
    "PeerDirect": "flower.strategies",
    "PeerHybrid": "flower.strategies",
    "PeerRelay": "flower.strategies",
    "Privacy": "privacy",
    "ROSSPlus": "algorithms.ross_plus",
    "Result": "runs.simulate",
    "Task": "tasks.task",
    "Threats": "threats.threats",
    "broadcast": "algorithms",
    "peer_app": "flower.client_app",
    "register": "algorithms",
    "simulate": "runs.simulate",
    "step": "algorithms",
}
"""The module of each name that is not imported at once."""

declared_in(
    "ross_flwr.compression.options",
    "ross_flwr.flower.options",
    "ross_flwr.graph.options",
    "ross_flwr.learning.options",
    "ross_flwr.privacy.options",
    "ross_flwr.runs.options",
    "ross_flwr.tasks.options",
    "ross_flwr.threats.options",
    "ross_flwr.algorithms",
)


def __getattr__(name: str) -> Any:
    if name in _IN:
        keys()  # or a method of the user's could declare a key before that of the package is known
        return getattr(import_module(f"{__name__}.{_IN[name]}"), name)
    if name in {"algorithms", "graph", "learning", "tasks", "threats"}:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
