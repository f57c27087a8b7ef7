"""Arithmetic by a policy that is rewarded: GRPO's gradient by hand, and a run that learns and repeats."""

import pytest
import torch

from ross_flwr import graph, resolve, simulate
from ross_flwr.algorithms.fgrpo import FGRPO
from ross_flwr.config import ConfigError
from ross_flwr.runs.assemble import assemble, read_task
from ross_flwr.tasks.arithmetic import Arithmetic, grpo_loss


def test_the_loss_is_minus_the_reward_and_its_gradient_is_that_of_the_group_relative_advantages():
    likelihoods = torch.tensor([[-1.0, -2.0, -3.0, -4.0], [-1.0, -1.0, -2.0, -2.0]], requires_grad=True)
    targets = torch.tensor([[56, 52], [32, 55]])
    answers = targets[:, None].repeat(1, 4, 1)
    answers[0, 1:, 1] = 0
    loss = grpo_loss((likelihoods, answers), targets, scale=10.0)
    loss.backward()
    assert loss.item() == pytest.approx(-10 * 5 / 8)
    root = 3**0.5  # one of four is right: the mean is a quarter, the deviation √3/4
    wanted = torch.tensor([[root, *[-1 / root] * 3], [0.0] * 4]) / -8
    torch.testing.assert_close(likelihoods.grad, wanted, atol=1e-5, rtol=1e-5)


def test_what_is_measured_is_what_drawn_answers_earn_on_average():
    task = Arithmetic(3, 0, scales=(1.0, 100.0), group=200, pretraining=30)
    objective, vector = task.objective(1), task.model.initial
    batch = objective.batch(torch.arange(20))
    task.model.bind(vector)
    torch.manual_seed(0)
    drawn = float(grpo_loss(task.model.module.train()(batch.inputs), batch.targets, 100.0).detach())
    task.model.settle()
    assert objective.loss(vector, batch) == pytest.approx(drawn, abs=1.2)
    assert 1 < -drawn < 50


def test_fgrpo_learns_arithmetic_and_does_so_again():
    method = FGRPO(learning_rate=0.002, local_steps=2, optimizer="adam")
    task = Arithmetic(3, 0, scales=(1, 10, 100), pretraining=100)
    before = task.objective(0).test(task.model.initial)["accuracy"]
    learned, again = (simulate(method, graph.ring(3), task, rounds=n, evaluate_every=n) for n in (5, 5))
    assert learned.history[-1]["accuracy"]["min"] > before + 0.01
    assert torch.equal(learned.consensus, again.consensus)


def test_the_key_names_it_and_keys_of_data_mean_nothing_then():
    keys = {"task": "arithmetic", "algorithm": "fgrpo", "topology": "ring", "num-agents": 6, "attackers": 0}
    assert isinstance(assemble(resolve(keys)).task, Arithmetic)
    with pytest.raises(ConfigError, match=r"batch-size = 4 is about data .* task = 'arithmetic' has its own: leave"):
        assemble(resolve({**keys, "batch-size": 4}))
    with pytest.raises(ConfigError, match="task = 'arithmetic' deals no data"):
        read_task(resolve(keys))
