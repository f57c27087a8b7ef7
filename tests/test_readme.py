"""The commands of the READMEs do what they are said to do."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from textwrap import dedent

import pytest
from addresses import free_port
from click.testing import CliRunner

import ross_flwr
from ross_flwr.cli import cli

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
READMES = [
    README,
    *sorted(ROOT.glob("ross_flwr/*/README.md")),
    ROOT / "deploy/README.md",
    ROOT / "tests/benchmarks/README.md",
]
TEXTS = {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in READMES}
SCENARIOS = re.findall(r"^\| .* \| `ross-flwr ((?:run|data)\b.*)` \|$", "\n".join(TEXTS.values()), flags=re.M)

ELSEWHERE = {
    "python3 -m venv": "installs: .ci/run does",
    "pip install": "installs",
    "tensorboard --logdir": "serves until it is stopped; tests/report/test_trackers.py reads what it would show",
    "flwr run . NAME-OF-THE-SUPERLINK": "tests/deployment",
    "flwr run . --stream --federation-config": "the same option is used with my-app",
    "deploy/local.sh": "tests/deployment",
    "(cd my-app": "tests/cli/test_new.py",
    "APP=my-app deploy/local.sh": "tests/cli/test_new.py",
    "flower-supernode": "other machines",
    "ross-flwr doctor --certs": "other machines; tests/cli/test_doctor.py",
    "ross-flwr run -c algorithm=ross-plus -c beside= -c dataset=mnist": "data that has to be fetched",
    "ross-flwr compare cgsv": "data that has to be fetched",
    "ross-flwr compare mnist -c data-path=FOLDER --scenarios": "data that has to be fetched",
    "for partition in UNI POW CLA": "data that has to be fetched",
}
"""Commands that are not run here, by how they begin, and what is in the way or who runs them."""

SHORTER = {
    "flwr run": "--run-config 'num-rounds=2'",  # and ross-flwr run
    "ross-flwr compare": "--quick --methods ross-plus,dpsgd --topologies ring",
}
"""What is added to commands that would take long."""


def commands():
    """The commands in the `bash` blocks of all READMEs, in their order, a loop as one; `sh` is for other machines."""
    found = []
    for text in TEXTS.values():
        for block in re.findall(r"^ *```bash\n(.*?)```", text, flags=re.M | re.S):
            text = dedent(block).replace("\\\n", " ")
            found += [text] if text.startswith("for ") else [line.partition("  #")[0] for line in text.splitlines()]
    return found


HERE = [
    command
    for command in commands()
    if not command.startswith(tuple(ELSEWHERE)) and not any(each.startswith(f"{command} ") for each in commands())
]
"""Of two commands that differ by options at the end, the longer one is run."""


def test_the_tables_of_scenarios_are_found():
    assert len(SCENARIOS) > 20


def test_the_readme_is_short_and_every_room_beside_it_is_named_in_it():
    assert len(TEXTS["README.md"].splitlines()) <= 150
    assert [name for name in TEXTS if name != "README.md" and f"({name})" not in TEXTS["README.md"]] == []


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_to_files_that_are_there(name):
    targets = re.findall(r"\]\((?!https?://)([^)#]+)\)", TEXTS[name])
    assert [target for target in targets if not (ROOT / name).parent.joinpath(target).is_file()] == []


@pytest.mark.parametrize("command", [each for each in SCENARIOS if "data-path" not in each])
def test_every_scenario_on_the_digits_runs(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = shlex.split(command)
    if words[0] == "run":
        words += ["-c", "num-rounds=2", "--out", "results"]
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert words[0] == "data" or (tmp_path / "results" / "summary.json").is_file()


def test_commands_that_are_run_elsewhere_are_still_in_a_readme():
    assert [begin for begin in ELSEWHERE if not any(each.startswith(begin) for each in commands())] == []
    assert len(HERE) > 12


def test_the_python_in_the_readmes_runs(tmp_path):
    blocks = [block for text in TEXTS.values() for block in re.findall(r"```python\n(.*?)```", text, flags=re.S)]
    assert len(blocks) >= 3
    file = tmp_path / "readmes.py"
    file.write_text("\n".join(blocks), encoding="utf-8")
    done = subprocess.run([sys.executable, file], capture_output=True, text=True)
    assert (done.returncode, "mean" in done.stdout) == (0, True), done.stderr


def end_all_with(variable):
    """End the processes with this environment variable: `flwr run` leaves a SuperLink running."""
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if variable.encode() in environment.read_bytes().split(b"\0"):
                os.kill(int(environment.parent.name), signal.SIGTERM)


@pytest.mark.deployment
@pytest.mark.skipif(sys.platform != "linux", reason="needs bash")
def test_every_other_command_ends_well_in_the_order_of_the_readmes(tmp_path):
    pytest.importorskip("ray", reason="needs the extra 'simulation'")
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "ross_flwr", tmp_path / "ross_flwr", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / ".venv").symlink_to(sys.prefix)
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(tmp_path),
        "FLWR_HOME": str(tmp_path / "flwr"),
        "FLWR_LOCAL_CONTROL_API_PORT": str(free_port()),
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": str(free_port()),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    }
    try:
        for command in HERE:
            more = next((more for part, more in SHORTER.items() if part in command), "")
            whole = f"{command.strip()} {more}"
            done = subprocess.run(
                ["bash", "-c", whole], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=400
            )
            printed = f"{whole}\n{done.stdout}{done.stderr}"
            assert done.returncode == 0, printed
            assert "Warn" not in printed or not command.startswith("python -m pdoc"), printed
            assert "Result" in done.stdout or not command.startswith("flwr run"), printed
    finally:
        end_all_with(f"FLWR_HOME={environment['FLWR_HOME']}")
    assert (tmp_path / "results/digits/report.html").is_file()
    reference = "".join(file.read_text(encoding="utf-8") for file in (tmp_path / "build/api").rglob("*.html"))
    assert [name for name in ross_flwr.__all__ if f'id="{name}"' not in reference] == []
