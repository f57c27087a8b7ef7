"""The figures of a report, made from its tables: panels of lines, points and bars for any drawing library."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from statistics import fmean
from typing import Any

from ross_flwr.report.tables import AXES, BAND, Row, by
from ross_flwr.runs.finished import OURS

__all__ = ["Chart", "Panel", "Series", "accuracy_of_agents", "colours", "curves", "time_spent", "weights_over_time"]

HONEST, POISONED = "#0072b2", "#d55e00"
ROSS_PALETTE = ("#000000", "#666666", "#999999", "#c4c4c4")
PALETTE = ("#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#d55e00", "#0072b2", "#8c6d31", "#7f7f7f")
DASHES = ("solid", "dash", "dot")
ROLES = {"honest": (HONEST, "circle"), "bad data": ("#e69f00", "square"), "attacker": (POISONED, "x")}
"""Colour and marker of an agent by its role."""


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
        How a line is dashed, or the shape of points.
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


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Attributes
    ----------
    log, share : bool
        Whether y is logarithmic, or a share from 0 to 1.
    names : list[str]
        The labels at 0, 1, … on the x axis, unless it is numeric.
    """

    title: str
    y_title: str
    series: list[Series] = field(default_factory=list)
    log: bool = False
    share: bool = False
    names: list[str] = field(default_factory=list)


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


def curves(rows: Sequence[Row], colours: Mapping[str, tuple[str, str]]) -> list[Chart]:
    """Return a chart per scenario of accuracy, loss and consensus distance against cost, from `tables.bands`."""
    charts = []
    for (scenario,), of_scenario in by(rows, "scenario"):
        grid: list[list[Panel]] = [[], [], []]
        for (topology,), of_topology in by(of_scenario, "topology"):
            for k, name in enumerate(BAND):
                zero = any(row[f"{name}-min"] == 0 for row in of_topology)  # which a logarithmic axis has no place for
                log = k > 0 and not zero
                panel = Panel(topology if k == 0 else "", name.replace("-", " "), log=log, share=k == 0)
                for (method,), group in by(of_topology, "method"):
                    colour, dash = colours[method]
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
                        )
                    )
                grid[k].append(panel)
        charts.append(
            Chart(
                scenario,
                f"curves-{scenario}",
                f"{scenario}: accuracy, loss and consensus distance",
                "Mean over honest agents and seeds; the band goes from the lowest to the highest seed. A line breaks "
                "where a seed has no finite number. An axis is linear where a value is 0.",
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
            panel = Panel(topology, "accuracy", share=True, names=methods)
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
            "Test accuracy of each agent's own model in the last test. Above a method, its agents from left to "
            "right; a point per seed, and none for an agent that was absent or whose accuracy is not a number."
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
            line = []
            for (topology,), group in by(of_method, "topology"):
                panel = Panel(f"{method}, {topology}", "weight")
                first = group[0]["seed"]
                for kind, colour in (("honest", HONEST), ("poisoned", POISONED)):
                    known = _of_those_with_neighbours(group, kind)
                    for _, of_agent in by([row for row in known if row["seed"] == first], "agent"):
                        x, y = _xy(of_agent, kind)
                        panel.series.append(
                            Series(f"to {kind} neighbours, an agent", {"rounds": x}, y, _pale(colour), width=0.5)
                        )
                    means = [
                        {"rounds": number, kind: _mean([row[kind] for row in of_round])}
                        for (number,), of_round in by(known, "rounds")
                    ]
                    if means:
                        x, y = _xy(means, kind)
                        panel.series.append(Series(f"to {kind} neighbours, mean", {"rounds": x}, y, colour, width=2.5))
                line.append(panel)
            grid.append(line)
        caption = (
            "What an honest agent gave to the gradients of its honest and of its poisoned neighbours (attackers, and "
            "agents with bad data), each summed; an agent's weights sum to 1 with its own. Thin lines are agents "
            "of the first seed, thick ones the mean over seeds and all agents that have such neighbours, of which some "
            "gave them 0. A line breaks where a weight is not finite."
        )
        title = f"{scenario}: weight given to honest and to poisoned neighbours"
        charts.append(Chart(scenario, f"weights-{scenario}", title, caption, grid, {"rounds": "rounds"}))
    return charts


def time_spent(rows: Sequence[Row]) -> list[Chart]:
    """Return a chart per scenario of where the time goes, from `tables.times`."""
    kinds = {"gradients": "#0072b2", "utilities": "#e69f00", "exchange": "#009e73", "rest": "#bbbbbb"}
    charts = []
    for (scenario,), of_scenario in by(rows, "scenario"):
        line = []
        for (topology,), group in by(of_scenario, "topology"):
            panel = Panel(topology, "seconds per round", names=[row["method"] for row in group])
            for kind, colour in kinds.items():
                x = {"method": list(range(len(group)))}
                panel.series.append(Series(kind, x, [row[kind] for row in group], colour, kind="bars"))
            line.append(panel)
        caption = (
            "Seconds per round, summed over agents, mean over rounds and seeds. The exchange is the delivery of "
            "messages inside a process; the rest is mixing, testing and, through Flower's relay, waiting for Flower."
        )
        title = f"{scenario}: where the time goes"
        charts.append(Chart(scenario, f"time-{scenario}", title, caption, [line], {"method": ""}))
    return charts


def colours(methods: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Return colour and dash of every method, given the algorithm of each: black and greys for ross-plus and ross."""
    ours = [name for name, algorithm in methods.items() if algorithm in OURS]
    others = [name for name in methods if name not in ours]
    return {
        name: (palette[k % len(palette)], DASHES[k // len(palette) % len(DASHES)])
        for names, palette in ((ours, ROSS_PALETTE), (others, PALETTE))
        for k, name in enumerate(names)
    }


def _of_those_with_neighbours(rows: Sequence[Row], kind: str) -> list[Row]:
    """Return the rows of agents that have neighbours of this kind, in order of rounds."""
    having = {(row["seed"], row["agent"]) for row in rows if row[kind] is not None}
    found = [row for row in rows if (row["seed"], row["agent"]) in having]
    return sorted(found, key=itemgetter("rounds"))


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean; None where one is missing, since that of the others is another mean."""
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None


def _xy(rows: Sequence[Row], name: str) -> tuple[list[Any], list[Any]]:
    return [row["rounds"] for row in rows], [row[name] for row in rows]


def _pale(colour: str) -> str:
    channels = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
    return "#" + "".join(f"{(channel + 2 * 255) // 3:02x}" for channel in channels)
