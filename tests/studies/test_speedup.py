"""The speed-up study's table: rounds to a loss, and the slope."""

import json

import pytest

from ross_flwr.config import ConfigError
from ross_flwr.engine.events import AgentReport, Round
from ross_flwr.runs.finished import Run
from ross_flwr.runs.history import History
from ross_flwr.studies.speedup import main, rounds_to, slope


def ran(root, method, size, seed, losses):
    folder = root / method / "iid" / str(size) / str(seed)
    folder.mkdir(parents=True)
    history = History(size, file=folder / "history.jsonl")
    for k, loss in enumerate(losses):
        history.add(Round(2 * k + 1, [AgentReport(i) for i in range(size)], 0.1))
        history.add(Round(2 * k + 2, [AgentReport(i, loss=loss, accuracy=0.5) for i in range(size)], 0.1))
    summary = {"algorithm": method, "topology": "ring", **history.summary()}
    (folder / "summary.json").write_text(json.dumps(summary))


def printed(capsys, *arguments):
    main(list(map(str, arguments)))
    return [[entry.strip() for entry in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()]


def test_the_first_test_at_the_loss_or_below_counts_and_a_diverged_one_does_not():
    losses = [{"mean": 2.0}, None, {"mean": None}, {"mean": 0.5}, {"mean": 0.9}, {"mean": 0.1}]
    run = Run("ross", "iid", "4", 0, {}, [{"round": k + 1, "loss": loss} for k, loss in enumerate(losses)])
    assert [rounds_to(run, loss) for loss in (0.6, 0.5, 0.2, 0.05)] == [4, 4, 6, None]


@pytest.mark.parametrize(("power", "expected"), [(1, -1.0), (0.5, -0.5), (0, 0.0)])
def test_the_slope_is_the_power_of_the_number_of_agents(power, expected):
    assert slope({size: 7 * (32 / size) ** power for size in (4, 8, 16, 32)}) == pytest.approx(expected)


def test_the_table_has_means_over_seeds_and_a_slope_where_all_got_there(tmp_path, capsys):
    for seed, waits in ((0, {4: 7, 8: 3, 16: 1}), (1, {4: 7, 8: 3, 16: 1}), (2, {4: 7, 8: 3, 16: 0})):
        for size, wait in waits.items():
            ran(tmp_path, "ross", size, seed, [1.0] * wait + [0.4])
            ran(tmp_path, "dpsgd", size, seed, [0.4 if seed or size < 16 else 1.0])
    head, _, ross, dpsgd = printed(capsys, tmp_path, "--loss", "0.5")
    assert head == ["", "N = 4", "N = 8", "N = 16", "slope"]
    assert ross[:4] == ["iid, ross", "16", "8", "3"]
    # Slopes −1, −1 and log₂(2/16)/2 = −1.5: mean −7/6, and 4.303 · s/√3 with s² = 1/12.
    assert ross[4] == "-1.17 ± 0.72"
    assert dpsgd[1:] == ["2", "2", "2 of 3 seeds", "–"]


def test_a_folder_without_runs_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="holds no finished run"):
        main([str(tmp_path), "--loss", "0.5"])
