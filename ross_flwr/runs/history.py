"""What happened in a run: a line per round, and the summary of the lines."""

import json
import math
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from ross_flwr.config import ConfigError
from ross_flwr.engine.events import Round
from ross_flwr.files import replacing
from ross_flwr.typed_json import MalformedError, loads, reader_of

__all__ = ["History", "consensus_distance", "finite", "read_lines", "read_summary", "totals"]

Spread: TypeAlias = dict[str, float | None] | None

_TOTALS: dict[str, Any] = {
    **dict.fromkeys(("accuracy", "loss", "clean-accuracy", "attack-success"), Spread),
    "consensus-distance": float | None,
    **dict.fromkeys(("bytes", "gradients", "utilities"), int),
    **dict.fromkeys(("work", "seconds"), float),
    "sent": dict[str, dict[str, int]],
}
LINE: dict[str, Any] = {
    "round": int,
    **_TOTALS,
    "metrics": dict[str, Spread],
    "missing": list[tuple[int, int]],
    "absent": list[int],
    "agents": dict[int, float | None],
    "weights": dict[int, dict[int, float | None]],
    "time": dict[str, float],
}
"""The type of each entry of a line."""

TIMED = ("gradients", "utilities", "exchange")
"""What the time of a round is measured in."""

SUMMARY: dict[str, Any] = {
    "algorithm": str,
    "topology": str,
    "rounds": int,
    **_TOTALS,
    "absent": dict[int, int],
    "attackers": list[int],
    "corrupted": list[int],
}
"""The types of the entries that every summary has; the task and the nodes add others, such as ``classes``."""

_EDGE = re.compile(r"\d{1,9}>\d{1,9}", re.ASCII)


def consensus_distance(models: Collection[Tensor]) -> float:
    """Return (1/N) Σ_i ‖x_i − x̄‖² of N flat vectors of shape [P]."""
    mean = torch.stack(list(models)).mean(0)
    return sum(float((model - mean).norm()) ** 2 for model in models) / len(models)


class History:
    """The lines of a run, kept in memory and, given a folder, appended to ``history.jsonl``.

    Every value of a line is a sum over all agents or a statistic over the honest agents:

    ``round``, ``seconds`` (of this round), ``accuracy`` and ``loss`` (mean, min, max over honest agents), ``metrics``
    (the same of each of the user's own), ``consensus-distance`` (over the honest agents heard), ``bytes`` (of the
    tensors as they are on the wire), ``gradients``, ``utilities``, ``work`` (example passes: forward and backward are
    one, a forward alone is a third, tests are none), ``sent`` (bytes by edge "i>j" and tensor name), ``missing`` (pairs
    [i, j]: agent i lacked a message of j), ``absent`` (agents that gave no report), ``agents`` (accuracy by agent),
    ``weights`` (by agent, then neighbour), ``time`` (seconds in gradients, utilities and exchange), and of a private
    run ``spent`` (sum of precisions by agent). An agent with
    corrupted data counts as honest, because it follows the protocol; ``clean-accuracy`` and ``attack-success`` are over
    honest agents with clean data.

    Parameters
    ----------
    num_agents : int
        N.
    attackers : collection of int
        Agents that are left out of the statistics.
    file : Path, optional
        Where the lines go.
    corrupted : collection of int
        Agents whose data is bad.
    """

    def __init__(
        self,
        num_agents: int,
        attackers: Collection[int] = (),
        file: Path | None = None,
        corrupted: Collection[int] = (),
    ) -> None:
        self.num_agents = num_agents
        self.attackers = sorted(attackers)
        self.corrupted = sorted(corrupted)
        self.file = file
        self.lines: list[dict[str, Any]] = []

    @property
    def honest(self) -> list[int]:
        """The agents that do not attack."""
        return [i for i in range(self.num_agents) if i not in self.attackers]

    def restore(self, last: int) -> None:
        """Read the lines up to round `last` back from the file.

        Lines after it may be incomplete and are not read; `rewrite` removes them.
        """
        if self.file is not None:
            self.lines = read_lines(self.file.read_text(encoding="utf-8").splitlines()[:last])

    def rewrite(self) -> None:
        """Write the file anew, with the lines kept so far."""
        if self.file is not None:
            with replacing(self.file) as part:
                part.write_text("".join(map(_to_json, self.lines)))

    def add(self, finished: Round) -> dict[str, Any]:
        """Make the line of a round, keep it and return it.

        Raises
        ------
        ConfigError
            When the file cannot take it, because the disk is full, say.
        """
        reports = {report.agent: report for report in sorted(finished.reports, key=lambda report: report.agent)}
        heard = [reports[i] for i in self.honest if i in reports]
        tested = [r for r in heard if r.accuracy is not None and r.loss is not None]
        clean = [r for r in tested if r.agent not in self.corrupted] if self.corrupted else []
        sent = {f"{r.agent}>{j}": kinds for r in reports.values() for j, kinds in r.sent.items()}
        line: dict[str, Any] = {
            "round": finished.number,
            "seconds": round(finished.seconds, 6),
            "accuracy": _spread([r.accuracy for r in tested if r.accuracy is not None]),
            "loss": _spread([r.loss for r in tested if r.loss is not None]),
            "clean-accuracy": _spread([r.accuracy for r in clean if r.accuracy is not None]),
            "attack-success": _spread([r.attack_success for r in clean if r.attack_success is not None]),
            "metrics": {
                name: _spread([r.metrics[name] for r in tested if name in r.metrics])
                for name in dict.fromkeys(name for r in tested for name in r.metrics)
            },
            "consensus-distance": None,
            "bytes": sum(sum(kinds.values()) for kinds in sent.values()),
            "gradients": sum(r.gradients for r in reports.values()),
            "utilities": sum(r.utilities for r in reports.values()),
            "work": sum(r.work for r in reports.values()),
            "sent": sent,
            "missing": [[r.agent, j] for r in reports.values() for j in r.missing],
            "absent": [i for i in range(self.num_agents) if i not in reports],
            "agents": {str(r.agent): r.accuracy for r in reports.values() if r.accuracy is not None},
            "weights": {
                str(r.agent): {str(j): round(w, 4) for j, w in r.weights.items()} for r in reports.values() if r.weights
            },
            "time": {kind: round(sum(r.time.get(kind, 0.0) for r in reports.values()), 6) for kind in TIMED},
        }
        if spent := {str(r.agent): r.spent for r in reports.values() if r.spent is not None}:
            line["spent"] = spent
        if finished.models is not None and heard:
            line["consensus-distance"] = consensus_distance([finished.models[report.agent] for report in heard])
        self.lines.append(line)
        self._append(line)
        return line

    def tested(self, line: Mapping[str, Any]) -> dict[str, int]:
        """Return over how many honest agents the statistics of a line are, and of how many there are."""
        return {"agents": sum(str(i) in line.get("agents", ()) for i in self.honest), "of": len(self.honest)}

    def _append(self, line: dict[str, Any]) -> None:
        if self.file is None:
            return
        try:
            with self.file.open("a", encoding="utf-8") as out:
                out.write(_to_json(line))
        except OSError as error:
            raise ConfigError(f"{self.file} cannot take a line: {error.strerror or error}") from None

    def summary(self) -> dict[str, Any]:
        """Return the result of the run so far."""
        tested = self.tested(last_test(self.lines))
        return {**totals(self.lines), "tested": tested, "attackers": self.attackers, "corrupted": self.corrupted}


def last_test(lines: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the last line with a test, or nothing."""
    return next((line for line in reversed(lines) if line["accuracy"]), {})


def totals(lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the lines come to: the last test, sums over rounds, and how many rounds each agent was absent."""
    tested = last_test(lines)
    measured = ("accuracy", "loss", "clean-accuracy", "attack-success", "consensus-distance")
    sent: dict[str, dict[str, int]] = {}
    absent = Counter(i for line in lines for i in line["absent"])
    for line in lines:
        for edge, kinds in line["sent"].items():
            total = sent.setdefault(edge, {})
            for kind, count in kinds.items():
                total[kind] = total.get(kind, 0) + count
    return {
        "rounds": lines[-1]["round"] if lines else 0,
        **{name: tested.get(name) for name in measured},
        "metrics": tested.get("metrics", {}),
        **{name: sum(line[name] for line in lines) for name in ("bytes", "gradients", "utilities", "work")},
        "seconds": round(sum(line["seconds"] for line in lines), 3),
        "sent": sent,
        "absent": {str(i): absent[i] for i in sorted(absent)},
    }


def read_lines(texts: Sequence[str]) -> list[dict[str, Any]]:
    """Return the lines of a history.

    Raises
    ------
    MalformedError
        When one is not what `History` writes.
    """
    lines = []
    for number, text in enumerate(texts, start=1):
        try:
            line = _checked(loads(text), LINE)
            if line["round"] != number:
                raise MalformedError(f"round is {line['round']}")
            if line["time"].keys() != set(TIMED):
                raise MalformedError(f"time is not of {', '.join(TIMED)}")
        except MalformedError as error:
            raise MalformedError(f"line {number}: {error}") from None
        lines.append(line)
    return lines


def read_summary(text: str) -> dict[str, Any]:
    """Return a summary.

    Raises
    ------
    MalformedError
        When it is not what a run writes.
    """
    summary = _checked(loads(text), SUMMARY)
    if not (type(classes := summary.get("classes", 2)) is int and classes > 0):
        raise MalformedError(f"classes is {classes!r:.40}")
    return summary


def _checked(value: Any, kinds: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = reader_of(dict[str, Any])(value)
    for name, kind in kinds.items():
        if name not in found:
            raise MalformedError(f"there is no {name}")
        try:
            reader_of(kind)(found[name])
        except MalformedError as error:
            raise MalformedError(f"{name}: {error}") from None
    if wrong := [edge for edge in found["sent"] if not _EDGE.fullmatch(edge)]:
        raise MalformedError(f"sent has the entry {wrong[0]!r:.40}: it takes edges, as in '0>1'")
    return found


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    if any(map(math.isnan, values)):  # otherwise min and max would depend on the order
        return dict.fromkeys(("mean", "min", "max"), math.nan)
    return {"mean": sum(values) / len(values), "min": min(values), "max": max(values)}


def _to_json(line: dict[str, Any]) -> str:
    return json.dumps(finite(line), separators=(",", ":"), allow_nan=False) + "\n"


def finite(value: Any) -> Any:
    """Return `value` with None for every NaN and infinity in it. JSON has neither; a diverged loss becomes null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: finite(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [finite(entry) for entry in value]
    return value
