"""A folder of results that others have touched: a live run in it, links in it, another configuration, damage."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from ross_flwr.cli import cli
from ross_flwr.config import ConfigError, resolve
from ross_flwr.runs.compare import Cell
from ross_flwr.runs.finished import find_runs
from ross_flwr.runs.folder import RunFolder
from ross_flwr.runs.local import LocalRun, resume, start
from ross_flwr.runs.side_by_side import side_by_side

SMALL = {"algorithm": "dpsgd", "num-agents": 3, "num-rounds": 4, "topology": "ring", "attackers": 0}
SMALL |= {"validation-size": 20, "hidden": 8, "checkpoint-every": 1}
COMMAND = [sys.executable, "-c", "from ross_flwr.cli import main; main()"]


def stopped_in(folder, rounds=2, **keys):
    """Leave a run in `folder` that was stopped after so many rounds, with another method beside it."""
    for run in start(side_by_side({**SMALL, "beside": "ross", **keys}), folder):
        running = run.rounds()
        for _ in range(rounds):
            next(running)
        running.close()


def changed(folder, **keys):
    """Change keys in the configuration of the run in `folder`."""
    file = folder / "config.toml"
    lines = file.read_text(encoding="utf-8").splitlines()
    new = {name.replace("_", "-"): value for name, value in keys.items()}
    kept = [line for line in lines if line.partition(" = ")[0] not in new]
    file.write_text("\n".join([*kept, *(f"{key} = {json.dumps(value)}" for key, value in new.items())]) + "\n")


def test_a_folder_in_which_a_run_is_live_is_refused_and_one_whose_run_was_killed_is_not(tmp_path):
    folder = tmp_path / "out"
    keys = " ".join(f"{key}={value}" for key, value in {**SMALL, "num-rounds": 10**6, "beside": ""}.items())
    live = subprocess.Popen([*COMMAND, "run", "-q", "-c", keys, "--out", str(folder)])
    try:
        while live.poll() is None and not (folder / "checkpoint.safetensors").exists():
            time.sleep(0.02)
        live.send_signal(signal.SIGSTOP)
        os.waitpid(live.pid, os.WUNTRACED)  # a write that has begun goes on until then
        before = {file.name: file.read_bytes() for file in folder.iterdir()}
        with pytest.raises(ConfigError, match="out is in use: another process runs in it"):
            resume(folder)
        with pytest.raises(ConfigError, match="out is in use: another process runs in it"):
            start([resolve(SMALL)], folder)
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    finally:
        live.kill()
        live.wait()
    (run,) = resume(folder)
    done = len(run.history.lines)
    assert done >= 1
    next(run.rounds())
    assert len(run.history.lines) == done + 1


def test_two_runs_at_once_in_one_process_do_not_share_a_folder(tmp_path):
    running = LocalRun(resolve(SMALL), tmp_path).rounds()
    next(running)
    with pytest.raises(ConfigError, match="is in use"):
        resume(tmp_path)
    assert len(list(running)) == 3
    (run,) = resume(tmp_path)
    assert len(run.history.lines) == 4


NAMES = ("config.toml", "history.jsonl", "summary.json", "model.safetensors", "checkpoint.safetensors")


@pytest.mark.parametrize("name", [*NAMES, *(f"{name}.part" for name in NAMES)])
def test_a_link_among_the_files_of_a_run_is_replaced_and_what_it_points_to_stays(tmp_path, name):
    folder, outside = tmp_path / "out", tmp_path / "outside"
    stopped_in(folder, beside="")
    file = folder / name
    content = file.read_bytes() if file.exists() else b"precious"
    file.unlink(missing_ok=True)
    outside.write_bytes(content)
    file.symlink_to(outside)
    (run,) = resume(folder)
    list(run.rounds())
    run.folder.begin(run.config)
    assert outside.read_bytes() == content
    assert not file.is_symlink()


@pytest.mark.parametrize("at_start", [False, True])
def test_a_folder_of_results_that_is_a_link_inside_another_is_refused(tmp_path, at_start):
    folder, outside = tmp_path / "out", tmp_path / "outside"
    stopped_in(folder)
    (folder / "ross").rename(outside)
    (folder / "ross").symlink_to(outside)
    before = {file.name: file.read_bytes() for file in outside.iterdir()}
    with pytest.raises(ConfigError, match="out/ross is a link"):
        start(side_by_side({**SMALL, "beside": "ross"}), folder) if at_start else resume(folder)
    assert {file.name: file.read_bytes() for file in outside.iterdir()} == before


def test_a_cell_of_a_comparison_lies_inside_its_folder(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "dpsgd").symlink_to(tmp_path)
    for place in (("dpsgd", "clean"), ("..", "clean"), ("a/b",), ("/tmp",)):
        with pytest.raises(ConfigError):
            Cell(place, SMALL).folder(tmp_path / "out")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("seed", 1, "seed = 1, and its checkpoint was made with seed = 0"),
        ("algorithm", "d2", "algorithm = 'd2', and its checkpoint was made with algorithm = 'dpsgd'"),
        ("topology", "complete", "topology = 'complete', and its checkpoint was made with topology = 'ring'"),
        ("partition", "iid", "partition = 'iid', and its checkpoint was made with partition = 'dirichlet'"),
        ("learning-rate", 0.5, "learning-rate = 0.5, and its checkpoint was made with learning-rate = 0.1"),
        ("attackers", 1, "attackers = 1, and its checkpoint was made with attackers = 0"),
        ("data-path", "x", "data-path = 'x', and its checkpoint was made with data-path = ''"),
    ],
)
def test_a_run_whose_configuration_was_changed_is_not_resumed(tmp_path, key, value, said):
    stopped_in(tmp_path / "out", beside="")
    before = (tmp_path / "out" / "history.jsonl").read_bytes()
    changed(tmp_path / "out", **{key.replace("-", "_"): value})
    with pytest.raises(ConfigError) as refused:
        resume(tmp_path / "out")
    assert f"out cannot be resumed with {said}" in str(refused.value)
    assert (tmp_path / "out" / "history.jsonl").read_bytes() == before


def test_what_does_not_change_the_numbers_of_a_run_may_differ_when_it_is_resumed(tmp_path):
    stopped_in(tmp_path, beside="")
    changed(tmp_path, num_rounds=6, checkpoint_every=3, evaluate_every=2, evaluate_at="5", device="cpu")
    (run,) = resume(tmp_path)
    assert [line["round"] for line in run.rounds()] == [3, 4, 5, 6]


DAMAGE = {
    "config.toml": [b"\xff", b"seed = 1979-05-27", b'algorithm = "none"', b'data-path = "a\\u0000b"', None],
    "history.jsonl": [b"null\n", b"{}\n", b"[" * 100_000, b'{"round":1', b"\xff", None],
    "summary.json": [b"", b"[]", b"{}", b'{"attackers": 3}', b"NaN", None],
    "checkpoint.safetensors": [b"", b"\xff" * 100, b"\0" * 8, None],
    "model.safetensors": [b"", b"\xff" * 100, None],
}
"""What may stand in a file of a run; None for a folder in its place."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run, and of one beside it."""
    folder = tmp_path_factory.mktemp("finished") / "out"
    for run in start(side_by_side({**SMALL, "beside": "ross"}), folder):
        list(run.rounds())
    return folder


@pytest.mark.parametrize("name", DAMAGE)
def test_every_command_tells_damage_in_one_sentence(finished, tmp_path, name):
    pytest.importorskip("plotly", reason="needs the extra 'plots'")
    for number, content in enumerate(DAMAGE[name]):
        for command in ("report", "resume -q", "evaluate", "export"):
            folder = shutil.copytree(finished, tmp_path / f"{number}-{command}")
            (folder / name).unlink()
            if content is None:
                (folder / name).mkdir()
            else:
                (folder / name).write_bytes(content)
            if command == "export" and name == "model.safetensors":
                (folder / "checkpoint.safetensors").unlink(missing_ok=True)
            if command == "report" and name not in ("config.toml", "history.jsonl", "summary.json"):
                continue
            ended = CliRunner().invoke(cli, [*command.split(), str(folder)])
            assert ended.exit_code == 0 or isinstance(ended.exception, ConfigError | SystemExit), (command, content)


def test_a_history_that_lacks_rounds_of_the_run_is_refused(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "out")
    (folder / "history.jsonl").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"history\.jsonl is damaged, .* it holds 0 of the run's 4 rounds"):
        find_runs(folder)


@pytest.mark.parametrize("name", NAMES)
def test_a_pipe_in_the_place_of_a_file_keeps_nobody_waiting(finished, tmp_path, name):
    folder = RunFolder(shutil.copytree(finished, tmp_path / "out"))
    (folder.path / name).unlink()
    os.mkfifo(folder.path / name)
    read = (folder.read_config, folder.read_history, folder.read_summary, folder.read_model, folder.read_checkpoint)
    if name == "checkpoint.safetensors":
        assert folder.read_checkpoint() is None
    else:
        with pytest.raises(ConfigError):
            read[NAMES.index(name)]()


def test_a_damaged_comparison_is_told_in_one_sentence(finished, tmp_path):
    cell = shutil.copytree(finished, tmp_path / "dpsgd" / "clean" / "ring" / "0")
    shutil.copytree(finished, tmp_path / "dpsgd" / "clean" / "ring" / "last")
    assert [run.seed for run in find_runs(tmp_path)] == [0]
    for content in ("null", "{}", '{"methods": {"dpsgd": 1}}', '{"methods": {"dpsgd": {"ring": {"read-at": 1}}}}'):
        (tmp_path / "budgets.json").write_text(content)
        with pytest.raises(ConfigError, match=r"budgets\.json is damaged, or not from a run: "):
            find_runs(tmp_path)
    (tmp_path / "budgets.json").unlink()
    (cell / "refused.txt").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"refused\.txt is damaged"):
        Cell(("dpsgd", "clean", "ring", "0"), SMALL).result(tmp_path)


def test_the_same_holds_under_python_without_assertions(tmp_path):
    keys = " ".join(f"{key}={value}" for key, value in {**SMALL, "beside": ""}.items())
    subprocess.run([*COMMAND, "run", "-q", "-c", keys, "--out", str(tmp_path / "out")], check=True, env=os.environ)
    changed(tmp_path / "out", seed=1)
    command = [COMMAND[0], "-O", *COMMAND[1:], "resume", str(tmp_path / "out")]
    ended = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert (ended.returncode, ended.stderr.count("\n")) == (2, 1)
    assert "seed = 1, and its checkpoint was made with seed = 0" in ended.stderr
