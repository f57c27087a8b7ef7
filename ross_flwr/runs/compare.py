"""Comparisons: methods × scenarios × topologies × seeds, each cell a run in a folder of its own.

An experiment file is TOML::

    seeds = [0, 1, 2]

    [keys]               # of every cell
    num-rounds = 60

    [budget]             # optional: all methods may spend what ross-plus spends in 60 rounds, see `budgets`
    method = "ross-plus"
    rounds = 60          # or what `-c num-rounds=…` says

    [tuning]             # optional: keys to choose from, see `grids`

    [tuned.ross-plus]    # optional: keys that were chosen, by topology
    ring = { learning-rate = 0.1, momentum = 0.5 }

    [methods.ross-plus]  # and other methods, each with keys of its own
    [scenarios.clean]    # likewise
    [topologies.ring]    # likewise

Keys of ``-c`` hold in every cell, as those of ``[keys]`` do, and replace them. A key that another table sets, tunes or
has tuned is refused there: the file alone says what differs among cells.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

from ross_flwr.algorithms import ALGORITHMS, Algorithm
from ross_flwr.config import Config, ConfigError, Scalar, from_toml, resolve
from ross_flwr.files import home, inside
from ross_flwr.runs.ended import REFUSED
from ross_flwr.runs.finished import PARTS
from ross_flwr.runs.folder import RunFolder, reading
from ross_flwr.runs.grids import Tuning, read_tuning
from ross_flwr.runs.history import totals
from ross_flwr.runs.options import RunOptions
from ross_flwr.typed_json import MalformedError, reader_of

__all__ = [
    "Budget",
    "Cell",
    "Plan",
    "experiments",
    "read_plan",
]

QUICK = {"num-rounds": 20, "evaluate-every": 4}
OTHERS: dict[str, Any] = {
    "seeds": list[int],
    "keys": dict[str, Any],
    "budget": dict[str, Any],
    "tuning": dict[str, Any],
    "tuned": dict[str, dict[str, dict[str, Any]]],
}
"""The entries of an experiment file: tables of tables, of which it has all, and others."""


@dataclass(frozen=True)
class Budget:
    """What all methods may spend: as much as the reference `method` spends in `rounds` rounds."""

    method: str
    rounds: int


@dataclass(frozen=True)
class Plan:
    """An experiment file: what all cells share, and what rows and columns add to it.

    Attributes
    ----------
    keys : dict
        Configuration keys of every cell.
    methods, scenarios, topologies : dict[str, dict]
        Keys by name. A method that sets no ``algorithm`` uses the algorithm of its own name.
    seeds : tuple[int, ...]
        Every cell is run once with each.
    tuning : Tuning, optional
        How keys are chosen for methods and topologies that `tuned` does not have.
    tuned : dict
        Keys that were chosen, by method and topology.
    budget : Budget, optional
        What all methods may spend; without one, every cell is read at its end.
    given : mapping of str to bool, int, float or str
        Those of `keys` that the user gave beside the file.
    file : Path, optional
        Where it was read.
    """

    keys: dict[str, Any]
    methods: dict[str, dict[str, Any]]
    scenarios: dict[str, dict[str, Any]]
    topologies: dict[str, dict[str, Any]]
    seeds: tuple[int, ...]
    tuning: Tuning | None = None
    tuned: Mapping[tuple[str, str], Mapping[str, Scalar]] = field(default_factory=dict)
    budget: Budget | None = None
    given: Mapping[str, Any] = field(default_factory=dict)
    file: Path | None = None

    @property
    def untuned(self) -> list[tuple[str, str]]:
        """The methods and topologies for which keys are yet to be chosen."""
        places = product(self.methods, self.topologies) if self.tuning else ()
        return [place for place in places if place not in self.tuned]

    def only(self, **wanted: str) -> "Plan":
        """Return the plan with only the named ``methods``, ``scenarios`` and ``topologies``; empty texts mean all.

        The method of the budget stays, for the others are measured by it.

        Raises
        ------
        ConfigError
            When a name is not in the plan.
        """
        chosen: dict[str, Any] = {}
        for part, names in wanted.items():
            known: dict[str, Any] = getattr(self, part)
            picked = [name.strip() for name in names.split(",")] if names else list(known)
            for name in picked:
                if name not in known:
                    raise ConfigError(f"--{part} {name} is not in the experiment: it has {', '.join(known)}")
            if self.budget and part == "methods":
                picked = list(dict.fromkeys([self.budget.method, *picked]))
            chosen[part] = {name: known[name] for name in picked}
        return replace(self, **chosen)

    def quick(self) -> "Plan":
        """Return a first impression of the plan: one seed, no tuning, 20 rounds, five tests (or as given)."""
        rounds = {key: self.given.get(key, value) for key, value in QUICK.items()}
        topologies = {name: keys | rounds for name, keys in self.topologies.items()}
        return replace(self, topologies=topologies, seeds=self.seeds[:1], tuning=None, budget=None)

    def refuse_overruled(self) -> None:
        """Refuse given keys that would have no effect in some cells, because another table sets them there.

        Raises
        ------
        ConfigError
            When there are any.
        """
        overruled = {
            key: where
            for where, keys in reversed([*self._tables()])  # so that the first is named
            for key in keys.keys() & self.given.keys()
            if keys[key] != self.given[key]
        }
        if overruled:
            told = ", ".join(f"{key} in {where}" for key, where in sorted(overruled.items()))
            raise ConfigError(
                f"-c cannot set what the experiment sets itself ({told}): choose among its tables by --methods, "
                f"--scenarios and --topologies, or change a copy of {self.file}"
            )

    def _tables(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield the tables that overrule the keys of all cells, each with its name in the file."""
        for part in PARTS:
            for name, keys in getattr(self, part).items():
                yield f"[{part}.{name}]", {"algorithm": name} | keys if part == "methods" else keys
        for method, topology in product(self.methods, self.topologies):
            if tuned := self.tuned.get((method, topology)):
                yield f"[tuned.{method}]", tuned
            elif self.tuning:
                yield "[tuning]", self.tuning.grids[method].lists
        yield from (("seeds", {"seed": seed}) for seed in self.seeds)
        if self.budget:
            yield "[budget]", {"evaluate-every": "as its rounds ask for", "evaluate-at": "where it is spent"}

    def cells(self) -> "list[Cell]":
        """Return all cells, with the keys that are tuned."""
        return [
            Cell(
                (method, scenario, topology, str(seed)),
                self.keys_of(method, self.scenarios[scenario], topology, seed, self.tuned.get((method, topology), {})),
            )
            for seed, scenario, topology, method in product(self.seeds, self.scenarios, self.topologies, self.methods)
        ]

    def keys_of(
        self, method: str, scenario: Mapping[str, Any], topology: str, seed: int, tuned: Mapping[str, Scalar]
    ) -> dict[str, Any]:
        """Return the keys of a run of `method` on `topology`, given those of its scenario and those that are tuned."""
        row = {"algorithm": method} | self.methods[method]
        return self.keys | self.topologies[topology] | {**scenario, **tuned} | row | {"seed": seed}


@dataclass(frozen=True)
class Cell:
    """One run of a comparison.

    Attributes
    ----------
    place : tuple of str
        Its place in the folder of results.
    keys : dict
        Its keys that differ from the defaults.
    reads : mapping of str to int
        After how many rounds it has spent a budget, by budget; empty where there are none.
    budget : str
        The budget at which it is read; empty to read it at its end.
    failed : str
        Why it could not run this time, which is not kept; empty if it could.
    """

    place: tuple[str, ...]
    keys: dict[str, Any]
    reads: Mapping[str, int] = field(default_factory=dict)
    budget: str = ""
    failed: str = ""

    @cached_property
    def config(self) -> Config:
        """The configuration, resolved."""
        return resolve(self.keys)

    @property
    def learning_rate(self) -> float:
        """The step size of its method."""
        return self.config.part(ALGORITHMS.get(self.config.part(RunOptions).algorithm, Algorithm)).learning_rate

    def folder(self, root: Path) -> RunFolder:
        """Return where its results go."""
        return RunFolder(inside(root, *self.place))

    def refuse_another(self, root: Path, decided: Collection[str] = ()) -> None:
        """Refuse a folder that holds another run in the cell's place; keys yet to be `decided` may differ.

        Raises
        ------
        ConfigError
            When it does.
        """
        folder = self.folder(root)
        if folder.config.is_file():
            there = folder.read_config().values
            if any(there[key] != value for key, value in self.config.values.items() if key not in decided):
                raise ConfigError(f"{folder.path} holds a run of another experiment: take another folder for this one")

    def result(self, root: Path) -> dict[str, Any] | None:
        """Return its summary, ``{"refused": sentence}`` when the method cannot run there, or None before it is done.

        If it `failed`, it is ``{"failed": sentence}``.
        With a `budget`, it is the summary of the rounds up to the one in which the budget is spent.
        """
        if self.failed:
            return {"failed": self.failed}
        folder = self.folder(root)
        if (folder.path / REFUSED).is_file():
            with reading(folder.path / REFUSED):
                return {"refused": (folder.path / REFUSED).read_text(encoding="utf-8")}
        summary = folder.read_summary()
        if summary is None or self.budget not in self.reads:
            return summary
        return {**summary, **_spent(folder.path, frozenset(self.reads.values()))[self.reads[self.budget]]}


@cache
def _spent(path: Path, ends: Collection[int]) -> dict[int, dict[str, Any]]:
    """Return what the rounds of a finished run up to each of `ends` come to; the history takes long to read."""
    lines = RunFolder(path).read_history()
    return {last: totals(lines[:last]) for last in ends}


def experiments() -> dict[str, Path]:
    """Return the experiment files that ship with the package, by name."""
    folder = Path(str(files("ross_flwr.studies")))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def read_plan(name: str, overrides: Mapping[str, Any]) -> Plan:
    """Read an experiment file, or one that ships by its name; `overrides` are keys of every cell.

    Raises
    ------
    ConfigError
        When there is no such file, it is not an experiment, or an override is not possible.
    """
    path = experiments().get(name, home(name))
    resolve(overrides)
    try:
        raw = from_toml(path, str(path))
    except OSError:
        shipped = ", ".join(experiments())
        raise ConfigError(f"{name} is neither a file that can be read nor one of {shipped}") from None
    if unknown := raw.keys() - {*OTHERS, *PARTS}:
        raise ConfigError(f"{path} has an entry {min(unknown)}: it takes {', '.join((*OTHERS, *PARTS))}")
    for entry, kind in {**OTHERS, **dict.fromkeys(PARTS, dict[str, dict[str, Any]])}.items():
        try:
            reader_of(kind)(raw.get(entry, kind()))
        except MalformedError as error:
            takes = {"seeds": "a list of whole numbers, as in seeds = [0, 1, 2]"}
            takes |= {part: f"a table [{part}.NAME] for each" for part in PARTS}
            said = f"it takes {takes[entry]}" if entry in takes else str(error)
            raise ConfigError(f"{path} has a wrong entry {entry}: {said}") from None
    seeds = raw.get("seeds", [0])
    if not seeds or len({*seeds}) < len(seeds):
        raise ConfigError(f"{path} has seeds = {seeds}: it takes at least one, and each once")
    for part in PARTS:
        if not raw.get(part):
            raise ConfigError(f"{path} has no {part}: an experiment takes a table [{part}.NAME] for each")
        if comma := [each for each in raw[part] if "," in each]:
            raise ConfigError(f"{path} has the name '{comma[0]}' in {part}: --{part} takes a list, so none has a comma")
    tuned = {(method, topology): keys for method, by in raw.get("tuned", {}).items() for topology, keys in by.items()}
    for place in tuned:
        if place not in product(raw["methods"], raw["topologies"]):
            raise ConfigError(f"{path} has [tuned.{place[0]}] {place[1]}, which is not a method and topology in it")
    return Plan(
        keys={**raw.get("keys", {}), **overrides},
        methods=raw["methods"],
        scenarios=raw["scenarios"],
        topologies=raw["topologies"],
        seeds=tuple(seeds),
        tuning=read_tuning(raw) if "tuning" in raw else None,
        tuned=tuned,
        budget=_budget(path, raw, overrides) if "budget" in raw else None,
        given=dict(overrides),
        file=path,
    )


def _budget(path: Path, raw: Mapping[str, Any], overrides: Mapping[str, Any]) -> Budget:
    budget = raw["budget"]
    whole = type(budget.get("rounds")) is int and budget["rounds"] > 0
    if budget.keys() != {"method", "rounds"} or not whole or budget["method"] not in list(raw["methods"]):
        raise ConfigError(
            f"{path} has a wrong [budget]: it takes method, one of {', '.join(raw['methods'])}, and rounds"
        )
    return Budget(budget["method"], overrides.get("num-rounds", budget["rounds"]))
