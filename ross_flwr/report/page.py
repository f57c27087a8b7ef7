"""The report as one self-contained HTML page."""

import base64
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from ross_flwr.extras import import_extra
from ross_flwr.report.table import short
from ross_flwr.report.tables import Row

__all__ = ["Figure", "page", "result_table"]

STYLE = """
:root { color-scheme: light dark; --ink: #222; --quiet: #555; --line: #ccc; --shade: #f4f4f4; --page: #fff }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1500px; margin: 2em auto; padding: 0 1em;
  color: var(--ink); background: var(--page) }
h2 { margin-top: 2.5em; border-bottom: 1px solid var(--line) } h3 { margin: 2em 0 .3em }
table { border-collapse: collapse } th, td { padding: .15em .9em; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left } thead { border-bottom: 1px solid var(--line) }
tr.ratio td { background: var(--shade) } small, figcaption { color: var(--quiet) }
p, figcaption { margin: .3em 0; max-width: 65em } figure { margin: 0 } .wide { overflow-x: auto }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #ddd; --quiet: #aaa; --line: #555; --shade: #2a2a2a; --page: #191919 }
  .figure { filter: invert(.9) hue-rotate(180deg) }
}
@media print {
  body { margin: 0; padding: 0; max-width: none } figure, tr { break-inside: avoid } h3 { break-after: avoid }
}
"""

DRAW = """
async function unpack(id) {
  const element = document.getElementById(id), text = element.textContent.replaceAll("z", "!!!!!");
  const view = new DataView(new ArrayBuffer(text.length / 5 * 4));
  for (let i = 0; i < text.length; i += 5) {
    let group = 0;
    for (let k = i; k < i + 5; k++) group = group * 85 + (text[k] == "v" ? 60 : text.charCodeAt(k)) - 33;
    view.setUint32(i / 5 * 4, group);
  }
  const packed = new Blob([new Uint8Array(view.buffer, 0, element.dataset.size)]);
  return new Response(packed.stream().pipeThrough(new DecompressionStream("deflate"))).text();
}
const all = [...document.querySelectorAll(".figure")], drawn = new Set();
let figures;
function draw(each) {
  if (!figures || drawn.has(each)) return;
  drawn.add(each);
  const {data, layout} = figures[each.id];
  if (each.clientWidth < 700) {
    layout.legend = {...layout.legend, orientation: "h", yref: "container", y: 0, yanchor: "bottom"};
    for (const menu of layout.updatemenus ?? []) menu.type = "dropdown";
  }
  Plotly.newPlot(each, data, layout, {responsive: true, displaylogo: false});
}
const near = new IntersectionObserver(
  entries => entries.filter(each => each.isIntersecting).forEach(each => draw(each.target)), {rootMargin: "800px"});
Promise.all([unpack("library"), unpack("figures")]).then(([library, text]) => {
  (0, eval)(library);
  figures = JSON.parse(text);
  all.forEach(each => near.observe(each));
});
addEventListener("beforeprint", () => all.forEach(each => {
  draw(each);
  const width = Math.max(680, parseInt(each.style.minWidth));
  each.style.zoom = 680 / width;
  Plotly.relayout(each, {width});
}));
addEventListener("afterprint", () => all.forEach(each => {
  each.style.zoom = "";
  Plotly.relayout(each, {width: null, autosize: true});
}));
"""


@dataclass(frozen=True)
class Figure:
    """A figure on the page.

    Attributes
    ----------
    title, caption, alt : str
        Its heading, what it shows, and what is seen on it in words.
    file : str
        The name of its pictures, without an ending.
    drawn : mapping
        Plotly's JSON.
    width : int
        Of how many pixels its panels need at least; a narrower screen scrolls.
    """

    title: str
    caption: str
    alt: str
    file: str
    drawn: Mapping[str, Any]
    width: int = 340

    def html(self, name: str) -> str:
        """Return its place on the page, which `name` tells from others."""
        size = f"height:{self.drawn['layout']['height']}px;min-width:{max(340, self.width)}px"
        without = f"This page draws its figures with JavaScript. This one is also {self.file}.png in the folder report."
        place = f'id="{name}" role="img" aria-label="{escape(self.alt)}" style="{size}"'
        return (
            f'<h3>{escape(self.title)}</h3><figure><div class="wide"><div class="figure" {place}>'
            f"<noscript>{escape(without)}</noscript></div></div><figcaption>{escape(self.caption)}</figcaption></figure>"
        )


def page(title: str, about: Sequence[str], sections: Mapping[str, Sequence[Figure]], tables: Mapping[str, str]) -> str:
    """Return the page.

    Parameters
    ----------
    title : str
        Its heading.
    about : sequence of str
        Sentences below it.
    sections : mapping
        By scenario, its figures.
    tables : mapping
        By scenario, what `result_table` returned.
    """
    library = import_extra("plotly.offline", "plots").get_plotlyjs()
    figures: dict[str, Any] = {}
    body = [f"<h1>{escape(title)}</h1>", *(f"<p>{escape(each)}</p>" for each in about)]
    for scenario, found in sections.items():
        body += [f"<h2>{escape(scenario)}</h2>", f'<div class="wide">{tables[scenario]}</div>']
        for figure in found:
            name = f"figure-{len(figures)}"
            figures[name] = figure.drawn
            body.append(figure.html(name))
    data = json.dumps(figures, separators=(",", ":"), allow_nan=False)
    return "\n".join(
        [
            f'<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{escape(title)}</title>',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<style>{STYLE}</style></head>\n<body>",
            *body,
            packed("library", library),
            packed("figures", data),
            f"<script>{DRAW}</script>\n</body></html>\n",
        ]
    )


def packed(name: str, text: str) -> str:
    """Return an element of the page that holds a compressed text, which DRAW unpacks: Plotly alone would be 4.8 MB.

    The letters are those of Ascii85, with a v for the one letter that has a meaning in HTML.
    """
    compressed = zlib.compress(text.encode(), 9)
    letters = base64.a85encode(compressed, pad=True).replace(b"<", b"v").decode()
    return f'<script type="text/plain" id="{name}" data-size="{len(compressed)}">{letters}</script>'


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
