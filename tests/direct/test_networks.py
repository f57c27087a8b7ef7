"""Whole networks of nodes that do what `Progress` decides: faults from which all recover, and a neighbour that lies."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from virtual import EXCHANGES, LATENCY, Net, complete, ring

from ross_flwr.direct.pace import MARGIN, SLOWEST
from ross_flwr.direct.standings import BUDGET, GREETING, REGAINED

SCHEDULES = int(os.environ.get("SCHEDULES", "30"))
"""How many schedules of lies and faults to try; thousands in the long form."""

GRAPHS = {"pair": ring(2), "ring": ring(5), "complete": complete(4)}


def crash(net, *nodes):
    for node in nodes:
        net.crash(node)
    net.run(12)
    net.mend()


def cut(net, edges):
    for i, j in edges:
        net.cut(i, j)
    net.run(12)
    net.mend()


def cut_often(net):
    for _ in range(5):
        net.cut(0, 1)
        net.run(0.3)
        net.mend()
        net.run(0.3)


def hold(net, seconds):
    net.hold(1, seconds)
    net.run(seconds)


def lose(net):
    net.loss = 0.1
    net.run(20)
    net.mend()


def slow_down(net, work):
    net.nodes[0].work = work
    net.run(40)
    net.nodes[0].work = 0.1


def edges_of(net, among):
    """The edges between these nodes and the others."""
    return [(i, j) for i in among for j in net.graph[i] if j not in among]


FAULTS = {
    "a node dies": lambda net: crash(net, 1),
    "two neighbours die": lambda net: crash(net, 0, 1),
    "two nodes that share a neighbour die": lambda net: crash(net, 0, len(net.nodes) - 2),
    "a node is held for less than it is waited for": lambda net: hold(net, 1.5),
    "a node is held for some time": lambda net: hold(net, 8),
    "a node is held for long": lambda net: hold(net, 30),
    "an edge is cut": lambda net: cut(net, [(0, 1)]),
    "an edge is cut now and then": cut_often,
    "a node is cut off": lambda net: cut(net, edges_of(net, {0})),
    "the network falls into halves": lambda net: cut(net, edges_of(net, {*range(len(net.nodes) // 2)})),
    "messages are lost": lose,
    "a node is slower": lambda net: slow_down(net, 0.6),
    "a node is slower than it is waited for": lambda net: slow_down(net, 6.0),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_when_a_fault_is_over_all_nodes_are_in_step_again(fault):
    for name, graph in GRAPHS.items():
        net = Net(graph, [0.1] * len(graph), patience=2.0)
        net.run(3)
        FAULTS[fault](net)
        net.run(30)
        last = {node.history[-1][1] for node in net.nodes}
        assert max(last) - min(last) <= 1, name
        assert not any(missing for node in net.nodes for _, _, missing in node.history[-8:]), name
        jumps = [sum(len(node.jumps) for node in net.nodes)]
        assert jumps[0] <= 12, f"{name}: {jumps}"


@pytest.mark.parametrize(
    ("graph", "works"),
    [("ring", [0.15, *[0.1] * 4]), ("ring", [0.3, *[0.1] * 4]), ("complete", [0.15, 0.15, 0.1, 0.1])],
)
def test_a_slower_part_that_was_cut_off_catches_up_though_the_others_went_on(graph, works):
    net, part = Net(GRAPHS[graph], works, patience=2.0), {i for i, work in enumerate(works) if work > 0.1}
    net.run(3)
    cut(net, edges_of(net, part))
    behind = [node.exchange for node in net.nodes]
    net.run(10)
    assert max(behind) - min(behind) > 30
    assert [len(node.jumps) for node in net.nodes] == [int(i in part) for i in range(len(works))]
    assert not any(missing for node in net.nodes for _, _, missing in node.history[-8:])


def parted(seconds):
    """A ring whose halves worked at different speeds, apart for so long. Each node has one neighbour in its half."""
    net = Net(GRAPHS["ring"], [0.15, 0.15, 0.1, 0.1, 0.1], patience=2.0)
    net.run(3)
    for i, j in edges_of(net, {0, 1}):
        net.cut(i, j)
    net.run(seconds)
    net.mend()
    net.run(20)
    return net


def test_the_faster_half_of_a_ring_waits_for_the_slower_one_if_its_budget_brings_that_near():
    net = parted(12)
    assert max(node.exchange for node in net.nodes) - min(node.exchange for node in net.nodes) <= 1
    assert not any(missing for node in net.nodes for _, _, missing in node.history[-8:])
    assert not any(node.jumps for node in net.nodes)


def test_the_halves_of_a_ring_that_were_apart_for_longer_are_one_again_in_the_next_segment():
    """No node can tell a neighbour that is far ahead from one that lies."""
    net = parted(30)
    assert sum(missing for node in net.nodes for *_, missing in node.history[-1:]) == 4
    end = max(node.exchange for node in net.nodes) // EXCHANGES * EXCHANGES
    for node in net.nodes:
        node.saved = end, net.now
        node.start()
    net.run(5)
    assert {node.history[-1][1] > end for node in net.nodes} == {True}
    assert not any(missing for node in net.nodes for _, _, missing in node.history[-8:])
    assert not any(node.jumps for node in net.nodes)


def test_where_nothing_happens_nobody_misses_anything():
    for graph in GRAPHS.values():
        net = Net(graph, [0.1, 0.3, *[0.1] * (len(graph) - 2)], patience=2.0)
        net.run(20)
        assert all(node.exchange > 100 and not node.jumps for node in net.nodes)
        assert not any(missing for node in net.nodes for _, _, missing in node.history)


STALLS = {
    "delivers every third exchange": {"rhythm": 3},
    "delivers every third exchange, and claims to be behind": {"rhythm": 3, "offset": -1},
    "delivers nothing, and claims to be behind": {"silent": True, "offset": -1},
    "delivers nothing, and claims to be ahead": {"silent": True, "offset": 1},
    "delivers a little late, every time": {"delay": 0.24},
    "delivers later than it may for nothing": {"delay": 0.055},
    "delivers at the last moment": {"delay": 0.9},
    "delivers at the last moment, and claims to be behind": {"delay": 1.8, "offset": -1},
}


@pytest.mark.parametrize("graph", ["ring", "complete"])
def test_a_neighbour_that_keeps_others_waiting_slows_them_down_only_for_a_while(graph):
    """The rate is that after twenty times the patience, beside that of a network without stalls."""
    patience, rates = 1.0, {}
    for stall, lies in {"none": {}, **STALLS}.items():
        net = Net(GRAPHS[graph], [0.1] * len(GRAPHS[graph]), patience=patience, liar=0)
        vars(net.nodes[0]).update(lies)
        net.run(20 * patience)
        before = [node.exchange for node in net.honest]
        net.run(10 * patience)
        rates[stall] = min(node.exchange - there for node, there in zip(net.honest, before, strict=True))
        assert [node.jumps for node in net.honest] == [[]] * len(net.honest), stall
    assert all(rate >= 0.5 * rates["none"] for rate in rates.values()), rates


CLAIMS = st.one_of(st.integers(-(2**62), 2**62), st.integers(-60, 60))


@given(
    st.sampled_from(sorted(GRAPHS)),
    st.sampled_from([0.5, 2.0]),
    st.lists(st.tuples(CLAIMS, st.booleans(), st.floats(0.05, 4)), min_size=1, max_size=12),
)
@settings(max_examples=SCHEDULES)
def test_a_neighbour_that_only_claims_to_be_elsewhere_moves_nobody(graph, patience, lies):
    """It answers what it likes, and may say that all comes too late, but it sends in time."""
    net = Net(GRAPHS[graph], [0.2] * len(GRAPHS[graph]), patience=patience, liar=0)
    liar = net.nodes[0]
    for liar.offset, liar.refusing, seconds in lies:
        net.run(seconds)
    assert [node.jumps for node in net.honest] == [[]] * len(net.honest)
    for node in net.honest:
        refused = node.dropped["beyond-end"] > 0  # who is nowhere is not greeted back, and not waited for
        assert all(missing <= refused for _, _, missing in node.history)


@given(
    st.sampled_from(sorted(GRAPHS)),
    st.sampled_from([0.5, 2.0, 8.0]),
    st.lists(
        st.fixed_dictionaries(
            {
                "offset": CLAIMS,
                "shift": st.sampled_from([0, 0, 0, 1, 9, 1000]),
                "rhythm": st.sampled_from([1, 2, 3, 4, 7]),
                "delay": st.sampled_from([0.0, 0.0, 0.5, 0.9, 1.8]),
                "silent": st.booleans(),
                "refusing": st.booleans(),
                "lasts": st.floats(0.5, 8.0),
            }
        ),
        min_size=1,
        max_size=8,
    ),
)
@settings(max_examples=SCHEDULES // 2)
def test_one_neighbour_whatever_it_does_keeps_nobody_waiting_for_more_than_its_budget(graph, patience, lies):
    """Delays and times are in units of the patience. Who jumps does not go beyond the others."""
    net = Net(GRAPHS[graph], [0.2] * len(GRAPHS[graph]), patience=patience, liar=0)
    liar = net.nodes[0]
    for lie in lies:
        vars(liar).update({**lie, "delay": lie["delay"] * patience})
        net.run(lie["lasts"] * patience)
    assert all(0 <= node.value < 1 for node in net.honest)
    sides = len(GRAPHS[graph][0])  # the liar may keep its neighbours waiting one after the other
    for node in net.honest:
        assert graph == "pair" or all(ahead <= (MARGIN + 1) * EXCHANGES for *_, ahead in node.jumps)
        work = 0.2 * 1.1 / EXCHANGES
        slow = max((SLOWEST - 1) * work, patience / 20) if any(lie["delay"] for lie in lies) else 0.0
        lost = net.now - (1.5 * work + 3 * LATENCY + slow) * node.exchange
        assert lost <= sides * (BUDGET * patience + REGAINED * net.now) + 3 * patience


class Network(RuleBasedStateMachine):
    """Anything may happen, in any order, and one node may lie as it likes.

    Honest nodes mix by the median, and no model of theirs leaves the range of honest models. The reference is a node
    that waits for nobody: nobody honest gets farther than it could, but for the passes by
    which a node that jumps goes ahead. `virtual` asserts that nobody waits too long for an exchange or uses anything
    of another one, that nobody goes back, and that the weights of what arrived and of what is missing sum to 1.
    """

    @initialize(
        graph=st.sampled_from(sorted(GRAPHS)),
        patience=st.sampled_from([0.5, 2.0, 10.0]),
        works=st.lists(st.sampled_from([0.3, 0.3, 0.45]), min_size=5, max_size=5),
        fetch=st.sampled_from([0.01, 1.0]),
        lies=st.booleans(),
    )
    def begin(self, graph, patience, works, fetch, lies):
        works = works[: len(GRAPHS[graph])]
        self.net = Net(GRAPHS[graph], works, patience=patience, fetch=fetch, liar=0 if lies else None)
        self.lies = lies
        self.fastest = 0.9 * min(node.work for node in self.net.honest)
        self.ahead = MARGIN + 1 + fetch / self.fastest

    @rule(seconds=st.floats(0.1, 20))
    def pass_time(self, seconds):
        self.net.run(seconds)

    @rule(node=st.integers(0, 4))
    def crash(self, node):
        self.net.crash(node % len(self.net.nodes))

    @rule(node=st.integers(0, 4), other=st.integers(0, 3))
    def cut(self, node, other):
        neighbors = self.net.graph[node % len(self.net.nodes)]
        self.net.cut(node % len(self.net.nodes), neighbors[other % len(neighbors)])

    @rule(node=st.integers(0, 4), seconds=st.floats(0.1, 30))
    def hold(self, node, seconds):
        self.net.hold(node % len(self.net.nodes), seconds)

    @rule(loss=st.sampled_from([0.0, 0.2, 1.0]))
    def lose(self, loss):
        self.net.loss = loss

    @rule()
    def mend(self):
        self.net.mend()

    @precondition(lambda self: self.lies)
    @rule(
        offset=CLAIMS,
        shift=st.sampled_from([0, 0, 1, 9, 2**62]),
        silent=st.booleans(),
        refusing=st.booleans(),
        rhythm=st.sampled_from([1, 1, 2, 3]),
        delay=st.sampled_from([0.0, 0.0, 0.4, 3.6]),
    )
    def lie(self, **lies):
        vars(self.net.nodes[0]).update(lies)

    @invariant()
    def nobody_honest_is_farther_than_time_allows(self):
        for node in self.net.honest:
            assert node.exchange / EXCHANGES <= self.net.now / self.fastest + self.ahead

    @invariant()
    def nobody_honest_takes_in_a_lie(self):
        assert all(0 <= node.value < 1 for node in self.net.honest)

    def teardown(self):
        """Whatever was done, nobody waits for ever."""
        self.net.mend()
        before = [node.exchange for node in self.net.honest]
        self.net.run(6 * self.net.patience + 2 * GREETING)
        assert all(node.exchange > there for node, there in zip(self.net.honest, before, strict=True))


TestNetwork = Network.TestCase
TestNetwork.settings = settings(max_examples=SCHEDULES * 5 // 8, stateful_step_count=15)
