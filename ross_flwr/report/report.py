"""``ross-flwr report``: a folder of results as a page, pictures and tables."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from math import inf
from pathlib import Path
from typing import TypeAlias

from ross_flwr.config import ConfigError
from ross_flwr.files import fresh, inside
from ross_flwr.report import charts, tables
from ross_flwr.report.interactive import plotly_chart, plotly_network
from ross_flwr.report.network import networks
from ross_flwr.report.page import Figure, page, result_table
from ross_flwr.report.png import draw, draw_network
from ross_flwr.report.privacy import draw_heat_map, heat_maps, pairs, promises
from ross_flwr.report.statistics import legend
from ross_flwr.report.table import latex
from ross_flwr.report.tables import Row
from ross_flwr.runs.finished import Run, by_budget, find_runs
from ross_flwr.runs.measures import ACCURACY, Measure

__all__ = ["Picture", "of_chart", "write_report"]

NETWORK = (
    "Each edge is two wedges. The wide end of a wedge is at the agent that gives a weight, and its point at the "
    "neighbour whose gradient gets it: the wider and darker, the more. A thin grey wedge is 0, and there is none where "
    "the agent did not report. Squares attack or have bad data. The slider moves through the rounds."
)

BUDGETS = (
    "Each run is read three times: after as many rounds as the reference method was given, and where it had spent as "
    "much work and as many bytes as that method does in a clean run. Figures show whole runs."
)


Picture: TypeAlias = tuple[str, Callable[[Path], object]]
"""The name of a picture, and what draws it into a folder."""


def write_report(folder: Path, watched: Callable[[list[Picture], int], Iterable[Picture]] | None = None) -> Path:
    """Write ``report.html`` into `folder` and, into ``report`` in it, its figures as pictures and its tables as CSV.

    Parameters
    ----------
    folder : Path
        The results.
    watched : callable, optional
        From the pictures, of which each is drawn before the next one is taken, and the number of runs to the pictures.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    ConfigError
        When the folder holds no finished run, the extra ``plots`` is not installed, or nothing can be written there.
    """
    runs = find_runs(folder)
    done = [run for run in runs if run.summary]
    progress, measure = tables.progress(done), tables.measured(done)
    found = {
        "progress": progress,
        "curves": tables.bands(progress, measure),
        "accuracy": _at_budgets(runs, tables.accuracies),
        "differences": _at_budgets(done, tables.differing),
        "ratios": _at_budgets(done, tables.ratios),
        "agents": tables.agents(done),
        "weights": tables.weights(done),
        "edges": tables.edges(done),
        "time": tables.times(done),
        "privacy": pairs(done),
    }
    colours = charts.colours({run.method: run.summary["algorithm"] for run in done})
    drawn = [
        *charts.curves(found["curves"], colours, measure),
        *charts.accuracy_of_agents(found["agents"]),
        *charts.weights_over_time(found["weights"]),
        *charts.time_spent(found["time"]),
    ]
    graphs, maps = networks(found["edges"]), heat_maps(found["privacy"])
    on_page = [
        *((chart.scenario, of_chart(chart)) for chart in drawn),
        *((each.scenario, Figure(each.title, NETWORK, each.alt, each.name, plotly_network(each))) for each in graphs),
        *((each.scenario, Figure(each.title, each.caption, each.alt, each.name, each.plotly)) for each in maps),
    ]
    scenarios = list(dict.fromkeys(run.scenario for run in runs))
    sections = {scenario: [figure for of, figure in on_page if of == scenario] for scenario in scenarios}
    summaries = {scenario: _tables(found, scenario, list(by_budget(runs))) for scenario in scenarios}
    pictures: list[Picture] = [
        *((chart.file(axis), partial(draw, chart, axis)) for chart in drawn for axis in chart.axes),
        *((graph.name, partial(draw_network, graph)) for graph in graphs),
        *((heat_map.name, partial(draw_heat_map, heat_map)) for heat_map in maps),
    ]
    text = page(f"Report on {folder.resolve().name}", _about(runs), sections, summaries)
    try:
        figures = inside(folder, "report")
        figures.mkdir(exist_ok=True)
        for name, rows in found.items():
            if rows:
                tables.write_table(rows, fresh(figures / f"{name}.csv"))
        fresh(figures / "tables.tex").write_text(_latex(found["accuracy"], measure), encoding="utf-8")
        for _, draw_into in watched(pictures, len(done)) if watched else pictures:
            draw_into(figures)
        fresh(folder / "report.html").write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{folder} cannot take a report: {error.strerror or error}") from None
    return folder / "report.html"


def of_chart(chart: charts.Chart) -> Figure:
    """Return a chart as a figure of the page, at least so wide that its labels do not run into each other."""
    file = chart.file(next(iter(chart.axes)))
    width = max(sum(max(260, 45 * len(panel.names)) for panel in line) for line in chart.grid)
    return Figure(chart.title, chart.caption, chart.alt, file, plotly_chart(chart), width)


def _tables(found: Mapping[str, list[Row]], scenario: str, budgets: Iterable[str]) -> str:
    """Return the tables of results of a scenario, one for each budget, as HTML."""

    def of(name: str, budget: str) -> list[Row]:
        return [row for row in found[name] if (row["scenario"], row.get("budget", "")) == (scenario, budget)]

    return "\n".join(result_table(of("accuracy", each), of("ratios", each), budget=each) for each in budgets)


def _latex(accuracies: Iterable[Row], measure: Measure) -> str:
    """Return a table per scenario and budget, methods by topologies, for LaTeX; the best of a topology is bold."""
    texts = ["% needs \\usepackage{amssymb,booktabs}"]
    rows = [{"budget": "", **row} for row in accuracies]
    for (scenario, budget), found in tables.by(rows, "scenario", "budget"):
        topologies, methods = (list(dict.fromkeys(row[name] for row in found)) for name in ("topology", "method"))
        shown = {(row["method"], row["topology"]): row["text"] for row in found}
        best = [max(group, key=lambda row: _worth(row, measure)) for _, group in tables.by(found, "topology")]
        lines = [[method, *(shown.get((method, each), "–") for each in topologies)] for method in methods]
        title = "Accuracy in %" if measure == ACCURACY else f"{measure.title} (lower is better)"
        caption = f"{title}: {', '.join(filter(None, [scenario, budget]))}"
        bold = {(methods.index(row["method"]), 1 + topologies.index(row["topology"])) for row in best}
        texts.append(latex([["method", *topologies], *lines], caption, bold))
    return "\n\n".join(texts) + "\n"


def _worth(row: Row, measure: Measure) -> float:
    """Return a number that is larger for a better result; the least there is for a refused run."""
    return -inf if row[measure.name] is None else measure.worth(row[measure.name])


def _at_budgets(runs: list[Run], make: Callable[[list[Run]], list[Row]]) -> list[Row]:
    """Return the rows of a table at each budget, the title of the budget in a column of its own where there is one."""
    return [{"budget": title} | row if title else row for title, read in by_budget(runs).items() for row in make(read)]


def _about(runs: list[Run]) -> list[str]:
    """Return what readers must know about the runs and the signs."""
    done = [run for run in runs if run.summary]
    budgets = by_budget(done)
    seeds = ", ".join(map(str, sorted({run.seed for run in done})))
    refused = sorted({f"{run.method} on {run.topology}" for run in runs if not run.summary})
    return [
        f"{len(done)} runs: {len({run.method for run in done})} methods, seeds {seeds}.",
        *([f"Refused, because the method cannot run there: {', '.join(refused)}."] if refused else []),
        *legend(*tables.compared(next(iter(budgets.values()))), tables.measured(done)),
        "Under each accuracy are the mean work of a run, in example passes (forward and backward are one, a forward "
        "pass alone is a third), and the bytes that all its agents sent.",
        *([BUDGETS] if len(budgets) > 1 else []),
        "A ratio is the accuracy of ross-plus or ross over that of the best baseline (named beside it), or over the "
        "mean of all baselines, which are all other methods. Where lower is better, it is the other way round.",
        *promises(done),
        "The folder report beside this page has the figures as PNG, SVG and PDF, all numbers as CSV, and the tables in "
        "tables.tex.",
    ]
