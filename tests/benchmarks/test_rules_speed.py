"""Robust rules beside byzfl's, which gets the same ten vectors as one matrix. Ours are given them one by one."""

import pytest
import torch
from oracles import byzfl
from pytest_benchmark.fixture import BenchmarkFixture
from side_by_side import ratio

from ross_flwr.learning.rules import RULES, View

VECTORS, SIZE, LIARS = 10, 79_510, 3
THEIRS = {
    "median": ("Median", 0),
    "trimmed-mean": ("TrMean", LIARS),
    "meamed": ("Meamed", LIARS),
    "krum": ("Krum", LIARS),
    "multi-krum": ("MultiKrum", LIARS),
    "mda": ("MDA", LIARS),
}


@pytest.mark.parametrize("name", THEIRS)
def test_a_rule_is_no_slower_than_byzfls(name: str, benchmark: BenchmarkFixture) -> None:
    kind, liars = THEIRS[name]
    theirs = getattr(byzfl(), kind)(*[liars] * bool(liars))
    vectors = torch.randn(VECTORS, SIZE)
    own, *others = vectors.unbind()
    heard, view = dict(enumerate(others, start=1)), View(weights=dict.fromkeys(range(1, VECTORS), 1 / VECTORS))
    rule = RULES[name](byzantine=LIARS)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        measured = ratio(
            benchmark,
            lambda: [rule(own, heard, view) for _ in range(10)],
            lambda: [theirs(vectors) for _ in range(10)],
            repeats=9,
        )
    finally:
        torch.set_num_threads(threads)
    assert measured >= 1
