"""Everything public has an example, and the examples in the docstrings are true."""

import doctest
import inspect
from importlib import import_module
from pathlib import Path

import pytest

from ross_flwr.algorithms import ALGORITHMS
from ross_flwr.config import groups
from ross_flwr.learning.rules import RULES
from ross_flwr.threats.attacks import attack

ROOT = Path(__file__).parents[1]
PUBLIC = [
    "ross_flwr",
    *(f"ross_flwr.{room}" for room in ("algorithms", "config", "data", "doctor", "graph", "tasks")),
    "ross_flwr.learning.rules",
    "ross_flwr.threats.attacks",
]
"""The modules whose `__all__` is for users."""

MODULES = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in sorted((ROOT / "ross_flwr").rglob("*.py"))
    if ">>>" in path.read_text(encoding="utf-8")
]


@pytest.fixture
def registries(monkeypatch):
    """Forget what the examples register."""
    for registry in ("_groups", "_owners"):
        monkeypatch.setattr(groups, registry, dict(getattr(groups, registry)))
    known = dict(ALGORITHMS), dict(RULES)
    yield
    for registry, before in zip((ALGORITHMS, RULES), known, strict=True):
        registry.clear()
        registry.update(before)


def view():
    """Return the view of `View`'s example, about which the examples of the attacks lie."""
    names = {**vars(attack)}
    example, *_ = doctest.DocTestFinder(recurse=False).find(attack.View, "View", globs=names)
    assert not doctest.DocTestRunner().run(example, clear_globs=False).failed
    return example.globs["view"]


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_in_the_docstrings_are_true(name, registries):
    module = import_module(name)
    attacks = name.startswith("ross_flwr.threats.attacks.")
    for example in doctest.DocTestFinder(exclude_empty=True).find(module):
        example.globs |= {"view": view()} if attacks else {}
        assert not doctest.DocTestRunner().run(example).failed, example.name


@pytest.mark.parametrize("room", PUBLIC)
def test_everything_public_has_an_example(room):
    module = import_module(room)
    public = {name: getattr(module, name) for name in module.__all__}
    without = [
        name
        for name, thing in public.items()
        if (inspect.isclass(thing) or inspect.isfunction(thing)) and ">>>" not in (thing.__doc__ or "")
    ]
    assert without == []
