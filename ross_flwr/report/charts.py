"""The figures of a report, made from its tables: panels of lines, points and bars for any drawing library."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle
from math import ceil
from operator import itemgetter
from statistics import fmean, median
from typing import Any

from ross_flwr.report.tables import AXES, Row, by, drawn
from ross_flwr.runs.finished import OURS
from ross_flwr.runs.measures import ACCURACY, Measure

__all__ = ["Chart", "Panel", "Series", "accuracy_of_agents", "colours", "curves", "time_spent", "weights_over_time"]

HONEST, POISONED = "#0072b2", "#d55e00"
ROSS_PALETTE = ("#000000", "#666666", "#999999", "#c4c4c4")
PALETTE = ("#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#d55e00", "#0072b2", "#8c6d31", "#7f7f7f")
DASHES = ("solid", "dash", "dot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "star", "triangle-down")
TITLES = {"accuracy": "accuracy (%)", "loss": "loss (nats)", "consensus-distance": "consensus distance\n(squared norm)"}
"""What is drawn against the costs, with its unit."""
SHORT, SPANS = 10, 12
"""How many rounds are drawn one by one; and in how many spans a longer run is."""
FAR = 3
"""How many times what is usual is far beyond it."""
ROLES = {"honest": (HONEST, "circle"), "bad data": ("#e69f00", "square"), "attacker": (POISONED, "x")}
"""Colour and marker of an agent by its role."""

Look = tuple[str, str, str]
"""How a method is drawn: the colour of its line, how it is dashed, and the shape of its markers."""


@dataclass(frozen=True)
class Series:
    """A line with a band around it, points, or bars, in one panel.

    Attributes
    ----------
    name : str
        The name in the legend, shown once for all panels.
    x : dict[str, list]
        Places by axis.
    y : list
        Values; None interrupts a line.
    low, high : list
        The band; empty for none.
    kind : str
        ``"line"``, ``"points"`` or ``"bars"``, which are stacked.
    mark : str
        How a line is dashed, the shape of points, or the pattern of bars.
    symbol : str
        The shape of a few markers on a line; empty for none.
    """

    name: str
    x: Mapping[str, Sequence[Any]]
    y: Sequence[float | None]
    colour: str
    kind: str = "line"
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()
    width: float = 1.5
    mark: str = "solid"
    symbol: str = ""

    @property
    def sparse(self) -> bool:
        """Whether there are too few values for a line, which would tell of a course that nobody measured."""
        return sum(value is not None for value in self.y) <= 2


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes
    ----------
    log, share : bool
        Whether y is logarithmic, or a share from 0 to 1.
    names : list[str]
        The labels at 0, 1, … on the x axis, unless it is numeric.
    top : float, optional
        Where the y axis ends; without it, at the largest value.
    """

    title: str
    y_title: str
    series: list[Series] = field(default_factory=list)
    log: bool = False
    share: bool = False
    names: list[str] = field(default_factory=list)
    top: float | None = None

    @property
    def told(self) -> str:
        """Its series in words: the last value of a line, all bars, and the lowest and the highest of many points."""
        return "; ".join(f"{series.name} {self._told(series)}" for series in self.series if series.width >= 1)

    def _told(self, series: Series) -> str:
        known = [f"{value:.1%}" if self.share else f"{value:.3g}" for value in series.y if value is not None]
        if series.kind == "points":
            ends = sorted(value for value in series.y if value is not None)
            return f"{ends[0]:.1%} to {ends[-1]:.1%}" if ends else "unknown"
        return (", ".join(known) if series.kind == "bars" else known[-1]) if known else "unknown"


@dataclass(frozen=True)
class Chart:
    """Panels of a scenario in a grid, row by row, with a title and a caption.

    `name` is that of its files; `axes` are the choices of x with their titles.
    """

    scenario: str
    name: str
    title: str
    caption: str
    grid: list[list[Panel]]
    axes: Mapping[str, str]

    def file(self, axis: str) -> str:
        """Return the name, without an ending, of its picture for one of its choices of x."""
        return f"{self.name}-{axis}" if len(self.axes) > 1 else self.name

    @property
    def alt(self) -> str:
        """The chart in words: its title, and what the panels of its first kind show in the end."""
        kind, _, _ = self.grid[0][0].y_title.partition(" (")
        panels = [panel for line in self.grid for panel in line if panel.y_title.startswith(kind)]
        told = (f"{panel.title}, {kind}: {panel.told}".replace("\n", ", ") for panel in panels)
        return ". ".join([self.title, *told])


def curves(rows: Sequence[Row], colours: Mapping[str, Look], measure: Measure = ACCURACY) -> list[Chart]:
    """Return a chart per scenario of what is judged, loss and consensus distance against cost, from `tables.bands`."""
    names = drawn(measure)
    told = f"{', '.join(dict.fromkeys([measure.title, *names[1:-1]]))} and consensus distance"
    charts = []
    for (scenario,), of_scenario in by(rows, "scenario"):
        grid: list[list[Panel]] = [[] for _ in names]
        for (topology,), of_topology in by(of_scenario, "topology"):
            for k, name in enumerate(names):
                zero = any(row[f"{name}-min"] == 0 for row in of_topology)  # which a logarithmic axis has no place for
                log = k > 0 and not zero
                share, title = name == ACCURACY.name, TITLES.get(name, measure.title)
                panel = Panel(topology if k == 0 else "", title, log=log, share=share)
                for (method,), group in by(of_topology, "method"):
                    colour, dash, symbol = colours[method]
                    panel.series.append(
                        Series(
                            method,
                            {axis: [row[axis] for row in group] for axis in AXES},
                            [row[name] for row in group],
                            colour,
                            low=[row[f"{name}-min"] for row in group],
                            high=[row[f"{name}-max"] for row in group],
                            width=2.5 if colour in ROSS_PALETTE else 1.5,
                            mark=dash,
                            symbol=symbol,
                        )
                    )
                grid[k].append(panel)
        charts.append(
            Chart(
                scenario,
                f"curves-{scenario}",
                f"{scenario}: {told}",
                "Mean over honest agents and seeds; the band goes from the lowest to the highest seed. A line breaks "
                "where a seed has no finite number. An axis is linear where a value is 0. Up to two tests are points.",
                grid,
                AXES,
            )
        )
    return charts


def accuracy_of_agents(rows: Sequence[Row]) -> list[Chart]:
    """Return a chart per scenario of the final accuracy of every agent, from `tables.agents`."""
    charts = []
    for (scenario,), of_scenario in by(rows, "scenario"):
        line = []
        for (topology,), of_topology in by(of_scenario, "topology"):
            methods = list(dict.fromkeys(row["method"] for row in of_topology))
            panel = Panel(topology, "accuracy (%)", share=True, names=methods)
            most = 1 + max(row["agent"] for row in of_topology)
            for (role,), group in by(of_topology, "role"):
                colour, shape = ROLES[role]
                places = [methods.index(row["method"]) + 0.7 * ((row["agent"] + 0.5) / most - 0.5) for row in group]
                x = {"method": places}
                panel.series.append(
                    Series(role, x, [row["accuracy"] for row in group], colour, kind="points", mark=shape)
                )
            line.append(panel)
        caption = (
            "Accuracy of each agent's own model in the last test. The agents of a method stand side by side, with a "
            "point for each seed; an agent that was absent, or whose accuracy is not a number, has none."
        )
        title = f"{scenario}: final accuracy per agent"
        charts.append(Chart(scenario, f"agents-{scenario}", title, caption, [line], {"method": ""}))
    return charts


def weights_over_time(rows: Sequence[Row]) -> list[Chart]:
    """Return a chart per scenario of the weight given to honest and to poisoned neighbours, from `tables.weights`."""
    charts = []
    for (scenario,), of_scenario in by(rows, "scenario"):
        grid = []
        for (method,), of_method in by(of_scenario, "method"):
            last = max(row["rounds"] for row in of_method)
            span = 1 if last <= SHORT else max(SHORT // 2, ceil(last / SPANS))
            title = _unit(of_method) + f"\nmean of {span} rounds" * (span > 1)
            line = []
            for (topology,), group in by(of_method, "topology"):
                panel = Panel(f"{method}, {topology}", title)
                first = group[0]["seed"]
                for kind, colour, symbol in (("honest", HONEST, "circle"), ("poisoned", POISONED, "x")):
                    known = _of_those_with_neighbours(group, kind)
                    for _, of_agent in by([row for row in known if row["seed"] == first], "agent"):
                        x, y = _means(of_agent, kind, span, last)
                        panel.series.append(
                            Series(f"to {kind} neighbours, an agent", {"rounds": x}, y, _pale(colour), width=0.5)
                        )
                    if known:
                        x, y = _means(known, kind, span, last)
                        name = f"to {kind} neighbours, mean"
                        panel.series.append(Series(name, {"rounds": x}, y, colour, width=2.5, symbol=symbol))
                line.append(_cut(panel))
            grid.append(line)
        caption = (
            "What an honest agent gave to the gradients of its honest and of its poisoned neighbours (attackers, and "
            "agents with bad data), each summed. Shares sum to 1 with those that the agent gave itself and, in "
            "ross-plus, its validation set; other weights are factors, which have no bound. Weights jump from round to "
            f"round, so a run of more than {SHORT} rounds is drawn in means over as many rounds as the axis says. Thin "
            "lines are agents of the first seed, thick ones the mean over seeds and all agents that have such "
            "neighbours, of which some gave them 0. A line breaks where a weight is not finite. Where "
            "a few weights are far above 1 and all others, the axis ends below them, and the panel's title tells how "
            "far they go."
        )
        title = f"{scenario}: weight given to honest and to poisoned neighbours"
        charts.append(Chart(scenario, f"weights-{scenario}", title, caption, grid, {"rounds": "rounds"}))
    return charts


def time_spent(rows: Sequence[Row]) -> list[Chart]:
    """Return a chart per scenario of where the time goes, from `tables.times`."""
    kinds = {
        "gradients": ("#0072b2", ""),
        "utilities": ("#e69f00", "/"),
        "exchange": ("#009e73", "x"),
        "rest": ("#bbbbbb", "."),
    }
    charts = []
    for (scenario,), of_scenario in by(rows, "scenario"):
        line = []
        for (topology,), group in by(of_scenario, "topology"):
            panel = Panel(topology, "time per round (s)", names=[row["method"] for row in group])
            for kind, (colour, pattern) in kinds.items():
                x = {"method": list(range(len(group)))}
                spent = [row[kind] for row in group]
                panel.series.append(Series(kind, x, spent, colour, kind="bars", mark=pattern))
            line.append(panel)
        caption = (
            "Seconds per round, summed over agents, mean over rounds and seeds. The exchange is the delivery of "
            "messages inside a process; the rest is mixing, testing and, through Flower's relay, waiting for Flower."
        )
        title = f"{scenario}: where the time goes"
        charts.append(Chart(scenario, f"time-{scenario}", title, caption, [line], {"method": ""}))
    return charts


def colours(methods: Mapping[str, str]) -> dict[str, Look]:
    """Return the look of every method, given the algorithm of each: black and greys for ross-plus and ross."""
    ours = [name for name, algorithm in methods.items() if algorithm in OURS]
    others = [name for name in methods if name not in ours]
    symbols = dict(zip([*ours, *others], cycle(SYMBOLS), strict=False))
    return {
        name: (palette[k % len(palette)], DASHES[k // len(palette) % len(DASHES)], symbols[name])
        for names, palette in ((ours, ROSS_PALETTE), (others, PALETTE))
        for k, name in enumerate(names)
    }


def _unit(rows: Sequence[Row]) -> str:
    """Return the title of an axis of weights: they are shares of 1 unless an agent gave more, as in ``cga``."""
    most = max(sum(row[kind] or 0.0 for kind in ("own", "honest", "poisoned")) for row in rows)
    return "weight (share of 1)" if most < 1.001 else "weight (factor)"


def _cut(panel: Panel) -> Panel:
    """Return a panel whose axis ends above what is usual, if a few weights go far beyond."""
    drawn = [([y for y in series.y if y is not None] or [0.0], series.width >= 1) for series in panel.series]
    usual = max((median(values) for values, thick in drawn if thick), default=0.0)
    top, largest = max(1.0, FAR * usual), max((max(values) for values, _ in drawn), default=0.0)
    if largest <= FAR * top:
        return panel
    return replace(panel, title=f"{panel.title}\nup to {largest:.3g}, above the axis", top=top)


def _of_those_with_neighbours(rows: Sequence[Row], kind: str) -> list[Row]:
    """Return the rows of agents that have neighbours of this kind, in order of rounds."""
    having = {(row["seed"], row["agent"]) for row in rows if row[kind] is not None}
    found = [row for row in rows if (row["seed"], row["agent"]) in having]
    return sorted(found, key=itemgetter("rounds"))


def _means(rows: Sequence[Row], kind: str, span: int, last: int) -> tuple[list[float], list[float | None]]:
    """Return the mean weight in each `span` of rounds up to the `last`, at its middle; None where one is missing."""
    middles, means = [], []
    for (part,), group in by([{**row, "part": (row["rounds"] - 1) // span} for row in rows], "part"):
        values = [row[kind] for row in group]
        middles.append((part * span + 1 + min((part + 1) * span, last)) / 2)
        means.append(None if None in values else fmean(values))
    return middles, means


def _pale(colour: str) -> str:
    channels = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
    return "#" + "".join(f"{(channel + 2 * 255) // 3:02x}" for channel in channels)
