"""The figures of a report as Plotly's JSON, which a browser draws."""

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from ross_flwr.report.charts import ROLES, Chart, Panel, Series
from ross_flwr.report.network import Network

__all__ = ["plotly_chart", "plotly_network"]


def plotly_chart(chart: Chart) -> dict[str, Any]:
    """Return a chart as Plotly's JSON."""
    columns = max(map(len, chart.grid))
    axis, axis_title = next(iter(chart.axes.items()))
    data: list[dict[str, Any]] = []
    places: list[Mapping[str, Any]] = []
    layout: dict[str, Any] = {
        "height": 80 + 250 * len(chart.grid),
        "margin": {"t": 70 if len(chart.axes) > 1 else 30, "b": 40, "l": 60, "r": 20},
        "grid": {"rows": len(chart.grid), "columns": columns, "pattern": "independent", "ygap": 0.25},
        "barmode": "stack",
        "legend": {"groupclick": "togglegroup"},
        "annotations": [],
    }
    named: set[str] = set()
    for k, row in enumerate(chart.grid):
        for column, panel in enumerate(row):
            number = str(k * columns + column + 1) if k + column else ""
            layout[f"xaxis{number}"] = {"automargin": True, "zeroline": False}
            layout[f"yaxis{number}"] = _y_axis(panel)
            if panel.names:
                layout[f"xaxis{number}"] |= {"tickvals": list(range(len(panel.names))), "ticktext": panel.names}
            if row is chart.grid[-1]:
                layout[f"xaxis{number}"]["title"] = {"text": axis_title}
            layout["annotations"].append(_panel_title(panel, number))
            for series in panel.series:
                for trace, x in _traces(series, axis):
                    trace |= {"xaxis": f"x{number}", "yaxis": f"y{number}", "legendgroup": series.name}
                    trace["showlegend"] = trace.pop("named", True) and series.name not in named
                    data.append(trace)
                    places.append(x)
                named.add(series.name)
    if len(chart.axes) > 1:
        names = [name for name, entry in layout.items() if name.startswith("xaxis") and "title" in entry]
        layout["updatemenus"] = [_axis_buttons(chart.axes, places, names)]
    return {"data": data, "layout": layout}


def _panel_title(panel: Panel, number: str) -> dict[str, Any]:
    return {
        "text": panel.title.replace("\n", "<br>"),
        "xref": f"x{number} domain",
        "yref": f"y{number} domain",
        "x": 0.5,
        "y": 1.02,
        "yanchor": "bottom",
        "showarrow": False,
    }


def _axis_buttons(axes: Mapping[str, str], places: list[Mapping[str, Any]], names: list[str]) -> dict[str, Any]:
    """Return the buttons that switch the quantity on all x axes, called `names`."""
    buttons = [
        {
            "label": title,
            "method": "update",
            "args": [{"x": [x[key] for x in places]}, {f"{name}.title.text": title for name in names}],
        }
        for key, title in axes.items()
    ]
    place = {"x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom", "pad": {"b": 30}}
    return {"type": "buttons", "direction": "right", "buttons": buttons, **place}


def _y_axis(panel: Panel) -> dict[str, Any]:
    title = {"text": panel.y_title.replace("\n", "<br>")}
    axis: dict[str, Any] = {"title": title, "automargin": True, "rangemode": "tozero"}
    if panel.share:
        axis |= {"range": [-0.03, 1.03], "tickformat": ".0%"}
    if panel.log:
        axis |= {"type": "log", "exponentformat": "power"}
    if panel.top is not None:
        axis["autorangeoptions"] = {"clipmax": panel.top}
    return axis


def _traces(series: Series, axis: str) -> list[tuple[dict[str, Any], Mapping[str, Any]]]:
    """Return the traces of a series, the band first, each with its x by axis."""
    traces: list[tuple[dict[str, Any], Mapping[str, Any]]] = []
    common: dict[str, Any] = {"name": series.name, "x": series.x[axis], "y": series.y}
    if series.low:
        corners: list[tuple[int, float | None]] = []  # forward and back along each unbroken part
        for known, part in groupby(range(len(series.low)), lambda k: series.low[k] is not None):
            places = list(part)
            there = [(k, series.high[k] if known else None) for k in places]
            corners += [*there, *((k, series.low[k]) for k in reversed(places))]
        x = {name: [values[k] for k, _ in corners] for name, values in series.x.items()}
        edge = [value for _, value in corners]
        band = {"x": x[axis], "y": edge, "fill": "toself", "fillcolor": series.colour, "opacity": 0.15}
        quiet = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "named": False}
        traces.append(({"type": "scatter", "name": series.name} | band | quiet, x))
    if series.kind == "bars":
        look: dict[str, Any] = {"type": "bar", "marker": {"color": series.colour, "pattern": {"shape": series.mark}}}
    elif series.kind == "points":
        look = {"type": "scatter", "mode": "markers", "opacity": 0.6}
        look["marker"] = {"color": series.colour, "symbol": series.mark, "size": 8}
    else:
        line = {"color": series.colour, "width": series.width, "dash": series.mark}
        look = {"type": "scatter", "mode": "lines", "line": line}
        if series.symbol or series.sparse:
            look["mode"] = "markers" if series.sparse else "lines+markers"
            look["marker"] = {"color": series.colour, "symbol": series.symbol or "circle", "size": 7}
            look["marker"] |= {} if series.sparse else {"maxdisplayed": 12}
    traces.append((common | look, series.x))
    return traces


def plotly_network(network: Network) -> dict[str, Any]:
    """Return a network as Plotly's JSON, with a slider over its rounds."""
    looks = [network.wedges(k) for k in range(len(network.rounds))]
    quiet = {"type": "scatter", "mode": "lines", "line": {"width": 0}, "hoverinfo": "skip", "showlegend": False}
    data: list[dict[str, Any]] = [
        {**quiet, "x": x, "y": y, "fill": "toself", "fillcolor": colour} for x, y, colour in looks[-1]
    ]
    steps = [
        {
            "label": str(number),
            "method": "restyle",
            "args": [
                dict(zip(("x", "y", "fillcolor"), map(list, zip(*look, strict=True)), strict=True)),
                list(range(len(look))),
            ],
        }
        for number, look in zip(network.rounds, looks, strict=True)
    ]
    for role in dict.fromkeys(network.roles.values()):
        members = [i for i in network.roles if network.roles[i] == role]
        places = [network.place(i) for i in members]
        colour, _ = ROLES[role]
        data.append(
            {
                "type": "scatter",
                "mode": "markers+text",
                "name": role,
                "x": [x for x, _ in places],
                "y": [y for _, y in places],
                "text": [str(i) for i in members],
                "textfont": {"color": "white"},
                "marker": {"size": 28, "color": colour, "symbol": "circle" if role == "honest" else "square"},
                "hovertemplate": "agent %{text}",
            }
        )
    shades = [[k / 10, network.shade(network.largest * max(k, 1e-9) / 10)] for k in range(11)]
    bar = {"colorscale": shades, "cmin": 0, "cmax": network.largest, "showscale": True, "color": [0], "opacity": 0}
    bar["colorbar"] = {"title": {"text": "weight"}, "len": 0.6, "y": 0.4}
    hidden = {"hoverinfo": "skip", "showlegend": False}
    data.append({"type": "scatter", "mode": "markers", "x": [0], "y": [0], "marker": bar} | hidden)
    blank = {"visible": False, "range": [-1.2, 1.2]}
    axes = {"xaxis": blank, "yaxis": blank | {"scaleanchor": "x"}}
    slider = {"active": len(steps) - 1, "currentvalue": {"prefix": "round "}, "steps": steps}
    around = {"height": 600, "margin": {"t": 20, "b": 20, "l": 20, "r": 20}}
    return {"data": data, "layout": {**around, **axes, "sliders": [slider]}}
