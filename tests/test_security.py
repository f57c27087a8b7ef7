"""What deploy/SECURITY.md says."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parent
SECURITY = (TESTS.parent / "deploy" / "SECURITY.md").read_text(encoding="utf-8")


def test_every_test_that_it_names_is_there():
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", SECURITY)
    assert len(named) > 30
    for file, name in named:
        tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
        there = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        there |= {
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        assert name in there, f"deploy/SECURITY.md names {file}::{name}"


CALENDAR = {
    "cli/audit.py": "names a folder",
    "cli/runs.py": "names a folder",
    "direct/certificates.py": "validity of certificates",
    "doctor/node.py": "validity of certificates, and how far the clocks of two machines are apart",
    "privacy/seeds.py": "which of two seeds was drawn later, on machines of their own",
}
"""What depends on the date."""


def test_nobody_measures_time_with_the_wall_clock():
    """It may step."""
    package, wall = TESTS.parent / "ross_flwr", {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow"}
    found = set()
    for file in package.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            imported = isinstance(node, ast.ImportFrom) and node.module == "time"
            names = {f"time.{name.name}" for name in node.names} if imported else set()
            if isinstance(node, ast.Attribute):
                names = {ast.unparse(node)}
            if names & wall:
                found.add(file.relative_to(package).as_posix())
    assert found == CALENDAR.keys()
