"""The values that keys take, by name.

Shell completion reads them from a file, which `python -m ross_flwr.cli.names` writes, and does not wait for PyTorch.
"""

import inspect
import json
from collections.abc import Iterable, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from ross_flwr.algorithms import ALGORITHMS
from ross_flwr.cli.completion import FILE
from ross_flwr.compression import CODECS
from ross_flwr.config import Key, keys
from ross_flwr.data import PARTITIONS, SERIES, SOURCES, TABLES, TEXTS
from ross_flwr.graph import topology
from ross_flwr.learning.optimizers import OPTIMIZERS, SCHEDULES, Clip
from ross_flwr.learning.rules import RULES
from ross_flwr.learning.shapley import ESTIMATORS, WEIGHTINGS
from ross_flwr.report.trackers import TRACKERS
from ross_flwr.runs.compare import experiments
from ross_flwr.runs.side_by_side import BESIDE
from ross_flwr.runs.trained import FORMATS
from ross_flwr.tasks.corruptions import CORRUPTIONS
from ross_flwr.tasks.models import MODELS
from ross_flwr.tasks.signals import SIGNAL_MODELS
from ross_flwr.tasks.tabular import TABULAR_MODELS
from ross_flwr.tasks.transformer import LANGUAGE_MODELS
from ross_flwr.threats.attacks import ATTACKS
from ross_flwr.threats.faults import FAULTS
from ross_flwr.threats.poisons import POISONS

__all__ = ["LISTS", "LIST_OF_KEY", "for_completion"]


def _of_tasks(*known: tuple[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return what the names of several tasks stand for, which some share."""
    found: dict[str, list[str]] = {}
    for task, entries in known:
        for name, entry in entries.items():
            about = (inspect.getdoc(entry) or "").partition("\n\n")[0].replace("\n", " ")
            found.setdefault(name, []).append(about if task == "images" else f"[{task}] {about}")
    return {name: " ".join(texts) for name, texts in found.items()}


def _heading(path: Path) -> str:
    """Return the comment at the top of a file."""
    lines = takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    return " ".join(line.lstrip("# ") for line in lines)


LISTS: dict[str, Mapping[str, Any]] = {
    "aggregators": RULES,
    "algorithms": ALGORITHMS,
    "attacks": {"none": "Nobody lies.", **POISONS, **ATTACKS},
    "codecs": {"none": "Vectors travel as they are.", **CODECS},
    "corruptions": CORRUPTIONS,
    "datasets": _of_tasks(("images", SOURCES), ("language-model", TEXTS), ("signals", SERIES), ("tabular", TABLES)),
    "experiments": {name: _heading(path) for name, path in experiments().items()},
    "faults": FAULTS,
    "mixing": topology.MIXING_RULES,
    "models": _of_tasks(
        ("images", MODELS), ("language-model", LANGUAGE_MODELS), ("signals", SIGNAL_MODELS), ("tabular", TABULAR_MODELS)
    ),
    "optimizers": {**OPTIMIZERS, "clip": Clip, **SCHEDULES},
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
    "optimizer": "optimizers",
    "partition": "partitions",
    "shapley": "shapley",
    "topology": "topologies",
    "weighting": "weightings",
}


def for_completion() -> str:
    """Return what a shell completes, as JSON: the keys with their meanings and values, and other names."""
    of_keys = {key.name: [key.meaning, *_values(key)] for key in (BESIDE, *keys())}
    names: dict[str, Iterable[str]] = {"lists": LISTS, "formats": FORMATS, "experiments": experiments()}
    names["trackers"] = sorted(TRACKERS)
    return json.dumps({"keys": of_keys, **{kind: [*known] for kind, known in names.items()}}, indent=1)


def _values(key: Key) -> Iterable[str]:
    if key.name in LIST_OF_KEY:
        return LISTS[LIST_OF_KEY[key.name]]
    if key.kind is bool:
        return "true", "false"
    return key.choices or [str(key.default)]


if __name__ == "__main__":
    FILE.write_text(for_completion() + "\n", encoding="utf-8")
