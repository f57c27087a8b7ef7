"""What `deploy/` tells machines to run is what Flower and systemd take, and `local.sh` cleans up; no image is built."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest
import yaml
from deployed import children_of, runs, send, until
from flwr.common.config import parse_config_args

DEPLOY = Path(__file__).parents[1] / "deploy"
BIN = Path(sys.executable).parent
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
NEEDS_BASH = pytest.mark.skipif(not shutil.which("bash") or sys.platform != "linux", reason="needs bash")
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def command_of(service):
    words = service["command"]
    if words[0] != "sh":
        return words
    exec_, *words = shlex.split(words[2].replace("$$HOSTNAME", service["hostname"]))
    assert exec_ == "exec"
    return words


def command_in(unit):
    (line,) = re.findall(r"^ExecStart=/opt/ross-flwr/bin/(.*)$", unit.read_text().replace("\\\n", ""), flags=re.M)
    return shlex.split(line)


CONTAINERS = {name: command_of(service) for name, service in COMPOSE["services"].items()}
COMMANDS = CONTAINERS | {unit.stem: command_in(unit) for unit in UNITS}


@cache
def help_of(command):
    return subprocess.run([BIN / command, "--help"], capture_output=True, text=True, check=True).stdout


def flags_of(command):
    return set(re.findall(r"--[a-z-]+", help_of(command)))


@pytest.mark.parametrize("name", COMMANDS)
def test_flower_takes_every_flag(name):
    command, *words = COMMANDS[name]
    given = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert given
    assert given <= flags_of(command)


@pytest.mark.parametrize("file", ["flower/README.md", "template/README.md.tpl"])
def test_a_superlink_that_is_started_by_hand_needs_no_flag_that_flower_warns_of(file):
    text = (DEPLOY.parent / "ross_flwr" / file).read_text(encoding="utf-8")
    (command,) = re.findall(r"^`?(flower-superlink [^`#\n]*)", text, flags=re.M)
    for flag in re.findall(r"--[a-z-]+", command):
        (said,) = re.findall(rf"^  {flag}\b.*(?:\n {{3,}}.*)*", help_of("flower-superlink"), flags=re.M)
        assert "deprecated" not in said.lower()


def test_containers_find_each_other_by_the_names_that_their_certificates_have():
    agents = COMPOSE["services"].keys() - {"superlink"}
    assert agents == {f"agent-{k}" for k in range(1, 5)}
    for name in agents:
        service, words = COMPOSE["services"][name], CONTAINERS[name]
        assert service["hostname"] == name
        assert service["volumes"] == [f"../certs/{name}:/certs:ro", f"{name}:/state"]
        assert words[words.index("--node-config") + 1] == f'peer-address="{name}:9700" peer-certs="/certs"'
    assert COMPOSE["volumes"].keys() == COMPOSE["services"].keys()


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd")
def test_systemd_takes_the_units(tmp_path):
    for unit in UNITS:
        text = unit.read_text().replace("/opt/ross-flwr/bin", str(BIN)).replace("User=ross-flwr", "User=root")
        (tmp_path / unit.name).write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", *tmp_path.iterdir()], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_units_find_their_variables_in_the_environment_file():
    given = set(re.findall(r"^(\w+)=", (DEPLOY / "systemd/ross-flwr.env").read_text(), flags=re.M))
    used = {name for unit in UNITS for name in re.findall(r"\$\{(\w+)\}", unit.read_text())}
    assert used == {"SUPERLINK", "SUPERLINK_HOST", "SUPERLINK_PORT", "PEER_ADDRESS"}
    assert used <= given


STUBS = {
    "flower-superlink": 'case "$*" in --version) echo 1.42.0;; *) exec "$HERE/serve" superlink;; esac',
    "flower-supernode": 'echo "$@" >>"$HERE/nodes"; exec "$HERE/serve" supernode',
    "flwr": 'echo "$@" >"$HERE/$1"; case $1 in run) "$HERE/meet"; "$HERE/app";; list) echo "$ENDS";; esac',
    "app": "echo Result",
    "meet": 'until [ -e "$HERE/supernode.up" ]; do sleep 0.1; done',
    "ross-flwr": 'echo "$@" >>"$HERE/certs"',
    "serve": 'trap "sleep 2; exit" TERM; touch "$HERE/$1.up"; while :; do sleep 0.1; done',
}
"""Commands in the place of Flower's: those that serve take two seconds to end."""


@pytest.fixture
def stubbed(tmp_path):
    """Starts `deploy/local.sh` with these commands instead of Flower's; some may be replaced."""
    here = tmp_path / "bin"
    here.mkdir()

    def start(work, argument="num-rounds=1", *, temporary=False, **replaced):
        for name, body in (STUBS | replaced).items():
            (here / name).write_text(f"#!/usr/bin/env bash\n{body}\n")
            (here / name).chmod(0o755)
        (work / "certs").mkdir(parents=True)
        env = {
            "ENDS": '"finished:completed"',
            **os.environ,
            "PATH": f"{here}:{os.environ['PATH']}",
            "HERE": str(here),
            "WORK": str(work),
            "NODES": "2",
        }
        env |= {"WORK": "", "TMPDIR": str(work)} if temporary else {}
        command = [DEPLOY / "local.sh", argument]
        return subprocess.Popen(command, env=env, stdout=-1, stderr=-2, text=True, start_new_session=True), here

    return start


@NEEDS_BASH
def test_all_that_was_started_is_stopped_also_if_the_script_is_told_twice(stubbed, tmp_path):
    script, here = stubbed(tmp_path / "work", flwr='[ "$1" != run ] || sleep 60')
    until(lambda: (here / "supernode.up").exists(), "no node starts", 30)
    below = children_of(script.pid)
    script.terminate()
    time.sleep(0.5)
    script.terminate()
    assert script.wait(timeout=30) == 130
    left = [command for pid in below if "serve" in (command := runs(pid))]
    send(signal.SIGKILL, below)
    assert left == []


@NEEDS_BASH
def test_a_folder_with_an_apostrophe_reaches_flower_as_it_is(stubbed, tmp_path):
    work = tmp_path / "Anna's work"
    script, here = stubbed(work)
    said, _ = script.communicate(timeout=60)
    assert script.returncode == 0, said
    config = (here / "run").read_text().partition("--run-config ")[2].strip()
    assert parse_config_args([config])["results"] == str(work / "results")
    nodes = [line.partition("--node-config ")[2] for line in (here / "nodes").read_text().splitlines()]
    certs = {parse_config_args([config])["peer-certs"] for config in nodes}
    assert certs
    assert certs <= {str(work / "certs/agent-1"), str(work / "certs/agent-2")}


@NEEDS_BASH
def test_a_folder_that_flowers_configuration_cannot_hold_is_refused(stubbed, tmp_path):
    script, _ = stubbed(tmp_path / 'a "work"')
    said, _ = script.communicate(timeout=60)
    assert (script.returncode, "double quote" in said) == (1, True)


@NEEDS_BASH
def test_a_superlink_that_ends_is_not_waited_for_although_another_program_listens(stubbed, tmp_path):
    """The other program takes connections and says nothing, so that the command that asks for the SuperLink hangs."""
    ended = 'case "$*" in --version) echo 1.42.0;; *) echo "the port is in use"; exit 1;; esac'
    script, _ = stubbed(tmp_path / "work", **{"flower-superlink": ended, "flwr": "exec sleep 60"})
    said, _ = script.communicate(timeout=30)
    assert script.returncode == 1
    assert "the SuperLink did not start" in said
    assert "the port is in use" in said


SAID = r"""printf '\033[92mINFO \033[0m:      Starting PeerDirect strategy:\n'
printf '\033[92mINFO \033[0m:      \t├──> algorithm: dpsgd, learning rate 0.1\n'
printf '\033[92mINFO \033[0m:      [ROUNDS 1–20/40]\n\033[93mWARNING \033[0m:   \t├──> no word from agents (0,)\n'
printf '\033[92mINFO \033[0m:      Results are in /somewhere\n\033[92mINFO \033[0m:          Result    \n'
printf '\033[92mINFO \033[0m:       dpsgd  91 \n\033[92mINFO \033[0m:      \n'
"""
"""What Flower's log looks like while a run goes on."""
KEPT = 'mkdir -p "$(sed \'s/.*results=.\\([^"]*\\)".*/\\1/\' "$HERE/run")"'


@NEEDS_BASH
def test_progress_is_short_and_the_table_and_the_folder_of_results_stand_last(stubbed, tmp_path):
    """Of a temporary folder, logs and results stay."""
    script, _ = stubbed(tmp_path / "work", temporary=True, app=f"{SAID}{KEPT}")
    said, _ = script.communicate(timeout=60)
    assert script.returncode == 0, said
    (results,) = re.findall(r'results="(.*?)"', said)
    first, command, *rest = said.splitlines()
    assert (first, command[:10]) == (
        f"Starting a SuperLink and 2 SuperNodes; their logs are in {Path(results).parent}",
        "+ flwr run",
    )
    progress = ["algorithm: dpsgd, learning rate 0.1", "[ROUNDS 1–20/40]", "WARNING: no word from agents (0,)"]
    assert [line.strip() for line in rest] == [*progress, "Result", "dpsgd  91", f"The results are in {results}"]
    stays = {path.name for path in Path(results).parent.iterdir()}
    assert {"results", "run.log", "superlink.log", "agent-1.log"} <= stays
    assert [name for name in stays if not name.endswith(".log")] == ["results"]


@NEEDS_BASH
@pytest.mark.parametrize("given", ["'{}'", '"{}"'])
def test_results_in_a_folder_that_was_given_are_said_to_be_there(stubbed, tmp_path, given):
    (tmp_path / "mine").mkdir()
    given = f"num-rounds=1 results={given.format(tmp_path / 'mine')}"
    script, _ = stubbed(tmp_path / "work", given)
    said, _ = script.communicate(timeout=60)
    assert said.splitlines()[-1] == f"The results are in {tmp_path / 'mine'}"


@NEEDS_BASH
def test_an_app_that_keeps_no_results_is_told_of_by_its_log(stubbed, tmp_path, monkeypatch):
    (tmp_path / "app").mkdir()
    (tmp_path / "app/pyproject.toml").write_text("num-rounds = 3\n")
    monkeypatch.setenv("APP", str(tmp_path / "app"))
    script, here = stubbed(tmp_path / "work", "", app="echo Final results: 7")
    said, _ = script.communicate(timeout=60)
    assert script.returncode == 0, said
    assert "results=" not in (here / "run").read_text()
    *_, final, last = said.splitlines()
    assert final == "Final results: 7"
    assert last.endswith(f"what it said is in {tmp_path / 'work/run.log'}")


@NEEDS_BASH
def test_a_run_that_fails_after_a_result_is_no_success(stubbed, tmp_path, monkeypatch):
    monkeypatch.setenv("ENDS", '"finished:failed"')
    script, _ = stubbed(tmp_path / "work", app="echo Result; echo Traceback; echo ConfigError: no node can work")
    said, _ = script.communicate(timeout=60)
    assert script.returncode == 1
    assert "Traceback" in said
    *_, sentence, where = said.splitlines()
    assert sentence == "the run did not end well: ConfigError: no node can work"
    assert where.endswith(str(tmp_path / "work"))


@NEEDS_BASH
@pytest.mark.parametrize(("transport", "seconds"), [("direct", 20), ("relay", 120), ("hybrid", 120)])
def test_where_each_exchange_starts_processes_it_gets_longer(stubbed, tmp_path, transport, seconds):
    script, here = stubbed(tmp_path / "work", f"transport='{transport}'")
    said, _ = script.communicate(timeout=60)
    assert f"phase-timeout={seconds}.0" in (here / "run").read_text(), said
