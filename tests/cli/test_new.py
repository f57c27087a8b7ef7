"""`ross-flwr new`: the app it writes passes its tests, and runs in Flower's simulation and in a deployment."""

import ast
import os
import subprocess
import sys
import tomllib
from importlib import import_module
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner
from flwr.supercore.task_identity import TaskIdentity
from nodes import Nodes, context_of

from ross_flwr import ConfigError, resolve
from ross_flwr.cli import cli
from ross_flwr.new import write_app

ROOT = Path(__file__).parents[2]


def test_the_app_is_whole_and_its_keys_are_keys(tmp_path):
    done = CliRunner().invoke(cli, ["new", str(tmp_path / "my-app")])
    app = tmp_path / "my-app"
    assert (done.exit_code, done.output) == (0, f"The app is in {app}; its README.md says how to go on\n")
    written = {
        file.relative_to(app).as_posix(): file.read_text(encoding="utf-8") for file in app.rglob("*") if file.is_file()
    }
    modules = {f"my_app/{name}.py" for name in ("__init__", "client_app", "server_app", "task")}
    assert written.keys() == {"README.md", "LICENSE", "pyproject.toml", "tests/test_app.py", *modules}
    assert not [name for name, text in written.items() if "$" in text]
    for name, text in written.items():
        if name.endswith(".py"):
            assert ast.get_docstring(ast.parse(text))
    settings = tomllib.loads(written["pyproject.toml"])
    assert settings["project"]["name"] == "my-app"
    assert resolve(settings["tool"]["flwr"]["app"]["config"]).values["algorithm"] == "ross"
    ruff = [sys.executable, "-m", "ruff", "check", "--isolated", "--line-length=120", "--select=E,F,I"]
    linted = subprocess.run(ruff, cwd=app, capture_output=True, text=True)
    assert linted.returncode == 0, linted.stdout


@pytest.mark.parametrize("name", ["My-App", "my_app", "1st", "a--b", "-a", "küche", "class", "my app"])
def test_what_cannot_be_a_name_is_refused(tmp_path, name):
    with pytest.raises(ConfigError, match="cannot be the name of an app: use lower-case letters, digits and hyphens"):
        write_app(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_nothing_that_exists_is_hidden_or_overwritten(tmp_path):
    with pytest.raises(ConfigError, match="ross-flwr would hide the package ross_flwr, which is installed"):
        write_app(tmp_path / "ross-flwr")
    (tmp_path / "mine").mkdir()
    with pytest.raises(ConfigError, match="mine exists already: name a new folder"):
        write_app(tmp_path / "mine")


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    return write_app(tmp_path_factory.mktemp("apps") / "my-app")


def test_the_apps_agents_learn_and_their_loss_does_not_rise(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(write_app(tmp_path / "rising"))
    monkeypatch.setattr("ross_flwr.flower.placement.SETTLE", 0.0)
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    client, server = (import_module(f"rising.{name}") for name in ("client_app", "server_app"))
    settings = tomllib.loads((tmp_path / "rising" / "pyproject.toml").read_text(encoding="utf-8"))
    keys = settings["tool"]["flwr"]["app"]["config"]
    result = server.main(Nodes(client.app, range(4)), context_of(keys))
    losses = [metrics["loss-mean"] for metrics in result.evaluate_metrics_clientapp.values()]
    assert len(losses) == keys["num-rounds"] == 10
    assert all(after < before + 0.01 for before, after in pairwise(losses)), losses
    assert losses[-1] < losses[0] / 3


@pytest.mark.parametrize("file", ["pyproject.toml", "ross_flwr/template/pyproject.toml.tpl"])
def test_flower_finds_the_metadata_of_an_app_bundle_complete(file):
    from flwr.supercore.fab_format_version import normalize_and_validate_fab_format

    metadata = normalize_and_validate_fab_format(tomllib.loads((ROOT / file).read_text(encoding="utf-8")))
    assert (metadata.fab_format_version, metadata.flwr_version_min) == (1, "1.39")
    assert metadata.flwr_version_target == "1.42.0"


def output(app, *command, **environment):
    """Run a command in the app's folder as a user with this package does, and return what it prints."""
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "FLWR_HOME": str(app.parent / "flwr"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        **environment,
    }
    done = subprocess.run(command, cwd=app, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.deployment
def test_the_apps_own_tests_pass(app):
    pytest.importorskip("ray", reason="needs the extra 'simulation'")
    assert "3 passed" in output(app, sys.executable, "-m", "pytest")


@pytest.mark.deployment
@pytest.mark.skipif(sys.platform != "linux", reason="needs bash")
def test_the_app_runs_in_a_deployment_with_tls(app):
    printed = output(app, str(ROOT / "deploy/local.sh"), "num-rounds=5", APP=str(app), NODES="2")
    assert 'transport="direct"' in printed
    assert "[ROUNDS 1–5/5]" in printed
    accuracy = float(printed.partition("Result: accuracy ")[2].partition("%")[0])
    assert accuracy > 70
    *_, last = printed.splitlines()
    assert (Path(last.removeprefix("The results are in ")) / "summary.json").is_file()
