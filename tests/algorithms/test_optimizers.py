"""The decentralized optimizers against their own equations, each other, and the optimum; in float64."""

import itertools
import json

import networkx as nx
import numpy as np
import pytest
import torch
from quadratics import Quadratic, normal, stack, team

from ross_flwr import PeerRelay
from ross_flwr.algorithms import ALGORITHMS
from ross_flwr.config import ConfigError, resolve
from ross_flwr.engine.host import Host
from ross_flwr.graph import topology
from ross_flwr.graph.topology import Topology
from ross_flwr.learning.agent import Agent
from ross_flwr.runs.local import LocalRun

SIZE = 6
METHODS = [
    "cdmsgd",
    "d2",
    "dfedavgm",
    "dfedsam",
    "dmsgd",
    "dpsgd",
    "dsgt",
    "isolated",
    "local-dsgd",
    "net-fleet",
    "qg-dsgdm",
]
AFTER = ("local-dsgd", {"local_steps": 1})
"""D-PSGD, adapt-then-combine."""

TRACKING = ["dsgt", "net-fleet"]


class Bowl(Quadratic):
    """F(x) = mean over the examples c_b of ½ (x − c_b)ᵀ A (x − c_b), with a diagonal A; its own in every agent."""

    def __init__(self, agent: int, spread: float = 1.0) -> None:
        examples = spread * normal(1000 + agent, 5, SIZE) + normal(1500 + agent, SIZE)
        super().__init__(examples.double(), target=torch.zeros(SIZE, dtype=torch.float64))
        self.curvature = 0.5 + normal(2000 + agent, SIZE).double().abs()

    def gradient(self, vector, batch, **_):
        return self.curvature * (vector - batch.inputs.mean(0))


def started(name, graph, *, objective=Bowl, batch_size=5, start=None, **options):
    """A host with all agents of a method, at models of their own, or all at `start`."""
    algorithm = ALGORITHMS[name](**options)
    agents = []
    for index in range(graph.num_agents):
        agent = Agent(index, objective(index), graph.mixing_row(index), seed=0, batch_size=batch_size)
        agent["model"] = normal(77 + index, SIZE).double() if start is None else start.clone()
        algorithm.start(agent)
        agents.append(agent)
    return Host("run", algorithm, agents)


def run_round(host, round):
    for number in range(len(host.algorithm.steps)):
        host.activate(round, number)
    host.end_pass()


def models_after(host, rounds):
    for round in range(rounds):
        run_round(host, round)
    return stack(host.agents.values())


def ring(mixing="metropolis", num_agents=8):
    return topology.build("ring", num_agents, mixing=mixing)


def alone(num_agents=8):
    """W = I."""
    return Topology(nx.empty_graph(num_agents), np.eye(num_agents))


def optimum(objectives):
    curvatures = torch.stack([objective.curvature for objective in objectives])
    centres = torch.stack([objective.examples.mean(0) for objective in objectives])
    return (curvatures * centres).sum(0) / curvatures.sum(0)


def distance_to_optimum(host):
    agents = host.agents.values()
    return float((stack(agents) - optimum([agent.objective for agent in agents])).abs().max())


# Every method once more, with matrices and as its authors list it: X[i] is agent i's model, G(X)[i] its gradient there.


def trained(X, G, lr, local_steps):
    for _ in range(local_steps):
        X = X - lr * G(X)
    return X


def dense_dpsgd(X, W, G, lr, local_steps=1):
    while True:
        X = W @ X + trained(X, G, lr, local_steps) - X
        yield X


def dense_dmsgd(X, W, G, lr, momentum, local_steps=1):
    U = np.zeros_like(X)
    while True:
        for _ in range(local_steps):
            U = momentum * U + G(X)
            X = X - lr * U
        X, U = W @ X, W @ U
        yield X


def dense_cdmsgd(X, W, G, lr, momentum, local_steps=1):
    M = np.zeros_like(X)
    while True:
        Z = X
        for _ in range(local_steps):
            g = G(Z)
            M = momentum * M + g
            Z = Z - lr * (g + momentum * M)
        X = W @ X + Z - X
        yield X


def dense_dsgt(X, W, G, lr):
    g = Y = G(X)
    while True:
        X = W @ (X - lr * Y)
        new = G(X)
        Y, g = W @ Y + new - g, new
        yield X


def dense_d2(X, W, G, lr, local_steps=1):
    def way(X):
        return X - trained(X, G, lr, local_steps)

    before, old, X = X, way(X), W @ (X - way(X))
    while True:
        yield X
        new = way(X)
        X, before, old = W @ (2 * X - before - (new - old)), X, new


def dense_qg_dsgdm(X, W, G, lr, momentum, local_steps=1):
    M = np.zeros_like(X)
    while True:
        new = W @ trained(X, lambda Z, M=M: momentum * M + G(Z), lr, local_steps)
        M = momentum * M + (1 - momentum) * (X - new) / (local_steps * lr)
        X = new
        yield X


def dense_net_fleet(X, W, G, lr, local_steps):
    Y = g = G(X)
    while True:
        Z, V, h = X, Y, g
        for _ in range(local_steps):
            Z = Z - lr * V
            new = G(Z)
            V, h = V + new - h, new
        X, Y = W @ Z, W @ Y
        new = G(X)
        Y, g = Y + new - g, new
        yield X


def dense_local_dsgd(X, W, G, lr, local_steps, gossip_steps=1):
    while True:
        for _ in range(local_steps):
            X = X - lr * G(X)
        X = np.linalg.matrix_power(W, gossip_steps) @ X
        yield X


def dense_dfedavgm(X, W, G, lr, local_steps, momentum):
    while True:
        V = np.zeros_like(X)
        for _ in range(local_steps):
            V = momentum * V - lr * G(X)
            X = X + V
        X = W @ X
        yield X


def dense_dfedsam(X, W, G, lr, local_steps, sam_radius, gossip_steps=1):
    while True:
        for _ in range(local_steps):
            g = G(X)
            X = X - lr * G(X + sam_radius * g / np.linalg.norm(g, axis=1, keepdims=True))
        X = np.linalg.matrix_power(W, gossip_steps) @ X
        yield X


def dense_dadam(X, W, G, lr, local_steps=1, mix_momentum=True):
    M = V = np.zeros_like(X)
    t = 0
    while True:
        for _ in range(local_steps):
            t += 1
            g = G(X)
            M, V = 0.9 * M + 0.1 * g, 0.999 * V + 0.001 * g * g
            X = X - lr * (M / (1 - 0.9**t)) / (np.sqrt(V / (1 - 0.999**t)) + 1e-8)
        X = W @ X
        if mix_momentum:
            M, V = W @ M, W @ V
        yield X


def dense_deca(X, W, G, lr, blocks, block_passes, displacement, displacement_share):
    """Of six coordinates and four blocks, the blocks have one or two."""
    ends = [SIZE * k // blocks for k in range(blocks + 1)]
    for k in itertools.cycle(range(blocks)):
        block = slice(ends[k], ends[k + 1])
        M = V = np.zeros_like(X[:, block])
        for r in range(1, block_passes + 1):
            g = G(X)[:, block]
            M, V = 0.9 * M + 0.1 * g, 0.999 * V + 0.001 * g * g
            scale = np.sqrt(V / (1 - 0.999**r)) + 1e-8
            mixed = W @ (X[:, block] - lr * (M / (1 - 0.9**r)) / scale)
            way = mixed - X[:, block]
            h = {"paper": way, "negated": -way, "by-rate": -way / lr, "as-gradient": -way / lr * scale}.get(
                displacement
            )
            if h is not None:
                M = M + displacement_share * (h - M)
                V = V + displacement_share / 100 * (h * h - V)
            X = X.copy()
            X[:, block] = mixed
            yield X


def dense_diloco(X, W, G, lr, local_steps, momentum, outer_rate, optimizer="sgd"):
    M = np.zeros_like(X)
    while True:
        D = X - W @ trained(X, G, lr, local_steps)
        M = momentum * M + D
        X = X - outer_rate * (momentum * M + D)
        yield X


def dense_slowmo(X, W, G, lr, local_steps, momentum, outer_rate):
    U = np.zeros_like(X)
    while True:
        U = momentum * U + (X - W @ trained(X, G, lr, local_steps)) / lr
        X = X - outer_rate * lr * U
        yield X


def dense_isolated(X, W, G, lr, local_steps=1):
    while True:
        X = trained(X, G, lr, local_steps)
        yield X


LISTINGS = [
    ("dpsgd", {}),
    ("dmsgd", {"momentum": 0.8}),
    ("cdmsgd", {"momentum": 0.8}),
    ("dsgt", {}),
    ("d2", {}),
    ("qg-dsgdm", {"momentum": 0.8}),
    ("net-fleet", {"local_steps": 1}),
    ("net-fleet", {"local_steps": 4}),
    ("local-dsgd", {"local_steps": 3}),
    ("local-dsgd", {"local_steps": 2, "gossip_steps": 4}),
    ("dfedavgm", {"local_steps": 4, "momentum": 0.8}),
    ("dfedsam", {"local_steps": 3, "sam_radius": 0.2}),
    ("dfedsam", {"local_steps": 3, "sam_radius": 0.2, "gossip_steps": 3}),
    ("dadam", {"local_steps": 2}),
    ("dadam", {"mix_momentum": False}),
    *(
        ("deca", {"blocks": 4, "block_passes": 2, "displacement": displacement, "displacement_share": 0.2})
        for displacement in ("none", "paper", "negated", "by-rate", "as-gradient")
    ),
    ("diloco", {"local_steps": 3, "momentum": 0.8, "outer_rate": 0.6, "optimizer": "sgd"}),
    ("slowmo", {"local_steps": 3, "momentum": 0.6, "outer_rate": 0.9}),
    ("isolated", {}),
    *((name, {"local_steps": 3}) for name in ("dpsgd", "d2", "isolated")),
    *((name, {"local_steps": 3, "momentum": 0.8}) for name in ("dmsgd", "cdmsgd", "qg-dsgdm")),
]


@pytest.mark.parametrize(("name", "options"), LISTINGS, ids=str)
@pytest.mark.parametrize("graph", ["star", "random-regular"])
def test_five_rounds_are_the_listing_in_matrices(graph, name, options):
    graph = topology.build(graph, 8, degree=4, mixing="lazy-metropolis" if name == "d2" else "metropolis")
    host = started(name, graph, learning_rate=0.1, **options)
    agents = list(host.agents.values())
    curvature = np.stack([agent.objective.curvature.numpy() for agent in agents])
    centre = np.stack([agent.objective.examples.mean(0).numpy() for agent in agents])
    listing = globals()["dense_" + name.replace("-", "_")]
    dense = listing(stack(agents).numpy(), graph.mixing, lambda X: curvature * (X - centre), 0.1, **options)
    for round in range(5):
        run_round(host, round)
        np.testing.assert_allclose(stack(agents).numpy(), next(dense), atol=1e-10, rtol=0)


SAME = {
    "dmsgd without momentum is D-PSGD": (("dmsgd", {"momentum": 0.0}), AFTER),
    "cdmsgd without momentum is D-PSGD": (("cdmsgd", {"momentum": 0.0}), ("dpsgd", {})),
    "qg-dsgdm without momentum is D-PSGD": (("qg-dsgdm", {"momentum": 0.0}), AFTER),
    "one local step leaves momentum no time": (("dfedavgm", {"local_steps": 1}), AFTER),
    "dfedavgm without momentum is local SGD": (("dfedavgm", {"momentum": 0.0}), ("local-dsgd", {})),
    "dfedsam of no radius is local SGD": (("dfedsam", {"sam_radius": 0.0}), ("local-dsgd", {})),
    "dadam with a heavy ball is dmsgd": (
        ("dadam", {"optimizer": "momentum(0.8)", "local_steps": 3}),
        ("dmsgd", {"momentum": 0.8, "local_steps": 3}),
    ),
    "dadam whose moments stay at home is local SGD with Adam": (
        ("dadam", {"mix_momentum": False, "local_steps": 5}),
        ("local-dsgd", {"optimizer": "adam"}),
    ),
    "deca of one block is dadam whose moments stay at home": (
        ("deca", {"blocks": 1, "block_passes": 2, "displacement": "none"}),
        ("dadam", {"mix_momentum": False}),
    ),
    "diloco of one step and a plain outer step is D-PSGD": (
        ("diloco", {"local_steps": 1, "optimizer": "sgd", "momentum": 0.0, "outer_rate": 1.0}),
        AFTER,
    ),
    "slowmo without momentum is local SGD": (("slowmo", {"momentum": 0.0}), ("local-dsgd", {})),
    "net-fleet of one local step is dsgt": (("net-fleet", {"local_steps": 1}), ("dsgt", {})),
}


@pytest.mark.parametrize("case", SAME)
def test_a_method_becomes_a_simpler_one_at_the_end_of_its_range(case):
    (name, options), (simpler, others) = SAME[case]
    hosts = [started(name, ring(), batch_size=2, **options), started(simpler, ring(), batch_size=2, **others)]
    first, second = (models_after(host, 6) for host in hosts)
    torch.testing.assert_close(first, second, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", ["d2", "dsgt"])
def test_on_a_complete_graph_it_is_dpsgd_which_is_centralized_sgd_there(name):
    graph, common = topology.build("complete", 8), normal(5, SIZE).double()
    models = models_after(started(name, graph, batch_size=2, start=common), 6)
    central = models_after(started(AFTER[0], graph, batch_size=2, start=common, **AFTER[1]), 6)
    torch.testing.assert_close(models, central, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("name", "options"), [("dpsgd", {}), AFTER], ids=str)
def test_isolated_agents_are_dpsgd_without_edges(name, options):
    models = models_after(started("isolated", ring(), batch_size=2), 6)
    edgeless = models_after(started(name, alone(), batch_size=2, **options), 6)
    torch.testing.assert_close(models, edgeless, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", ["local-dsgd", "dfedavgm", "dfedsam"])
def test_gossip_of_several_exchanges_mixes_with_a_power_of_the_matrix(name):
    graph = ring()
    power = Topology(nx.complete_graph(8), np.linalg.matrix_power(graph.mixing, 3))
    repeated = models_after(started(name, graph, batch_size=2, gossip_steps=3), 4)
    torch.testing.assert_close(repeated, models_after(started(name, power, batch_size=2), 4), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", ["local-dsgd", "dfedavgm", "dfedsam", "net-fleet"])
def test_local_steps_take_one_mini_batch_each_and_go_on_where_the_round_before_ended(name):
    together, single = started(name, ring(), batch_size=2, local_steps=3), started("isolated", ring(), batch_size=2)
    models_after(together, 4)
    models_after(single, 12)
    for index, agent in together.agents.items():
        assert agent.objective.batches == single.agents[index].objective.batches
        assert len(agent.objective.batches) == 12


EXACT = {
    "dsgt": {},
    "d2": {},
    "net-fleet": {"local_steps": 3},
}


@pytest.mark.parametrize("name", EXACT)
def test_agents_with_different_data_all_reach_the_optimum(name):
    host = started(name, ring("lazy-metropolis"), learning_rate=0.05, **EXACT[name])
    models_after(host, 1000)
    assert distance_to_optimum(host) < 1e-10


@pytest.mark.parametrize("name", sorted(set(METHODS) - set(EXACT)))
def test_other_methods_stop_short_of_the_optimum(name):
    """They come the nearer the smaller η is, but for agents that never talk."""
    left = []
    for rate in (0.1, 0.05):
        host = started(name, ring("lazy-metropolis"), learning_rate=rate)
        models_after(host, 120)
        left.append(distance_to_optimum(host))
    assert left[1] > 1e-2
    assert left[1] < 0.95 * left[0] or name == "isolated"


def test_stepping_before_mixing_leaves_less_bias():
    before, after = (started(name, ring(), learning_rate=0.05, **options) for name, options in (("dpsgd", {}), AFTER))
    models_after(before, 500)
    models_after(after, 500)
    assert distance_to_optimum(after) < distance_to_optimum(before)


@pytest.mark.parametrize("batch_size", [1, 5])
@pytest.mark.parametrize("name", TRACKING)
def test_trackers_sum_up_to_the_gradients_in_every_round(name, batch_size):
    host = started(name, ring(), batch_size=batch_size)
    for round in range(30):
        run_round(host, round)
        trackers, gradients = (stack(host.agents.values(), key).sum(0) for key in ("tracker", "gradient"))
        torch.testing.assert_close(trackers, gradients, atol=1e-12, rtol=0)


def test_corrections_of_d2_sum_up_to_nothing():
    host = started("d2", ring("lazy-metropolis"), batch_size=1)
    for round in range(30):
        run_round(host, round)
        assert stack(host.agents.values(), "correction").sum(0).abs().max() < 1e-12
    assert stack(host.agents.values(), "correction").abs().max() > 0.1


def test_the_correction_of_net_fleet_makes_local_steps_harmless_with_mini_batches_too():
    """Tail means of the mean model's error: that of local SGD is a bias, that of NET-FLEET is noise alone."""

    def error(name):
        host = started(name, ring(), objective=lambda i: Bowl(i, spread=0.2), batch_size=1, learning_rate=0.02)
        tail = [(run_round(host, round), stack(host.agents.values()).mean(0))[1] for round in range(300)][150:]
        return float((torch.stack(tail).mean(0) - optimum([a.objective for a in host.agents.values()])).norm())

    assert error("net-fleet") < error("local-dsgd") / 3


@pytest.mark.parametrize("name", METHODS)
def test_agents_of_one_loss_stay_at_its_optimum(name):
    class Alike(Bowl):
        def __init__(self, agent):
            super().__init__(0)
            self.examples = self.examples[:1]

    best = optimum([Alike(0)])
    models = models_after(started(name, ring(), objective=Alike, start=best), 10)
    # A gradient that is zero but for rounding still has a direction, in which DFedSAM looks as far as its radius.
    nearby = ALGORITHMS[name]().sam_radius if name == "dfedsam" else 1e-12
    torch.testing.assert_close(models, best.expand(8, -1), atol=nearby, rtol=0)


def test_sharpness_is_looked_for_at_the_radius_and_on_the_same_mini_batch():
    asked = []

    class Noting(Bowl):
        def gradient(self, vector, batch, **_):
            asked.append((vector.clone(), batch))
            return super().gradient(vector, batch)

    models_after(started("dfedsam", alone(2), objective=Noting, batch_size=2, sam_radius=0.3, local_steps=3), 2)
    assert len(asked) == 2 * 2 * 3 * 2
    for (model, batch), (probe, same) in zip(asked[::2], asked[1::2], strict=True):
        assert same is batch
        assert float((probe - model).norm()) == pytest.approx(0.3)


def test_diloco_refuses_an_outer_step_with_which_agents_drift_apart_and_just_that():
    """λ_min(W) is −0.6 here."""
    graph = topology.build("complete-bipartite", 8)
    most = 2 * 1.9 / 2.8 / 1.6
    with pytest.raises(ConfigError, match=r"outer-rate = 0.85 lets agents drift apart on this graph: use one below 0"):
        ALGORITHMS["diloco"](outer_rate=0.85).check(graph.mixing, 60)
    for rate, apart in ((0.99 * most, False), (1.01 * most, True)):
        host = started("diloco", graph, learning_rate=0.0, outer_rate=rate, local_steps=1)
        models = models_after(host, 300)
        assert (float((models - models.mean(0)).norm()) > 100) == apart


# D² and the eigenvalues of W

BIPARTITE = {"topology": "complete-bipartite", "num-agents": 8, "algorithm": "d2", "attackers": 0}


@pytest.mark.parametrize("shape", [{}, {"topology": "ring"}], ids=str)
@pytest.mark.parametrize("run", [LocalRun, PeerRelay])
def test_d2_is_refused_on_a_matrix_it_may_diverge_with_and_told_the_way_out(run, shape):
    def begin(options):
        return run(resolve(options)) if run is LocalRun else run(**options)

    with pytest.raises(ConfigError, match=r"above -1/3, and .* is -0\.\d+: use mixing = 'lazy-metropolis'"):
        begin(BIPARTITE | shape)
    begin(BIPARTITE | shape | {"mixing": "lazy-metropolis"})
    begin(BIPARTITE | shape | {"algorithm": "dsgt"})


def test_d2_diverges_where_it_is_refused_and_is_exact_with_the_lazy_matrix():
    left = {}
    for mixing in ("metropolis", "lazy-metropolis"):
        host = started("d2", topology.build("complete-bipartite", 8, mixing=mixing), learning_rate=0.05)
        models_after(host, 1000 if mixing == "lazy-metropolis" else 100)
        left[mixing] = distance_to_optimum(host)
    assert left["metropolis"] > 1e6
    assert left["lazy-metropolis"] < 1e-10


# What a round costs

COSTS = {
    "dpsgd": ({}, 1, {"model": 1}),
    "dmsgd": ({}, 1, {"model": 1, "momentum": 1}),
    "cdmsgd": ({}, 1, {"model": 1}),
    "dsgt": ({}, 1, {"model": 1, "tracker": 1}),
    "d2": ({}, 1, {"model": 1}),
    "qg-dsgdm": ({}, 1, {"model": 1}),
    "net-fleet": ({"local_steps": 3}, 3, {"model": 1, "tracker": 1}),
    "dfedavgm": ({"local_steps": 3}, 3, {"model": 1}),
    "dfedsam": ({"local_steps": 3}, 6, {"model": 1}),
    "dfedsam, multiple gossip": ({"local_steps": 3, "gossip_steps": 4}, 6, {"model": 4}),
    "local-dsgd": ({"local_steps": 3}, 3, {"model": 1}),
    "isolated": ({}, 1, {}),
    "dpsgd, local steps": ({"local_steps": 3}, 3, {"model": 1}),
    "d2, local steps": ({"local_steps": 3}, 3, {"model": 1}),
}
"""By method: options, gradients a round, and how many vectors of each kind go to every neighbour."""


@pytest.mark.parametrize("case", COSTS)
@pytest.mark.parametrize("graph", ["ring", "random-regular"])
def test_a_round_costs_what_the_docstring_says(graph, case):
    (options, gradients, vectors), name = COSTS[case], case.split(",")[0]
    graph, algorithm = topology.build(graph, 10, degree=4), ALGORITHMS[name](**options)
    host = Host("run", algorithm, team(graph, algorithm))
    for round in range(3):
        run_round(host, round)
        for report in host.end_round(evaluate=False):
            sent = {kind: 4 * SIZE * number for kind, number in vectors.items()}
            assert report.sent == (dict.fromkeys(graph.neighbors(report.agent), sent) if sent else {})
            assert (report.gradients, report.utilities, report.missing) == (gradients, 0, [])


# On data

DIGITS = {
    "num-agents": 6,
    "topology-degree": 3,
    "num-rounds": 8,
    "hidden": 8,
    "batch-size": 16,
    "validation-size": 20,
    "test-size": 200,
    "attackers": 0,
    "evaluate-every": 7,
    "mixing": "lazy-metropolis",
    "local-steps": 2,
    "learning-rate": 0.05,
}


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_on_digits_falls(name):
    run = LocalRun(resolve(DIGITS | {"algorithm": name}))
    initial = run.assembly.task.objective(0).test(run.assembly.task.model.initial)["loss"]
    losses = [line["loss"]["mean"] for line in run.rounds() if line["loss"]]
    assert losses[-1] < initial - 0.02
    assert not run.host.dropped


@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in METHODS), ("dfedsam", {"gossip_steps": 4})])
def test_agents_on_two_nodes_that_forget_all_but_their_state_compute_the_same(name, options):
    expected = models_after(started(name, ring(), batch_size=2, **options), 3)
    nodes, mail = [started(name, ring(), batch_size=2, **options) for _ in range(2)], [[], []]
    for number, node in enumerate(nodes):
        node.agents = {i: agent for i, agent in node.agents.items() if i % 2 == number}
    for round in range(3):
        for step in range(len(nodes[0].algorithm.steps)):
            leaving = []
            for number, node in enumerate(nodes):
                tensors, rest = node.snapshot()
                node.restore(dict(tensors), json.loads(json.dumps(rest)))
                leaving += node.activate(round, step, mail[number])
            mail = [[envelope for envelope in leaving if envelope.destination % 2 == number] for number in range(2)]
    assert not nodes[0].dropped + nodes[1].dropped
    assert torch.equal(stack([nodes[i % 2].agents[i] for i in range(8)]), expected)


def test_a_class_names_every_step_that_its_instances_repeat():
    """A ClientApp has a handler for each, before it knows the configuration."""
    sam = ALGORITHMS["dfedsam"]
    assert sam.steps == ("share", "gossip", "mix")
    assert [sam(gossip_steps=number).steps for number in (1, 3)] == [
        ("share", "mix"),
        ("share", "gossip", "gossip", "mix"),
    ]
