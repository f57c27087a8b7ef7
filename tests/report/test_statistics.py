"""What a table may claim, against SciPy and by hand."""

import math

import numpy as np
import pytest

from ross_flwr.report import statistics
from ross_flwr.report.statistics import Score, differences, half_width, holm, marks, our_method, paired

scipy = pytest.importorskip("scipy.stats", reason="needs the extra 'data'")


@pytest.mark.parametrize("seeds", [2, 3, 4, 5, 10, 11, 31])
def test_the_paired_test_and_the_interval_are_those_of_scipy(seeds):
    generator = np.random.default_rng(seeds)
    own, theirs = generator.normal(0.8, 0.1, seeds), generator.normal(0.7, 0.1, seeds)
    assert paired(list(own), list(theirs)) == pytest.approx(scipy.ttest_rel(own, theirs).pvalue, rel=1e-9)
    low, high = scipy.t.interval(0.95, seeds - 1, own.mean(), scipy.sem(own))
    assert half_width(list(own)) == pytest.approx((high - low) / 2, rel=1e-9)
    assert statistics.quantile(1 - 0.05 / 165, seeds - 1) == pytest.approx(
        scipy.t.ppf(1 - 0.025 / 165, seeds - 1), rel=1e-6
    )


def test_pairs_that_cannot_be_tested_and_pairs_without_spread():
    assert paired([0.9], [0.5]) is half_width([0.9]) is None
    assert paired([0.5, 0.7], [0.5, 0.7]) == 1
    assert paired([1.0, 2.0], [0.5, 1.5]) == 0


def test_holm_by_hand():
    # In order 0.005, 0.01, 0.03, 0.04: times 4, 3, 2 and 1 they are 0.02, 0.03, 0.06 and 0.04, which is raised to 0.06.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == [1, 1]
    assert holm([]) == []


def runs(*accuracies, classes=10):
    return {
        seed: {"accuracy": {"mean": mean} if mean is not None else None, "classes": classes}
        for seed, mean in enumerate(accuracies)
    }


@pytest.mark.parametrize(
    ("accuracies", "classes", "text"),
    [
        ((0.9, 0.1, 0.92), 10, "64.0 ± 116.2 (1/3 collapsed)"),
        ((0.12, 0.125), 10, "12.2 ± 3.2 (1/2 collapsed)"),
        ((None, 0.9), 10, "45.0 ± 571.8 (1/2 collapsed)"),
        ((0.5,), 2, "50.0 (1/1 collapsed)"),
        ((0.1, 0.1), None, "10.0 ± 0.0"),  # an app that does not say how many classes there are
    ],
)
def test_collapses_are_counted_beside_the_mean_over_all_seeds(accuracies, classes, text):
    assert str(Score.of(runs(*accuracies, classes=classes))) == text


def table(**accuracies):
    return {("poisoned", "ring"): {method: Score.of(runs(*values)) for method, values in accuracies.items()}}


def test_our_method_is_compared_with_every_other_and_corrected_over_the_whole_table():
    both = table(ours=[0.9, 0.92, 0.91], a=[0.8, 0.81, 0.82], b=[0.3, 0.9, 0.1])
    both[("clean", "ring")] = both[("poisoned", "ring")] | {"c": Score.of(runs(0.95, 0.95))}
    found = differences(both, "ours")
    assert [(each.place[0], each.against, each.seeds) for each in found] == [
        ("poisoned", "a", 3),
        ("poisoned", "b", 3),
        ("clean", "a", 3),
        ("clean", "b", 3),
        ("clean", "c", 2),
    ]
    assert found[0].mean == pytest.approx(0.1)
    assert found[0].p == pytest.approx(scipy.ttest_rel([0.9, 0.92, 0.91], [0.8, 0.81, 0.82]).pvalue)
    assert [each.adjusted for each in found] == holm([each.p for each in found])
    assert found[0].significant
    assert not found[1].significant
    assert marks(both, found) == {("poisoned", "ring"): "▲", ("clean", "ring"): ""}


def test_a_method_that_loses_is_marked_so():
    lost = table(ours=[0.5, 0.52, 0.51], a=[0.8, 0.81, 0.82], b=[0.2, 0.2, 0.21])
    assert marks(lost, differences(lost, "ours")) == {("poisoned", "ring"): "▼"}


def test_bits_per_byte_are_better_where_they_are_fewer_and_have_collapsed_where_they_are_those_of_a_guess():
    def bits(*values):
        found = {"classes": 256, "accuracy": {"mean": 0.2}}
        return {
            seed: found | {"loss": {"mean": value * math.log(2)}, "metrics": {"bits-per-byte": {"mean": value}}}
            for seed, value in enumerate(values)
        }

    ours, other, lost = Score.of(bits(3.5, 3.6, 3.55)), Score.of(bits(4.5, 4.4, 4.6)), Score.of(bits(math.nan, 8.1, 4))
    assert [str(each) for each in (ours, lost)] == ["3.55 ± 0.1242", "– (2/3 collapsed)"]
    table = {("poisoned", "ring"): {"lost": lost, "ours": ours, "other": other}}
    found = differences(table, "ours")
    assert marks(table, found) == {("poisoned", "ring"): "▲"}
    assert statistics.legend("ours", found, ours.measure)[0].startswith("Bits per byte, lower is better: the mean over")


def test_one_seed_proves_nothing_and_says_so():
    one = table(ours=[0.9], a=[0.1])
    found = differences(one, "ours")
    assert [(each.p, each.adjusted, each.significant) for each in found] == [(None, None, False)]
    assert marks(one, found) == {("poisoned", "ring"): ""}
    assert statistics.legend("ours", found)[1:] == ["With one seed no difference can be tested."]
    three = table(ours=[0.9, 0.92, 0.91], a=[0.8, 0.81, 0.82], b=[0.3, 0.9, 0.1])
    *_, said = statistics.legend("ours", differences(three, "ours"))
    assert "correction for 2 comparisons" in said
    assert "On 3 seeds that takes a mean difference of 3.6 times" in said
    assert "None is." not in said
    assert len(statistics.legend(None, [])) == 1


def test_ours_is_ross_plus_or_else_ross_or_nobody():
    assert our_method({"dpsgd": "dpsgd", "ross": "ross", "median": "ross-plus", "other": "ross-plus"}) == "median"
    assert our_method({"dpsgd": "dpsgd", "ross": "ross"}) == "ross"
    assert our_method({"dpsgd": "dpsgd"}) is None
    assert differences(table(a=[0.9], b=[0.1]), None) == []
