"""How fair a run was, as a function and as a command."""

import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ross_flwr.config import ConfigError
from ross_flwr.engine.events import AgentReport, Round
from ross_flwr.report.fairness import fairness, final_accuracies, main
from ross_flwr.runs.history import History


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=2, max_size=9))
@example([(0, 3), (0, 3), (1, 3)])  # rounding makes their mean another number
def test_fairness_is_pearsons_correlation_in_percent(pairs):
    alone, together = ({i: pair[k] / 1000 for i, pair in enumerate(pairs)} for k in (0, 1))
    constant = any(len(set(values.values())) == 1 for values in (alone, together))
    found = fairness(alone, together)
    if constant:
        assert math.isnan(found)
    else:
        expected = np.corrcoef(list(alone.values()), list(together.values()))[0, 1]
        assert found == pytest.approx(100 * expected, abs=1e-6)


def test_agents_are_compared_with_themselves_whatever_their_order():
    assert fairness({0: 0.2, 1: 0.5, 2: 0.9}, {2: 0.95, 1: 0.75, 0: 0.6}) == pytest.approx(100)
    assert fairness({0: 0.2, 1: 0.9}, {0: 0.9, 1: 0.2}) == pytest.approx(-100)


def written(folder, *tests):
    folder.mkdir()
    history = History(4, file=folder / "history.jsonl")
    for number, accuracies in enumerate(tests, start=1):
        history.add(Round(number, [AgentReport(int(i), loss=1.0, accuracy=a) for i, a in accuracies.items()], 0.1))
    return folder


def test_the_command_reads_the_last_test_of_two_runs_and_leaves_out_the_server(tmp_path, capsys):
    together = written(tmp_path / "run", {"0": 0.1, "1": 0.2}, {"0": 0.0, "1": 0.8, "2": 0.9, "3": 0.7}, {})
    alone = written(tmp_path / "alone", {"0": 1.0, "1": 0.5, "2": 0.6, "3": 0.4})
    main([str(together), str(alone), "--without", "0"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["standalone", "50.0%", "(best", "60.0%)"]
    assert rows[1] == ["together", "80.0%", "(best", "90.0%)"]
    assert rows[2] == ["fairness", "100.00"]


def test_folders_that_cannot_be_compared_are_refused(tmp_path):
    some = written(tmp_path / "some", {"0": 0.5, "1": 0.6})
    with pytest.raises(ConfigError, match="do not have the same agents"):
        main([str(some), str(written(tmp_path / "more", {"0": 0.5, "1": 0.6, "2": 0.7}))])
    for folder in (tmp_path / "nowhere", written(tmp_path / "untested", {})):
        with pytest.raises(ConfigError, match="holds no run whose agents were tested"):
            final_accuracies(folder)
