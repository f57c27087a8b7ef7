"""How long the command takes to say something; at most half a second on an idle machine."""

import os
import subprocess
import sys

import pytest

COMMAND = [sys.executable, "-c", "from ross_flwr.cli import main; main()"]
TYPED = {"_ROSS_FLWR_COMPLETE": "bash_complete", "COMP_WORDS": "ross-flwr run -c topology=r", "COMP_CWORD": "3"}


@pytest.mark.parametrize(("words", "environment"), [(["--help"], {}), ([], TYPED)], ids=["help", "completion"])
def test_time_to_the_first_line(benchmark, words, environment):
    call = {"env": {**os.environ, **environment}, "check": True, "capture_output": True}
    benchmark.pedantic(subprocess.run, ([*COMMAND, *words],), call, rounds=5, warmup_rounds=1)
    assert benchmark.stats.stats.min < 0.5
