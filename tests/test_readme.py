"""The commands of the README do what they are said to do."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from ross_flwr.cli import cli

README = Path(__file__).parents[1] / "README.md"
SCENARIOS = re.findall(r"^\| .* \| `ross-flwr (.*)` \|$", README.read_text(encoding="utf-8"), flags=re.M)


def test_the_tables_of_scenarios_are_found():
    assert len(SCENARIOS) > 20


@pytest.mark.parametrize("command", [each for each in SCENARIOS if "data-path" not in each])
def test_every_scenario_on_the_digits_runs(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = command.split()
    if words[0] == "run":
        words += ["-c", "num-rounds=2", "--out", "results"]
    done = CliRunner().invoke(cli, words, catch_exceptions=False)
    assert done.exit_code == 0
    assert words[0] == "data" or (tmp_path / "results" / "summary.json").is_file()
