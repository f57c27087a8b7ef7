"""Averages that vary as much as a model: the property, the fixed points, and the place in agents and runs."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from quadratics import Quadratic, normal

from ross_flwr.config import resolve
from ross_flwr.learning.agent import Agent
from ross_flwr.learning.variance import variance_corrected
from ross_flwr.runs.local import LocalRun

SIZES = [3, 5, 4]


def parts(vector):
    return torch.split(vector.double(), SIZES)


@given(seed=st.integers(0, 999), others=st.integers(1, 5), scale=st.floats(0.1, 10))
def test_each_tensor_keeps_its_mean_and_gets_the_mean_variance_of_the_models(seed, others, scale):
    models, mixed = scale * normal(seed, others, 12) + 1, normal(1000 + seed, 12)
    before = mixed.clone()
    corrected = variance_corrected(mixed, models, SIZES)
    assert torch.equal(mixed, before)
    for number, part in enumerate(parts(corrected)):
        wanted = torch.stack([parts(model)[number].var(correction=0) for model in models]).mean()
        torch.testing.assert_close(part.var(correction=0), wanted, rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(part.mean(), parts(before)[number].mean(), rtol=1e-4, atol=1e-5)


def test_averaging_independent_models_divides_their_variance_and_the_correction_gives_it_back():
    models = normal(0, 8, 10_000)
    mean = models.mean(0)
    assert mean.var() == pytest.approx(1 / 8, rel=0.1)
    assert variance_corrected(mean, models, [10_000]).var() == pytest.approx(1, rel=0.05)


def test_an_average_of_equal_models_is_the_model():
    model = normal(3, 12)
    torch.testing.assert_close(variance_corrected(model, [model, model], SIZES), model)


@pytest.mark.parametrize("model", [torch.zeros(12), torch.full((12,), 0.1)])
def test_what_is_constant_stays_so(model):
    corrected = variance_corrected(model, [normal(0, 12)], SIZES)
    assert torch.equal(corrected, model)


def test_what_comes_after_the_parameters_is_left_alone():
    mixed = normal(0, 14)
    corrected = variance_corrected(mixed, [5 * normal(1, 14)], SIZES)
    assert torch.equal(corrected[12:], mixed[12:])
    assert not torch.equal(corrected[:12], mixed[:12])


def agent_of(variance):
    return Agent(1, Quadratic(normal(0, 2, 12)), dict.fromkeys(range(4), 0.25), 0, 2, variance=variance)


@pytest.mark.parametrize(("variance", "followed"), [("own", [1]), ("others", [0, 3])])
def test_an_agent_follows_its_own_variance_or_that_of_those_it_heard(variance, followed):
    vectors = {0: normal(0, 12), 1: 2 * normal(1, 12), 3: 3 * normal(3, 12)}
    mixed = agent_of("none").mix(vectors)
    expected = variance_corrected(mixed, [vectors[j] for j in followed], agent_of("own").objective.sizes)
    assert torch.equal(agent_of(variance).mix(vectors), expected)
    assert not torch.equal(expected, mixed)
    assert torch.equal(agent_of(variance).mix(vectors, models=False), mixed)


@pytest.mark.parametrize("variance", ["own", "others"])
def test_an_agent_that_hears_nobody_keeps_its_model(variance):
    model = normal(0, 12)
    torch.testing.assert_close(agent_of(variance).mix({1: model}), model)


SMALL = {"num-agents": 5, "topology": "ring", "num-rounds": 4, "hidden": 8, "batch-size": 16, "validation-size": 20}
SMALL |= {"attackers": 0, "beside": ""}


@pytest.mark.parametrize("name", ["dpsgd", "dmsgd", "dsgt", "local-dsgd", "ross"])
def test_a_key_turns_it_on_in_any_method_that_mixes(name):
    plain, corrected = (
        LocalRun(resolve(SMALL | {"algorithm": name, "variance": variance})) for variance in ("none", "own")
    )
    for run in (plain, corrected):
        *_, line = run.rounds()
        assert line["accuracy"]["mean"] > 0.1
    assert not torch.equal(plain.host.agents[0]["model"], corrected.host.agents[0]["model"])


def test_the_running_variances_of_batch_normalisation_are_not_spread_out():
    options = {"model": "shufflenet_v2_x0_5", "variance": "own", "num-rounds": 1, "test-size": 10}
    run = LocalRun(resolve(SMALL | options | {"algorithm": "dpsgd", "num-agents": 3}))
    objective, model = run.host.agents[0].objective, run.assembly.task.model
    assert sum(objective.parameter_sizes) == model.num_parameters < sum(objective.sizes) == model.size
