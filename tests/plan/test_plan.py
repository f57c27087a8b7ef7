"""Plans: small networks computed by hand, and what runs really send."""

import pytest

from ross_flwr import resolve
from ross_flwr.config import ConfigError
from ross_flwr.plan.forecast import forecast
from ross_flwr.plan.gossip import Gossip
from ross_flwr.plan.network import Load, Sack
from ross_flwr.plan.places import Link, Relay, Server, read_link
from ross_flwr.plan.relayed import Relayed
from ross_flwr.runs.local import LocalRun

KEYS = {"num-agents": 4, "topology": "ring", "attackers": 0, "hidden": 8, "validation-size": 20, "num-rounds": 1}


def load(num_nodes, pairs, size, seconds=1.0):
    """One exchange of messages of `size` bytes between the pairs of nodes, both ways, before a step of work."""
    sacks = {edge: Sack(1, size) for a, b in pairs for edge in ((a, b), (b, a))}
    return Load([[0.0] * num_nodes, [seconds] * num_nodes], [sacks, {}], [[size] * num_nodes, [0.0] * num_nodes])


@pytest.fixture(autouse=True)
def two_passes(monkeypatch):
    """Measure no longer than it takes to know what is sent."""
    monkeypatch.setattr("ross_flwr.plan.rehearsal.PASSES", 2)


@pytest.mark.parametrize(
    ("link", "cores", "cost", "seconds"),
    [
        (Link(100, 50, 0.5), 1, 0.0, 2 * 2.0 + 0.5 + 1),  # two messages through a link down, and a step
        (Link(50, 100, 0.5), 1, 0.0, 2 * 2.0 + 0.5 + 1),  # through a link up
        (Link(shared=True), 1, 0.0, 3.0),  # three steps on one processor
        (Link(shared=True), 2, 0.0, 2.0),  # on two: all wait for the third
    ],
)
def test_three_nodes_take_what_they_take_by_hand(link, cores, cost, seconds):
    triangle = load(3, [(0, 1), (1, 2), (0, 2)], 100.0)
    assert Gossip(triangle, link, lambda _: cost, cores).pace().seconds == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("link", "cores", "crowded"), [("loopback", 2, True), ("loopback", 4, False), ("lan", 2, False)]
)
def test_nodes_that_take_turns_on_processors_are_measured_with_empty_caches(link, cores, crowded, monkeypatch):
    emptied = []
    monkeypatch.setattr("ross_flwr.plan.forecast.given_cores", lambda: cores)
    monkeypatch.setattr("ross_flwr.plan.rehearsal.empty_caches", lambda: emptied.append(1))
    forecast(resolve({**KEYS, "algorithm": "dpsgd", "transport": "relay"}), link)
    assert len(emptied) == (2 * 4 * 2 if crowded else 0)  # passes, nodes, steps


def test_half_of_what_a_message_costs_is_spent_at_each_end():
    pair = load(2, [(0, 1)], 100.0)
    assert Gossip(pair, Link(50, 50, 0.5), lambda _: 0.2).pace().seconds == pytest.approx(0.1 + 2.0 + 0.5 + 0.1 + 1)


def test_a_relayed_round_goes_through_one_server_and_waits_for_the_next_look():
    """One node replies at 0 s and the other at 1 s, as their replies share the server's link down.

    The ServerApp has told both at 1.6 s. They look at 3 and 4 s, take 1 s through the server's link up, work for 1.5 s,
    and reply at 6.5 and 7.5 s.
    """
    relay = Relay(poll=3.0, start=0.5, app=0.4)
    pace = Relayed(load(2, [(0, 1)], 100.0), Link(), Server(100, 100), relay).pace()
    assert pace.seconds == pytest.approx(6.5)
    assert pace.busy["the server's link up"] == pytest.approx(2.0)
    assert pace.busy["the ServerApp"] == pytest.approx(0.8)


@pytest.mark.parametrize("passes", [1, 2, 4])
def test_relayed_exchanges_overlap_in_a_round(passes):
    """On a line of four, the first node takes 3 s for the first of two steps, and the last 3 s for the second.

    The last begins the second step when its neighbour has done the first, and both are done after 4 s.
    """
    pairs = {edge: Sack(1, 0.0) for a, b in [(0, 1), (1, 2), (2, 3)] for edge in ((a, b), (b, a))}
    steps = [[0.0] * 4, [3.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 3.0]]
    line = Load(steps, [pairs, pairs, {}], [[0.0] * 4] * 3)
    assert Relayed(line, Link(), Server(), Relay(poll=1.0), 1, passes).pace().seconds == pytest.approx(4.0)


@pytest.mark.parametrize("keys", [{"algorithm": "ross"}, {"algorithm": "dpsgd", "compress": "int8"}])
def test_a_plan_knows_the_bytes_that_a_run_sends(keys):
    config = resolve({**KEYS, **keys, "transport": "relay"})
    (line,) = LocalRun(config).rounds()
    assert 4 * forecast(config, "lan").sent == pytest.approx(line["bytes"])


def test_a_hundred_nodes_stand_for_a_million_and_the_server_serves_them_all():
    few, many = (
        forecast(resolve({**KEYS, "algorithm": "dpsgd", "num-agents": n, "transport": "relay"}), "lan")
        for n in (10, 10**6)
    )
    assert (few.simulated, many.simulated) == (10, 100)
    assert many.up == pytest.approx(10**5 * few.up)
    assert few.bottleneck.startswith("Flower's polling")
    assert many.bottleneck == "the ServerApp's memory"
    with pytest.raises(ConfigError, match="which cannot stand for 1000 where topology = 'complete'"):
        forecast(resolve({**KEYS, "topology": "complete", "num-agents": 1000}), "lan")


def test_a_link_is_a_name_or_a_rate():
    assert read_link("2.5gbit") == Link(312.5e6, 312.5e6)
    with pytest.raises(ConfigError, match="use loopback, simulation, lan, wifi, lte, or a rate"):
        read_link("0mbit")
