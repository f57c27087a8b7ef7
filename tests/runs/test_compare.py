"""Comparisons: what runs, what runs again, and what is told of it."""

import csv
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from logging import getLogger
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner
from deployed import until
from here import cells_here

from ross_flwr.cli import cli
from ross_flwr.config import ConfigError, resolve
from ross_flwr.data import PARTITIONS, SOURCES, TABLES, TEXTS
from ross_flwr.report.comparison import write_markdown
from ross_flwr.runs import compare
from ross_flwr.runs.assemble import assemble
from ross_flwr.runs.cells import run_cells
from ross_flwr.runs.finished import find_runs
from ross_flwr.runs.local import LocalRun

SMALL = """
seeds = [0, 1]
[keys]
num-agents = 4
num-rounds = 3
evaluate-every = 3
[tuning]
seeds = [7, 8]
scenarios = ["clean"]
configurations = 2
rounds = 3
[tuning.grid]
learning-rate = [0.001, 0.1]
[methods.dpsgd]
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


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return str(path)


def run(cells, root, jobs=2):
    return [cell.place for cell in run_cells(cells, root, jobs)]


def test_a_plan_is_every_combination_with_the_keys_of_its_place(file):
    plan = compare.read_plan(file, {"hidden": 16})
    cells = {cell.place: cell.config for cell in plan.cells()}
    assert len(cells) == 3 * 2 * 1 * 2
    config = cells["lazy", "poisoned", "ring", "1"]
    wanted = {"algorithm": "d2", "mixing": "lazy-metropolis", "attackers": 1, "seed": 1, "hidden": 16}
    wanted |= {"num-agents": 4, "num-rounds": 3, "evaluate-every": 3, "topology": "ring"}
    assert config == resolve(wanted)
    assert len(plan.quick().cells()) == 6


@cells_here()
def test_what_is_done_is_not_run_again_what_stopped_goes_on_and_what_cannot_run_says_why(file, tmp_path):
    root = tmp_path / "out"
    cells = compare.read_plan(file, {"checkpoint-every": 1}).only(scenarios="clean").cells()
    half = LocalRun(cells[0].config, cells[0].folder(root).path)
    rounds = half.rounds()
    next(rounds)
    rounds.close()
    begun = cells[0].folder(root).history.read_text()
    assert sorted(run(cells, root)) == sorted(cell.place for cell in cells)
    assert cells[0].folder(root).history.read_text().startswith(begun)
    files = {path: path.stat().st_mtime_ns for path in root.rglob("*.*")}
    assert sorted(run(cells, root)) == sorted(cell.place for cell in cells)
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*.*")} == files
    refused = next(cell for cell in cells if cell.place[0] == "d2").result(root)
    assert "lazy-metropolis" in refused["refused"]
    assert cells[0].result(root)["rounds"] == 3

    other = compare.read_plan(file, {"num-rounds": 4}).cells()
    with pytest.raises(ConfigError, match="holds a run of another experiment"):
        run(other, root)


@cells_here()
def test_only_what_does_not_fit_together_is_kept_as_refused(file, tmp_path):
    """Data that comes later, a name that is corrected and a mixing matrix that is changed are tried again."""
    root, images, labels = tmp_path / "out", np.zeros((40, 1, 4, 4), np.float32), np.arange(40) % 2
    given = {
        "dataset": "file",
        "data-path": str(tmp_path / "set.npz"),
        "num-agents": 4,
        "batch-size": 2,
        "validation-size": 2,
    }
    plan = compare.read_plan(file, given).only(scenarios="clean").quick()
    with pytest.raises(ConfigError, match=r"^(dpsgd|lazy)/clean/ring/0 cannot run: data-path = .* cannot be read"):
        run(plan.cells(), root)
    assert [cell.place[0] for cell in plan.cells() if cell.result(root)] == ["d2"]

    mistyped = replace(plan, methods={"dpsgd": {}, "other": {"algorithm": "dpsg"}})
    with pytest.raises(ConfigError, match=r"^other/clean/ring/0 cannot run: algorithm = 'dpsg'"):
        run(mistyped.cells(), root)
    assert not list(root.rglob("history.jsonl"))

    np.savez(tmp_path / "set.npz", images=images, labels=labels)
    mended = replace(plan, methods={**plan.methods, "d2": {"mixing": "lazy-metropolis"}})
    run(mended.cells(), root)
    assert ["refused" in cell.result(root) for cell in mended.cells()] == [False] * 3


@cells_here()
def test_the_same_numbers_as_an_ordinary_run(file, tmp_path):
    (cell,) = compare.read_plan(file, {}).only(methods="dpsgd", scenarios="poisoned").quick().cells()
    run([cell], tmp_path)
    alone = LocalRun(cell.config)
    list(alone.rounds())
    expected = json.loads(json.dumps(alone.summary()))
    found = cell.result(tmp_path)
    assert {**found, "seconds": 0} == {**expected, "seconds": 0}


@pytest.mark.deployment
def test_ctrl_c_ends_a_comparison_with_one_sentence_and_the_same_command_goes_on(file, tmp_path):
    keys = {"num-rounds": 200, "checkpoint-every": 5}
    (tmp_path / "keys.toml").write_text("".join(f"{key} = {value}\n" for key, value in keys.items()))
    command = [sys.executable, "-c", "from ross_flwr.cli import main; main()", "compare", file, "-c", "keys.toml"]
    command += ["--methods", "dpsgd,lazy", "--scenarios", "clean", "--out", "out", "--jobs", "2"]
    (tmp_path / "small.toml").write_text(re.sub(r"\[tuning\].*?(?=\[methods)", "", SMALL, flags=re.DOTALL))
    began = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    cells = compare.read_plan(file, keys).only(methods="dpsgd,lazy", scenarios="clean").cells()
    try:
        while began.poll() is None and not list(tmp_path.glob("out/*/*/*/*/checkpoint.safetensors")):
            time.sleep(0.01)
        os.killpg(began.pid, signal.SIGINT)  # as a terminal does
        _, said = began.communicate(timeout=60)
    finally:
        began.kill()
    assert (began.returncode, said) == (130, "ross-flwr: interrupted; the same command continues the comparison\n")
    assert [cell.result(tmp_path / "out") for cell in cells].count(None) >= len(cells) / 2

    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    for cell in cells:
        alone = LocalRun(cell.config)
        expected = [{**line, "seconds": 0, "time": 0} for line in alone.rounds()]
        lines = map(json.loads, cell.folder(tmp_path / "out").history.read_text().splitlines())
        assert [{**line, "seconds": 0, "time": 0} for line in lines] == expected


def test_a_killed_process_ends_a_comparison_with_a_sentence_also_where_signals_cannot_be_blocked(
    file, tmp_path, monkeypatch
):
    monkeypatch.setattr("ross_flwr.runs.cells.signal", SimpleNamespace())
    plan = compare.read_plan(file, {"num-rounds": 100_000}).only(methods="dpsgd", scenarios="clean")
    cells = plan.cells()[:1]

    def kill():
        until(lambda: cells[0].folder(tmp_path).history.exists(), "it does not begin")
        multiprocessing.active_children()[0].kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(ConfigError, match=r"process that ran dpsgd/clean/.* was killed, perhaps for want of memory"):
        list(run_cells(cells, tmp_path, 1))
    killer.join()


@pytest.mark.deployment
def test_processes_of_a_comparison_that_is_killed_end_too(file, tmp_path):
    command = [
        sys.executable,
        "-c",
        "from ross_flwr.cli import main; main()",
        "compare",
        file,
        "-c",
        "num-rounds=100000",
    ]
    began = subprocess.Popen([*command, "--methods", "dpsgd", "--quick", "--jobs", "1"], cwd=tmp_path)
    try:
        until(lambda: list(tmp_path.glob("results/**/history.jsonl")), "it does not begin")
        children = Path(f"/proc/{began.pid}/task/{began.pid}/children").read_text().split()
    finally:
        began.kill()
        began.wait()
    assert children
    until(lambda: not any(Path(f"/proc/{child}").exists() for child in children), "they go on")


@cells_here()
def test_the_command_tunes_runs_and_tabulates(file, tmp_path):
    out = tmp_path / "out"
    done = CliRunner().invoke(cli, ["compare", file, "--out", str(out), "--jobs", "2"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "clean" in done.output
    assert "±" in done.output
    assert "refused" in done.output
    rows = list(csv.DictReader((out / "cells.csv").open()))
    assert len(rows) == 12
    assert {row["learning-rate"] for row in rows if row["method"] == "dpsgd"} == {"0.9"}  # tuned, beyond its list
    assert all(float(row["accuracy"]) > 0 for row in rows if row["method"] != "d2")
    assert all("mixing matrix" in row["refused"] for row in rows if row["method"] == "d2")
    accuracy = fmean(
        float(row["accuracy"]) for row in rows if (row["method"], row["scenario"]) == ("dpsgd", "poisoned")
    )
    head, rule, *methods = [
        [entry.strip() for entry in line.split("|")[1:-1]]
        for line in (out / "table.md").read_text().splitlines()
        if line.startswith("|")
    ]
    assert (head, rule) == (["", "clean", "poisoned"], ["---", "--:", "--:"])
    assert [row[0] for row in methods] == ["dpsgd", "lazy", "d2"]
    assert methods[0][2].strip("*").startswith(f"{100 * accuracy:.1f} ± ")
    assert any(row[1].startswith("**") for row in methods)
    assert methods[2][1:] == ["refused", "refused"]
    for said in (
        "tuning, part 1 of 3: 6 runs",
        "finalists, part 2 of 3: ",
        "wider, still part 2 of 3: ",
        "cells, part 3 of 3: 12 runs",
    ):
        assert said in done.output
    assert "Nothing is left to do" not in done.output
    again = CliRunner().invoke(cli, ["compare", file, "--out", str(out)], catch_exceptions=False)
    assert "Nothing is left to do: all 12 runs are done\n" in again.output
    assert "part" not in again.output
    assert again.output[again.output.index("clean") :] == done.output[done.output.index("   clean") :].lstrip()


@cells_here()
def test_tables_of_the_terminal_and_of_a_report_are_in_the_order_of_the_experiment_file(file, tmp_path):
    text = re.sub(r"\[tuning\].*?(?=\[methods)", "", SMALL, flags=re.DOTALL)
    text = text.replace("[methods.dpsgd]", "[methods.dsgt]\n[methods.ross]\n[methods.cga]")
    text = text.replace("[scenarios.clean]\nattackers = 0\n", "") + "[scenarios.clean]\nattackers = 0\n"
    text += '[topologies.complete]\ntopology = "complete"\n'
    (tmp_path / "small.toml").write_text(text)
    done = CliRunner().invoke(cli, ["compare", file, "--quick", "-c", "num-rounds=1", "--out", str(tmp_path / "out")])
    terminal = re.findall(r"^ ?(dsgt|ross|cga|lazy|d2) ", done.output, re.MULTILINE)
    runs = find_runs(tmp_path / "out")
    assert list(dict.fromkeys(run.scenario for run in runs)) == ["poisoned", "clean"]
    assert list(dict.fromkeys(run.topology for run in runs)) == ["ring", "complete"]
    assert list(dict.fromkeys(run.method for run in runs)) == terminal[:5] == ["dsgt", "ross", "cga", "lazy", "d2"]
    (tmp_path / "out/experiment.toml").unlink()
    assert find_runs(tmp_path / "out")[0].method == "ross"


@cells_here()
def test_a_cell_whose_data_cannot_be_dealt_is_told_as_failed_and_the_others_are_tabulated(file, tmp_path):
    (tmp_path / "small.toml").write_text(
        re.sub(r"\[tuning\].*?(?=\[methods)", "", SMALL, flags=re.DOTALL) + "[methods.large]\nbatch-size = 400\n"
        'algorithm = "dpsgd"\n'
    )
    command = ["compare", file, "--out", str(tmp_path / "out"), "--methods", "dpsgd,large", "--scenarios", "clean"]
    done = CliRunner().invoke(cli, command)
    assert isinstance(done.exception, ConfigError)
    assert "large/clean/ring/0 cannot run: num-agents = 4 with batch-size = 400" in str(done.exception)
    assert str(done.exception).endswith("; 1 more failed, as cells.csv tells")
    assert re.search(r"dpsgd +\d+\.\d ± ", done.output)
    assert re.search(r"large +failed", done.output)
    rows = list(csv.DictReader((tmp_path / "out/cells.csv").open()))
    assert [("batch-size = 400" in row["failed"], bool(row["accuracy"])) for row in rows] == [
        (row["method"] == "large", row["method"] == "dpsgd") for row in rows
    ]
    assert len(rows) == 4

    cells = compare.read_plan(file, {}).only(methods="dpsgd", scenarios="clean").cells()
    some = [replace(cells[0], failed="no data"), *cells[1:]]
    table = write_markdown(compare.read_plan(file, {}), some, tmp_path / "out").read_text()
    assert re.search(r"\d+\.\d \(1 failed\)", table)


@cells_here()
def test_a_method_that_fails_while_it_is_tuned_is_told_as_failed_and_the_others_are_tuned_and_run(file, tmp_path):
    large = '[methods.large]\nbatch-size = 400\nalgorithm = "dpsgd"\n'
    (tmp_path / "small.toml").write_text(SMALL.replace("configurations = 2", "configurations = 1") + large)
    command = ["compare", file, "--out", str(tmp_path / "out"), "--methods", "dpsgd,large", "--scenarios", "clean"]
    done = CliRunner().invoke(cli, command)
    assert "large/clean/ring/0 cannot run: num-agents = 4 with batch-size = 400" in str(done.exception)
    rows = list(csv.DictReader((tmp_path / "out/cells.csv").open()))
    found = sorted((row["method"], bool(row["failed"]), bool(row["accuracy"])) for row in rows)
    assert found == [("dpsgd", False, True)] * 2 + [("large", True, False)] * 2
    assert "[tuned.dpsgd]" in (tmp_path / "out/tuned.toml").read_text()


def test_methods_stand_beside_each_other_in_a_table_of_more_places(file, tmp_path):
    plan = compare.read_plan(file, {}).only(methods="dpsgd")
    (tmp_path / "out").mkdir()
    text = write_markdown(plan, plan.cells(), tmp_path / "out").read_text()
    assert text.startswith("|  | dpsgd |\n|---|--:|\n| clean | … |\n| poisoned | … |\n\nAccuracy in %")


@cells_here()
def test_a_task_that_predicts_a_number_is_compared_by_its_error(tmp_path):
    table = tmp_path / "prices.csv"
    table.write_text("size,price\n" + "".join(f"{k},{2 * k + 0.5}\n" for k in range(600)))
    keys = {"task": "tabular", "data-path": str(table), "label-column": "price", "num-agents": 2, "num-rounds": 1}
    lines = [f"{key} = {json.dumps(value)}" for key, value in (keys | {"topology": "complete", "attackers": 0}).items()]
    plan = tmp_path / "plan.toml"
    plan.write_text(
        "\n".join(["seeds = [0]", "[keys]", *lines, "[methods.dpsgd]", "[scenarios.clean]", "[topologies.complete]"])
    )
    result = CliRunner().invoke(cli, ["compare", str(plan), "--out", str(tmp_path / "out"), "--jobs", "1"])
    assert result.exit_code == 0, result.output
    (line,) = csv.DictReader((tmp_path / "out/cells.csv").open())
    assert re.search(rf"dpsgd +{float(line['rmse']):.4g}", result.output)
    assert "RMSE, lower is better" in result.output


@cells_here()
def test_without_a_terminal_lines_tell_the_progress_and_warnings_name_their_cell(file, tmp_path, monkeypatch):
    monkeypatch.setattr("ross_flwr.cli.screen.PAUSE", 0.0)
    began = LocalRun.rounds

    def warn(run):
        getLogger("ross_flwr").warning("100% lost")
        return began(run)

    monkeypatch.setattr(LocalRun, "rounds", warn)
    command = ["compare", file, "--quick", "--methods", "dpsgd", "--out", str(tmp_path), "-c", "num-rounds=2"]
    done = CliRunner().invoke(cli, command, catch_exceptions=False)
    lines = re.findall("^cells: .*", done.stdout, re.MULTILINE)
    assert lines[0] == "cells: 2 runs"
    assert re.fullmatch(r"cells: 1 of 2 done(, about .* left)?, last dpsgd/\w+/ring/0", lines[1])
    assert re.fullmatch(r"cells: 2 of 2 done, last dpsgd/\w+/ring/0", lines[2])
    assert "dpsgd/clean/ring/0: 100% lost" in done.stderr


def test_a_key_of_all_cells_that_a_table_overrules_is_refused(file):
    given = {
        "topology": "star",
        "attackers": 2,
        "mixing": "uniform",
        "algorithm": "ross",
        "learning-rate": 1,
        "seed": 0,
    }
    said = (
        "(algorithm in [methods.dpsgd], attackers in [scenarios.clean], learning-rate in [tuning], mixing in "
        "[methods.lazy], seed in seeds, topology in [topologies.ring]): choose among its tables by --methods"
    )
    with pytest.raises(ConfigError, match=re.escape(said)):
        compare.read_plan(file, given).refuse_overruled()
    plan = compare.read_plan(file, {"attackers": 1, "mixing": "uniform", "learning-rate": 1.0, "num-rounds": 2})
    some = plan.only(methods="d2", scenarios="poisoned").quick()
    some.refuse_overruled()
    assert {(cell.keys["num-rounds"], cell.keys["evaluate-every"]) for cell in some.cells()} == {(2, 4)}


def test_the_quick_form_of_the_digits_shows_who_learns_and_who_falls(tmp_path):
    words = "compare digits --quick --methods ross,dpsgd --scenarios clean,poisoned --topologies ring --jobs 1 --out"
    done = CliRunner().invoke(cli, [*words.split(), str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0
    rows = csv.DictReader((tmp_path / "cells.csv").open())
    accuracy = {(row["method"], row["scenario"]): float(row["accuracy"]) for row in rows}
    assert len(accuracy) == 4
    assert min(accuracy["ross", "clean"], accuracy["dpsgd", "clean"]) > 0.4
    assert accuracy["dpsgd", "poisoned"] < 0.2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seeds = [0]", "has no methods"),
        (SMALL + "[methds.ross]\n", "has an entry methds"),
        ("seeds = [", "is not TOML"),
        (
            SMALL.replace("seeds = [0, 1]", "seeds = 3"),
            "wrong entry seeds: it takes a list of whole numbers, as in seeds = ",
        ),
        (SMALL.replace("seeds = [0, 1]", "seeds = []"), "has seeds = .*: it takes at least one, and each once"),
        (SMALL.replace("seeds = [0, 1]", "seeds = [1, 1]"), "has seeds = .*: it takes at least one, and each once"),
        ('methods = "ross"\n', r"wrong entry methods: it takes a table \[methods.NAME\] for each"),
        (SMALL + '[methods."a, b"]\n', "has the name 'a, b' in methods: --methods takes a list"),
    ],
    ids=["no methods", "a typing error", "no TOML", "a number", "no seeds", "a seed twice", "a text", "a comma"],
)
def test_a_wrong_file_is_refused_in_one_sentence(text, said, tmp_path):
    path = tmp_path / "wrong.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        compare.read_plan(str(path), {})


def test_a_name_that_is_not_there_is_refused(file):
    with pytest.raises(ConfigError, match="neither a file that can be read nor one of"):
        compare.read_plan("nowhere", {})
    with pytest.raises(ConfigError, match="--methods ros is not in the experiment: it has dpsgd, lazy, d2"):
        compare.read_plan(file, {}).only(methods="ros")


@pytest.mark.parametrize("name", compare.experiments())
def test_every_cell_of_every_shipped_experiment_names_what_there_is(name):
    plan = compare.read_plan(name, {})
    quick = plan.quick().cells()
    assert all(cell.config.values["num-rounds"] == 20 for cell in quick)
    some = {(kind, name): cell for cell in quick for kind, name in enumerate(cell.place)}
    for cell in some.values():  # every method, scenario and topology is there once
        assembly = assemble(cell.config)  # which knows attack, aggregator and corruption
        assert assembly.algorithm
        assert assembly.topology.num_agents == cell.config.values["num-agents"]
        assert cell.config.values["partition"] in PARTITIONS
        assert assembly.task.dataset in SOURCES | TABLES | TEXTS
