"""The `ross-flwr` command, as a person meets it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import tomllib

import pytest
from flwr.common.config import parse_config_args
from rich.console import Console
from safetensors.torch import load_file

from ross_flwr import cli
from ross_flwr.cli import runs
from ross_flwr.cli.keys import FIRST_RUN, read, read_run
from ross_flwr.cli.lists import about
from ross_flwr.cli.names import LISTS
from ross_flwr.config import keys, resolve, to_toml
from ross_flwr.learning.agent import Agent
from ross_flwr.runs.finished import find_runs
from ross_flwr.runs.local import start
from ross_flwr.runs.side_by_side import side_by_side

COMMAND = [sys.executable, "-c", "from ross_flwr.cli import main; main()"]
FILES = ["checkpoint.safetensors", "config.toml", "history.jsonl", "model.safetensors", "summary.json"]
SMALL = (
    "-c",
    "algorithm=ross beside=dpsgd num-agents=4 num-rounds=3 topology=ring attackers=1 validation-size=20 hidden=8 "
    "checkpoint-every=2",
)


def lines_of(folder):
    """Return the history without what the clock says."""
    lines = map(json.loads, (folder / "history.jsonl").read_text().splitlines())
    return [{**line, "seconds": None, "time": None} for line in lines]


def summary_of(folder):
    return {**json.loads((folder / "summary.json").read_text()), "seconds": None}


def test_a_first_run_shows_what_came_out_and_keeps_it(tmp_path):
    done = subprocess.run(
        [*COMMAND, "run", "-c", "num-rounds=2"], cwd=tmp_path, env={**os.environ, "COLUMNS": "80"}, capture_output=True
    )
    assert (done.returncode, done.stderr.decode()) == (0, "")
    (folder,) = (tmp_path / "results").iterdir()
    out = done.stdout.decode()
    for words in ("accuracy", "mean", "min", "consensus", "distance", "bytes", "sent", "seconds", "2/2"):
        assert words in out
    assert "…" not in out
    assert out.endswith(f"Results are in {folder.relative_to(tmp_path)}\n")
    assert sorted(file.name for file in folder.iterdir()) == sorted([*FILES, "dpsgd", "ross"])
    for beside in ("dpsgd", "ross"):
        assert sorted(file.name for file in (folder / beside).iterdir()) == FILES
    config = tomllib.loads((folder / "config.toml").read_text(encoding="utf-8"))
    assert set(config) == {"beside", *(key.name for key in keys() if key.name in config)}
    assert (config["num-rounds"], config["algorithm"], config["attackers"]) == (2, "ross-plus", 3)
    assert str(FIRST_RUN) in out
    for each in (folder, folder / "ross", folder / "dpsgd"):
        assert [line["round"] for line in lines_of(each)] == [1, 2]
        summary = summary_of(each)
        assert summary["rounds"] == 2
        assert f"{summary['accuracy']['mean']:.1%}" in out
        model = load_file(each / "model.safetensors")
        assert sum(tensor.numel() for tensor in model.values()) == summary["parameters"]
        assert all("." in name for name in model)


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ("run -c num-agnts=3", ["key num-agnts (value 3)", "did you mean num-agents?"]),
        ("run -c num-rounds=many", ["num-rounds = 'many'", "a whole number of at least 1"]),
        ("run -c num-rounds=0", ["num-rounds = 0", "at least 1"]),
        ("run -c num-rounds=", ["num-rounds = ''", "at least 1"]),
        ("run -c seed=" + "9" * 5000, ["seed = '9999", "a whole number from 0"]),
        ("run -c seed=" + "[" * 5000, ["seed = '[[[[", "a whole number from 0"]),
        ("run -c download=1", ["download = 1", "true or false"]),
        ("run -c attack-strength=nan", ["attack-strength = nan", "a number"]),
        ("run -c topology=rign", ["topology = 'rign'", "random-regular", "did you mean 'ring'?"]),
        ("run -c topology-degree=10", ["topology-degree = 10", "from 1 to 9"]),
        ("run -c dataset=digit", ["dataset = 'digit'", "did you mean 'digits'?"]),
        ("run -c model=mpl", ["model = 'mpl'", "did you mean 'mlp'?"]),
        ("run -c algorithm=dpsg", ["algorithm = 'dpsg'", "did you mean 'dpsgd'?"]),
        ("run -c beside=dpsg", ["beside = 'dpsg'", "did you mean 'dpsgd'?"]),
        ("run -c attack=scaling", ["attack = 'scaling'", "gradient-scaling"]),
        ("run -c attackers=10", ["attackers = 10", "num-agents = 10"]),
        ("run -c validation-size=100000", ["validation-size", "cannot be drawn"]),
        (
            "run -c missing.toml",
            ["-c missing.toml is neither KEY=VALUE nor a TOML file that can be read: No such file"],
        ),
        ("run -c .", ["-c . is neither KEY=VALUE nor a TOML file"]),
        ("run --out file", ["file cannot take results: File exists"]),
        ("config -c num-agnts=3", ["did you mean num-agents?"]),
        ("resume nowhere", ["nowhere holds no run: there is no config.toml in it"]),
        ("resume file", ["file holds no run"]),
        ("list topologys", ["no list called 'topologys'", "algorithms, attacks", "did you mean topologies?"]),
        ("compare nosuch", ["nosuch is neither a file that can be read nor one of attackers"]),
    ],
)
def test_bad_input_ends_in_one_sentence_and_exit_code_2(ross_flwr, tmp_path, arguments, parts):
    (tmp_path / "file").write_text("")
    ended = ross_flwr(*arguments.split())
    assert ended.code == 2
    assert ended.err.startswith("ross-flwr: ")
    assert ended.err.count("\n") == 1
    for part in parts:
        assert part in ended.err
    assert ended.out == ""
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_comparison_does_not_go_where_a_run_lies(ross_flwr, tmp_path):
    (tmp_path / "first" / "ross").mkdir(parents=True)
    (tmp_path / "first" / "ross" / "config.toml").touch()
    ended = ross_flwr("compare", "digits", "--out", "first")
    assert (ended.code, "first holds a run of `ross-flwr run`: name another folder" in ended.err) == (2, True)


@pytest.mark.parametrize("arguments", ["run --rounds 3", "runn", "resume", "list topologies models", ""])
def test_wrong_usage_exits_with_code_2(ross_flwr, arguments):
    assert ross_flwr(*arguments.split()).code == 2


@pytest.mark.parametrize("command", ["", *cli.cli.commands, "certs init", "certs issue"])
def test_help_gives_an_example_and_fits_80_columns(ross_flwr, command):
    ended = ross_flwr(*command.split(), "--help")
    assert (ended.code, ended.err) == (0, "")
    assert f"  ross-flwr {command}" in ended.out.partition("Example")[2]
    assert max(map(len, ended.out.splitlines())) <= 80


def test_what_config_prints_can_be_run(ross_flwr, tmp_path):
    ended = ross_flwr("config", *SMALL, "-c", "data-path=Größe 'x'", "-c", "beside=")
    assert (ended.code, ended.err) == (0, "")
    (tmp_path / "my.toml").write_text(ended.out, encoding="utf-8")
    assert ross_flwr("run", "-c", "my.toml", "-c", "num-rounds=1", "--out", "out").code == 0
    printed = {**tomllib.loads(ended.out), "num-rounds": 1}
    assert printed.pop("beside") == ""
    assert tomllib.loads((tmp_path / "out" / "config.toml").read_text(encoding="utf-8")) == printed


def test_the_first_run_is_what_c_changes(ross_flwr):
    first = tomllib.loads(FIRST_RUN.read_text(encoding="utf-8"))
    assert tomllib.loads(ross_flwr("config").out) == {**resolve({}).values, **first}
    changed = tomllib.loads(ross_flwr("config", "-c", "attackers=0", "-c", "beside=").out)
    assert changed == {**resolve({}).values, **first, "attackers": 0, "beside": ""}


def test_a_task_adds_keys_to_the_first_run_which_c_changes_too():
    of_texts = read_run(["task=language-model", "learning-rate=0.5"])
    assert (of_texts["optimizer"], of_texts["learning-rate"], of_texts["attackers"]) == ("adam", 0.5, 3)
    assert read_run(["task=arithmetic"])["algorithm"] == "fgrpo"


def test_the_methods_beside_have_the_same_keys_and_folders_of_their_own(ross_flwr, tmp_path):
    ended = ross_flwr("run", *SMALL, "-c", "beside=dmsgd, ross,dpsgd,", "-c", "num-rounds=1", "--out", "out")
    assert ended.code == 0
    folders = {"ross": tmp_path / "out", **{name: tmp_path / "out" / name for name in ("dmsgd", "dpsgd")}}
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == sorted([*FILES, "dmsgd", "dpsgd"])
    configs = {name: tomllib.loads((folders[name] / "config.toml").read_text(encoding="utf-8")) for name in folders}
    assert configs["ross"].pop("beside") == "dmsgd,dpsgd"
    assert configs == {name: {**configs["ross"], "algorithm": name} for name in folders}


@pytest.mark.parametrize(
    ("entries", "found"),
    [
        (["num-rounds=5"], {"num-rounds": 5}),
        (["num-rounds=5", "num-rounds=6"], {"num-rounds": 6}),
        (["num-rounds=5 topology='ring' download=true"], {"num-rounds": 5, "topology": "ring", "download": True}),
        (["attack-strength=-1.5 topology=ring beside="], {"attack-strength": -1.5, "topology": "ring", "beside": ""}),
        (["data-path=/a folder/of mine"], {"data-path": "/a folder/of mine"}),
        (["data-path='/a folder' seed=1"], {"data-path": "/a folder", "seed": 1}),
        (['data-path="a=b"'], {"data-path": "a=b"}),
        (["data-path=2024"], {"data-path": "2024"}),
        (["device=true"], {"device": "true"}),
        ([" num-rounds = 5 "], {"num-rounds": 5}),
        (["my.toml", "seed=2"], {"num-rounds": 4, "seed": 2}),
        (["seed=2", "my.toml"], {"num-rounds": 4, "seed": 3}),
        ([], {}),
    ],
)
def test_keys_come_as_pairs_or_from_files_and_the_last_wins(monkeypatch, tmp_path, entries, found):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.toml").write_text("num-rounds = 4\nseed = 3\n")
    assert read(entries) == found


def test_flower_reads_the_same_keys_from_the_same_texts_and_files(tmp_path):
    file = tmp_path / "my.toml"
    file.write_text(to_toml(resolve({"seed": 3, "data-path": 'a "b"'})), encoding="utf-8")
    for entry in ("num-rounds=5 attack-strength=-1.5 topology='ring' download=true data-path=\"a b\"", str(file)):
        assert read([entry]) == parse_config_args([entry])


def test_a_file_that_is_not_toml_is_refused(ross_flwr, tmp_path):
    for content in (b"num-rounds 5", b"\xff\xfe"):
        (tmp_path / "my.toml").write_bytes(content)
        ended = ross_flwr("run", "-c", "my.toml")
        assert (ended.code, ended.err[:34]) == (2, "ross-flwr: -c my.toml is not TOML:")


def test_data_shows_who_holds_what_and_draws_it(ross_flwr, tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra 'plots'")
    ended = ross_flwr("data", "-c", "num-agents=4 partition=iid", "--plot", "map.png")
    assert (ended.code, ended.err) == (0, "")
    rows = [line.split() for line in ended.out.splitlines()]
    totals = {row[0]: row[1:] for row in rows if len(row) == 12 and row[0].isdigit()}
    assert [int(totals[str(i)][0]) for i in range(4)] == [324, 324, 323, 323]
    assert all(int(total) == sum(map(int, counts)) for total, *counts in totals.values())
    assert (tmp_path / "map.png").stat().st_size > 1000


@pytest.mark.parametrize("what", LISTS)
def test_a_list_names_all_that_is_registered_and_what_it_is(ross_flwr, what):
    ended = ross_flwr("list", what)
    assert ended.code == 0
    assert max(map(len, ended.out.splitlines())) <= 80
    words = ended.out.split()
    for name, entry in LISTS[what].items():
        assert words.count(name) >= 1
        assert all(word in ended.out for word in about(entry).split())
        assert about(entry)


def test_lists_are_in_the_order_that_they_tell(ross_flwr):
    named = [line.split()[0] for line in ross_flwr("list", "attacks").out.splitlines() if line[0] != " "]
    assert named == sorted(LISTS["attacks"])
    heading, *lines = ross_flwr("list", "algorithms").out.split("\n\n")
    assert heading.startswith("Methods by family, then by name")
    named = [line.split()[0] for line in lines[0].splitlines() if line[0] != " "]
    assert named == sorted(LISTS["algorithms"], key=lambda name: (LISTS["algorithms"][name].family, name))


def test_a_key_leads_to_the_list_of_its_values(ross_flwr):
    assert ross_flwr("list", "topology").out == ross_flwr("list", "topologies").out


def test_the_list_of_lists_holds_every_name(ross_flwr):
    words = ross_flwr("list").out.replace(",", " ").split()
    for what, entries in LISTS.items():
        assert {what, *entries} <= set(words)


def test_json_and_quiet_leave_nothing_else_on_stdout(ross_flwr, tmp_path):
    quiet = ross_flwr("run", *SMALL, "--quiet", "--out", "out")
    assert (quiet.code, quiet.out, quiet.err) == (0, "out\n", "")
    ended = ross_flwr("resume", "--json", "out")
    found = [json.loads(line) for line in ended.out.splitlines()]
    lines = [json.loads(line) for each in ("out", "out/dpsgd") for line in (tmp_path / each / "history.jsonl").open()]
    assert [{**line, "method": None} for line in found[:-2]] == [{**line, "method": None} for line in lines]
    assert [line["method"] for line in found] == 3 * ["ross"] + 3 * ["dpsgd"] + ["ross", "dpsgd"]
    assert found[-1]["summary"] == json.loads((tmp_path / "out" / "dpsgd" / "summary.json").read_text())


def test_on_a_terminal_a_run_is_a_board_and_then_a_table(ross_flwr, monkeypatch):
    monkeypatch.setattr(runs, "console", Console(force_terminal=True, width=80))
    ended = ross_flwr("run", *SMALL, "--out", "out")
    board, _, table = ended.out.partition("Result")
    for part in ("ross", "dpsgd", "3/3", "taken", "accuracy", "sent", "█"):
        assert part in board
    assert "Results are in out" in table


def test_every_round_is_logged_where_the_run_is_asked_to(ross_flwr, tmp_path):
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="needs the extra 'tensorboard'"
    )
    assert ross_flwr("run", *SMALL, "--log", "tensorboard", "--out", "out").code == 0
    for method, folder in (("ross", tmp_path / "out"), ("dpsgd", tmp_path / "out" / "dpsgd")):
        found = event_accumulator.EventAccumulator(str(tmp_path / "out" / "tensorboard" / method))
        found.Reload()
        logged = [(each.step, each.value) for each in found.Scalars("bytes")]
        assert logged == [(line["round"], line["bytes"]) for line in lines_of(folder)]


def test_a_log_that_cannot_be_written_is_refused_before_anything_is(ross_flwr, tmp_path):
    ended = ross_flwr("run", *SMALL, "--log", "tensorbord", "--out", "out")
    assert ended.code == 2
    assert "did you mean 'tensorboard'?" in ended.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("r", {"report", "resume", "run"}),
        ("run -c topo", {key.name + "=" for key in keys() if key.name.startswith("topo")}),
        ("run -c topology=r", {f"topology={name}" for name in LISTS["topologies"] if name.startswith("r")}),
        ("run -c shap", {f"shapley={name}" for name in LISTS["shapley"]}),
        ("run -c down", {"download=true", "download=false"}),
        ("run -c too-few=", {"too-few=refuse", "too-few=top-up"}),
        ("run -c see", {"seed=0"}),
        ("run -c nothing", set()),
        ("list to", {"topologies"}),
        ("compare dig", {"digits"}),
        ("export out --format o", {"onnx"}),
    ],
)
def test_a_shell_completes_commands_keys_and_names(ross_flwr, monkeypatch, typed, completed):
    words = ["ross-flwr", *typed.split()]
    monkeypatch.setenv("_ROSS_FLWR_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", " ".join(words))
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    ended = ross_flwr()
    assert {line.removeprefix("plain,") for line in ended.out.split()} == completed


@pytest.mark.parametrize("beside", ["beside=", "beside=ross"])
def test_without_another_method_beside_it_a_run_is_one(ross_flwr, tmp_path, beside):
    ended = ross_flwr("run", *SMALL, "-c", beside, "--out", "out")
    assert ended.code == 0
    assert "dpsgd" not in ended.out
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == FILES


def test_a_run_does_not_write_over_another(ross_flwr, tmp_path):
    ross_flwr("run", *SMALL, "-c", "beside=", "--out", "my results")
    before = (tmp_path / "my results" / "summary.json").read_bytes()
    ended = ross_flwr("run", *SMALL, "--out", "my results")
    assert ended.code == 2
    assert "`ross-flwr resume 'my results'` continues it" in ended.err
    assert (tmp_path / "my results" / "summary.json").read_bytes() == before


def test_methods_are_in_the_order_in_which_they_ran_wherever_they_are_shown(ross_flwr, tmp_path):
    beside = "beside=sgp,dmsgd,dpsgd"
    first = ross_flwr("run", *SMALL, "-c", beside, "-c", "num-rounds=1", "--out", "out").out.partition("Result")[2]
    for text in (first, ross_flwr("resume", "out").out.partition("Result")[2]):
        assert re.findall(r"^ (\w+) +1 ", text, re.MULTILINE) == ["ross", "sgp", "dmsgd", "dpsgd"]
    assert [run.method for run in find_runs(tmp_path / "out")] == ["ross", "sgp", "dmsgd", "dpsgd"]


def test_a_comparison_is_not_resumed_as_a_run_is(ross_flwr, tmp_path):
    (tmp_path / "out" / "tuning").mkdir(parents=True)
    ended = ross_flwr("resume", "out")
    assert (ended.code, ended.out) == (2, "")
    assert "out holds a comparison: the `ross-flwr compare` command that began it continues it" in ended.err


def test_a_finished_run_can_be_resumed_to_see_its_table_again(ross_flwr, tmp_path):
    first = ross_flwr("run", *SMALL, "--out", "out")
    lines, summary = lines_of(tmp_path / "out"), summary_of(tmp_path / "out")
    again = ross_flwr("resume", "out")
    assert again.code == 0
    said, _, table = again.out.partition("Result")
    assert said.strip() == "Nothing is left to do: all rounds of the run in out are done"
    assert table == first.out.partition("Result")[2]
    assert (lines_of(tmp_path / "out"), summary_of(tmp_path / "out")) == (lines, summary)


def interrupt_at(monkeypatch, call):
    """Press Ctrl-C while the gradient number `call` of all agents is computed."""
    gradient, calls = Agent.gradient, iter(range(1, 10**9))

    def interrupted(agent, *arguments, **of):
        result = gradient(agent, *arguments, **of)
        if next(calls) == call:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(Agent, "gradient", interrupted)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folder of a run that nobody interrupts. It takes 12 gradients of ROSS a round and then 4 of D-PSGD."""
    folder = tmp_path_factory.mktemp("undisturbed")
    for run in start(side_by_side(read_run(SMALL[1:])), folder):
        list(run.rounds())
    return folder


@pytest.mark.parametrize(
    ("call", "done", "saved"),
    [
        (5, {"ross": 0, "dpsgd": 0}, None),
        (17, {"ross": 1, "dpsgd": 0}, 1),
        (32, {"ross": 2, "dpsgd": 0}, 2),
        (38, {"ross": 3, "dpsgd": 0}, 3),
        (46, {"ross": 3, "dpsgd": 2}, 3),
    ],
)
def test_a_run_that_is_interrupted_and_resumed_ends_like_one_that_was_not(
    ross_flwr, tmp_path, monkeypatch, undisturbed, call, done, saved
):
    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        interrupt_at(patch, call)
        ended = ross_flwr("run", *SMALL, "--out", "out")
    assert ended.code == 130
    assert ended.err == "ross-flwr: interrupted; `ross-flwr resume out` continues the run\n"
    for name, folder in {"ross": out, "dpsgd": out / "dpsgd"}.items():
        assert len(lines_of(folder)) == done[name]
    assert (out / "checkpoint.safetensors").exists() == (saved is not None)
    with (out / "history.jsonl").open("a") as history:
        history.write('{"round":9,"cut sh')

    ended = ross_flwr("resume", "out")
    assert (ended.code, ended.err) == (0, "")
    for folder, whole in ((out, undisturbed), (out / "dpsgd", undisturbed / "dpsgd")):
        assert sorted(set(FILES) - {file.name for file in folder.iterdir()}) == []
        assert lines_of(folder) == lines_of(whole)
        assert summary_of(folder) == summary_of(whole)
        assert (folder / "config.toml").read_bytes() == (whole / "config.toml").read_bytes()
        assert (folder / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_ctrl_c_ends_a_run_with_one_sentence_and_exit_code_130_and_nothing_is_lost(ross_flwr, tmp_path):
    command = [*COMMAND, "run", *SMALL, "-c", "num-rounds=1000000", "--out", "my results"]
    run = subprocess.Popen(
        command,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # what a shell's background jobs ignore
    )
    folder = tmp_path / "my results"
    try:
        while run.poll() is None and not (folder / "checkpoint.safetensors").exists():
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        _, err = run.communicate(timeout=60)
    finally:
        run.kill()
    assert run.returncode == 130
    assert err.decode() == "ross-flwr: interrupted; `ross-flwr resume 'my results'` continues the run\n"

    rounds = len(lines_of(folder)) + 2
    for file in (folder / "config.toml", folder / "dpsgd" / "config.toml"):
        text = file.read_text(encoding="utf-8")
        file.write_text(text.replace("= 1000000", f"= {rounds}"), encoding="utf-8")
    ended = ross_flwr("resume", "my results")
    assert ended.code == 0
    assert ended.out.count(f"{rounds}/{rounds}") == 2
    for whole in start(side_by_side({**read_run(SMALL[1:]), "num-rounds": rounds})):
        resumed = folder if whole.run.algorithm == "ross" else folder / "dpsgd"
        assert lines_of(resumed) == [{**line, "seconds": None, "time": None} for line in whole.rounds()]


def test_files_of_different_runs_are_not_resumed(ross_flwr, tmp_path):
    ross_flwr("run", *SMALL, "-c", "beside=", "--out", "out")
    (tmp_path / "out" / "history.jsonl").unlink()
    ended = ross_flwr("resume", "out")
    assert ended.code == 2
    assert "out cannot be resumed: config.toml, history.jsonl and checkpoint.safetensors in it are not of" in ended.err


def test_the_command_plans_nodes_that_talk_directly(ross_flwr, monkeypatch):
    monkeypatch.setattr("ross_flwr.plan.handling.handling", lambda sizes, crowded: [0.001 for _ in sizes])
    monkeypatch.setattr("ross_flwr.plan.rehearsal.PASSES", 2)
    keys = "algorithm=dpsgd attackers=0 num-agents=4 topology=ring transport=direct segment-rounds=100000"
    ended = ross_flwr("plan", "-c", keys, "--link", "1mbit", "--device", 0.001)
    assert (ended.code, ended.err) == (0, "")
    assert "a gradient takes 1 ms" in ended.out
    assert "Bottleneck: each node's link up, at work for" in ended.out
    assert "--link 3mb is not a link" in ross_flwr("plan", "--link", "3mb").err
