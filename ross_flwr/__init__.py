"""Peer-to-peer learning on Flower.

The names below are the public API. Those that need Flower are imported when first asked for, so that methods and
learning stay usable without it. The groups of keys are imported at once, so that `resolve` knows them all.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import ross_flwr.flower.options
import ross_flwr.graph.options
import ross_flwr.learning.options
import ross_flwr.runs.options
import ross_flwr.tasks.options
import ross_flwr.threats.options  # noqa: F401 (of these imports, each registers groups of keys)
from ross_flwr.algorithms import Algorithm, Inbox, Outbox, broadcast, register, step
from ross_flwr.config import Config, ConfigError, option, resolve
from ross_flwr.learning.agent import Agent

if TYPE_CHECKING:
    from ross_flwr.flower.client_app import peer_app
    from ross_flwr.flower.strategies import PeerDirect, PeerHybrid, PeerRelay

__all__ = [
    "Agent",
    "Algorithm",
    "Config",
    "ConfigError",
    "Inbox",
    "Outbox",
    "PeerDirect",
    "PeerHybrid",
    "PeerRelay",
    "broadcast",
    "option",
    "peer_app",
    "register",
    "resolve",
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
