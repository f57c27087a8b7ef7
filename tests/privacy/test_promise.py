"""What a run says of its privacy: between pairs of agents, and of agents that nobody heard of."""

from types import SimpleNamespace

import networkx as nx
import numpy as np
import pytest

from ross_flwr.config import resolve
from ross_flwr.graph.mixing import MIXING_RULES
from ross_flwr.privacy.accounting import epsilon_of
from ross_flwr.privacy.correlated import leaks, pairwise, sources
from ross_flwr.privacy.network import gossip_views, neighbours_views, through_gossip
from ross_flwr.runs.local import LocalRun
from ross_flwr.runs.promises import promised, reported

SMALL = {"num-agents": 6, "num-rounds": 4, "topology": "ring", "attackers": 0, "hidden": 8, "dp-clip": 1.0}
GRAPH = nx.Graph([(0, 1), (1, 2), (2, 3), (3, 0), (3, 4), (4, 5)])
MIXING = MIXING_RULES["metropolis"](GRAPH)


def run_of(**options):
    return LocalRun(resolve(SMALL | {name.replace("_", "-"): value for name, value in options.items()}))


def test_what_an_agent_sees_through_gossip_is_muffliatos_sum():
    views = gossip_views(MIXING, 4)
    for passes in range(1, 5):
        for u in range(6):
            for v in range(6):
                powers = [np.linalg.matrix_power(MIXING, t) for t in range(passes)]
                total = sum((power[w, u] / np.linalg.norm(power[w])) ** 2 for power in powers for w in GRAPH[v])
                assert views[passes - 1][u, v] == pytest.approx(min(1, total))
    assert views[0][5, 0] == 0  # nothing has come that far
    (seen,) = through_gossip(MIXING, {2: [0.5, 0.0, 2.0]}, 1).values()
    np.testing.assert_allclose(seen, 0.5 * views[2][2] + 2.0 * views[0][2])


def test_a_neighbour_takes_away_the_noise_that_it_shares():
    views = neighbours_views(MIXING)
    for v in range(6):
        others = [u for u in range(6) if u != v]
        parts = {u: sources("pairwise", MIXING, u)[0] for u in others}
        secret = sorted({source for part in parts.values() for source in part if v not in source})
        noise = np.array([[parts[u].get(source, 0.0) for source in secret] for u in others])
        np.testing.assert_allclose(views[others, v], leaks(noise @ noise.T) / leaks(pairwise(MIXING))[others])


def test_epsilon_is_told_for_pairs_where_gossip_is_all_that_agents_see():
    run = run_of(algorithm="dpsgd", dp_epsilon=4.0)
    list(run.rounds())
    promise = run.summary()["privacy"]
    pairs = promise["pairs"]
    assert pairs["0"][0] is None
    assert pairs["0"][1] == pytest.approx(4.0)
    assert 0 < pairs["0"][3] < pairs["0"][2] < 4.0
    run.history.lines[1]["missing"] = [[0, 1]]
    assert "pairs" not in run.summary()["privacy"]


def line(number, absent=(), **spent):
    return {"round": number, "missing": [], "absent": list(absent), "spent": spent}


def test_what_an_agent_released_before_it_fell_silent_counts_to_the_last_pass():
    run = run_of(algorithm="pdsl", dp_noise=5.0, dropout=0.0)
    lines = [{"0": 1.0, "1": 1.0}, {"0": 2.0}, {"0": 3.0, "1": 2.0}, {"0": 3.0}]
    run.history.lines = [
        line(k + 1, [i for i in range(6) if str(i) not in each], **each) for k, each in enumerate(lines)
    ]
    assert reported(run.history.lines, 1) == ([1.0, 1.0, 0.0, 0.0], 3)
    found = run.assembly.promise(run.history)["privacy"]
    assert found["bounds"] == [1, 2, 3, 4, 5]
    epsilons = found["epsilon-of-agents"]
    assert epsilons["0"] == epsilon_of(3.0, 1e-5)
    assert epsilons["1"] == pytest.approx(
        epsilon_of(2.0 + 3 / 25, 1e-5)
    )  # one pass more, of a gradient for each of M_i
    assert epsilons["2"] == pytest.approx(epsilon_of(4 * 3 / 25, 1e-5))
    assert "Agents that did not report to the end (1, 2, 3, 4, 5) count as if they had gone on." in found["statement"]
    sat_out = SimpleNamespace(absent=lambda agent, t: agent > 1, attackers=(), losses=())
    parts = SimpleNamespace(**vars(run.assembly) | {"threats": sat_out, "rule": run.assembly.rule})
    assert promised(parts, run.assembly.privacy, run.history)["bounds"] == [1]


def test_a_silent_agent_with_a_budget_counts_as_if_it_had_spent_it():
    run = run_of(algorithm="dpsgd", dp_epsilon=2.0)
    run.history.lines = [line(1, [1], **{"0": 0.1})]
    found = run.assembly.promise(run.history)["privacy"]["epsilon-of-agents"]
    assert found["1"] == pytest.approx(2.0)
    assert found["0"] == pytest.approx(epsilon_of(0.1, 1e-5))
