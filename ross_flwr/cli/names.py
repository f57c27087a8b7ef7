"""The values that keys take, by name, for lists and for shell completion."""

from collections.abc import Iterable, Mapping
from typing import Any

import click
from click.shell_completion import CompletionItem

from ross_flwr.algorithms import ALGORITHMS
from ross_flwr.compression import CODECS
from ross_flwr.config import Key, keys
from ross_flwr.data import PARTITIONS, SOURCES
from ross_flwr.graph import topology
from ross_flwr.learning.rules import RULES
from ross_flwr.learning.shapley import ESTIMATORS, WEIGHTINGS
from ross_flwr.runs.side_by_side import BESIDE
from ross_flwr.tasks.corruptions import CORRUPTIONS
from ross_flwr.tasks.models import MODELS
from ross_flwr.threats.attacks import ATTACKS
from ross_flwr.threats.faults import FAULTS
from ross_flwr.threats.poisons import POISONS

__all__ = ["LISTS", "complete_list", "complete_pair"]

LISTS: dict[str, Mapping[str, Any]] = {
    "aggregators": RULES,
    "algorithms": ALGORITHMS,
    "attacks": {"none": "Nobody lies.", **POISONS, **ATTACKS},
    "codecs": {"none": "Vectors travel as they are.", **CODECS},
    "corruptions": CORRUPTIONS,
    "datasets": SOURCES,
    "faults": FAULTS,
    "mixing": topology.MIXING_RULES,
    "models": MODELS,
    "partitions": PARTITIONS,
    "shapley": ESTIMATORS,
    "topologies": topology.TOPOLOGIES,
    "weightings": WEIGHTINGS,
}

LIST_OF_KEY = {
    "aggregator": "aggregators",
    "algorithm": "algorithms",
    "attack": "attacks",
    "beside": "algorithms",
    "compress": "codecs",
    "corruption": "corruptions",
    "dataset": "datasets",
    "mixing": "mixing",
    "model": "models",
    "partition": "partitions",
    "shapley": "shapley",
    "topology": "topologies",
    "weighting": "weightings",
}


def complete_list(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Return the lists whose names begin with what was typed."""
    return [name for name in LISTS if name.startswith(begun)]


def complete_pair(_context: click.Context, _parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    """Return the keys whose names begin with what was typed; once a key is typed, its values."""
    name, equals, _ = begun.partition("=")
    found = [key for key in (BESIDE, *keys()) if (key.name == name if equals else key.name.startswith(name))]
    if len(found) > 1:
        return [CompletionItem(f"{key.name}=", help=key.meaning) for key in found]
    pairs = (f"{key.name}={value}" for key in found for value in _values(key))
    return [CompletionItem(pair) for pair in pairs if pair.startswith(begun)]


def _values(key: Key) -> Iterable[str]:
    if key.name in LIST_OF_KEY:
        return LISTS[LIST_OF_KEY[key.name]]
    if key.kind is bool:
        return "true", "false"
    return key.choices or [str(key.default)]
