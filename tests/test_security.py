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
