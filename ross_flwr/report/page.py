"""The report as one self-contained HTML page."""

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from ross_flwr.extras import import_extra
from ross_flwr.report.table import short
from ross_flwr.report.tables import Row

__all__ = ["page", "result_table"]

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1500px; margin: 2em auto; padding: 0 1em; color: #222 }
h2 { margin-top: 2.5em; border-bottom: 1px solid #ccc }
table { border-collapse: collapse } th, td { padding: .15em .9em; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left } thead { border-bottom: 1px solid #999 }
tr.ratio td { background: #f4f4f4 } small { color: #777 } p { margin: .3em 0; max-width: 65em } .caption { color: #555 }
"""

DRAW = """
const figures = JSON.parse(document.getElementById("figures").textContent);
const near = new IntersectionObserver(entries => {
  for (const entry of entries.filter(each => each.isIntersecting)) {
    near.unobserve(entry.target);
    const figure = figures[entry.target.id];
    Plotly.newPlot(entry.target, figure.data, figure.layout, {responsive: true, displaylogo: false});
  }
}, {rootMargin: "800px"});
document.querySelectorAll(".figure").forEach(each => near.observe(each));
"""


def page(
    title: str,
    about: Sequence[str],
    sections: Mapping[str, Sequence[tuple[str, Mapping[str, Any]]]],
    tables: Mapping[str, str],
) -> str:
    """Return the page.

    Parameters
    ----------
    title : str
        Its heading.
    about : sequence of str
        Sentences below it.
    sections : mapping
        By scenario, its figures: caption, and Plotly's JSON.
    tables : mapping
        By scenario, what `result_table` returned.
    """
    library = import_extra("plotly.offline", "plots").get_plotlyjs()
    figures: dict[str, Any] = {}
    body = [f"<h1>{escape(title)}</h1>", *(f"<p>{escape(each)}</p>" for each in about)]
    for scenario, drawn in sections.items():
        body += [f"<h2>{escape(scenario)}</h2>", tables[scenario]]
        for caption, figure in drawn:
            name = f"figure-{len(figures)}"
            figures[name] = figure
            height = figure["layout"]["height"]
            body.append(f'<div class="figure" id="{name}" style="height:{height}px"></div>')
            body.append(f'<p class="caption">{escape(caption)}</p>')
    data = json.dumps(figures, separators=(",", ":"), allow_nan=False).replace("</", "<\\/")
    return "\n".join(
        [
            f'<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{escape(title)}</title>',
            f"<style>{STYLE}</style>\n<script>{library}</script></head>\n<body>",
            *body,
            f'<script type="application/json" id="figures">{data}</script>',
            f"<script>{DRAW}</script>\n</body></html>\n",
        ]
    )


def result_table(accuracies: Iterable[Row], ratios: Sequence[Row], *, budget: str = "") -> str:
    """Return the HTML table of a scenario: methods by topologies, and ours over the baselines.

    Below each accuracy stand the work and the bytes of a run, above the table the `budget` at which runs are read.
    """
    texts = {(row["method"], row["topology"]): _shown(row) for row in accuracies}
    topologies, methods = (list(dict.fromkeys(key[k] for key in texts)) for k in (1, 0))
    found = {(row["method"], row["topology"], row["against"]): row for row in ratios}
    rows = [f"<tr><th>{'</th><th>'.join(map(escape, ['method', *topologies]))}</th></tr></thead><tbody>"]
    rows += [_row(method, [texts.get((method, topology), "–") for topology in topologies]) for method in methods]
    for method in dict.fromkeys(row["method"] for row in ratios):
        for against in ("best baseline", "mean baseline"):
            shown = [escape(_ratio(found.get((method, topology, against)))) for topology in topologies]
            rows.append(_row(f"{method} / {against}", shown, "ratio"))
    heading = f"<h3>{escape(budget)}</h3>" if budget else ""
    return f"{heading}<table><thead>{''.join(rows)}</tbody></table>"


def _row(name: str, texts: Sequence[str], kind: str = "") -> str:
    return f'<tr class="{kind}"><td>{"</td><td>".join([escape(name), *texts])}</td></tr>'


def _shown(row: Row) -> str:
    """Return the accuracy, and what it cost, as HTML."""
    if row["work"] is None:
        return escape(row["text"])
    return f"{escape(row['text'])}<br><small>{short(row['work']).strip()} passes, {short(row['bytes'])}B</small>"


def _ratio(row: Row | None) -> str:
    if row is None or row["ratio"] is None:
        return "–"
    return f"{row['ratio']:.2f}" + (f" ({row['baseline']})" if row["baseline"] else "")
