"""What is shipped: the wheel that pip installs, and the FAB that Flower sends to its nodes."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
MODULES = {path.relative_to(ROOT).as_posix() for path in (ROOT / "ross_flwr").rglob("*.py")}

DATA = {"ross_flwr/data/adult.jsonl", "ross_flwr/data/digits.jsonl"}
TABLES = {path.relative_to(ROOT).as_posix() for path in (ROOT / "ross_flwr").rglob("*.toml")}
READMES = {path.relative_to(ROOT).as_posix() for path in (ROOT / "ross_flwr").glob("*/README.md")}
TOP = ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "constraints.txt", ".gitignore")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of what a release is built from, tests and deployment included."""
    tree = tmp_path_factory.mktemp("release") / "ross-flwr"
    tree.mkdir()
    for name in TOP:
        shutil.copy(ROOT / name, tree)
    for name in ("ross_flwr", "tests", "deploy", "proto", ".ci"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tree


def packed(tree, pattern, *command):
    """Run a command that packs the tree, and return names and sizes of what is in the one file it makes."""
    environment = {**os.environ, "FLWR_HOME": str(tree.parent), "FLWR_DISABLE_UPDATE_CHECK": "1"}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = tree.glob(pattern)
    with zipfile.ZipFile(file) as archive:
        return file, {entry.filename: entry.file_size for entry in archive.infolist()}


def test_the_wheel_holds_the_package_its_types_and_its_data_and_no_tests(tree):
    pip = (sys.executable, "-m", "pip", "wheel", "--no-index", "--no-deps", "--no-build-isolation", "-q", "-w", "dist")
    wheel, names = packed(tree, "dist/*.whl", *pip, ".")
    package = {name for name in names if name.startswith("ross_flwr/")}
    others = {"ross_flwr/py.typed", *DATA, "ross_flwr/template/task.py.tpl"}
    assert package >= MODULES | TABLES | others
    info = {name.partition("/")[2] for name in names.keys() - package}
    assert info == {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
    with zipfile.ZipFile(wheel) as archive:
        metadata = message_from_bytes(archive.read(next(name for name in names if name.endswith("METADATA"))))
    links = re.findall(r"\]\((.*?)\)", metadata.get_payload())
    assert links
    assert [link for link in links if not link.startswith("https://")] == []  # an index has no files beside the page
    assert metadata["Author"]
    assert metadata.get_all("Project-URL")
    assert "Programming Language :: Python :: 3.13" in metadata.get_all("Classifier")


def test_the_source_archive_holds_what_a_clone_does_and_nothing_that_lies_about(tree):
    strays = [tree / name for name in ("my.toml", "notes.txt", "certs/ca.key", "my-app/task.py")]
    for stray in strays:
        stray.parent.mkdir(exist_ok=True)
        stray.write_text("")
    hatch = [sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", "sdist"]
    subprocess.run(hatch, cwd=tree, check=True, capture_output=True)
    for stray in strays:
        stray.unlink()
    (file,) = tree.glob("sdist/*.tar.gz")
    with tarfile.open(file) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    folders = {".ci", "ross_flwr", "proto", "deploy", "tests"}
    assert {name.partition("/")[0] for name in names} == {*TOP, *folders, "PKG-INFO"}
    assert names >= MODULES | TABLES | READMES
    assert not [name for name in names if "__pycache__" in name]


def test_the_fab_holds_the_package_and_its_data_is_small_and_has_no_tests(tree):
    flwr = "import sys; from flwr.cli.app import app; sys.exit(app())"
    fab, names = packed(tree, "*.fab", sys.executable, "-c", flwr, "build")
    assert fab.stat().st_size < 2_500_000  # of the 10 MB that Flower takes
    package = {name for name in names if name.startswith("ross_flwr/")}
    assert package == MODULES | TABLES | READMES | DATA
    beside = {"pyproject.toml", "README.md", "LICENSE", ".info/CONTENT"}
    assert names.keys() - package == beside
    assert max(names.values()) < 1_000_000


def test_the_app_names_its_two_components_and_flower_finds_them():
    app = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["flwr"]["app"]
    assert app["components"] == {
        "serverapp": "ross_flwr.flower.server_app:app",
        "clientapp": "ross_flwr.flower.client_app:app",
    }
    from ross_flwr.flower.client_app import app as client
    from ross_flwr.flower.server_app import app as server

    assert (type(client).__name__, type(server).__name__) == ("ClientApp", "ServerApp")


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["version"] == project["version"]
    assert (citation["license"], project["license"]) == ("Apache-2.0", {"file": "LICENSE"})
    assert [author["name"] for author in citation["authors"]] == [author["name"] for author in project["authors"]]


def test_every_package_of_a_node_is_pinned_by_hashes_to_what_the_project_and_its_constraints_take():
    lines = (ROOT / "deploy/devices.txt").read_text().replace("\\\n", "").splitlines()
    pins = [line.split("--hash=sha256:") for line in lines if not line.startswith("#")]
    assert min(len(hashes) for _, *hashes in pins) > 0
    pinned = {Requirement(pin).name: Requirement(pin).specifier for pin, *_ in pins}
    assert "nvidia" not in " ".join(pinned)
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    wanted += re.findall(r"^\w.*", (ROOT / "constraints.txt").read_text(), flags=re.M)
    for want in map(Requirement, wanted):
        if want.name != "torchvision" and (not want.marker or want.marker.evaluate({"platform_machine": "aarch64"})):
            assert str(pinned[want.name]).removeprefix("==") in want.specifier, want
