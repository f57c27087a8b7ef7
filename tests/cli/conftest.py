"""The command, run in the process of the tests."""

import sys
from dataclasses import dataclass

import pytest

from ross_flwr import cli


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def ross_flwr(monkeypatch, tmp_path, capsys):
    """Run the command in this process, in an empty folder. An exception that leaves it would be a traceback."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["ross-flwr", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        return Ended(end.value.code or 0, *capsys.readouterr())

    return call
