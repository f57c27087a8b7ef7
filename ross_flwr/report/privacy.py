"""How well agents are hidden from each other: ε of every pair as a heat map, and what runs promise in words."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from ross_flwr.extras import import_extra
from ross_flwr.report.png import save
from ross_flwr.report.tables import Row, by
from ross_flwr.runs.finished import Run

__all__ = ["HeatMap", "draw_heat_map", "heat_maps", "pairs", "promises"]

HEARS, HOLDS = "agent v, who looks", "agent u, who holds the example"


@dataclass(frozen=True)
class HeatMap:
    """ε of each pair of agents in a run, in a square: a row for each u, a column for each v.

    Attributes
    ----------
    scenario, name, title, caption : str
        Its place in the report, the name of its files, its heading, and what ε is here.
    agents : list[int]
        The u of the rows.
    epsilons : list[list[float | None]]
        By row and column; None where there is nothing to hide.
    """

    scenario: str
    name: str
    title: str
    caption: str
    agents: list[int]
    epsilons: list[list[float | None]]

    @property
    def alt(self) -> str:
        """The pairs that are hidden best and worst, in words."""
        known = [
            (epsilon, u, v)
            for u, row in zip(self.agents, self.epsilons, strict=True)
            for v, epsilon in enumerate(row)
            if epsilon is not None
        ]
        (low, *best), (high, *worst) = min(known), max(known)
        return (
            f"{self.title}. Agent {best[0]} is hidden best, from agent {best[1]}, with ε = {low:.3g}, and agent "
            f"{worst[0]} worst, from agent {worst[1]}, with ε = {high:.3g}."
        )

    @property
    def plotly(self) -> dict[str, Any]:
        """The map as Plotly's JSON."""
        square = {"type": "heatmap", "z": self.epsilons, "y": self.agents, "colorscale": "Blues", "zmin": 0}
        hover = {"hovertemplate": "agent %{y} from agent %{x}: ε = %{z:.3f}<extra></extra>"}
        bar = {"colorbar": {"title": {"text": "ε"}}}
        axis: dict[str, Any] = {"dtick": max(1, len(self.epsilons[0]) // 20), "automargin": True}
        axes = {"xaxis": axis | {"title": {"text": HEARS}}, "yaxis": axis | {"title": {"text": HOLDS}}}
        axes["yaxis"] |= {"autorange": "reversed", "scaleanchor": "x"}
        around = {"height": 460, "margin": {"t": 20, "b": 50, "l": 60, "r": 20}}
        return {"data": [square | hover | bar], "layout": {**around, **axes}}


def pairs(runs: Sequence[Run]) -> list[Row]:
    """Return ε of each pair of agents, in the first seed of every method whose summary tells it."""
    rows = []
    for _, group in groupby(runs, lambda run: (run.scenario, run.topology, run.method)):
        run = next(group)
        promise = (run.summary or {}).get("privacy", {})
        for u, epsilons in promise.get("pairs", {}).items():
            for v, epsilon in enumerate(epsilons):
                what = {"agent": int(u), "neighbour": v, "epsilon": epsilon, "is": promise["pairs-are"]}
                rows.append({**run.place, **what})
    return rows


def promises(runs: Sequence[Run]) -> list[str]:
    """Return what each private method promises, by its first run."""
    first = {run.method: run.summary["privacy"] for run in reversed(runs) if "privacy" in (run.summary or {})}
    return [f"Privacy of {method}: {promise['statement']}" for method, promise in reversed(first.items())]


def heat_maps(rows: Sequence[Row]) -> list[HeatMap]:
    """Return the heat maps of `pairs`."""
    found = []
    for (scenario, topology, method, seed), group in by(rows, "scenario", "topology", "method", "seed"):
        agents = list(dict.fromkeys(row["agent"] for row in group))
        found.append(
            HeatMap(
                scenario,
                f"privacy-{scenario}-{topology}-{method}",
                f"{scenario}, {topology}: ε between agents in {method}, seed {seed}",
                f"ε of agent u towards agent v: {group[0]['is']}.",
                agents,
                [[row["epsilon"] for row in group if row["agent"] == u] for u in agents],
            )
        )
    return found


def draw_heat_map(heat_map: HeatMap, folder: Path) -> Path:
    """Draw a heat map into `folder` in every format, and return the PNG file."""
    figure = import_extra("matplotlib.figure", "plots").Figure(figsize=(5.6, 4.8), layout="constrained")
    figure.suptitle(heat_map.title, x=0.01, ha="left", fontsize=10)
    axes = figure.add_subplot()
    values = [[float("nan") if epsilon is None else epsilon for epsilon in row] for row in heat_map.epsilons]
    image = axes.imshow(values, cmap="Blues", vmin=0)
    axes.set(xlabel=HEARS, ylabel=HOLDS, yticks=range(len(heat_map.agents)), yticklabels=heat_map.agents)
    figure.colorbar(image, label="ε")
    return save(figure, folder, heat_map.name, heat_map.title, heat_map.alt)
