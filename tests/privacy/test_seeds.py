"""Seeds that neighbours agree on: both ends draw the same noise, a third cannot, and none of it comes twice."""

from itertools import chain
from math import inf

import pytest
import torch
from peers import RING, Net, method

from ross_flwr.algorithms.messages import Exchange
from ross_flwr.privacy import seeds
from ross_flwr.privacy.link import Blurred
from ross_flwr.privacy.seeds import Keys, begin, renew, shared_seed

EXCHANGE = Exchange(pass_number=0, number=0, step="share")


class Pairs(Net):
    """Nodes on a ring whose noise is what neighbours share with opposite signs, so that none of it is in the mean."""

    def host(self, members):
        host = super().host(members)
        for i, agent in host.agents.items():
            shared = {(min(i, j), max(i, j)): 1.0 if i < j else -1.0 for j in agent.neighbors}
            link = Blurred(1.0, 5.0, shared=shared, secret=True)
            link.begin(agent)
            agent.clip = inf
            agent.gradient_chain = [link]
        return host


def tell(agents, source, destination, key=None):
    """Let one agent's key, or another key in its place, come to another."""
    message = Keys().send(agents[source], {destination: {"model": torch.ones(2)}}, EXCHANGE)[destination]
    message = message if key is None else {**message, seeds.PUBLIC: key}
    assert Keys().receive(agents[destination], source, message, EXCHANGE).keys() == {"model"}


@pytest.fixture
def agents():
    """The agents of a ring of four, who all know their neighbours' keys."""
    agents = Pairs(method("decor", learning_rate=1.0)).host(range(4)).agents
    for i, agent in agents.items():
        for j in agent.neighbors:
            tell(agents, i, j)
    return agents


def test_both_ends_have_the_same_seed_and_every_pair_and_batch_another(agents):
    pairs = [(i, j, t) for i, j in RING.graph.edges for t in range(3)]
    found = [shared_seed(agents[i], j, t) for i, j, t in pairs]
    assert found == [shared_seed(agents[j], i, t) for i, j, t in pairs]
    assert None not in found
    assert len(set(found)) == len(pairs)


def test_a_third_who_hears_all_keys_has_another_seed(agents):
    """Agent 3 has heard agent 0's key, and hears agent 1's, which it is to take for its own."""
    third = agents[3]
    third.state["privacy.key-of.1"] = agents[0]["privacy.key-of.1"]
    third.index = 1
    assert shared_seed(third, 0, 5) != shared_seed(agents[0], 1, 5)
    third.index = 0
    assert shared_seed(third, 1, 5) != shared_seed(agents[0], 1, 5)


@pytest.mark.parametrize("key", [torch.full((32,), 7, dtype=torch.uint8), torch.zeros(32, dtype=torch.uint8)])
def test_a_neighbour_that_lies_about_its_key_spoils_its_own_pair_alone(agents, key):
    before = {(i, j): shared_seed(agents[i], j, 0) for i in agents for j in agents[i].neighbors}
    tell(agents, 3, 0, key)
    changed = [pair for pair, seed in before.items() if shared_seed(agents[pair[0]], pair[1], 0) != seed]
    assert changed == [(0, 3)]
    with_seed = shared_seed(agents[0], 3, 0) is not None
    assert with_seed == bool(key.any()), "with a key of zeros everybody would have the same secret"


def test_an_agent_that_starts_again_has_no_seed_of_before_until_its_neighbours_hear_of_it(agents):
    seen = {shared_seed(agents[0], j, 0) for j in (1, 3)}
    renew([agents[0]])
    assert seen.isdisjoint({shared_seed(agents[0], j, 0) for j in (1, 3)})
    tell(agents, 0, 1)
    assert shared_seed(agents[0], 1, 0) == shared_seed(agents[1], 0, 0) not in seen


def test_all_come_to_have_the_seed_that_was_drawn_last_and_nobody_else_reads_it():
    net = Net(method("decor", learning_rate=1.0), transforms=[Keys(common=True)])
    host = net.host(range(4))
    for agent in host.agents.values():
        seeds.begin(agent, common=True)
    last, heard = host.agents[3]["privacy.common"], {t: [] for t in range(7)}
    for t in range(7):
        if t == 5:
            renew([host.agents[1]])  # it has the newest seed then, and takes up none of before
            last = host.agents[1]["privacy.common"]
        for number in range(2):
            host.activate(t, number)
            heard[t] += [m for sack in host.mailroom.waiting.values() for m in sack.values() if seeds.SEALED in m]
        held = [torch.equal(agent["privacy.common"], last) for agent in host.agents.values()]
        assert all(held) == (t in (2, 3, 4, 6)), (t, held)
    assert [t for t, sealed in heard.items() if not sealed] == [0, 4], (
        "without keys, and where all are known to have it"
    )
    outsider = host.agents[0]
    begin(outsider)
    for message in chain.from_iterable(heard.values()):
        assert seeds._opened(outsider, 2, message[seeds.SEALED]) is None


def test_noise_cancels_between_nodes_that_talk_directly():
    """With η = 1 the mean of the models is that of the optima, and the noise of the last pass."""
    net = Pairs(method("decor", learning_rate=1.0), transforms=[Keys()])
    hosts, _ = net.run(4)
    mean, expected = (
        torch.stack([agent["model"] for host in found for agent in host.agents.values()]).mean(0)
        for found in (hosts, [Net(method("decor", learning_rate=1.0)).locally(4)[0]])
    )
    torch.testing.assert_close(mean, expected, rtol=0, atol=1e-4)
    one = hosts[0].agents[0]["model"]
    assert (one - mean).abs().max() > 0.1, "there is noise in every single model"
    assert [dict(host.dropped) for host in hosts] == [{}] * 4
