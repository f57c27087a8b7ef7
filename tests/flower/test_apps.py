"""Four apps of the shapes that Flower's examples have, each with FedAvg and with ROSS."""

import difflib
import importlib
import random
import re
import sys
import tomllib
from pathlib import Path
from statistics import mean

import pytest
from flwr.cli.config_utils import load_and_validate
from flwr.supercore.task_identity import TaskIdentity
from nodes import Nodes, context_of

ROOT = Path(__file__).parents[2]
APPS = ("pictures", "text", "tabular", "frozen")
NODES = 4


def files_of(app, form):
    return {
        name: (ROOT / "tests" / "apps" / app / form / name).read_text() for name in ("client_app.py", "server_app.py")
    }


def changes(app):
    """The diff from the app with FedAvg to the app with ROSS, without lines of context and empty lines."""
    fedavg, ross = files_of(app, "fedavg"), files_of(app, "ross")
    lines = []
    for name in fedavg:
        found = list(difflib.unified_diff(fedavg[name].splitlines(), ross[name].splitlines(), lineterm="", n=0))[2:]
        lines += [f"# {name}", *(line for line in found if not line.startswith("@@") and line not in ("+", "-"))]
    return lines


@pytest.mark.parametrize("app", APPS)
def test_at_most_fifteen_lines_change_and_the_readme_shows_them(app):
    lines = changes(app)
    assert len([line for line in lines if line[0] in "+-"]) <= 15
    readme = (ROOT / "ross_flwr" / "flower" / "README.md").read_text(encoding="utf-8")
    shown = [block.splitlines() for block in re.findall(r"```diff\n(.*?)```", readme, flags=re.S)]
    assert lines in shown, "\n".join(lines)


@pytest.fixture
def components(monkeypatch):
    """Returns the ClientApp and the ServerApp of one form of an app, as Flower finds them in the app's folder."""

    def load(app, form):
        for name in [name for name in sys.modules if name.partition(".")[0] in ("task", "fedavg", "ross")]:
            monkeypatch.delitem(sys.modules, name)
        folder = ROOT / "tests" / "apps" / app
        monkeypatch.syspath_prepend(folder)
        names = tomllib.loads((folder / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["components"]
        client, server = (names[name].removesuffix(":app").replace("ross", form) for name in ("clientapp", "serverapp"))
        return importlib.import_module(client).app, importlib.import_module(server)

    return load


@pytest.mark.parametrize("app", APPS)
def test_flower_takes_the_folder_of_each_app(app):
    config, warnings = load_and_validate(ROOT / "tests" / "apps" / app / "pyproject.toml")
    assert warnings == []
    assert config["project"]["name"] == app


def played(client, server, key):
    """Run one form of an app on nodes of this process, and return what its nodes measured in each round."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    random.seed(0)  # FedAvg draws the order of the nodes, and they share torch's generator
    result = server.main(Nodes(client, range(NODES)), context_of({}))
    return [metrics[key] for metrics in result.evaluate_metrics_clientapp.values()]


@pytest.mark.parametrize("app", APPS)
def test_after_equally_many_batches_ross_is_within_two_points_of_fedavg(app, components):
    if app == "tabular":
        pytest.importorskip("sklearn", reason="its table comes with scikit-learn")
    fedavg = played(*components(app, "fedavg"), "eval_acc")
    ross = played(*components(app, "ross"), "accuracy-mean")
    assert len(fedavg) == len(ross)
    print(f"{app}: FedAvg {fedavg[-1]:.3f}, ROSS {ross[-1]:.3f}")
    assert mean(fedavg[-2:]) > 0.85
    assert mean(ross[-2:]) > mean(fedavg[-2:]) - 0.02
