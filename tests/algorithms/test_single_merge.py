"""Sparse gossip, and one merging at the end, along edges."""

import numpy as np
import pytest
import torch
from quadratics import full_gradients, run_round, stack, started

from ross_flwr.algorithms import ALGORITHMS
from ross_flwr.config import ConfigError, resolve
from ross_flwr.graph import topology
from ross_flwr.runs.local import LocalRun


def method(**options):
    return resolve({key.replace("_", "-"): value for key, value in options.items()}).part(ALGORITHMS["single-merge"])


def test_rounds_are_local_steps_then_sparse_gossip_then_mixing_alone():
    graph = topology.build("random-regular", 8, degree=4)
    host, agents = started(graph, method(learning_rate=0.2, gossip_every=3, merge_passes=4))
    for agent in agents:
        agent.total_passes = 11
    mixing, models = torch.from_numpy(graph.mixing.copy()), stack(agents)
    for round in range(11):
        reports = run_round(host, round)
        merges = round >= 7
        if not merges:
            models = models - 0.2 * full_gradients(agents, models)
        if merges or round in (2, 5):
            models = mixing @ models
        torch.testing.assert_close(stack(agents), models, atol=1e-5, rtol=1e-5)
        for report in reports:
            sent = {"model": 24} if merges or round in (2, 5) else {}
            assert report.sent == dict.fromkeys(graph.neighbors(report.agent), sent)
            assert (report.gradients, report.missing) == (0 if merges else 1, [])


@pytest.mark.parametrize(("name", "needed"), [("ring", 34), ("complete", 1), ("random-regular", 19)])
def test_merging_leaves_a_hundredth_of_the_disagreement_and_one_pass_less_is_refused(name, needed):
    graph = topology.build(name, 10)
    with pytest.raises(ConfigError, match=rf"merge-passes = {needed - 1} (is not|leaves .*: {needed} leave 1%)"):
        method(merge_passes=needed - 1).check(graph.mixing, 60)
    algorithm = method(merge_passes=needed, gossip_every=100)
    algorithm.check(graph.mixing, 60)
    host, agents = started(graph, algorithm)
    for agent in agents:
        agent.total_passes = needed + 2
    for round in range(needed + 2):
        run_round(host, round)
        if round == 1:
            before = stack(agents)
    spread = (before - before.mean(0)).norm(), (stack(agents) - before.mean(0)).norm()
    assert spread[1] <= 0.01 * spread[0]


def test_a_run_without_a_pass_to_train_in_is_refused():
    with pytest.raises(
        ConfigError, match="merge-passes = 20 leaves no pass to train in: the run has 20; raise num-rounds"
    ):
        method().check(topology.build("complete", 5).mixing, 20)


def test_a_mixing_matrix_that_moves_the_mean_is_refused():
    with pytest.raises(ConfigError, match="algorithm = 'single-merge' takes a symmetric mixing matrix"):
        method().check(np.array([[0.5, 0.5], [0.25, 0.75]]), 60)


def test_the_digits_are_learned_with_a_part_of_the_bytes():
    options = {"num-rounds": 60, "attackers": 0, "batches-per-round": 2, "evaluate-every": 60}
    runs = [LocalRun(resolve(options | {"algorithm": name})) for name in ("single-merge", "dpsgd")]
    merged, gossip = ([*run.rounds()][-1] and run.summary() for run in runs)
    assert merged["bytes"] / gossip["bytes"] == pytest.approx((100 // 10 + 20) / 120)
    assert merged["consensus-distance"] < 1e-3
    assert merged["accuracy"]["mean"] > 0.85
