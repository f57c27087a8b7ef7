"""The work of a round: example passes, forward and backward as one and a forward alone as a third, counted by hand."""

import pytest

from ross_flwr.config import resolve
from ross_flwr.runs.local import LocalRun

B, Q, K = 16, 30, 5  # examples in a mini-batch and in Q_i, and local steps; on a ring an agent hears k = 2
WORK = {
    "dpsgd": ({}, B),
    "dfedavgm": ({"local-steps": K}, K * B),
    "dfedsam": ({"local-steps": K}, 2 * K * B),
    "ross": ({}, 3 * B + 8 * Q / 3),  # a game of three
    "ross-plus": (  # its own and two cross-gradients, K - 1 steps on Q_i, gradients by class; a game of three, 3 losses
        {"local-steps": K, "gradients-from": -1, "weighting": "relu", "screen": 0.0},
        (3 + K - 1) * B + Q + (8 + 3) * Q / 3,
    ),
    "ubar": ({}, B + (1 + 1) * B / 3),  # of two neighbours it judges one
    "resilient-p2p": ({}, B + 3 * B / 3),
    "bristle": ({"local-steps": K}, K * B + 3 * Q / 3),
    "fltrust": ({}, 3 * B + Q),
    "cdmsgd": ({"aggregator": "softmin"}, B + 3 * Q / 3),  # the losses of a rule
    "isolated": ({}, B),
}
"""By method: its options, and the work of one agent in a round."""

ONCE = {"ross-plus": Q / 3, "cdmsgd": Q / 3}  # in the first, the guard's loss of the first model


@pytest.mark.parametrize("method", WORK)
def test_a_round_takes_this_work(method):
    options, work = WORK[method]
    setting = {"num-agents": 6, "num-rounds": 2, "topology": "ring", "batch-size": B, "validation-size": Q}
    setting |= {"hidden": 8, "attackers": 0, "evaluate-every": 1, "too-few": "top-up"}
    run = LocalRun(resolve(setting | options | {"algorithm": method}))
    rounds = [6 * (work + ONCE.get(method, 0)), 6 * work]
    assert [line["work"] for line in run.rounds()] == pytest.approx(rounds)
    assert run.history.summary()["work"] == pytest.approx(sum(rounds))
