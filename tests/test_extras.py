"""Packages that are not always there: which extra brings them, and what is said without them."""

import ast
import sys
import tomllib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from ross_flwr import extras, vision
from ross_flwr.config import ConfigError
from ross_flwr.extras import install_line

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


@pytest.fixture
def metadata(monkeypatch):
    """The requirements of ross-flwr as an installation of this tree would hold them."""
    optional = [
        f'{each}; extra == "{name}"' for name, wanted in PROJECT["optional-dependencies"].items() for each in wanted
    ]
    monkeypatch.setattr(extras, "requires", lambda name: [*PROJECT["dependencies"], *optional])


def test_a_device_needs_neither_torchvision_nor_what_reads_data_sets():
    names = {each.partition(">")[0] for each in PROJECT["dependencies"]}
    assert not names & {"torchvision", "datasets", "pillow", "matplotlib", "plotly", "scipy"}


def test_the_line_that_installs_an_extra_names_its_packages_so_that_it_works_from_a_clone_and_from_an_index(metadata):
    assert install_line("plots") == 'pip install "matplotlib>=3.8" "plotly>=6.0"'
    assert install_line("simulation") == 'pip install "flwr[simulation]>=1.39"'


def test_where_nothing_is_known_of_an_extra_it_is_named_itself(monkeypatch):
    def lost(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(extras, "requires", lost)
    assert install_line("plots") == 'pip install "ross-flwr[plots]"'


def test_without_torchvision_what_needs_it_names_a_build_that_fits_this_torch(metadata, monkeypatch):
    monkeypatch.setattr(extras, "version", {"torch": "2.7.1+cpu"}.get)
    monkeypatch.setitem(sys.modules, "torchvision", None)
    line = r'torchvision is not installed: pip install "torchvision>=0\.19" "torch==2\.7\.1" brings it \(.* vision\)'
    with pytest.raises(ConfigError, match=line):
        vision.import_torchvision()


def test_every_extra_that_the_code_names_is_one():
    named = {
        node.args[-1].value
        for path in (ROOT / "ross_flwr").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") in ("import_extra", "install_line", "lacking")
        and isinstance(node.args[-1], ast.Constant)
    }
    assert {"data", "plots", "vision"} <= named <= PROJECT["optional-dependencies"].keys()
