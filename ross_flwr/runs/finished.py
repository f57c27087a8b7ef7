"""The runs in a folder of results: a single run with those beside it, or the cells of a comparison."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ross_flwr.config import ConfigError, from_toml
from ross_flwr.graph.options import GraphOptions
from ross_flwr.runs.ended import REFUSED, require_ended
from ross_flwr.runs.folder import RunFolder, reading
from ross_flwr.runs.history import totals
from ross_flwr.runs.options import RunOptions
from ross_flwr.threats.options import AttackOptions
from ross_flwr.typed_json import loads, reader_of

__all__ = ["BUDGETS", "EXPERIMENT", "OURS", "PARTS", "Run", "by_budget", "find_runs", "read_budgets"]

OURS = ("ross-plus", "ross")
"""The methods that a report compares with all others, the baselines."""

PARTS = ("methods", "scenarios", "topologies")
"""The tables of an experiment file that a comparison combines."""

EXPERIMENT = "experiment.toml"
"""The copy of the experiment file beside the cells."""

BUDGETS = "budgets.json"
"""The file beside the cells that says after how many rounds each is read."""


@dataclass(frozen=True)
class Run:
    """A finished run and its place in a comparison.

    Attributes
    ----------
    method, scenario, topology, seed
        Its place. A single run is named by its algorithm, attack and topology.
    summary : dict
        What ``summary.json`` holds; empty when the method was refused there.
    lines : list[dict]
        What ``history.jsonl`` holds.
    reads : mapping of str to int
        After how many rounds it is read, by budget; empty where the comparison has none.
    """

    method: str
    scenario: str
    topology: str
    seed: int
    summary: dict[str, Any]
    lines: list[dict[str, Any]]
    reads: Mapping[str, int] = field(default_factory=dict)

    def at(self, budget: str) -> "Run":
        """Return the run as it was when it had spent a budget; the same one where it has none."""
        if budget not in self.reads:
            return self
        lines = self.lines[: self.reads[budget]]
        return replace(self, lines=lines, summary={**self.summary, **totals(lines)})

    @property
    def place(self) -> dict[str, Any]:
        """Its place, as the first columns of a table."""
        return {"scenario": self.scenario, "topology": self.topology, "method": self.method, "seed": self.seed}

    @property
    def poisoned(self) -> set[int]:
        """The agents that attack or whose data is bad."""
        return {*self.summary["attackers"], *self.summary["corrupted"]}

    def role(self, agent: int) -> str:
        """Return ``"attacker"``, ``"bad data"`` or ``"honest"``."""
        if agent in self.summary["attackers"]:
            return "attacker"
        return "bad data" if agent in self.summary["corrupted"] else "honest"


def by_budget(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Return the runs as they are read at each budget, by its title; under no title where there are none."""
    kinds = dict.fromkeys(kind for run in runs for kind in run.reads)
    return {f"equal {kind}": [run.at(kind) for run in runs] for kind in kinds} or {"": list(runs)}


def find_runs(folder: Path) -> list[Run]:
    """Return the finished runs in `folder`, in the order of the experiment file, or that in which methods ran.

    Raises
    ------
    ConfigError
        When there is none.
    """
    require_ended(folder)
    single = RunFolder(folder).config.is_file()
    runs = list(_single(folder) if single else _cells(folder))
    order = {"methods": [run.method for run in runs]} if single else _order(folder)

    def place(part: str, name: str) -> tuple[int, str]:
        names = order.get(part, [])
        return (names.index(name) if name in names else len(names)), name

    def key(run: Run) -> tuple[Any, ...]:
        (method, _), ours = place("methods", run.method), _rank(run)
        return place("scenarios", run.scenario), place("topologies", run.topology), method, ours, run.method, run.seed

    return sorted(runs, key=key)


def _order(folder: Path) -> dict[str, list[str]]:
    """Return the names of methods, scenarios and topologies in the order of the comparison's experiment file."""
    file = folder / EXPERIMENT
    if not file.exists():
        return {}
    with reading(file):
        raw = from_toml(file, str(file))
        return {part: list(reader_of(dict[str, Any])(raw.get(part, {}))) for part in PARTS}


def read_budgets(folder: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Return what ``budgets.json`` says of each method and topology; nothing where there is no such file.

    Raises
    ------
    ConfigError
        When it is not what a comparison writes.
    """
    file = folder / BUDGETS
    if not file.exists():
        return {}
    with reading(file):
        written = reader_of(dict[str, Any])(loads(file.read_text(encoding="utf-8")))
        methods: dict[str, dict[str, dict[str, Any]]] = reader_of(dict[str, dict[str, dict[str, Any]]])(
            written.get("methods")
        )
        for topologies in methods.values():
            for entry in topologies.values():
                reader_of(dict[str, int])(entry.get("read-at"))
    return methods


def _rank(run: Run) -> int:
    algorithm = run.summary.get("algorithm")
    return OURS.index(algorithm) if algorithm in OURS else len(OURS)


def _single(folder: Path) -> Iterator[Run]:
    main = RunFolder(folder)
    for found in (main, *main.beside()):
        summary = found.read_summary()
        if summary:
            config = found.read_config()
            scenario = config.part(AttackOptions).attack if summary["attackers"] else "no attack"
            run, graph = config.part(RunOptions), config.part(GraphOptions)
            topology = Path(graph.topology).name  # which may be a file
            yield Run(run.algorithm, scenario, topology, run.seed, summary, _lines(found, summary))


def _cells(folder: Path) -> Iterator[Run]:
    methods = read_budgets(folder)
    for path in sorted(folder.glob("*/*/*/*")):
        found = RunFolder(path)
        method, scenario, topology, seed = path.relative_to(folder).parts
        if not seed.isdecimal():
            continue
        if (path / REFUSED).is_file():
            yield Run(method, scenario, topology, int(seed), {}, [])
        elif summary := found.read_summary():
            reads = methods.get(method, {}).get(topology, {}).get("read-at", {})
            yield Run(method, scenario, topology, int(seed), summary, _lines(found, summary), reads)


def _lines(found: RunFolder, summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    lines = found.read_history()
    if len(lines) != summary["rounds"]:
        raise ConfigError(
            f"{found.history} is damaged, or not from this run: it holds {len(lines)} of the run's "
            f"{summary['rounds']} rounds"
        )
    return lines
