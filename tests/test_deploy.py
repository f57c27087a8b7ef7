"""What `deploy/` tells machines to run is what Flower and systemd take; images are not built here."""

import re
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

DEPLOY = Path(__file__).parents[1] / "deploy"
BIN = Path(sys.executable).parent
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
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
def flags_of(command):
    done = subprocess.run([BIN / command, "--help"], capture_output=True, text=True, check=True)
    return set(re.findall(r"--[a-z-]+", done.stdout))


@pytest.mark.parametrize("name", COMMANDS)
def test_flower_takes_every_flag(name):
    command, *words = COMMANDS[name]
    given = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert given
    assert given <= flags_of(command)


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
