"""Four apps of the shapes that Flower's examples have, each with FedAvg and with ROSS."""

import difflib
import importlib
import random
import re
from pathlib import Path
from statistics import mean

import pytest
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


def played(app, form, key):
    """Run one form of an app on nodes of this process, and return what its nodes measured in each round."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    random.seed(0)  # FedAvg draws the order of the nodes, and they share torch's generator
    client = importlib.import_module(f"apps.{app}.{form}.client_app").app
    server = importlib.import_module(f"apps.{app}.{form}.server_app")
    result = server.main(Nodes(client, range(NODES), together=False), context_of({}))
    return [metrics[key] for metrics in result.evaluate_metrics_clientapp.values()]


@pytest.mark.parametrize("app", APPS)
def test_after_equally_many_batches_ross_is_within_two_points_of_fedavg(app):
    if app == "tabular":
        pytest.importorskip("sklearn", reason="its table comes with scikit-learn")
    fedavg, ross = played(app, "fedavg", "eval_acc"), played(app, "ross", "accuracy-mean")
    assert len(fedavg) == len(ross)
    print(f"{app}: FedAvg {fedavg[-1]:.3f}, ROSS {ross[-1]:.3f}")
    assert mean(fedavg[-2:]) > 0.85
    assert mean(ross[-2:]) > mean(fedavg[-2:]) - 0.02
