"""The house: which module may import which, and what works without Flower."""

import ast
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import networkx as nx
import pytest

import ross_flwr.learning

PACKAGE = Path(ross_flwr.__file__).parent
README = Path(__file__).parents[1] / "README.md"
MODULES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").rstrip("."): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
"""Files by their name below ross_flwr; that of the package itself is empty."""

MAY_IMPORT = {
    "config": (),
    "vision": ("config", "extras"),
    "peer": (),
    "files": ("config",),
    "typed_json": (),
    "cores": (),
    "extras": ("config",),
    "graph": ("config",),
    "learning": ("config",),
    "data": ("config", "extras", "files", "vision"),
    "tasks": ("config", "data", "learning", "vision"),
    "algorithms": ("config", "learning"),
    "threats": ("config", "learning", "algorithms"),
    "privacy": ("config", "extras", "learning", "algorithms"),
    "compression": ("config", "learning", "algorithms"),
    "engine": ("config", "cores", "graph", "learning", "algorithms"),
    "direct": ("config", "learning", "algorithms", "engine", "peer"),
    "runs": (
        "config",
        "extras",
        "files",
        "graph",
        "learning",
        "tasks",
        "algorithms",
        "threats",
        "privacy",
        "compression",
        "engine",
        "typed_json",
    ),
    "flower": (
        "config",
        "files",
        "graph",
        "learning",
        "tasks",
        "algorithms",
        "privacy",
        "engine",
        "direct",
        "runs",
        "typed_json",
    ),
    "report": ("config", "extras", "files", "runs"),
    "plan": ("config", "cores", "graph", "learning", "engine", "direct", "runs"),
    "flower.results": ("config", "files", "runs", "report"),
    "flower.server_app": ("config", "files", "runs", "report"),
    "studies": (
        "config",
        "extras",
        "graph",
        "learning",
        "tasks",
        "algorithms",
        "threats",
        "compression",
        "runs",
        "report",
    ),
    "new": ("config",),
    "doctor": ("config", "extras", "vision", "direct"),
    "cli": (
        "config",
        "cores",
        "files",
        "graph",
        "data",
        "learning",
        "tasks",
        "algorithms",
        "threats",
        "compression",
        "runs",
        "direct",
        "report",
        "plan",
        "doctor",
        "new",
    ),
    "": ("config", "graph", "learning", "tasks", "algorithms", "threats", "privacy", "compression", "runs", "flower"),
}
"""What a room may import besides itself. The longest name that fits counts; a name stands for all below it."""


def below(module, room):
    return module == room or module.startswith(f"{room}.")


def imports(path):
    """Return the modules of ours that a file imports, by their names below ross_flwr."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: import by the full name"
            members = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name.removeprefix("ross_flwr.") in MODULES else node.module for name in members]
        else:
            continue
        found |= {name.removeprefix("ross_flwr").lstrip(".") for name in names if name.split(".")[0] == "ross_flwr"}
    return found


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module or "ross_flwr")
def test_arrows_go_down_only(module):
    room = max((room for room in MAY_IMPORT if room == "" or below(module, room)), key=len)
    assert room or not module, f"{module} stands in no room of MAY_IMPORT"
    own = room.split(".")[0]
    for imported in imports(MODULES[module]):
        allowed = any(below(imported, each) for each in (*MAY_IMPORT[room], *([own] if own else [])))
        assert allowed, f"{module or 'ross_flwr'} imports {imported or 'ross_flwr'}: {room} may not"


def test_nothing_is_checked_by_an_assertion_which_python_without_assertions_skips():
    asserting = [
        module
        for module, path in MODULES.items()
        if any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    ]
    assert asserting == []


def test_no_import_goes_in_a_circle():
    arrows = nx.DiGraph((module, imported) for module, path in MODULES.items() for imported in imports(path))
    assert list(nx.simple_cycles(arrows)) == []


def test_the_picture_in_the_readme_shows_the_arrows_there_are():
    arrows = nx.DiGraph(
        (module.split(".")[0], each.split(".")[0]) for module in MODULES for each in imports(MODULES[module])
    )
    arrows.remove_nodes_from(["", "config"])
    arrows.remove_edges_from(list(nx.selfloop_edges(arrows)))
    (picture,) = re.findall(r"```mermaid\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.S)
    sides = re.findall(r"^ +(.+) --> (.+)", re.sub(r"\[.*?\]", "", picture), flags=re.M)
    drawn = [(a, b) for left, right in sides for a in left.split(" & ") for b in right.split(" & ")]
    assert sorted(drawn) == sorted(nx.transitive_reduction(arrows).edges)
    assert set(re.findall(r"(\w+)\[", picture)) == set(arrows)


def test_a_run_is_assembled_by_those_who_run_it_and_nobody_else():
    assembling = {"runs.assemble", "runs.assembly"}
    users = {module for module, path in MODULES.items() if assembling & imports(path)} - assembling
    on_flower = {"flower.client_app", "flower.hosting", "flower.run", "flower.strategy"}
    here = {"runs.audit", "runs.cells", "runs.local", "runs.simulate", "runs.trained", "plan.rehearsal"}
    assert users <= here | on_flower


def test_only_the_doors_to_flower_import_it():
    users = set()
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == "flwr" for name in names):
                users.add(module)
                public = ("flwr.app", "flwr.serverapp", "flwr.clientapp")
                assert all(name.startswith(public) for name in names), f"{module} uses what Flower does not promise"
    assert all(below(module, "flower") for module in users)


WITHOUT_FLOWER = """
import importlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("flwr", "ray", "grpc", "torchvision"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
for name in sys.argv[1:]:
    importlib.import_module(name)

import ross_flwr
from ross_flwr.runs.local import LocalRun
run = LocalRun(ross_flwr.resolve({"num-agents": 3, "num-rounds": 1, "topology": "ring"}))
assert [line["round"] for line in run.rounds()] == [1]
try:
    ross_flwr.PeerRelay
except ModuleNotFoundError as error:
    assert error.name.startswith("flwr")
else:
    raise AssertionError("PeerRelay came without Flower")
"""


def test_methods_learning_and_local_runs_need_neither_flower_nor_ray_nor_grpc_nor_torchvision():
    learning = [f"ross_flwr.learning.{module.name}" for module in pkgutil.iter_modules(ross_flwr.learning.__path__)]
    names = ["ross_flwr", "ross_flwr.algorithms", *learning]
    done = subprocess.run([sys.executable, "-c", WITHOUT_FLOWER, *names], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
