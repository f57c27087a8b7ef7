"""The table of results, as a person sees it."""

import math
from io import StringIO

import pytest
from rich.console import Console

from ross_flwr.report.table import percent, result_table


def summary(**changes):
    """Return what `History.summary` says of some run."""
    sound = {
        "rounds": 60,
        "accuracy": {"mean": 0.91, "min": 0.875, "max": 0.95},
        "loss": {"mean": 0.3, "min": 0.2, "max": 0.4},
        "consensus-distance": 0.0123456,
        "bytes": 184_700_000,
        "seconds": 12.34,
    }
    return sound | changes


def printed(width=80, **summaries):
    file = StringIO()
    Console(file=file, width=width).print(result_table(summaries))
    return file.getvalue()


def test_the_table_tells_how_good_how_near_how_costly_and_how_long():
    (row,) = (line.split() for line in printed(ross=summary()).splitlines() if "ross" in line)
    assert row == ["ross", "60", "91.0%", "87.5%", "0.0123", "184.7", "MB", "12.3"]


def test_the_table_fits_80_columns_whatever_stands_in_it():
    huge = summary(rounds=1_000_000, accuracy={"mean": 1, "min": 1}, bytes=999_900_000_000_000, seconds=864_000.0)
    huge["consensus-distance"] = 9.87e-12
    text = printed(**{"segmented-gossip": huge, "diverged": summary(**{"consensus-distance": 1e34})})
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    for words in ("accuracy", "mean", "min", "consensus", "distance", "bytes", "sent", "rounds", "seconds"):
        assert words in text
    for cell in ("segmented-gossip", "1000000", "100.0%", "9.87e-12", "999.9 TB", "864000.0"):
        assert cell in text


LOST = {"mean": None, "min": None, "max": None}


@pytest.mark.parametrize(
    ("changes", "cell"),
    [
        ({"consensus-distance": 0.0}, " 0 "),
        ({"consensus-distance": 1e6}, " 1e+06 "),
        ({"consensus-distance": None}, " – "),
        ({"consensus-distance": 1.01e6}, " diverged "),
        ({"consensus-distance": 1e34}, " diverged "),
        ({"consensus-distance": math.inf}, " diverged "),
        ({"consensus-distance": math.nan}, " diverged "),
        ({"consensus-distance": None, "loss": {"mean": math.nan}}, " diverged "),
        ({"consensus-distance": None, "loss": LOST}, " diverged "),
        ({"consensus-distance": None, "loss": None, "accuracy": None}, " – "),
    ],
)
def test_a_diverged_run_is_said_to_be_one(changes, cell):
    text = printed(ross=summary(**changes))
    (row,) = (line for line in text.splitlines() if "ross" in line)
    assert cell in row
    assert ("diverged:" in text) == (cell == " diverged ")
    assert ("no models came" in " ".join(text.split())) == (cell == " – ")


@pytest.mark.parametrize(("share", "text"), [(0.5, "50.0%"), (0, "0.0%"), (None, "–"), (math.nan, "–")])
def test_a_share_is_shown_in_percent(share, text):
    assert percent(share) == text


def test_a_text_is_told_in_bits_per_byte_with_the_worst_agent_and_other_metrics_on_80_columns():
    bits, perplexity = {"mean": 3.5214, "min": 3.1, "max": 3.9}, {"mean": 11.4812, "min": 9.0, "max": 14.0}
    text = summary(metrics={"bits-per-byte": bits, "perplexity": perplexity}, seconds=1029.7, bytes=316_600_000)
    row = next(line.split() for line in printed(**{"ross-plus": text}).splitlines() if "ross-plus" in line)
    assert row == ["ross-plus", "60", "3.521", "3.9", "11.48", "0.0123", "316.6", "MB", "1029.7"]
