"""Peer-to-peer learning on Flower.

The names below are the public API. Those that need Flower are imported when first asked for, so that methods and
learning stay usable without it. The groups of keys are imported at once, so that `resolve` knows them all.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import ross_flwr.compression.options
import ross_flwr.flower.options
import ross_flwr.graph.options
import ross_flwr.learning.options
import ross_flwr.runs.options
import ross_flwr.tasks.options
import ross_flwr.threats.options  # noqa: F401 (of these imports, each registers groups of keys)
from ross_flwr.algorithms import Algorithm, Form, Inbox, MessageTransform, Outbox, broadcast, register, step
from ross_flwr.algorithms.dpsgd import DPSGD
from ross_flwr.algorithms.ross import ROSS
from ross_flwr.algorithms.ross_plus import ROSSPlus
from ross_flwr.config import Config, ConfigError, option, resolve
from ross_flwr.learning.agent import Agent
from ross_flwr.runs.simulate import Result, simulate
from ross_flwr.tasks.task import Task
from ross_flwr.threats.threats import Threats

if TYPE_CHECKING:
    from ross_flwr.flower.client_app import peer_app
    from ross_flwr.flower.strategies import PeerDirect, PeerHybrid, PeerRelay

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

_NEED_FLOWER = {
    "PeerDirect": "ross_flwr.flower.strategies",
    "PeerHybrid": "ross_flwr.flower.strategies",
    "PeerRelay": "ross_flwr.flower.strategies",
    "peer_app": "ross_flwr.flower.client_app",
}


def __getattr__(name: str) -> Any:
    if name in _NEED_FLOWER:
        return getattr(import_module(_NEED_FLOWER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
