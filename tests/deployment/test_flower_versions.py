"""The oldest Flower that is supported: its Fleet API, by which a SuperNode speaks to the SuperLink, is itself gRPC."""

import re
import subprocess
import sys
import sysconfig
import tomllib
import urllib.request

import pytest
from addresses import free_addresses
from deployed import PATH, POSSIBLE, ROOT, Deployment, Results, Run, environment, until, written

pytestmark = POSSIBLE

OLDEST = "1.39"
SMALL = {"algorithm": "ross", "beside": "", "num-nodes": 2, "topology": "ring", "attackers": 1}


def test_readme_and_package_state_the_range_that_is_tested():
    newest = re.search(r"^flwr==1\.(\d+)", (ROOT / "constraints.txt").read_text(), flags=re.M)[1]
    package = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert f"flwr>={OLDEST},<1.{int(newest) + 1}" in package["dependencies"]
    assert f"Flower {OLDEST} to 1.{newest}" in (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def oldest(tmp_path_factory):
    """A PATH on which Flower's commands are those of an environment with the oldest flwr and what that pins.

    All else in it, PyTorch and Ray foremost, is what is installed here: it costs minutes, and is not what is tested.
    """
    folder = tmp_path_factory.mktemp("oldest")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "shared.pth").write_text(sysconfig.get_path("purelib"))
    install = ["-m", "pip", "--python", folder / "bin/python", "install", "--quiet", f"flwr[simulation]=={OLDEST}.*"]
    subprocess.run([sys.executable, *install], check=True)
    path = f"{folder / 'bin'}:{PATH}"
    for command in ("flwr", "flower-superlink", "flower-supernode"):
        shown = subprocess.check_output([command, "--version"], env=environment(folder, path), text=True)
        assert shown.startswith(f"Flower version: {OLDEST}.")
    return path


@pytest.mark.deployment
def test_a_simulation_on_the_oldest_flower_gives_what_one_process_gives(oldest, tmp_path):
    (address,) = free_addresses(1)
    where = environment(tmp_path, oldest)
    (tmp_path / "config.toml").write_text(f'[superlink.here]\naddress = "{address}"\ninsecure = true\n')
    command = ["flower-superlink", "--simulation", "--insecure", "--port", address.rpartition(":")[2]]
    command += ["--disable-runtime-dependency-installation"]
    with (tmp_path / "superlink.log").open("w") as log:
        superlink = subprocess.Popen(command, env=where, stdout=log, stderr=log)
    try:
        until(lambda: answers(f"http://{address}/health"), "the SuperLink did not come up")
        run = Run(tmp_path / "run", where, {**SMALL, "num-agents": 6, "num-rounds": 4})
        run.finish()
    finally:
        superlink.terminate()
        superlink.wait(timeout=60)
    run.assert_is_as_locally()


def answers(url):
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


@pytest.mark.deployment
def test_a_deployment_on_the_oldest_flower_gives_what_one_process_gives(oldest, tmp_path):
    keys = {**SMALL, "algorithm": "dpsgd", "num-agents": 2, "num-rounds": 1, "transport": "relay"}
    keys["phase-timeout"] = 120.0
    deployment = Deployment(tmp_path, written(keys), nodes=2, path=oldest)
    deployment.stop()
    assert "Result" in deployment.printed
    assert "Fleet API (gRPC" in (tmp_path / "superlink.log").read_text()
    Results(tmp_path / "results", keys).assert_is_as_locally()
