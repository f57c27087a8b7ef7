"""What people meet who have a full disk, an old terminal, another encoding, or another word for a key."""

import errno
import io
import json
import os
import subprocess
import sys
import tomllib

import pytest
from rich.console import Console

from ross_flwr import cli, resolve
from ross_flwr.cli import lists
from ross_flwr.cli.completion import FILE
from ross_flwr.config import ConfigError
from ross_flwr.data import cache
from ross_flwr.graph.undirected import edge_list
from ross_flwr.report.table import Fitting, result_table
from ross_flwr.runs import folder as folders
from ross_flwr.runs.finished import find_runs
from ross_flwr.runs.folder import RunFolder

SMALL = (
    "-c",
    "algorithm=dpsgd beside= num-agents=3 num-rounds=3 topology=ring attackers=0 validation-size=0 hidden=8 "
    "test-size=20 checkpoint-every=1",
)
COMMAND = [sys.executable, "-c", "from ross_flwr.cli import main; main()"]
MARK = "\ufeff"


@pytest.mark.parametrize(
    ("words", "environment"),
    [
        ("--help", {}),
        ("run --help", {}),
        ("", {"_ROSS_FLWR_COMPLETE": "bash_complete", "COMP_WORDS": "ross-flwr run -c topology=r", "COMP_CWORD": "3"}),
    ],
    ids=["help", "help of a command", "completion"],
)
def test_help_and_completion_do_not_wait_for_pytorch(words, environment):
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print([name for name in ('torch', 'numpy', 'flwr') if name in sys.modules]))\n"
        "from ross_flwr.cli import main\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words.split()], env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "topology=ring" in done.stdout if environment else "Usage: ross-flwr" in done.stdout
    assert done.stdout.endswith("[]\n")


def test_a_folder_without_a_run_is_refused_before_anything_is_imported_or_said(tmp_path):
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print([name for name in ('torch', 'matplotlib', 'numpy') if name in sys.modules]))\n"
        "from ross_flwr.cli import main\n"
        "main()"
    )
    done = subprocess.run([sys.executable, "-c", code, "report", "."], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "[]\n")
    assert done.stderr.startswith("ross-flwr: . holds no finished run: name the folder")


def test_a_shell_completes_the_names_that_there_are():
    code = (
        "from ross_flwr.cli.names import for_completion; print(for_completion())"  # tests register more in this process
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert FILE.read_text(encoding="utf-8") == done.stdout, "run python -m ross_flwr.cli.names"


def test_a_byte_order_mark_is_no_part_of_a_file(ross_flwr, tmp_path):
    (tmp_path / "my.toml").write_text(f"{MARK}num-rounds = 7\n", encoding="utf-8")
    assert tomllib.loads(ross_flwr("config", "-c", "my.toml").out)["num-rounds"] == 7
    (tmp_path / "edges.txt").write_text(f"{MARK}0 1\n1 2\n", encoding="utf-8")
    assert sorted(edge_list(3, str(tmp_path / "edges.txt")).edges) == [(0, 1), (1, 2)]


def test_a_tilde_is_the_home_folder_in_every_path(ross_flwr, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    (home / "my.toml").write_text("num-rounds = 1\n")
    (home / "edges.txt").write_text("0 1\n1 2\n")
    ended = ross_flwr("run", *SMALL, "-c", "~/my.toml", "-c", "topology=~/edges.txt", "--out", "~/out", "-q")
    assert (ended.code, ended.err) == (0, "")
    assert (home / "out" / "summary.json").exists()
    assert ross_flwr("certs", "init", "--in", "~/certs").code == 0
    assert (home / "certs" / "ca.pem").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_without_a_home_decoded_images_are_kept_nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(cache.os.path, "expanduser", lambda path: path)
    assert cache.cached("images", lambda: {}) == {}
    assert [*tmp_path.iterdir()] == []


def test_a_name_that_is_too_long_is_told_in_one_sentence(ross_flwr):
    for command in (["run", *SMALL, "--out"], ["compare", "digits", "--out"], ["report"], ["resume"]):
        ended = ross_flwr(*command, "a" * 300)
        assert ended.code == 2
        assert ended.err.startswith("ross-flwr: ")
        assert ended.err.endswith("File name too long\n")


def test_a_run_whose_output_cannot_be_written_says_so_and_can_go_on(ross_flwr, tmp_path):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, "run", *SMALL, "--json", "--out", "out"], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE
        )
    sentence = b"ross-flwr: the output cannot be read or written: No space left on device\n"
    assert (done.returncode, done.stderr) == (2, sentence)
    assert ross_flwr("resume", "out", "-q").code == 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["rounds"] == 3


def test_a_run_on_a_full_disk_says_so_and_goes_on_from_what_was_saved(ross_flwr, tmp_path, monkeypatch):
    assert ross_flwr("run", *SMALL, "--out", "whole", "-q").code == 0
    saved = []

    def fill(*arguments):
        if len(saved) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        saved.append(arguments)
        save(*arguments)

    save = folders.save_file
    monkeypatch.setattr(folders, "save_file", fill)
    ended = ross_flwr("run", *SMALL, "--out", "out", "-q")
    assert (ended.code, ended.err) == (
        2,
        "ross-flwr: out cannot take checkpoint.safetensors: No space left on device\n",
    )
    monkeypatch.setattr(folders, "save_file", save)
    assert ross_flwr("resume", "out", "-q").code == 0
    whole, out = (RunFolder(tmp_path / name).read_model() for name in ("whole", "out"))
    assert all(out[name].equal(whole[name]) for name in whole)


class Stream(io.TextIOWrapper):
    """What Windows gives a program, on a terminal or not."""

    def __init__(self, terminal):
        super().__init__(io.BytesIO(), encoding="cp1252")
        self.terminal = terminal

    def isatty(self):
        return self.terminal


@pytest.mark.parametrize("terminal", [True, False])
def test_an_old_encoding_is_no_obstacle_and_files_are_utf_8(terminal, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ross-flwr", "config", "-c", "data-path=Größe"])
    stream = Stream(terminal)
    with capsys.disabled(), monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        with pytest.raises(SystemExit) as end:
            cli.main()
    assert not end.value.code
    written = stream.buffer.getvalue()
    if terminal:
        assert 'data-path = "Größe"' in written.decode("cp1252")
    else:
        assert tomllib.loads(written.decode())["data-path"] == "Größe"


SUMMARY = {
    "rounds": 60,
    "accuracy": {"mean": 0.9312, "min": 0.88},
    "loss": {"mean": 0.3},
    "consensus-distance": 0.0251,
    "bytes": 923_500,
    "seconds": 12.34,
}


@pytest.mark.parametrize("width", [13, 60, 80])
def test_no_number_is_cut_off_on_a_narrow_terminal(width, monkeypatch):
    console = Console(width=width, file=io.StringIO())
    console.print(Fitting(result_table({"isolated-with-validation": SUMMARY})))
    monkeypatch.setattr(lists, "console", console)
    lists.show({"message-loss": "How many messages get lost."})
    said = console.file.getvalue()
    assert "…" not in said
    for value in ("60", "93.1%", "88.0%", "0.0251", "923.5 kB", "12.3", "message-loss", "get lost."):
        assert value in " ".join(said.split())
    assert max(map(len, said.splitlines())) <= width


def test_who_holds_what_is_told_on_the_narrowest_terminal(ross_flwr, monkeypatch):
    monkeypatch.setattr(lists, "console", Console(width=13, file=io.StringIO()))
    assert ross_flwr("data", "-c", "num-agents=3").code == 0
    said = " ".join(lists.console.file.getvalue().split())
    assert "classes 0 to 9" in said
    assert "…" not in said


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ("run -c lr=0.1", "key lr (value 0.1) is not known: did you mean learning-rate?"),
        ("run -c epochs=3", "key epochs (value 3) is not known: did you mean num-rounds?"),
        ("run -c num_clients=3", "did you mean num-agents?"),
        ("run --rounds 3", "No such option --rounds: a key is set by -c num-rounds=…"),
        ("run --lr=0.1", "a key is set by -c learning-rate=…"),
        ("compare digits --rounds 3", "a key is set by -c num-rounds=…"),
        ("compare digits --seed 3", "the experiment's file sets seeds"),
        ("run -c algorithm=FedProx", "it needs a server, and agents here have none; the nearest are 'dpsgd'"),
    ],
)
def test_names_that_people_try_lead_to_the_key(ross_flwr, arguments, hint):
    ended = ross_flwr(*arguments.split())
    assert ended.code == 2
    assert hint in " ".join(ended.err.split())


def test_what_a_file_from_anybody_says_is_no_order_to_the_terminal(ross_flwr, tmp_path):
    (tmp_path / "their.toml").write_text('"\\u001b[2J\\u009b" = 1\n')
    ended = ross_flwr("run", "-c", "their.toml")
    assert ended.code == 2
    assert ended.err.startswith("ross-flwr: key [2J (value 1) is not known")
    assert ended.err.rstrip("\n").isprintable()


def test_a_report_on_a_run_that_has_not_ended_says_how_to_go_on(tmp_path):
    RunFolder(tmp_path / "run").begin(resolve({}))
    with pytest.raises(ConfigError, match=r"the run in .* has not ended: `ross-flwr resume .*run` continues it"):
        find_runs(tmp_path / "run")
    RunFolder(tmp_path / "compared" / "dpsgd" / "clean" / "ring" / "0").begin(resolve({}))
    with pytest.raises(ConfigError, match="has ended: the same `ross-flwr compare` command continues them"):
        find_runs(tmp_path / "compared")
    for stage, rest, said in (("tuning", "dpsgd/ring/a=1/clean/7", "tuning"), ("costs", "dpsgd/ring/seeds/0", "costs")):
        RunFolder(tmp_path / "begun" / stage / rest).begin(resolve({}))
        with pytest.raises(
            ConfigError, match=rf"has not got beyond .*{said} \(0 runs of that are done\): a report shows"
        ):
            find_runs(tmp_path / "begun")
