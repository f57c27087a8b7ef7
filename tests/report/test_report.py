"""The report of a comparison: the same numbers in tables, pictures and a page that opens in a browser."""

import base64
import csv
import json
import os
import re
import shutil
import zlib
from collections import Counter
from html.parser import HTMLParser
from statistics import fmean

import pytest
from click.testing import CliRunner
from here import cells_here
from PIL import Image

from ross_flwr.cli import cli
from ross_flwr.config import ConfigError
from ross_flwr.report import png, tables
from ross_flwr.report.charts import Chart, Panel, Series, accuracy_of_agents, colours, curves, weights_over_time
from ross_flwr.report.interactive import plotly_chart, plotly_network
from ross_flwr.report.network import Network
from ross_flwr.report.report import of_chart, write_report
from ross_flwr.runs import compare
from ross_flwr.runs.cells import run_cells
from ross_flwr.runs.finished import Run, find_runs
from ross_flwr.runs.measures import ACCURACY

for each in ("matplotlib", "plotly"):
    pytest.importorskip(each, reason="needs the extra 'plots'")

PLAN = """
seeds = [0, 1]
[keys]
num-agents = 4
num-rounds = 4
evaluate-every = 2
hidden = 8
[methods.dpsgd]
[methods.ross]
[methods.lazy]
algorithm = "d2"
mixing = "lazy-metropolis"
[methods.d2]
[scenarios.clean]
attackers = 0
[scenarios.poisoned]
attackers = 1
[topologies.ring]
topology = "ring"
"""

CHARTS = ("agents", "time", "weights", *(f"curves-{axis}" for axis in tables.AXES))


def draw(chart, folder):
    return [png.draw(chart, axis, folder) for axis in chart.axes]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A comparison with its report."""
    root = tmp_path_factory.mktemp("comparison")
    (root / "plan.toml").write_text(PLAN)
    cells = compare.read_plan(str(root / "plan.toml"), {}).cells()
    with cells_here():
        list(run_cells(cells, root / "out", 1))
    done = CliRunner().invoke(cli, ["report", str(root / "out")], catch_exceptions=False)
    assert done.exit_code == 0
    assert "report.html" in done.output
    pictures = len(list((root / "out/report").glob("*.png")))
    for said in (f"{pictures} pictures\n", f"{pictures} of {pictures} done, last network"):
        assert f"drawing 12 runs: {said}" in done.output
    return root / "out"


def read(folder, name):
    return list(csv.DictReader((folder / "report" / f"{name}.csv").open()))


def lines_of(folder, row):
    path = folder / row["method"] / row["scenario"] / row["topology"] / row["seed"] / "history.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


class Page(HTMLParser):
    """What a page loads, and the texts of its scripts."""

    def __init__(self, text):
        super().__init__()
        self.loads, self.figures, self.scripts, self.metas, self.said = [], [], {}, {}, []
        self.script = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.loads += [found[name] for name in ("src", "href", "data", "action") if name in found]
        if tag == "script":
            self.script = found.get("id", "")
        if tag == "meta" and "name" in found:
            self.metas[found["name"]] = found["content"]
        if found.get("class") == "figure":
            self.figures.append(found["id"])
            self.said.append((found["role"], found["aria-label"]))

    def handle_data(self, data):
        if self.script is not None:
            self.scripts[self.script] = self.scripts.get(self.script, "") + data

    def handle_endtag(self, tag):
        self.script = None

    def unpacked(self, name):
        """A text that the page holds compressed."""
        return zlib.decompress(base64.a85decode(self.scripts[name].replace("v", "<"))).decode()


def figures_of(folder):
    return json.loads(Page((folder / "report.html").read_text()).unpacked("figures"))


def test_the_csv_files_hold_the_numbers_of_the_histories(folder):
    progress = read(folder, "progress")
    assert len(progress) == 2 * (3 * 2) * 2
    for row in progress:
        lines = lines_of(folder, row)[: int(row["rounds"])]
        assert float(row["accuracy"]) == lines[-1]["accuracy"]["mean"]
        assert float(row["loss"]) == lines[-1]["loss"]["mean"]
        assert float(row["consensus-distance"]) == lines[-1]["consensus-distance"]
        for cost in ("work", "bytes", "seconds"):
            assert float(row[cost]) == pytest.approx(sum(line[cost] for line in lines))
    for row in read(folder, "agents"):
        assert float(row["accuracy"]) == lines_of(folder, row)[-1]["agents"][row["agent"]]
    for row in read(folder, "edges"):
        weights = lines_of(folder, row)[int(row["rounds"]) - 1]["weights"][row["agent"]]
        assert float(row["weight"]) == weights.get(row["neighbour"], 0)
    for row in read(folder, "time"):
        seeds = [lines_of(folder, {**row, "seed": seed}) for seed in ("0", "1")]
        spent = fmean(line["time"]["gradients"] for lines in seeds for line in lines)
        assert float(row["gradients"]) == pytest.approx(spent) != 0


def test_the_weights_of_an_honest_agent_are_parted_by_who_its_neighbours_are(folder):
    rows = read(folder, "weights")
    roles = {(row["method"], row["seed"], row["agent"]): row["role"] for row in read(folder, "agents")}
    assert Counter(row["scenario"] for row in rows) == {"clean": 2 * 4 * 4, "poisoned": 2 * 3 * 4}
    for row in rows:
        parts = [float(row[kind]) for kind in ("own", "honest", "poisoned") if row[kind]]
        assert sum(parts) == pytest.approx(1, abs=1e-3)
        given = lines_of(folder, row)[int(row["rounds"]) - 1]["weights"][row["agent"]]
        poisoned = [
            given[j] for j in given if row["scenario"] == "poisoned" and roles["ross", row["seed"], j] != "honest"
        ]
        assert float(row["poisoned"] or 0) == pytest.approx(sum(poisoned))


def test_the_band_goes_from_the_lowest_to_the_highest_seed(folder):
    progress = read(folder, "progress")
    for row in read(folder, "curves"):
        place = [row[name] for name in ("scenario", "topology", "method", "rounds")]
        seeds = [each for each in progress if [each[k] for k in ("scenario", "topology", "method", "rounds")] == place]
        accuracies = [float(each["accuracy"]) for each in seeds]
        assert [float(row[f"accuracy{end}"]) for end in ("-min", "", "-max")] == [
            min(accuracies),
            fmean(accuracies),
            max(accuracies),
        ]
        assert float(row["bytes"]) == fmean(float(each["bytes"]) for each in seeds)


@pytest.fixture(scope="module")
def page(folder):
    return Page((folder / "report.html").read_text())


def test_every_picture_is_there_and_shows_something(folder):
    pictures = {path.stem: path for path in (folder / "report").glob("*.png")}
    for ending in ("svg", "pdf"):
        assert {path.stem for path in (folder / "report").glob(f"*.{ending}")} == pictures.keys()
    names = {
        name.replace("-", f"-{scenario}-", 1) if "curves" in name else f"{name}-{scenario}"
        for name in CHARTS
        for scenario in ("clean", "poisoned")
    }
    assert pictures.keys() == names | {f"network-{scenario}-ring-ross" for scenario in ("clean", "poisoned")}
    for path in pictures.values():
        with Image.open(path) as picture:
            assert len(picture.convert("RGB").getcolors(10**6)) > 30
            assert round(picture.info["dpi"][0]) == 300
            assert picture.info["Description"].startswith(picture.info["Title"])


def test_the_page_loads_nothing_and_its_figures_are_sound(folder, page):
    import plotly.graph_objects as go

    assert page.loads == []
    figures = figures_of(folder)
    assert list(figures) == page.figures
    assert len(figures) == 2 * 5
    for figure in figures.values():
        go.Figure(figure)  # refuses what Plotly does not know


def test_the_page_is_small_and_holds_all_of_plotly(folder, page):
    from plotly.offline import get_plotlyjs

    assert (folder / "report.html").stat().st_size < 2_000_000
    assert page.unpacked("library") == get_plotlyjs()


def test_the_page_is_for_phones_paper_the_dark_and_those_without_scripts_or_sight(folder, page):
    assert page.metas["viewport"] == "width=device-width, initial-scale=1"
    text = (folder / "report.html").read_text()
    assert "prefers-color-scheme: dark" in text
    assert text.count("<noscript>") == len(page.figures)
    files = re.findall(r"<noscript>.*? also (\S+) in the folder report", text)
    assert len(files) == len(page.figures)
    assert all((folder / "report" / file).is_file() for file in files)
    assert {role for role, _ in page.said} == {"img"}
    (said,) = (each for _, each in page.said if each.startswith("poisoned: accuracy"))
    row = [row for row in read(folder, "curves") if (row["scenario"], row["method"]) == ("poisoned", "ross")][-1]
    assert f"ross {float(row['accuracy']):.1%}" in said


def test_the_tables_for_latex_hold_the_texts_of_the_page(folder):
    text = (folder / "report" / "tables.tex").read_text()
    assert text.count(r"\begin{tabular}{lr}") == text.count(r"\end{tabular}") == 2
    assert text.count(r"\textbf{") == 2
    for row in read(folder, "accuracy"):
        shown = row["text"].replace("±", r"$\pm$").replace("▲", r"$\blacktriangle$")
        assert re.search(rf"{row['method']} & (\\textbf\{{)?{re.escape(shown)}", text)


def test_the_page_draws_the_numbers_of_the_tables(folder, page):
    (place,) = (k for k, (_, said) in enumerate(page.said) if said.startswith("poisoned: accuracy"))
    curves = figures_of(folder)[page.figures[place]]
    (line,) = (
        trace
        for trace in curves["data"]
        if trace["name"] == "ross" and trace["yaxis"] == "y" and trace.get("fill") is None
    )
    rows = [row for row in read(folder, "curves") if (row["scenario"], row["method"]) == ("poisoned", "ross")]
    assert line["y"] == [float(row["accuracy"]) for row in rows]
    (menu,) = curves["layout"]["updatemenus"]
    places = curves["data"].index(line)
    for button, axis in zip(menu["buttons"], tables.AXES, strict=True):
        assert button["args"][0]["x"][places] == [float(row[axis]) for row in rows]


def test_who_was_refused_is_told(folder):
    text = (folder / "report.html").read_text()
    assert "d2 on ring" in text
    assert re.search(r"<td>d2</td><td>refused</td>", text)
    assert [row["accuracy"] for row in read(folder, "accuracy") if row["method"] == "d2"] == ["", ""]


def cell(method, accuracies, scenario="s"):
    algorithm = method if method != "ours" else "ross"
    summary = {"algorithm": algorithm, "attackers": [], "corrupted": [], "classes": 10}
    return [
        Run(method, scenario, "ring", seed, {**summary, "accuracy": {"mean": accuracy}}, [])
        for seed, accuracy in enumerate(accuracies)
    ]


def test_ratios_to_the_best_and_to_the_mean_baseline():
    runs = [*cell("ours", [0.9, 0.8, 0.85]), *cell("a", [0.6, 0.51, 0.54]), *cell("b", [0.3, 0.9, 0.0])]
    found = {row["against"]: row for row in tables.ratios(runs)}
    assert list(found) == ["best baseline", "mean baseline"]
    assert found["best baseline"]["baseline"] == "a"
    assert found["best baseline"]["ratio"] == pytest.approx(0.85 / 0.55)
    assert found["mean baseline"]["ratio"] == pytest.approx(0.85 / 0.475)
    zero = tables.ratios([*cell("ours", [0.9, 0.8]), *cell("b", [0.0, 0.0])])
    assert [row["ratio"] for row in zero] == [None, None]
    assert tables.ratios(cell("a", [0.5])) == tables.ratios(cell("ours", [0.5])) == []


def test_the_page_and_its_csv_files_tell_what_is_significant_and_what_collapsed():
    runs = [*cell("ours", [0.9, 0.8, 0.85]), *cell("a", [0.6, 0.51, 0.54]), *cell("b", [0.3, 0.9, 0.0])]
    against_a, against_b = tables.differing(runs)
    assert (against_a["method"], against_a["against"], against_a["seeds"]) == ("ours", "a", 3)
    assert against_a["difference"] == pytest.approx(0.3)
    assert against_a["p-holm"] == 2 * against_a["p"] < 0.05
    assert against_b["p-holm"] == against_b["p"] > 0.05
    texts = [row["text"] for row in tables.accuracies(runs)]
    assert texts == ["85.0 ± 12.4 ▲", "55.0 ± 11.4", "40.0 ± 113.8 (1/3 collapsed)"]


def test_a_seed_that_diverged_breaks_the_line():
    place = {"scenario": "s", "topology": "ring", "method": "m", "rounds": 1, "work": 1, "bytes": 1, "seconds": 1}
    rows = [
        {**place, "seed": seed, "accuracy": 0.5, "loss": loss, "consensus-distance": 0.0}
        for seed, loss in enumerate((1.0, None))
    ]
    (row,) = tables.bands(rows)
    assert (row["accuracy"], row["loss"], row["loss-max"], row["seeds"]) == (0.5, None, None, 2)


def test_a_round_that_one_seed_did_not_test_breaks_the_line_in_its_place():
    place = {"scenario": "s", "topology": "ring", "method": "m", "work": 1, "bytes": 1, "seconds": 1, "loss": 1.0}
    tested = {0: (1, 3), 1: (1, 2, 3)}
    rows = [
        {**place, "seed": seed, "rounds": number, "accuracy": seed / 2, "consensus-distance": 1.0}
        for seed, numbers in tested.items()
        for number in numbers
    ]
    assert [(row["rounds"], row["accuracy"], row["seeds"]) for row in tables.bands(rows)] == [
        (1, 0.25, 2),
        (2, None, 1),
        (3, 0.25, 2),
    ]


def test_a_zero_is_drawn_as_a_zero():
    cost = dict.fromkeys(tables.AXES, 1)
    ends = {f"{name}{end}": 0.0 for name in tables.drawn(ACCURACY) for end in ("", "-min", "-max")}
    rows = [
        {"scenario": "s", "topology": "ring", "method": method, **cost, **values}
        for method, values in {"a": ends, "b": dict.fromkeys(ends, 2.0)}.items()
    ]
    (chart,) = curves(rows, colours({"a": "a", "b": "b"}))
    assert [[series.y for series in panel.series] for (panel,) in chart.grid] == [[[0.0], [2.0]]] * 3
    assert not any(panel.log for (panel,) in chart.grid)
    (chart,) = curves(rows[1:], colours({"b": "b"}))
    assert [panel.log for (panel,) in chart.grid] == [False, True, True]


def weighing(seed, *lines, edges=("0>1", "1>0", "2>0", "0>2", "2>1", "1>2", "0>3", "3>0")):
    """Return a run of ROSS whose agents gave these weights, by line; agent 2 attacks."""
    lines = [
        {"round": number, "sent": {edge: {} for edge in edges}, "missing": [], "absent": absent, "weights": weights}
        for number, (weights, absent) in enumerate(lines, start=1)
    ]
    return Run("ross", "s", "ring", seed, {"algorithm": "ross", "attackers": [2], "corrupted": []}, lines)


def test_agents_that_gave_poisoned_neighbours_nothing_count_in_the_mean():
    """Agents 0 and 1 have the attacker 2 and an honest neighbour, and agent 3 has the honest neighbour 0 alone."""
    runs = [
        weighing(
            0,
            ({"0": {"0": 0.1, "2": 0.9}, "1": {"0": 0.5, "1": 0.5}, "3": {"3": 1.0}}, []),
            ({"1": {"0": 1.0}, "2": {"2": 1.0}, "3": {"0": 0.2, "3": 0.8}}, []),  # agent 0 found nobody helpful
            ({"0": {"0": 1.0}, "3": {"3": 1.0}}, [1]),
        ),
        weighing(
            1,
            ({"0": {"1": 1.0}, "1": {"1": 0.7, "2": 0.3}, "3": {"3": 1.0}}, []),
            ({"0": {"0": None, "2": None}, "1": {"1": 1.0}, "3": {"3": 1.0}}, []),
            ({"0": {"0": 1.0}, "1": {"1": 0.4, "2": 0.6}, "3": {"3": 1.0}}, []),
        ),
    ]
    rows = tables.weights(runs)
    found = {(row["seed"], row["rounds"], row["agent"]): (row["own"], row["honest"], row["poisoned"]) for row in rows}
    assert found[0, 1, 0] == (0.1, 0.0, 0.9)
    assert found[0, 1, 3] == (1.0, 0.0, None)  # it has no poisoned neighbour
    assert found[0, 2, 0] == (0.0, 0.0, 0.0)
    assert (0, 3, 1) not in found
    assert found[1, 2, 0] == (None, 0.0, None)  # its weight of agent 2 was not finite
    (chart,) = weights_over_time(rows)
    means = {series.name: series.y for series in chart.grid[0][0].series if series.name.endswith("mean")}
    assert means["to poisoned neighbours, mean"] == [pytest.approx(1.2 / 4), None, pytest.approx(0.6 / 3)]
    # Round 1: agents 0, 1, 3 of seed 0 gave 0, .5, 0, and of seed 1: 1, 0, 0. Round 2: 0, 1, .2, 0, 0, 0.
    assert means["to honest neighbours, mean"] == [pytest.approx(1.5 / 6), pytest.approx(1.2 / 6), 0]
    halves = {
        (row["rounds"], row["agent"], row["neighbour"]): row["weight"] for row in tables.edges(runs) if row["agent"] < 2
    }
    assert [halves[t, 0, 2] for t in (1, 2, 3)] == [0.9, 0.0, 0.0]
    assert [halves[t, 1, 0] for t in (1, 2, 3)] == [0.5, 1.0, None]  # agent 1 was absent in round 3


def test_weights_of_a_long_run_are_drawn_as_means_over_spans_of_rounds():
    """Agents 0 and 1 take turns in giving the attacker 1; round 8 is not finite."""
    lines = [({"0": {"2": float(t % 2)}, "1": {"2": float(t % 2 == 0)}, "3": {"3": 1.0}}, []) for t in range(1, 13)]
    lines[7][0]["1"]["2"] = None
    (chart,) = weights_over_time(tables.weights([weighing(0, *lines)]))
    (panel,) = chart.grid[0]
    agent, _, mean = (series for series in panel.series if "poisoned" in series.name)
    assert panel.y_title.endswith("mean of 5 rounds")
    assert (agent.x, agent.y) == ({"rounds": [3, 8, 11.5]}, [0.6, 0.4, 0.5])
    assert mean.y == [0.5, None, 0.5]


def test_an_axis_of_weights_shows_what_is_usual_and_says_what_lies_beyond_it(tmp_path, monkeypatch):
    lines = [({"0": {"2": 0.5, "1": 0.5}, "1": {"0": 0.5}, "3": {"0": 0.5}}, []) for _ in range(5)]
    (chart,) = weights_over_time(tables.weights([weighing(0, *lines)]))
    ((shares,),) = chart.grid
    assert (shares.title, shares.top, shares.y_title) == ("ross, ring", None, "weight (share of 1)")
    lines[3][0]["0"]["2"] = 30.0
    (chart,) = weights_over_time(tables.weights([weighing(0, *lines)]))
    ((factors,),) = chart.grid
    assert (factors.title, factors.y_title) == ("ross, ring\nup to 30, above the axis", "weight (factor)")
    assert plotly_chart(chart)["layout"]["yaxis"]["autorangeoptions"] == {"clipmax": factors.top}
    figures = []
    monkeypatch.setattr(png, "save", lambda figure, *_: figures.append(figure))
    draw(chart, tmp_path)
    assert figures[0].axes[0].get_ylim() == (pytest.approx(-factors.top / 25), factors.top)
    assert 0.5 < factors.top < 3


@pytest.mark.parametrize("axis", ["work", "bytes"])
def test_large_numbers_on_an_axis_have_a_prefix_and_no_multiplier_in_a_corner(tmp_path, monkeypatch, axis):
    line = Series("m", {axis: [0, 1e8, 2e8]}, [0.0, 2e6, 4e6], "#000000")
    chart = Chart("s", "curves-s", "title", "", [[Panel("ring", "loss", [line])]], {axis: tables.AXES[axis]})
    figures = []
    monkeypatch.setattr(png, "save", lambda figure, *_: figures.append(figure))
    draw(chart, tmp_path)
    figures[0].draw_without_rendering()
    for drawn, label in ((figures[0].axes[0].xaxis, "100 M"), (figures[0].axes[0].yaxis, "2 M")):
        assert label in [tick.get_text() for tick in drawn.get_ticklabels()]
        assert drawn.get_offset_text().get_text() == ""


def test_a_panel_without_a_value_is_drawn(tmp_path, monkeypatch):
    chart = Chart(
        "s", "c", "title", "", [[Panel("", "", [Series("m", {"rounds": [1]}, [None], "#000000")])]], {"rounds": ""}
    )
    monkeypatch.setattr(png, "save", lambda figure, *_: figure)
    ((low, _),) = (axes.get_ylim() for axes in draw(chart, tmp_path)[0].axes)
    assert low <= 0


def test_twelve_variants_of_ross_and_twenty_four_others_are_told_apart():
    methods = {f"ross {k}": "ross" for k in range(12)} | {f"other {k}": f"other {k}" for k in range(24)}
    found = colours(methods)
    assert found["ross 0"] == ("#000000", "solid", "circle")
    assert len({(colour, dash) for colour, dash, _ in found.values()}) == 36
    assert len({symbol for _, _, symbol in list(found.values())[:8]}) == 8  # also without colours


def test_a_legend_of_long_names_leaves_the_title_of_a_picture_free(tmp_path, monkeypatch):
    line = Series("to poisoned neighbours, mean", {"rounds": [0, 1]}, [0, 1], "#000000")
    title = "gradient-scaling: weight given to honest and to poisoned neighbours"
    chart = Chart("", "weights", title, "", [[Panel("", "", [line])]], {"rounds": "rounds"})
    figures = []
    monkeypatch.setattr(png, "save", lambda figure, *_: figures.append(figure))
    draw(chart, tmp_path)
    figures[0].draw_without_rendering()
    assert not figures[0]._suptitle.get_window_extent().overlaps(figures[0].legends[0].get_window_extent())


def test_two_tests_are_points_and_no_line():
    lines = [
        Series(str(len(y)), {"rounds": list(range(len(y)))}, y, "#000000", symbol="square")
        for y in ([0.1, 0.2], [0.0, None, 0.2, None], [0.1, 0.2, 0.3])
    ]
    chart = Chart("s", "curves-s", "title", "", [[Panel("ring", "loss", lines)]], {"rounds": "rounds"})
    assert [trace["mode"] for trace in plotly_chart(chart)["data"]] == ["markers", "markers", "lines+markers"]


def test_every_axis_of_a_report_has_a_unit(folder):
    for figure in figures_of(folder).values():
        titles = [
            axis["title"]["text"] for name, axis in figure["layout"].items() if "axis" in name and "title" in axis
        ]
        assert all("(" in title or title in ("rounds", "") for title in titles), titles


def test_what_an_agent_gave_reaches_the_neighbour_and_is_widest_at_the_agent():
    roles, pairs = {0: "honest", 1: "honest"}, [(0, 1), (1, 0)]
    network = Network("s", "network", "n", roles, [1, 2, 3], pairs, [[0.0, None], [1.0, 0.5], [0.5, 1.0]])
    first, *_ = steps = [look["args"][0] for look in plotly_network(network)["layout"]["sliders"][0]["steps"]]
    nobody, zero = sorted(first["y"])  # agent 0, at the top, gave 0, and agent 1, at the bottom, did not report
    assert (nobody, zero) == ([], [1, -1, 1])
    for look in steps[1:]:  # the wider one lies above the other
        assert [abs(x[0] - x[2]) for x in look["x"]] == pytest.approx([0.062, 0.11])
    assert [[y[1] for y in look["y"]] for look in steps[1:]] == [[1, -1], [-1, 1]]


def test_a_band_is_drawn_in_unbroken_parts():
    band = {"y": [2, None, 4, 5], "low": [1, None, 3, 4], "high": [3, None, 5, 6]}
    series = Series("m", {"rounds": [10, 20, 30, 40]}, colour="#000000", **band)
    chart = Chart("s", "curves-s", "title", "", [[Panel("ring", "loss", [series])]], {"rounds": "rounds"})
    area, line = plotly_chart(chart)["data"]
    assert list(zip(area["x"], area["y"], strict=True)) == [
        (10, 3),
        (10, 1),
        (20, None),
        (20, None),
        (30, 5),
        (40, 6),
        (40, 4),
        (30, 3),
    ]
    assert line["y"] == [2, None, 4, 5]


def test_a_long_run_is_shown_in_forty_rounds_with_the_first_and_the_last():
    lines = [
        {"round": t, "sent": {"0>1": {}}, "missing": [], "absent": [], "weights": {"1": {"0": t / 100}}}
        for t in range(1, 101)
    ]
    summary = {"algorithm": "ross", "attackers": [0], "corrupted": []}
    rows = tables.edges([Run("ross", "s", "ring", 0, summary, lines), Run("ross", "s", "ring", 1, summary, lines)])
    assert (len(rows), rows[0]["rounds"], rows[-1]["rounds"], rows[-1]["weight"]) == (40, 1, 100, 1.0)
    assert {(row["seed"], row["agent"], row["neighbour"], row["role"]) for row in rows} == {(0, 1, 0, "honest")}


def test_a_single_run_and_the_one_beside_it_have_a_report(tmp_path):
    keys = ["algorithm=ross", "beside=decor", "num-rounds=2", "num-agents=4", "attackers=1", "topology=ring"]
    words = [word for key in keys for word in ("-c", key)]
    CliRunner().invoke(cli, ["run", *words, "--out", str(tmp_path / "one")], catch_exceptions=False)
    write_report(tmp_path / "one")
    rows = read(tmp_path / "one", "accuracy")
    assert [(row["method"], row["scenario"], row["topology"]) for row in rows] == [
        ("ross", "gradient-scaling", "ring"),
        ("decor", "gradient-scaling", "ring"),
    ]
    summary = json.loads((tmp_path / "one" / "decor" / "summary.json").read_text())
    assert float(rows[1]["accuracy"]) == summary["accuracy"]["mean"]
    assert find_runs(tmp_path / "one")[0].poisoned == set(summary["attackers"])
    hidden = read(tmp_path / "one", "privacy")  # 3 honest agents, from 4
    assert [(row["method"], row["agent"]) for row in hidden] == [
        ("decor", str(i)) for i in range(4) for _ in range(4) if i not in summary["attackers"]
    ]
    assert float(hidden[1]["epsilon"] or hidden[0]["epsilon"]) > summary["privacy"]["epsilon"]
    text = (tmp_path / "one" / "report.html").read_text(encoding="utf-8")
    assert "Privacy of decor: ε = 10 at δ = 1e-05" in text
    assert "ε between agents in decor, seed 0. Agent" in text


def test_a_folder_without_a_finished_run_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds no finished run"):
        write_report(tmp_path)
    with pytest.raises(ConfigError, match="holds no finished run"):
        write_report(tmp_path / "nowhere")


BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome-headless-shell", "chrome")
BROWSER = os.environ.get("CHROME") or next(filter(None, map(shutil.which, BROWSERS)), None)


@pytest.mark.skipif(not BROWSER, reason="needs a Chromium on the PATH or in CHROME")
def test_the_page_opens_in_a_browser_and_its_slider_moves(folder):
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER)
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        said, asked = [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        uri = (folder / "report.html").as_uri()
        page.goto(uri)
        figures = page.locator(".figure")
        for k in range(figures.count()):
            figures.nth(k).scroll_into_view_if_needed()
            figures.nth(k).locator(".main-svg").first.wait_for()
        curves, network = figures.nth(5), figures.nth(9)

        curves.locator(".updatemenu-button", has_text="sent (bytes)").click()
        title = curves.evaluate("div => div.layout.xaxis3.title.text")
        costs = curves.evaluate("div => div.data.filter(each => each.name == 'ross' && !each.fill)[0].x")

        def wedges():
            return network.locator(".scatterlayer .js-fill").evaluate_all(
                "all => all.map(each => each.getAttribute('d') + each.style.fill)"
            )

        network.scroll_into_view_if_needed()
        before = wedges()
        rail = network.locator(".slider-rail-touch-rect").bounding_box()
        page.mouse.click(rail["x"] + 5, rail["y"] + rail["height"] / 2)
        network.get_by_text("round 1", exact=True).wait_for()
        after = wedges()
        phone = browser.new_page(viewport={"width": 420, "height": 800})
        phone.goto(uri)
        phone.wait_for_function("figures !== undefined")
        wide = phone.evaluate("document.documentElement.scrollWidth")
        phone.evaluate("dispatchEvent(new Event('beforeprint'))")
        printed = phone.locator(".figure:has(.main-svg)").count()
        browser.close()
    assert said == []
    assert asked == [uri]
    assert title == "sent (bytes)"
    assert (wide, printed) == (420, 10)
    rows = [row for row in read(folder, "curves") if (row["scenario"], row["method"]) == ("poisoned", "ross")]
    assert costs == [float(row["bytes"]) for row in rows]
    assert len(before) == 8
    assert before != after


def test_a_report_is_not_written_through_a_link(folder, tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(png, "FORMATS", {"svg": png.FORMATS["svg"]})
    copy = shutil.copytree(folder, tmp_path / "results", ignore=shutil.ignore_patterns("poisoned", "*-poisoned-*"))
    outside = tmp_path / "outside"
    outside.write_text("precious")
    for file in (copy / "report.html", *(copy / "report").iterdir()):
        file.unlink()
        file.symlink_to(outside)
    write_report(copy)
    assert outside.read_text() == "precious"
    shutil.rmtree(copy / "report")
    (copy / "report").symlink_to(tmp_path)
    with pytest.raises(ConfigError, match="report is a link"):
        write_report(copy)


def test_a_figure_of_many_methods_is_wide_enough_to_read_them_and_scrolls_on_a_phone():
    rows = [
        {
            "scenario": "s",
            "topology": "ring",
            "method": f"m{k}",
            "seed": 0,
            "agent": 0,
            "role": "honest",
            "accuracy": 1.0,
        }
        for k in range(16)
    ]
    (chart,) = accuracy_of_agents(rows)
    assert 'style="height:330px;min-width:720px"' in of_chart(chart).html("figure-0")
