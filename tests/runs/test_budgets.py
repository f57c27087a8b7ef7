"""Equal budgets: how long a cell runs, where it is read, and that each table is read there."""

import csv
import json
from dataclasses import replace

import pytest
from click.testing import CliRunner
from here import cells_here

from ross_flwr.cli import cli
from ross_flwr.config import ConfigError
from ross_flwr.report.page import result_table
from ross_flwr.report.table import short
from ross_flwr.report.tables import accuracies
from ross_flwr.runs import budgets, compare
from ross_flwr.runs.finished import by_budget, find_runs
from ross_flwr.runs.history import History
from ross_flwr.runs.local import LocalRun

B, Q, ROUNDS = 16, 30, 3
PLAN = f"""
seeds = [5]
[keys]
num-agents = 4
batch-size = {B}
validation-size = {Q}
test-size = 100
hidden = 8
too-few = "top-up"
[budget]
method = "ross"
rounds = {ROUNDS}
[methods.ross]
[methods.dfedavgm]
local-steps = 3
[methods.isolated]
[methods.d2]
[scenarios.poisoned]
attackers = 1
[topologies.ring]
topology = "ring"
"""
WORK = {"ross": 3 * B + 8 * Q / 3, "dfedavgm": 3 * B, "isolated": B}
READ = {
    "ross": {"rounds": 3, "work": 3, "bytes": 3},
    "dfedavgm": {
        "rounds": 3,
        "work": 8,
        "bytes": 12,
    },  # of 128 example passes it takes 48, and of four vectors it sends one
    "isolated": {"rounds": 3, "work": 24, "bytes": 24},  # it sends nothing, and is read at its end
}


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("budgets")
    (folder / "plan.toml").write_text(PLAN)
    command = ["compare", str(folder / "plan.toml"), "--out", str(folder / "out"), "--jobs", "1"]
    with cells_here():
        done = CliRunner().invoke(cli, command, catch_exceptions=False)
    assert done.exit_code == 0
    (folder / "said").write_text(done.output)
    return folder / "out"


@pytest.fixture
def plan(tmp_path):
    (tmp_path / "plan.toml").write_text(PLAN)
    return compare.read_plan(str(tmp_path / "plan.toml"), {})


def rows_of(out):
    return {(row["method"], row["budget"]): row for row in csv.DictReader((out / "cells.csv").open())}


def test_a_method_is_read_where_it_has_spent_what_the_reference_spends_in_a_clean_run(out):
    told = json.loads((out / "budgets.json").read_text())
    assert (told["method"], told["rounds"], set(told["methods"])) == ("ross", ROUNDS, set(READ))
    for method, read in READ.items():
        entry = told["methods"][method]["ring"]
        assert entry["read-at"] == read
        assert entry["work"] == pytest.approx(WORK[method])
        sent = {budget: int(rows_of(out)[method, budget]["rounds"]) for budget in read}
        assert sent == read
    sent = {method: told["methods"][method]["ring"]["bytes"] for method in READ}
    assert sent["ross"] == 4 * sent["dfedavgm"] > sent["isolated"] == 0
    assert "mixing matrix" in rows_of(out)["d2", "work"]["refused"]


def test_every_table_comes_from_the_one_run_of_a_cell_tested_where_it_is_read(out, plan):
    cells = budgets.sized(plan.cells(), plan.budget, out)
    for cell in cells[:3]:
        alone = LocalRun(cell.config)
        lines = list(alone.rounds())
        method, reads = cell.place[0], READ[cell.place[0]]
        assert len(lines) == max(reads.values())
        for budget, last in reads.items():
            row = rows_of(out)[method, budget]
            assert float(row["accuracy"]) == lines[last - 1]["accuracy"]["mean"]
            for kind in ("work", "bytes"):
                assert float(row[kind]) == pytest.approx(sum(line[kind] for line in lines[:last]))
        assert sum(line["accuracy"] is not None for line in lines) <= budgets.TESTS + 3


def test_there_is_a_table_for_each_budget(out):
    text = (out / "table.md").read_text()
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "## equal rounds",
        "## equal work",
        "## equal bytes",
    ]
    assert text.count("| isolated |") == 3
    said = (out.parent / "said").read_text()
    assert all(f" equal {kind} " in said for kind in ("rounds", "work", "bytes"))


def test_the_report_reads_runs_where_the_tables_do(out):
    for budget, read in by_budget(find_runs(out)).items():
        rows = {row["method"]: row for row in accuracies(read)}
        for method in READ:
            row = rows_of(out)[method, budget.removeprefix("equal ")]
            assert rows[method]["accuracy"] == float(row["accuracy"])
            assert (rows[method]["work"], rows[method]["bytes"]) == (float(row["work"]), float(row["bytes"]))
        shown = result_table(rows.values(), [], budget=budget)
        assert f"<h3>{budget}</h3>" in shown
        passes = 4 * B * READ["isolated"][budget.removeprefix("equal ")]
        assert f"<small>{short(passes).strip()} passes, 0 B</small>" in shown
        assert rows["d2"]["text"] == "refused"
        assert rows["d2"]["work"] is None


def test_the_reference_stays_in_every_part_of_a_plan_and_the_quick_form_has_no_budget(plan):
    assert list(plan.only(methods="d2").methods) == ["ross", "d2"]
    assert plan.quick().budget is None
    assert {cell.budget for cell in plan.quick().cells()} == {""}


def test_num_rounds_on_the_command_line_is_how_long_the_reference_runs(tmp_path):
    (tmp_path / "plan.toml").write_text(PLAN)
    assert compare.read_plan(str(tmp_path / "plan.toml"), {"num-rounds": 9}).budget == compare.Budget("ross", 9)


def test_a_reference_that_cannot_run_is_refused(plan, out):
    with pytest.raises(ConfigError, match="cannot run on topology ring: algorithm = 'd2' takes a mixing matrix"):
        budgets.sized(plan.cells(), compare.Budget("d2", 3), out)


def test_costs_are_means_over_the_seeds(plan, tmp_path):
    cells = replace(plan, seeds=(1, 2)).only(methods="dfedavgm").cells()
    spent = {("ross", "1"): 100, ("ross", "2"): 300, ("dfedavgm", "1"): 50, ("dfedavgm", "2"): 50}
    for probe in budgets.probes(cells, plan.budget):
        _, method, _, _, seed = probe.place
        nothing = {**History(4).summary(), "algorithm": method, "topology": "ring"}
        probe.folder(tmp_path).write_summary({**nothing, "work": spent[method, seed], "bytes": 1})
    reads = {cell.place[0]: cell.reads["work"] for cell in budgets.sized(cells, plan.budget, tmp_path)}
    assert reads == {"ross": 3, "dfedavgm": 12}


@pytest.mark.parametrize("wrong", ['method = "rose"\nrounds = 3', 'method = "ross"', 'method = "ross"\nround = 3'])
def test_a_wrong_budget_is_refused(wrong, tmp_path):
    (tmp_path / "plan.toml").write_text(PLAN.replace(f'method = "ross"\nrounds = {ROUNDS}', wrong))
    with pytest.raises(ConfigError, match=r"has a wrong \[budget\]: it takes method, one of ross, dfedavgm, .* and ro"):
        compare.read_plan(str(tmp_path / "plan.toml"), {})


@cells_here()
def test_a_method_whose_costs_cannot_be_measured_is_told_as_failed_and_the_others_are_tabulated(tmp_path):
    (tmp_path / "plan.toml").write_text(
        """
seeds = [5]
keys = { num-agents = 4, batch-size = 16, validation-size = 30, hidden = 8, attackers = 0 }
budget = { method = "isolated", rounds = 2 }
topologies = { ring = { topology = "ring" } }
scenarios = { clean = {} }
methods = { isolated = {}, large = { algorithm = "isolated", batch-size = 400 } }
"""
    )
    command = ["compare", str(tmp_path / "plan.toml"), "--out", str(tmp_path / "out"), "--jobs", "1"]
    done = CliRunner().invoke(cli, command)
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception).startswith("large/clean/ring/5 cannot run: num-agents = 4 with batch-size = 400")
    rows = rows_of(tmp_path / "out")
    assert float(rows["isolated", "work"]["accuracy"]) > 0
    assert "batch-size = 400" in rows["large", "work"]["failed"]
    assert set(json.loads((tmp_path / "out" / "budgets.json").read_text())["methods"]) == {"isolated"}

    (tmp_path / "plan.toml").write_text(
        (tmp_path / "plan.toml").read_text().replace("batch-size = 16", "batch-size = 400")
    )
    done = CliRunner().invoke(cli, [*command[:-3], str(tmp_path / "other"), "--jobs", "1"])
    assert "the method of [budget] cannot run on topology ring: num-agents = 4 with batch-size" in str(done.exception)
