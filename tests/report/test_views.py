"""What is seen of a run while it goes on."""

import json
import math
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from ross_flwr.engine.events import AgentReport, Round
from ross_flwr.report.views import Board, Json, Plain, View, sparkline
from ross_flwr.runs.history import History


def lines(count, agents=3, **changes):
    """Return the history of `count` rounds of two seconds, in which every agent sends 500 kB and gets better."""
    history = History(agents)
    for number in range(1, count + 1):
        reports = [
            AgentReport(i, sent={0: {"model": 500_000}}, loss=1.0, accuracy=number / (count + i), **changes)
            for i in range(agents)
        ]
        history.add(Round(number, reports, 2.0))
    return history.lines


def drawn(board):
    file = StringIO()
    Console(file=file, width=80).print(board)
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_the_board_tells_of_each_method_how_far_it_is_how_good_and_what_it_sent():
    board = Board({"ross": 20, "dpsgd": 20}, Console())
    for line in lines(5):
        board.add("ross", line)
    head, quality, state, other = drawn(board)
    assert head.split()[0] == "ross"
    assert head.endswith(" 5/20  0:00:30 left")
    assert quality.strip() == "accuracy 84.9% (71.4% to 100.0%)  ▂▄▅▇█"
    assert state.strip() == "consensus distance –, 7.5 MB sent"
    assert (other.split()[0], other.split()[-1]) == ("dpsgd", "0/20")


def test_a_text_is_told_in_bits_per_byte_which_fall_and_other_metrics_after_them():
    board = Board({"ross": 20}, Console())
    for number, line in enumerate(lines(3, metrics={"bits-per-byte": 2.5, "perplexity": 5.657}), start=1):
        line["metrics"]["bits-per-byte"]["mean"] = 6.0 / number
        board.add("ross", line)
    assert drawn(board)[1].strip() == "bits per byte 2 (2.5 to 2.5), perplexity 5.657  █▅▃"


def test_a_method_that_has_ended_says_how_long_it_took():
    board = Board({"ross": 5}, Console())
    for line in lines(5):
        board.add("ross", line)
    assert drawn(board)[0].endswith("5/5  0:00:10 taken")


@pytest.mark.parametrize(
    ("absent", "missing", "said"),
    [
        ([], [], "1.5 MB sent"),
        ([1], [[0, 1], [2, 1]], "1.5 MB sent, missing: agent 1"),
        ([1, 2], [[0, 1]], "1.5 MB sent, missing: agents 1, 2"),
        ([], [[0, 1]], "1.5 MB sent, missing: 1 message"),
        ([1], [[0, 1], [0, 2], [2, 0]], "1.5 MB sent, missing: agent 1 and 2 messages"),
    ],
)
def test_who_and_what_a_round_lacked_is_named(absent, missing, said):
    (line,) = lines(1)
    board = Board({"ross": 2}, Console())
    board.add("ross", {**line, "absent": absent, "missing": missing})
    assert drawn(board)[2].endswith(said)


def test_the_last_test_stays_until_the_next_and_before_the_first_there_is_none():
    first, second, *_ = lines(3)
    board = Board({"ross": 9}, Console())
    board.add("ross", {**first, "accuracy": None})
    assert [line.strip() for line in drawn(board)[1:]] == ["not tested yet", "1.5 MB sent"]
    board.add("ross", first)
    quality = drawn(board)[1]
    board.add("ross", {**second, "accuracy": None})
    assert drawn(board)[1] == quality


def test_a_run_that_diverged_is_shown_whether_or_not_it_went_through_json():
    (line,) = lines(1)
    for lost in (math.nan, None):
        board = Board({"dpsgd": 2}, Console())
        board.add("dpsgd", {**line, "accuracy": dict.fromkeys(("mean", "min", "max"), lost), "loss": {"mean": lost}})
        text = "\n".join(drawn(board))
        assert "accuracy – (– to –)" in text
        assert "consensus distance diverged" in text


def test_on_a_terminal_the_board_is_drawn_while_rounds_end():
    file = StringIO()
    board = Board({"ross": 3}, Console(file=file, width=80, force_terminal=True))
    with board.running() as live:
        for line in lines(3):
            board.add("ross", line)
            live.refresh()
    for part in ("0/3", "1/3", "0:00:04 left", "2/3", "3/3", "0:00:06 taken"):
        assert part in file.getvalue()


@pytest.mark.parametrize(("total", "shown"), [(3, [1, 2, 3]), (10, [*range(1, 11)]), (45, [5, 9, 14, 18, 23])])
def test_without_a_terminal_each_tenth_of_a_run_is_a_line(capsys, total, shown):
    view = Plain({"ross": total, "d2": total}, Console())
    for line in lines(min(total, 25)):
        view.add("ross", line)
    rows = capsys.readouterr().out.splitlines()
    width = len(str(total))
    assert [row[: 8 + 2 * width] for row in rows] == [f"ross  {number:>{width}}/{total} " for number in shown]
    assert rows[0].endswith(f"consensus distance –, {1.5 * shown[0]:.1f} MB sent")


def test_json_is_the_history_and_then_the_summaries_and_nothing_else(capsys):
    view, history = Json(), lines(2)
    with view.running():
        for line in history:
            view.add("ross", line)
    view.end({"ross": {"rounds": 2, "loss": math.nan}, "dpsgd": {"rounds": 2}}, Path("out"))
    found = [json.loads(row, parse_constant=pytest.fail) for row in capsys.readouterr().out.splitlines()]
    assert found == [
        *({"method": "ross", **line} for line in history),
        {"method": "ross", "folder": "out", "summary": {"rounds": 2, "loss": None}},
        {"method": "dpsgd", "folder": "out", "summary": {"rounds": 2}},
    ]


def test_quiet_is_the_folder_alone(capsys):
    view = View()
    with view.running():
        view.add("ross", lines(1)[0])
    view.end({"ross": {}}, Path("out"))
    assert capsys.readouterr().out == "out\n"


@pytest.mark.parametrize(
    ("values", "curve"),
    [
        ([], ""),
        ([0.0], "▁"),
        ([0.0, 0.5, 1.0], "▁▅█"),
        ([0.0] * 50 + [1.0] * 50, "▁▁██"),
        ([*range(9)], "▃▅▆█"),
    ],
)
def test_a_sparkline_goes_through_the_last_value_and_fits_its_width(values, curve):
    assert sparkline(values, 4, max(values, default=0.0)) == curve
