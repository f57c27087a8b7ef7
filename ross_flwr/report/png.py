"""The figures of a report as pictures (PNG, SVG and PDF), drawn by matplotlib, which needs no browser."""

from pathlib import Path
from typing import Any

from ross_flwr.extras import import_extra
from ross_flwr.files import fresh
from ross_flwr.report.charts import ROLES, Chart, Panel, Series
from ross_flwr.report.network import Network
from ross_flwr.report.table import short

__all__ = ["draw", "draw_network", "save"]

DASHES = {"solid": "-", "dash": "--", "dot": ":"}
SHAPES = {
    "circle": "o",
    "square": "s",
    "diamond": "D",
    "triangle-up": "^",
    "cross": "P",
    "x": "x",
    "star": "*",
    "triangle-down": "v",
}
FORMATS = {
    "png": ("matplotlib.backends.backend_agg", "FigureCanvasAgg", "Description"),
    "svg": ("matplotlib.backends.backend_svg", "FigureCanvasSVG", "Description"),
    "pdf": ("matplotlib.backends.backend_pdf", "FigureCanvasPdf", "Subject"),
}
"""The formats that are written, what prints each, and where it keeps what the picture shows in words."""


def draw(chart: Chart, axis: str, folder: Path) -> Path:
    """Draw a chart for one choice of x into `folder` in every format, and return the PNG file."""
    figures = import_extra("matplotlib.figure", "plots")
    rows, columns = len(chart.grid), max(map(len, chart.grid))
    size = 2.2 + 4.2 * columns, 1.0 + 2.6 * rows
    figure = figures.Figure(figsize=size, layout="constrained")
    figure.suptitle(chart.title, x=0.01, ha="left")
    handles: dict[str, Any] = {}
    for k, row in enumerate(chart.grid):
        for column, panel in enumerate(row):
            axes = figure.add_subplot(rows, columns, k * columns + column + 1)
            tops: dict[Any, float] = {}
            for series in panel.series:
                handles.setdefault(series.name, _draw(axes, series, axis, tops))
            _dress(axes, panel)
            if axis in ("work", "bytes"):
                axes.xaxis.set_major_formatter(_short)
            axes.set_ylabel(panel.y_title if column == 0 else "")
            axes.set_xlabel(chart.axes[axis] if row is chart.grid[-1] else "")
            if axis == "rounds":
                axes.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(handles.values(), handles.keys(), loc="outside right center")  # above, it would cover the title
    return save(figure, folder, chart.file(axis), chart.title, chart.alt)


def save(figure: Any, folder: Path, name: str, title: str, alt: str) -> Path:
    """Write a figure in every format, with its title and its description in words, and return the PNG file."""
    for ending, (module, canvas, description) in FORMATS.items():
        file = fresh(folder / f"{name}.{ending}")
        figure.dpi = 300
        printer = getattr(import_extra(module, "plots"), canvas)(figure)
        getattr(printer, f"print_{ending}")(file, metadata={"Title": title, description: alt})  # savefig draws twice
        figure.set_layout_engine("none")  # which would lay it out anew for each format
    return folder / f"{name}.png"


def _dress(axes: Any, panel: Panel) -> None:
    axes.set_title(panel.title)
    axes.grid(alpha=0.3)
    if panel.share:
        axes.set_ylim(-0.03, 1.03)
        axes.yaxis.set_major_formatter(import_extra("matplotlib.ticker", "plots").PercentFormatter(1))
    elif panel.log and any(y for series in panel.series for y in series.y):
        axes.set_yscale("log")
    else:
        lowest = min([0.0, *(y for series in panel.series for y in series.y if y is not None)])
        axes.set_ylim(min(0.0, axes.get_ylim()[0]) if panel.top is None else lowest - panel.top / 25, panel.top)
        axes.yaxis.set_major_formatter(_short)
    if panel.names:
        axes.set_xticks(range(len(panel.names)), panel.names, rotation=30, ha="right")


def _short(value: float, _place: int) -> str:
    """Return a number on an axis with a prefix such as M; matplotlib would put 1e6 in a corner."""
    return short(value).strip()


def _draw(axes: Any, series: Series, axis: str, tops: dict[Any, float]) -> Any:
    """Draw one series; `tops` holds the heights of the bars so far."""
    x, y = list(series.x[axis]), [float("nan") if value is None else value for value in series.y]
    if series.kind == "bars":
        bars = axes.bar(x, y, bottom=[tops.get(each, 0.0) for each in x], color=series.colour, hatch=series.mark)
        tops |= {each: tops.get(each, 0.0) + height for each, height in zip(x, y, strict=True)}
        return bars
    if series.kind == "points":
        return axes.scatter(x, y, color=series.colour, marker=SHAPES[series.mark], s=18, alpha=0.6)
    if series.low:
        band = [[float("nan") if value is None else value for value in edge] for edge in (series.low, series.high)]
        axes.fill_between(x, *band, color=series.colour, alpha=0.15, linewidth=0)
    (line,) = axes.plot(x, y, color=series.colour, linewidth=series.width, linestyle=DASHES[series.mark])
    if series.symbol or series.sparse:
        step = max(1, len(x) // 12)
        line.set(marker=SHAPES[series.symbol or "circle"], markersize=5, markevery=(2 * len(axes.lines) % step, step))
    if series.sparse:
        line.set_linestyle("none")
    return line


def draw_network(network: Network, folder: Path) -> Path:
    """Draw the first round of a network, the last, and two between them into `folder`, and return the file."""
    figures = import_extra("matplotlib.figure", "plots")
    last = len(network.rounds) - 1
    shown = sorted({0, last // 3, 2 * last // 3, last})
    figure = figures.Figure(figsize=(4.0 * len(shown), 4.8), layout="constrained")
    figure.suptitle(f"{network.title}\na wedge is widest at who gives: darkest {network.largest:.3g}, grey 0")
    for column, k in enumerate(shown):
        axes = figure.add_subplot(1, len(shown), column + 1)
        for *corners, shade in network.wedges(k):
            axes.fill(*corners, color=shade, linewidth=0)
        for role in dict.fromkeys(network.roles.values()):
            members = [i for i in network.roles if network.roles[i] == role]
            x, y = zip(*map(network.place, members), strict=True)
            colour, _ = ROLES[role]
            shape = "o" if role == "honest" else "s"
            axes.scatter(x, y, s=260, color=colour, marker=shape, label=role, zorder=10)
            for i, x_i, y_i in zip(members, x, y, strict=True):
                axes.annotate(str(i), (x_i, y_i), ha="center", va="center", color="white", zorder=11)
        axes.set(title=f"round {network.rounds[k]}", xlim=(-1.2, 1.2), ylim=(-1.2, 1.2), aspect="equal")
        axes.set_axis_off()
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, markerscale=0.6)
    return save(figure, folder, network.name, network.title, network.alt)
