"""One agent: random streams, mini-batches, mixing, counts, BatchNorm statistics."""

import math
from copy import deepcopy
from itertools import combinations, product
from zlib import crc32

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from quadratics import Quadratic, normal
from torch import nn

from ross_flwr.algorithms.dpsgd import DPSGD
from ross_flwr.engine.host import Host
from ross_flwr.graph import topology
from ross_flwr.learning.agent import Agent
from ross_flwr.learning.examples import Batch
from ross_flwr.learning.flat import FlatModel
from ross_flwr.learning.objective import ModuleObjective
from ross_flwr.learning.rules import Mean
from ross_flwr.learning.streams import stream

KEYS = st.tuples(
    st.integers(0, 2**63), st.sampled_from(["batches", "shapley", "x"]), *[st.integers(0, 2**31) for _ in range(3)]
)


def words(*key, count=64):
    return stream(*key).integers(0, 2**64, count, dtype=np.uint64).tolist()


@given(key=KEYS, others=st.lists(KEYS, max_size=4))
def test_a_stream_does_not_depend_on_the_use_of_others(key, others):
    alone = words(*key)
    generator = stream(*key)
    mixed = []
    for other in [*others, key]:  # the same stream, taken once more, among them
        mixed += generator.integers(0, 2**64, 8, dtype=np.uint64).tolist()
        words(*other)
    assert mixed == alone[: len(mixed)]


def philox(key, counter):
    """Philox4x64-10 as published (Salmon et al., 2011): one block of four words."""
    mask = 2**64 - 1
    (a, b), (w, x, y, z) = key, counter
    for _ in range(10):
        left, right = 0xD2E7470EE14C6C93 * w, 0xCA5A826395121157 * y
        w, x, y, z = (right >> 64) ^ x ^ a, right & mask, (left >> 64) ^ z ^ b, left & mask
        a, b = (a + 0x9E3779B97F4A7C15) & mask, (b + 0xBB67AE8584CAA73B) & mask
    return [w, x, y, z]


@given(key=KEYS)
def test_streams_are_the_same_in_every_process_and_release(key):
    # Runs are resumed, and nodes agree, by these numbers: whoever changes them breaks both.
    seed, purpose, agent, round, draw = key
    first, second = (philox((seed, crc32(purpose.encode())), (block, draw, agent, round)) for block in (1, 2))
    assert stream(seed, purpose, agent, round, draw).bit_generator.random_raw(8).tolist() == first + second


@given(key=KEYS, other=KEYS)
def test_streams_that_differ_in_anything_share_no_stretch(key, other):
    for position in range(5):
        changed = (*key[:position], other[position], *key[position + 1 :])
        if changed != key:
            assert not set(words(*key)) & set(words(*changed))


def test_long_streams_of_neighbouring_keys_do_not_run_into_each_other():
    keys = [(0, "x", *each) for each in product(range(3), repeat=3)]
    seen = [word for key in keys for word in words(*key, count=2000)]
    assert len(set(seen)) == len(seen)


def agent_of(num_examples=20, batch_size=4, index=0, seed=0):
    return Agent(index, Quadratic(normal(index, num_examples, 3)), {index: 1.0}, seed, batch_size)


def batch_of(agent, round):
    agent.pass_number = round
    agent.gradient(torch.zeros(3))
    return agent.objective.batches[-1]


def test_an_agents_stream_follows_its_index_round_and_draw():
    drawn = []
    for index, round, draw in product(range(2), repeat=3):
        agent = agent_of(index=index, seed=5)
        agent.pass_number = round
        drawn.append(agent.stream("shapley", draw).integers(2**60))
        assert drawn[-1] == stream(5, "shapley", index, round, draw).integers(2**60)
    assert len(set(drawn)) == len(drawn)


@given(num_examples=st.integers(1, 40), batch_size=st.integers(1, 50), seed=st.integers(0, 99))
def test_an_epoch_visits_an_example_at_most_once_in_full_batches(num_examples, batch_size, seed):
    agent = agent_of(num_examples, batch_size, seed=seed)
    size = min(num_examples, batch_size)
    rounds = num_examples // size
    for epoch in range(2):
        batches = [batch_of(agent, epoch * rounds + each) for each in range(rounds)]
        assert all(len(batch) == size for batch in batches)
        visited = [example for batch in batches for example in batch]
        assert len(set(visited)) == len(visited)
        assert set(visited) <= set(range(num_examples))


def test_epochs_differ_and_none_forgets_an_example():
    agent = agent_of(num_examples=10, batch_size=4)
    epochs = [batch_of(agent, 2 * epoch) + batch_of(agent, 2 * epoch + 1) for epoch in range(20)]
    assert len({tuple(epoch) for epoch in epochs}) == 20
    assert {example for epoch in epochs for example in epoch} == set(range(10))


@given(rounds=st.lists(st.integers(0, 30), min_size=1, max_size=8), index=st.integers(0, 5))
def test_the_batch_of_a_round_does_not_depend_on_the_rounds_computed_before(rounds, index):
    agent = agent_of(11, 4, index)
    for round in rounds:
        assert batch_of(agent, round) == batch_of(agent_of(11, 4, index), round)


def test_agents_and_seeds_draw_their_own_batches():
    batches = [batch_of(agent_of(40, 8, index, seed), 0) for index, seed in product(range(3), repeat=2)]
    assert all(one != other for one, other in combinations(batches, 2))


def test_all_gradients_of_a_round_are_taken_on_one_batch():
    agent = agent_of(20, 4)
    models = [normal(seed, 3) for seed in range(4)]
    for round in range(3):
        agent.pass_number = round
        gradients = [agent.gradient(model) for model in models]
        centre = agent.objective.examples[agent.objective.batches[-1]].mean(0)
        assert all(torch.equal(g, model - centre) for g, model in zip(gradients, models, strict=True))
    assert len(agent.objective.batches) == 3


@given(
    weights=st.lists(st.floats(0.01, 1), min_size=1, max_size=6),
    own=st.integers(0, 5),
    lost=st.sets(st.integers(0, 5)),
    seed=st.integers(0, 99),
)
def test_mixing_is_the_dense_product_with_lost_weight_returned_to_self(weights, own, lost, seed):
    n = len(weights)
    assume(own < n)
    row = np.array(weights) / sum(weights)
    agent = Agent(own, Quadratic(normal(0, 2, 4)), dict(enumerate(row)), seed=0, batch_size=1)
    vectors = normal(seed, n, 4)
    heard = {j: vectors[j] for j in range(n) if j == own or j not in lost}
    dense = row.copy()
    for j in set(range(n)) - heard.keys():
        dense[own] += dense[j]
        dense[j] = 0
    mixed = agent.mix(heard)
    np.testing.assert_allclose(mixed.numpy(), dense @ vectors.double().numpy(), atol=1e-6)
    torch.testing.assert_close(agent.mix({j: torch.ones(4) for j in heard}), torch.ones(4))
    assert torch.equal(vectors, normal(seed, n, 4))  # the messages are shared, so they stay as they are


def test_a_rule_hears_how_far_the_agent_came_in_this_pass_and_of_a_momentum_its_length():
    class Heard(Mean):
        def __call__(self, own, others, view):
            steps.append(view.step())
            return super().__call__(own, others, view)

    steps, agent = [], Agent(0, Quadratic(normal(0, 2, 2)), {0: 1.0}, seed=0, batch_size=1, rule=Heard())
    agent["model"] = torch.zeros(2)
    agent.mix({0: torch.zeros(2)})  # a method that mixes before it steps
    agent["model"] = agent.mix({0: torch.tensor([3.0, 4.0])})
    agent.mix({0: agent["model"]})  # again, in the same pass
    agent.mix({0: torch.tensor([0.0, 2.0])}, models=False)
    agent.pass_number = 1
    agent.mix({0: agent["model"]})
    assert steps == [math.inf, 5.0, 5.0, 2.0, math.inf]


def test_a_vector_that_is_changed_in_place_is_refused_since_others_may_hold_it():
    agent = Agent(0, Quadratic(normal(0, 2, 3)), {0: 1.0}, seed=0, batch_size=1)
    agent["model"] = torch.ones(3)
    agent["model"] = agent["model"]  # as it was
    with pytest.raises(ValueError, match=r"agent\['model'\] was changed in place"):
        agent["model"] -= 1.0


def test_the_closed_neighbourhood_is_the_mixing_row():
    agent = Agent(3, Quadratic(normal(0, 2, 4)), {5: 0.25, 3: 0.5, 0: 0.25}, seed=0, batch_size=1)
    assert agent.neighbors == (0, 5)
    assert list(agent.mixing_row) == [0, 3, 5]


def test_gradients_and_utilities_are_counted_and_timed():
    agent = agent_of()
    for _ in range(3):
        agent.gradient(torch.zeros(3))
    for kind in ("loss", "accuracy"):
        agent.utility(torch.zeros(3), kind)
    assert (agent.counts["gradients"], agent.counts["utilities"]) == (3, 2)
    assert agent.counts["gradients-ns"] > 0
    assert agent.counts["utilities-ns"] > 0


class Images:
    """24 noisy images, with the labels of any agent."""

    def __init__(self, agent):
        self.inputs = normal(agent, 24, 1, 4, 4) * (1 + agent) + agent
        self.targets = torch.arange(24) % 3

    def __len__(self):
        return 24

    def batch(self, indices):
        return Batch(self.inputs[indices], self.targets[indices])


def normed_team(graph):
    """Agents with a convolution and BatchNorm, each at a model of its own, and the shared module."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3))
    flat, agents = FlatModel(deepcopy(module)), []
    for i in range(graph.num_agents):
        data = Images(i)
        agent = Agent(i, ModuleObjective(flat, data, data, data), graph.mixing_row(i), seed=0, batch_size=8)
        agent["model"] = flat.initial * (1 + 0.1 * torch.rand(flat.size, generator=torch.Generator().manual_seed(i)))
        agents.append(agent)
    return agents, module, flat


def batch_norm_moved_by(module, flat, vector, batch):
    """Running mean and variance before and after a training pass of a copy of the module, and its gradient."""
    copy = deepcopy(module).train()
    copy.load_state_dict({k: v.clone() for k, v in flat.named(vector).items()}, strict=False)
    before = torch.cat([copy[1].running_mean, copy[1].running_var])
    nn.functional.cross_entropy(copy(batch.inputs), batch.targets).backward()
    after = torch.cat([copy[1].running_mean, copy[1].running_var])
    return before, after, torch.cat([p.grad.reshape(-1) for p in copy.parameters()])


def test_batch_norm_statistics_are_mixed_and_then_follow_the_agents_own_data():
    graph = topology.build("ring", 4)
    agents, module, flat = normed_team(graph)
    host = Host("run", DPSGD(learning_rate=0.1), agents)
    weights = torch.from_numpy(graph.mixing.copy()).float()
    for round in range(3):
        models = torch.stack([agent["model"] for agent in agents])
        batches = [stream(0, "batches", i).permutation(24)[8 * round : 8 * round + 8] for i in range(4)]
        moves = [
            batch_norm_moved_by(module, flat, models[i], agents[i].objective.batch(torch.from_numpy(batches[i])))
            for i in range(4)
        ]
        expected = weights @ models
        for i, (before, after, gradient) in enumerate(moves):
            expected[i, : flat.num_parameters] -= 0.1 * gradient
            expected[i, flat.num_parameters :] += after - before
        host.activate(round, 0)
        host.activate(round, 1)
        host.end_pass()
        torch.testing.assert_close(torch.stack([agent["model"] for agent in agents]), expected, atol=1e-5, rtol=1e-5)


def test_gradients_at_the_models_of_others_leave_the_statistics_alone():
    agents, _, flat = normed_team(topology.build("ring", 4))
    agent, other = agents[:2]
    agent.gradient(agent["model"])
    agent.gradient(other["model"])
    own = agents[0]["model"].clone()
    agent.end_pass()
    moved = agent["model"].clone()
    agents[2]["model"] = own
    agents[2].gradient(other["model"])
    agents[2].end_pass()
    agent.end_pass()  # nothing is left to do
    fresh = normed_team(topology.build("ring", 4))[0][0]
    fresh.gradient(fresh["model"])
    fresh.end_pass()
    assert torch.equal(moved, fresh["model"])
    assert torch.equal(agent["model"], moved)
    assert torch.equal(agents[2]["model"], own)
    assert not torch.equal(moved[flat.num_parameters :], own[flat.num_parameters :])


class Recurrent(nn.Module):
    """Dropout inside of an LSTM."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(4, 8, num_layers=2, dropout=0.5, batch_first=True)

    def forward(self, inputs):
        return self.lstm(inputs[:, None])[0][:, -1]


class Functional(nn.Linear):
    """Dropout that is no module, and does not ask whether the model is in training."""

    def forward(self, inputs):
        return nn.functional.dropout(super().forward(inputs))


@pytest.mark.parametrize("last", [nn.Dropout(0.5), nn.RReLU(), Recurrent(), Functional(4, 4)])
def test_what_a_model_draws_repeats_and_leaves_the_global_generator_alone(last):
    model = FlatModel(nn.Sequential(nn.Linear(4, 4), last))
    split = RandomSplit(12)
    agents = [Agent(i, ModuleObjective(model, split, split, split), {i: 1.0}, 0, 4) for i in (0, 0, 1)]
    before = torch.random.get_rng_state()
    first, again, other = (agent.gradient(model.initial) for agent in agents)
    assert torch.equal(first, again)
    assert torch.equal(before, torch.random.get_rng_state())
    agents[0].pass_number = 3  # the batch of round 0 comes back in the next pass, the noise does not
    assert not torch.equal(first, agents[0].gradient(model.initial))
    assert not torch.equal(first, other)
    objective = agents[0].objective
    assert objective.loss(model.initial, split.batch(torch.arange(12))) == objective.test(model.initial)["loss"]
    steady = [agents[0].validation_gradient(model.initial) for _ in range(2)]
    assert torch.equal(*steady)


class RandomSplit:
    def __init__(self, size: int) -> None:
        self.inputs = torch.randn(size, 4, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.inputs)

    def batch(self, indices: torch.Tensor) -> Batch:
        return Batch(self.inputs[indices], indices % 2)
