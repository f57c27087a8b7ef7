"""Optimizers of local steps against PyTorch's own."""

import json

import networkx as nx
import numpy as np
import pytest
import torch
from quadratics import Table, normal
from torch import nn, optim
from torch.optim import lr_scheduler

from ross_flwr.algorithms.local_dsgd import LocalDSGD
from ross_flwr.algorithms.sgp import SGP
from ross_flwr.config import ConfigError
from ross_flwr.engine.host import Host
from ross_flwr.flower.records import record_of, tensors_of
from ross_flwr.graph.topology import Topology
from ross_flwr.learning.agent import Agent
from ross_flwr.learning.flat import FlatModel
from ross_flwr.learning.objective import ModuleObjective
from ross_flwr.learning.optimizers import read_optimizer

PASSES, STEPS, RATE = 6, 3, 0.05


def module():
    torch.manual_seed(0)
    return nn.Sequential(nn.BatchNorm1d(4, affine=False), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))


def alone(method, own_optimizer=None):
    """A host with one agent that trains on twelve examples."""
    data = Table(normal(1, 12, 4), torch.arange(12) % 3)
    objective = ModuleObjective(FlatModel(module()), data, None, data, own_optimizer=own_optimizer)
    agent = Agent(0, objective, Topology(nx.empty_graph(1), np.eye(1)).mixing_row(0), seed=0, batch_size=4)
    agent.total_passes = PASSES
    agent["model"] = objective.model.initial.clone()
    method.start(agent)
    return Host("run", method, [agent])


def run(host, passes):
    for number in passes:
        for step in range(len(host.algorithm.steps)):
            host.activate(number, step)
        host.end_pass()
    return host.agents[0]


def by_hand(make, schedule=None, clip=None):
    """Train as a script does."""
    model, agent = module(), alone(LocalDSGD()).agents[0]
    optimizer = make(model.parameters())
    scheduler = schedule(optimizer) if schedule else None
    for number in range(PASSES):
        for s in range(STEPS):
            batch = agent.batches.take(STEPS * number + s)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(batch.inputs), batch.targets).backward()
            if clip:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
        if scheduler:
            scheduler.step()
    return nn.utils.parameters_to_vector(model.parameters()).detach()


SAME = {
    "sgd": (lambda p: optim.SGD(p, lr=RATE),),
    "sgd(weight-decay=0.1), step(0.5, 0.1)": (
        lambda p: optim.SGD(p, lr=RATE, weight_decay=0.1),
        lambda o: lr_scheduler.StepLR(o, PASSES // 2),
    ),
    "momentum(0.8)": (lambda p: optim.SGD(p, lr=RATE, momentum=0.8),),
    "adam, cosine": (lambda p: optim.Adam(p, lr=RATE), lambda o: lr_scheduler.CosineAnnealingLR(o, PASSES)),
    "adamw(0.8, weight-decay=0.1), cosine(0.2), clip(0.3)": (
        lambda p: optim.AdamW(p, lr=RATE, betas=(0.8, 0.999), weight_decay=0.1),
        lambda o: lr_scheduler.CosineAnnealingLR(o, PASSES, eta_min=0.2 * RATE),
        0.3,
    ),
}


@pytest.mark.parametrize("method", [LocalDSGD, SGP])
@pytest.mark.parametrize("text", SAME)
def test_an_agent_alone_trains_as_pytorch_does(text, method):
    agent = run(alone(method(local_steps=STEPS, learning_rate=RATE, optimizer=text)), range(PASSES))
    wanted = by_hand(*SAME[text])
    torch.testing.assert_close(agent["model"][: len(wanted)], wanted, atol=1e-6, rtol=1e-6)
    assert agent.counts["gradients"] == PASSES * STEPS


def test_an_apps_own_optimizer_sees_the_parameters_in_their_shapes_and_goes_on_where_it_was():
    def make(parameters):
        weights = [p for p in parameters if p.ndim > 1]
        others = [p for p in parameters if p.ndim == 1]
        return optim.NAdam([{"params": weights, "weight_decay": 0.1}, {"params": others}], lr=RATE)

    agent = run(alone(LocalDSGD(local_steps=STEPS), lambda p: make(list(p))), range(PASSES))
    wanted = by_hand(lambda p: make(list(p)))
    torch.testing.assert_close(agent["model"][: len(wanted)], wanted, atol=1e-6, rtol=1e-6)
    assert agent["optimizer.1.weight.exp_avg"].shape == (5, 4)


@pytest.mark.parametrize("own", [None, lambda p: optim.Adagrad(p, lr=RATE)], ids=["named", "own"])
def test_what_an_optimizer_remembers_outlives_a_restart(own):
    method = LocalDSGD(local_steps=STEPS, optimizer="sgd" if own else "adam")
    whole, first, second = (alone(method, own) for _ in range(3))
    run(first, range(3))
    tensors, rest = first.snapshot()
    kept = {name: tensor.clone() for name, tensor in tensors.items()}
    second.restore(tensors_of(record_of(tensors)), json.loads(json.dumps(rest)))
    run(first, range(3, 4))
    assert all(torch.equal(tensors[name], kept[name]) for name in kept), "a snapshot stays valid"
    assert torch.equal(run(second, range(3, PASSES))["model"], run(whole, range(PASSES))["model"])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("adma", "optimizer = 'adma' is not known: use one of adam, adamw, momentum, sgd; did you mean 'adam'"),
        ("adam(beta3=1)", "adam takes beta1, beta2, weight-decay and got beta3: write it like 'adam', or like"),
        ("momentum(1.5)", "in momentum, coefficient = 1.5 is not allowed: it takes a number from 0 to"),
        ("adam, cosine, step", "step is a second schedule"),
        ("adam, topk(0.1)", "optimizer = 'topk' is not known: use one of clip, constant, cosine, step"),
    ],
)
def test_an_optimizer_that_makes_no_sense_is_told_in_one_sentence(text, sentence):
    with pytest.raises(ConfigError, match=sentence):
        read_optimizer(text)
