"""Graphs of agents, their mixing matrices, and how agents are spread over nodes."""

import math
import time
from itertools import combinations, pairwise, product

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ross_flwr.config import ConfigError
from ross_flwr.graph import blocks
from ross_flwr.graph.topology import CHANGING, MIXING_RULES, TOPOLOGIES, Topology, build, of_graph, redrawn

RANDOM = ("random-regular", "erdos-renyi", "barabasi-albert", "watts-strogatz")
DIRECTED = ("directed-ring", "directed-exponential", "random-out", "one-peer-exponential")
FAIR = ["metropolis", "uniform", "lazy-metropolis", "lazy-uniform"]
"""The rules that make a symmetric, doubly stochastic matrix of an undirected graph."""
STATIC = [name for name in TOPOLOGIES if name not in (*DIRECTED, *CHANGING)]
IMPOSSIBLE = {*(("torus", n) for n in (4, 8, 10)), *(("hypercube", n) for n in (9, 10))}
CASES = [(name, n) for name in STATIC for n in (4, 8, 9, 10, 16) if (name, n) not in IMPOSSIBLE]


@st.composite
def connected_graphs(draw, most=12):
    """A random tree, and any further edges."""
    n = draw(st.integers(2, most))
    graph = nx.Graph()
    graph.add_nodes_from(range(n))
    graph.add_edges_from((draw(st.integers(0, i - 1)), i) for i in range(1, n))
    graph.add_edges_from(draw(st.sets(st.sampled_from(list(combinations(range(n), 2))))))
    return graph


def build_from(edges, num_agents, folder, **settings):
    file = folder / "edges.txt"
    file.write_text("".join(f"{i} {j}\n" for i, j in edges), encoding="utf-8")
    return build(str(file), num_agents, **settings)


def check_mixing(matrix, graph):
    """Symmetric, doubly stochastic, positive exactly on the edges and the diagonal."""
    assert matrix.dtype == np.float64
    assert np.array_equal(matrix, matrix.T)
    assert np.allclose(matrix.sum(axis=0), 1, rtol=0, atol=1e-12)
    assert np.allclose(matrix.sum(axis=1), 1, rtol=0, atol=1e-12)
    assert (matrix >= 0).all()
    positive = {(i, j) for i, j in np.argwhere(matrix > 0).tolist() if i <= j}
    assert positive == {tuple(sorted(edge)) for edge in graph.edges} | {(i, i) for i in graph}


def edges_between(topology, spread):
    home = {agent: number for number, block in enumerate(spread) for agent in block}
    return sum(home[i] != home[j] for i, j in topology.graph.edges)


def test_every_topology_is_explained_in_one_line():
    assert len(TOPOLOGIES) == 22
    for registry in (TOPOLOGIES, MIXING_RULES):
        assert all(function.__doc__.splitlines()[0].endswith(".") for function in registry.values())


@pytest.mark.parametrize("name", STATIC)
def test_every_topology_is_a_connected_simple_graph_that_mixes_fairly(name):
    for num_agents, mixing in product((n for case, n in CASES if case == name), FAIR):
        topology = build(name, num_agents, degree=2 if num_agents == 4 else 4, mixing=mixing)
        assert list(topology.graph) == list(range(num_agents))
        assert topology.num_agents == num_agents
        assert nx.is_connected(topology.graph)
        assert type(topology.graph) is nx.Graph  # undirected, no parallel edges
        assert nx.number_of_selfloops(topology.graph) == 0
        check_mixing(topology.mixing, topology.graph)
        assert 0 < topology.spectral_gap < 1 + 1e-12


@settings(deadline=None)
@given(graph=connected_graphs(), rule=st.sampled_from(FAIR))
def test_every_rule_makes_a_fair_mixing_matrix_of_any_graph(graph, rule):
    matrix = MIXING_RULES[rule](graph)
    check_mixing(matrix, graph)
    eigenvalues = np.linalg.eigvalsh(matrix)
    assert eigenvalues[0] > (-1e-12 if rule.startswith("lazy") else -1)
    assert eigenvalues[-2] < 1 - 1e-9


@given(graph=connected_graphs())
@settings(deadline=None)
def test_metropolis_weighs_an_edge_by_its_busier_end_and_uniform_by_the_busiest_agent(graph):
    metropolis, uniform = MIXING_RULES["metropolis"](graph), MIXING_RULES["uniform"](graph)
    degree = dict(graph.degree)
    for i, j in graph.edges:
        assert metropolis[i, j] == pytest.approx(1 / (1 + max(degree[i], degree[j])), abs=1e-15)
        assert uniform[i, j] == pytest.approx(1 / (1 + max(degree.values())), abs=1e-15)
    for rule, matrix in (("lazy-metropolis", metropolis), ("lazy-uniform", uniform)):
        assert np.allclose(MIXING_RULES[rule](graph), (matrix + np.eye(len(graph))) / 2, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("name", "num_agents", "neighbors"),
    [
        ("ring", 2, {0: (1,), 1: (0,)}),
        ("ring", 5, {0: (1, 4), 3: (2, 4)}),
        ("complete", 4, {0: (1, 2, 3), 2: (0, 1, 3)}),
        ("star", 4, {0: (1, 2, 3), 1: (0,), 3: (0,)}),
        ("path", 4, {0: (1,), 1: (0, 2), 3: (2,)}),
        ("bipartite", 6, {0: (4, 5), 3: (4, 5), 4: (0, 1, 2, 3), 5: (0, 1, 2, 3)}),
        ("complete-bipartite", 5, {0: (2, 3, 4), 1: (2, 3, 4), 2: (0, 1), 4: (0, 1)}),
        ("grid", 6, {0: (1, 3), 1: (0, 2, 4), 5: (2, 4)}),
        ("grid", 12, {5: (1, 4, 6, 9)}),  # 3 x 4
        ("grid", 7, {0: (1,), 3: (2, 4), 6: (5,)}),
        ("torus", 9, {0: (1, 2, 3, 6), 4: (1, 3, 5, 7)}),
        ("torus", 12, {0: (1, 3, 4, 8)}),
        ("hypercube", 2, {0: (1,)}),
        ("hypercube", 8, {0: (1, 2, 4), 5: (1, 4, 7)}),
        ("exponential", 10, {0: (1, 2, 4, 6, 8, 9), 3: (1, 2, 4, 5, 7, 9)}),
        ("exponential", 8, {0: (1, 2, 4, 6, 7)}),
        ("exponential", 5, {0: (1, 2, 3, 4)}),
        ("clusters", 7, {0: (1, 2, 3, 6), 1: (0, 2, 3), 3: (0, 1, 2, 4), 5: (4, 6), 6: (0, 4, 5)}),
        ("islands", 7, {0: (1, 2, 3), 3: (0, 1, 2), 4: (5, 6), 6: (4, 5)}),
    ],
)
def test_a_regular_topology_connects_whom_its_definition_says(name, num_agents, neighbors):
    topology = build(name, num_agents)
    assert {agent: topology.neighbors(agent) for agent in neighbors} == neighbors


@pytest.mark.parametrize("seed", range(5))
def test_random_topologies_have_the_degrees_asked_for(seed):
    def degrees(name, num_agents, **settings):
        graph = build(name, num_agents, seed=seed, **settings).graph
        return sorted(degree for _, degree in graph.degree)

    for degree in (2, 4, 7, 8, 12, 15):  # from 8 on it is drawn as a complement
        assert degrees("random-regular", 16, degree=degree) == [degree] * 16
    assert sum(degrees("watts-strogatz", 12, degree=4)) == 12 * 4
    assert degrees("watts-strogatz", 12, degree=4, probability=1e-9) == [4] * 12
    assert degrees("erdos-renyi", 12, probability=1.0) == [11] * 12
    assert 80 < sum(degrees("erdos-renyi", 20, probability=0.4)) < 224  # 152 expected; 5 deviations either side
    for degree, attached in ((1, 1), (3, 1), (4, 2), (5, 2), (6, 3)):
        assert sum(degrees("barabasi-albert", 12, degree=degree)) == 2 * attached * (12 - attached)


@pytest.mark.parametrize("name", RANDOM)
def test_a_random_topology_follows_from_its_seed_and_no_two_seeds_share_one(name):
    first = [build(name, 16, probability=0.15, seed=seed).digest for seed in range(30)]
    again = [build(name, 16, probability=0.15, seed=seed).digest for seed in range(30)]
    assert first == again
    assert len(set(first)) == 30


def test_sparse_random_graphs_are_redrawn_until_connected():
    assert not all(nx.is_connected(nx.gnp_random_graph(12, 0.15, seed)) for seed in range(20))
    assert not all(nx.is_connected(nx.random_regular_graph(2, 12, seed)) for seed in range(20))
    assert not all(nx.is_connected(nx.watts_strogatz_graph(12, 2, 0.3, seed)) for seed in range(20))
    for seed in range(20):
        assert nx.is_connected(build("erdos-renyi", 12, probability=0.15, seed=seed).graph)
        assert nx.is_connected(build("random-regular", 12, degree=2, seed=seed).graph)
        assert nx.is_connected(build("watts-strogatz", 12, degree=2, probability=0.3, seed=seed).graph)


def test_a_dense_regular_graph_of_many_agents_is_drawn_in_seconds():
    start = time.perf_counter()  # networkx alone takes minutes
    graph = build("random-regular", 100, degree=98).graph
    assert {degree for _, degree in graph.degree} == {98}
    assert time.perf_counter() - start < 30


@pytest.mark.parametrize(
    ("name", "num_agents", "root_of_rho"),
    [  # measured, §0.4 of the specification
        ("complete", 5, 0.0),
        ("ring", 5, 0.539),
        ("ring", 10, 0.873),
        ("ring", 15, 0.942),
        ("ring", 20, 0.967),
        ("complete-bipartite", 10, 0.667),
    ],
)
def test_the_spectral_gap_is_the_one_in_the_literature(name, num_agents, root_of_rho):
    assert 1 - build(name, num_agents).spectral_gap == pytest.approx(root_of_rho, abs=5e-4)


@pytest.mark.parametrize("mixing", ["metropolis", "uniform"])
@pytest.mark.parametrize("num_agents", [4, 7, 10, 33])
def test_ring_and_complete_graph_mix_as_their_closed_forms_say(num_agents, mixing):
    ring = build("ring", num_agents, mixing=mixing)
    values = [(1 + 2 * math.cos(2 * math.pi * k / num_agents)) / 3 for k in range(num_agents)]
    assert ring.spectral_gap == pytest.approx(1 - sorted(map(abs, values))[-2], abs=1e-12)

    complete = build("complete", num_agents, mixing=mixing)
    assert np.allclose(complete.mixing, 1 / num_agents, rtol=0, atol=1e-12)
    assert complete.spectral_gap == pytest.approx(1, abs=1e-12)


def test_known_eigenvalues_come_out():
    assert build("ring", 10).spectral_gap == pytest.approx(0.12732, abs=5e-6)
    assert np.linalg.eigvalsh(build("complete-bipartite", 8).mixing)[0] == pytest.approx(-3 / 5, abs=1e-12)
    assert np.linalg.eigvalsh(build("complete-bipartite", 8, mixing="lazy-metropolis").mixing)[0] >= 0
    assert build("ring", 10, mixing="lazy-metropolis").spectral_gap == pytest.approx(0.12732 / 2, abs=5e-6)


def test_a_mixing_row_is_the_closed_neighbourhood_in_plain_numbers():
    topology = build("star", 4)
    assert topology.mixing_row(0) == pytest.approx({0: 0.25, 1: 0.25, 2: 0.25, 3: 0.25})
    assert topology.mixing_row(2) == pytest.approx({0: 0.25, 2: 0.75})
    for agent in range(4):
        row = topology.mixing_row(agent)
        assert list(row) == sorted({agent, *topology.neighbors(agent)})
        assert {(type(j), type(weight)) for j, weight in row.items()} == {(int, float)}


def test_neighbours_come_in_ascending_order():
    assert Topology(nx.Graph([(2, 0), (0, 3), (1, 0)]), np.eye(4)).neighbors(0) == (1, 2, 3)


def test_a_topology_cannot_be_changed():
    topology = build("ring", 4)
    with pytest.raises(nx.NetworkXError):
        topology.graph.add_edge(0, 2)
    with pytest.raises(ValueError, match="read-only"):
        topology.mixing[0, 0] = 1


def test_an_edge_list_is_read_whatever_its_order_and_comments(tmp_path):
    file = tmp_path / "edges.txt"
    file.write_text("# a ring of four\n3 2 # back\n\n0 3\n  1\t0\n1 2\n2 1\n", encoding="utf-8")
    topology = build(str(file), 4)
    assert topology.digest == build("ring", 4).digest
    assert topology.mixing_row(0).keys() == {0, 1, 3}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("0 1\n1 x\n2 0\n", "'1 x' in line 2"),
        ("0 1\n1 2.0\n", "'1 2.0' in line 2"),
        ("0 1\n1,2\n2 0\n", "'1,2' in line 2"),
        ("0 1 0.5\n1 2\n", "'0 1 0.5' in line 1"),
        ("0 1 2\n", "'0 1 2' in line 1"),
        ("0 1\n1 2\n2\n", "'2' in line 3"),
        ("0 1\n1 2\n2 -1\n", "'2 -1' in line 3"),
        ("0 1\n1 2\n2 3\n", "agent 3 is there"),
        ("0 1\n", "agent 2 has no edge"),
        ("# nothing\n", "agent 0 has no edge"),
        ("0 1\n1 2\n2 2\n", "agent 2 to itself"),
        (b"\xff\xfe0 1", "cannot be read"),
    ],
)
def test_a_bad_edge_list_is_refused_with_file_and_fault(tmp_path, text, fault):
    file = tmp_path / "edges.txt"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as refusal:
        build(str(file), 3)
    assert f"topology = '{file}'" in str(refusal.value)
    assert fault in str(refusal.value)


def test_an_edge_list_in_two_parts_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"topology = .*edges\.txt' falls into 2 parts"):
        build_from([(0, 1), (2, 3)], 4, tmp_path)


@pytest.mark.parametrize(
    ("name", "num_agents", "settings", "told"),
    [
        ("rign", 4, {}, ["topology = 'rign'", "did you mean 'ring'?"]),
        ("ring", 4, {"mixing": "metropolitan"}, ["mixing = 'metropolitan'", "metropolis"]),
        ("ring", 1, {}, ["num-agents = 1 ", "at least 2"]),
        ("complete", 0, {}, ["num-agents = 0 ", "at least 2"]),
        ("grid", -3, {}, ["num-agents = -3 ", "at least 2"]),
        ("bipartite", 2, {}, ["num-agents = 2 ", "at least 3"]),
        ("torus", 8, {}, ["num-agents = 8 ", "2 x 4", "at least 3"]),
        ("torus", 7, {}, ["num-agents = 7 ", "1 x 7", "at least 3"]),
        ("hypercube", 12, {}, ["num-agents = 12 ", "power of two"]),
        ("random-regular", 4, {"degree": 4}, ["topology-degree = 4 ", "from 1 to 3"]),
        ("random-regular", 4, {"degree": 0}, ["topology-degree = 0 ", "from 1 to 3"]),
        ("random-regular", 5, {"degree": 3}, ["topology-degree = 3 ", "num-agents = 5 ", "even"]),
        ("random-regular", 8, {"degree": 1}, ["topology-degree = 1 ", "no connected graph", "raise it"]),
        ("barabasi-albert", 5, {"degree": 5}, ["topology-degree = 5 ", "from 1 to 4"]),
        ("barabasi-albert", 5, {"degree": -2}, ["topology-degree = -2 ", "from 1 to 4"]),
        ("watts-strogatz", 8, {"degree": 8}, ["topology-degree = 8 ", "from 1 to 7"]),
        ("watts-strogatz", 8, {"degree": 0}, ["topology-degree = 0 ", "from 1 to 7"]),
        ("watts-strogatz", 8, {"degree": 3}, ["topology-degree = 3 ", "even"]),
        ("watts-strogatz", 8, {"probability": 0.0}, ["probability = 0.0 ", "above 0"]),
        ("erdos-renyi", 8, {"probability": 0.0}, ["probability = 0.0 ", "above 0"]),
        ("erdos-renyi", 8, {"probability": 1.1}, ["probability = 1.1 ", "at most 1"]),
        ("erdos-renyi", 8, {"probability": math.nan}, ["probability = nan ", "at most 1"]),
        ("erdos-renyi", 30, {"probability": 1e-3}, ["probability = 0.001 ", "no connected graph"]),
        ("/no/such/file", 4, {}, ["topology = '/no/such/file'", "No such file"]),
        ("/", 4, {}, ["topology = '/'", "directory"]),
    ],
)
def test_an_impossible_topology_is_refused_with_key_value_and_remedy(name, num_agents, settings, told):
    with pytest.raises(ConfigError) as refusal:
        build(name, num_agents, **settings)
    sentence = str(refusal.value)
    assert "\n" not in sentence
    assert sentence.startswith(told[0])
    assert all(part in sentence for part in told)


def test_settings_a_topology_does_not_use_cannot_spoil_it():
    assert build("ring", 3, degree=99, probability=7.0).num_agents == 3


def test_the_digest_tells_graphs_and_mixings_apart_and_nothing_else(tmp_path):
    same = [build("ring", 6, seed=seed, degree=degree).digest for seed, degree in ((0, 4), (1, 2))]
    assert same[0] == same[1]
    assert same[0] == build_from([(5, 0), (4, 3), (5, 4), (3, 2), (1, 2), (0, 1)], 6, tmp_path).digest
    others = [
        build("ring", 7).digest,
        build("path", 6).digest,
        build("ring", 6, mixing="lazy-metropolis").digest,
        build_from([(0, 2), (2, 1), (1, 3), (3, 4), (4, 5), (5, 0)], 6, tmp_path).digest,  # renumbered
    ]
    assert len({same[0], *others}) == 5
    assert build("ring", 4).digest == "0b4dfa692c4f0654"  # on any machine


@settings(deadline=None)
@given(graph=connected_graphs(most=20), num_blocks=st.integers(1, 25))
def test_blocks_share_out_all_agents_evenly(tmp_path_factory, graph, num_blocks):
    topology = build_from(graph.edges, len(graph), tmp_path_factory.mktemp("graph"))
    spread = blocks(topology, num_blocks)

    assert len(spread) == num_blocks
    assert sorted(agent for block in spread for agent in block) == list(range(len(graph)))
    sizes = [len(block) for block in spread]
    assert max(sizes) - min(sizes) <= 1
    assert sizes == sorted(sizes, reverse=True)  # so the empty ones are last
    assert all(block == tuple(sorted(block)) for block in spread)
    assert {type(agent) for block in spread for agent in block} == {int}
    shuffled = build_from(list(graph.edges)[::-1], len(graph), tmp_path_factory.mktemp("graph"))
    assert spread == blocks(shuffled, num_blocks)
    natural = [tuple(part) for part in np.array_split(np.arange(len(graph)), num_blocks)]
    assert edges_between(topology, spread) <= edges_between(topology, natural)


@given(num_agents=st.integers(3, 40), data=st.data())
@settings(deadline=None)
def test_a_ring_is_cut_only_where_blocks_meet(num_agents, data):
    num_blocks = data.draw(st.integers(1, num_agents))
    topology = build("ring", num_agents)
    spread = blocks(topology, num_blocks)
    assert edges_between(topology, spread) == (num_blocks if num_blocks > 1 else 0)
    assert [agent for block in spread for agent in block] == list(range(num_agents))


@given(numbers=st.permutations(range(12)), num_blocks=st.integers(1, 12))
@settings(deadline=None)
def test_a_path_numbered_at_random_is_still_cut_only_where_blocks_meet(tmp_path_factory, numbers, num_blocks):
    edges = pairwise(numbers)
    topology = build_from(edges, 12, tmp_path_factory.mktemp("graph"))
    assert edges_between(topology, blocks(topology, num_blocks)) == num_blocks - 1


def test_no_blocks_at_all_is_refused():
    with pytest.raises(ValueError, match="num_blocks = 0"):
        blocks(build("ring", 4), 0)


def test_blocks_of_a_random_graph_are_cut_where_few_edges_run() -> None:
    topology = build("random-regular", 100, degree=4, seed=0)
    first, second = blocks(topology, 2)
    assert len(first) == len(second) == 50
    assert nx.cut_size(topology.graph, first, second) <= 40, "a cut at random would be about 100 of 200 edges"


@pytest.mark.parametrize("name", DIRECTED)
@pytest.mark.parametrize("num_agents", [2, 5, 8, 11])
def test_on_a_directed_graph_columns_sum_to_one_and_rows_and_columns_are_those_of_the_matrix(name, num_agents):
    topology = build(name, num_agents, degree=1 if num_agents == 2 else 2, mixing="push", epoch=1)
    assert np.allclose(topology.mixing.sum(axis=0), 1, rtol=0, atol=1e-12)
    for i in range(num_agents):
        assert topology.receivers(i) == tuple(sorted(topology.graph.successors(i)))
        assert topology.neighbors(i) == tuple(sorted(topology.graph.predecessors(i)))
        assert topology.mixing_row(i) == {j: topology.mixing[i, j] for j in range(num_agents) if topology.mixing[i, j]}
        column = topology.mixing[:, i]
        assert topology.mixing_column(i) == {j: column[j] for j in range(num_agents) if column[j]}


def test_static_directed_graphs_are_strongly_connected_and_as_their_authors_draw_them():
    assert build("directed-ring", 5, mixing="push").receivers(4) == (0,)
    assert build("directed-exponential", 8, mixing="push").receivers(6) == (0, 2, 7)
    hops = [build("one-peer-exponential", 8, mixing="push", epoch=t).receivers(0) for t in range(6)]
    assert hops == [(1,), (2,), (4,), (1,), (2,), (4,)]
    for seed in range(10):
        drawn = build("random-out", 9, degree=2, mixing="push", seed=seed)
        assert nx.is_strongly_connected(drawn.graph)
        assert {len(drawn.receivers(i)) for i in range(9)} == {2}


def test_one_peer_exponential_graphs_average_exactly_after_all_hops_of_a_power_of_two():
    product = np.eye(8)
    for epoch in range(3):
        product = build("one-peer-exponential", 8, mixing="push", epoch=epoch).mixing @ product
    assert np.allclose(product, 1 / 8, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", redrawn())
def test_what_is_redrawn_differs_from_epoch_to_epoch_and_comes_again(name):
    mixing = "push" if name in DIRECTED else "metropolis"
    graphs = [build(name, 12, degree=2, mixing=mixing, seed=5, epoch=epoch).digest for epoch in range(4)]
    assert len(set(graphs)) == 4
    assert graphs == [build(name, 12, degree=2, mixing=mixing, seed=5, epoch=epoch).digest for epoch in range(4)]


def test_a_graph_of_networkx_is_a_topology_and_one_with_other_nodes_is_refused():
    mine = of_graph(nx.path_graph(4), "uniform")
    assert np.array_equal(mine.mixing, build("path", 4, mixing="uniform").mixing)
    with pytest.raises(ConfigError, match=r"the graph has the nodes \['a', 'b'\] …: expected the agents 0 to 1"):
        of_graph(nx.Graph([("a", "b")]))


@pytest.mark.parametrize("name", sorted(set(TOPOLOGIES) - set(redrawn())))
def test_what_is_not_redrawn_is_the_same_in_every_epoch(name):
    mixing = "push" if name in DIRECTED else "metropolis"
    assert build(name, 16, mixing=mixing).digest == build(name, 16, mixing=mixing, epoch=3).digest


@pytest.mark.parametrize("num_agents", [2, 7, 10])
def test_a_matching_pairs_everybody_but_one_of_an_odd_number(num_agents):
    for epoch in range(5):
        topology = build("random-matching", num_agents, epoch=epoch)
        degrees = sorted(len(topology.neighbors(i)) for i in range(num_agents))
        assert degrees == [0] * (num_agents % 2) + [1] * (num_agents - num_agents % 2)
        check_mixing(topology.mixing, topology.graph)


@pytest.mark.parametrize("clusters", [2, 3, 5])
def test_a_cluster_is_a_block_and_clusters_are_joined_in_a_ring(clusters):
    joined, apart = (build(name, 16, clusters=clusters) for name in ("clusters", "islands"))
    parts = sorted(tuple(sorted(part)) for part in nx.connected_components(apart.graph))
    assert blocks(joined, clusters) == blocks(apart, clusters) == parts
    assert all(apart.graph.subgraph(part).number_of_edges() == math.comb(len(part), 2) for part in parts)
    bridges = joined.graph.number_of_edges() - apart.graph.number_of_edges()
    assert bridges == edges_between(joined, parts) == clusters
    assert apart.spectral_gap == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("clusters", [1, 4])
def test_a_cluster_has_two_agents_at_least(clusters):
    with pytest.raises(ConfigError, match=f"topology-clusters = {clusters} is not allowed: with num-agents = 7 it ta"):
        build("clusters", 7, clusters=clusters)


def test_walkers_hear_those_within_the_radius_and_most_of_those_they_heard_before():
    first, second, late = (build("geographic", 40, radius=0.3, epoch=epoch).graph for epoch in (0, 1, 400))
    kept = len(set(first.edges) & set(second.edges)) / first.number_of_edges()
    assert kept > 0.7
    assert len(set(first.edges) & set(late.edges)) / first.number_of_edges() < 0.5
    assert build("geographic", 12, radius=1.5).graph.number_of_edges() == 66
    assert build("geographic", 12, radius=0.0).graph.number_of_edges() == 0


def test_undirected_rules_refuse_a_directed_graph_and_name_the_one_that_fits():
    with pytest.raises(ConfigError, match="use mixing = 'push'"):
        build("directed-ring", 5)
