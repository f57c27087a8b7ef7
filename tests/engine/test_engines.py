"""An engine of another kind, added without a change to the package: it answers the requests of all agents together."""

from itertools import groupby

import pytest
import torch
from greenlet import getcurrent, greenlet
from torch.func import functional_call, grad, vmap

from ross_flwr.algorithms import ALGORITHMS
from ross_flwr.config import resolve
from ross_flwr.learning.requests import Gradient, compute
from ross_flwr.runs.local import LocalRun

SETTING = {
    "num-agents": 6,
    "num-rounds": 2,
    "topology": "random-regular",
    "too-few": "top-up",
    "batch-size": 16,
    "validation-size": 30,
    "test-size": 50,
    "hidden": 8,
    "attackers": 1,
    "attack": "gradient-scaling",
    "evaluate-every": 2,
}
OF_METHOD = {
    "cgsv-server": {"topology": "star"},
    "d2": {"mixing": "lazy-metropolis"},
    "sgp": {"mixing": "push"},
    "single-merge": {"topology": "complete", "merge-passes": 1, "gossip-every": 1},
}
COUNTED = ("gradients", "utilities", "work", "bytes")
METHODS = [name for name, cls in ALGORITHMS.items() if cls.__module__.startswith("ross_flwr")]


class Grouped:
    """Runs every agent in a greenlet of its own up to its next request, then answers all gradients in one call."""

    def __init__(self):
        self.sizes = []

    def run(self, algorithm, step, agents, inboxes):
        outboxes, hub = {}, getcurrent()

        def work(index):
            outboxes[index] = algorithm.run_step(step, agents[index], inboxes[index])

        waiting = {}
        for index, agent in agents.items():
            agent.compute = hub.switch
            runner = greenlet(work)
            request = runner.switch(index)
            if not runner.dead:
                waiting[runner] = request
        while waiting:
            answers = self.answer(list(waiting.values()))
            for runner, answer in zip(list(waiting), answers, strict=True):
                waiting[runner] = runner.switch(answer)
                if runner.dead:
                    del waiting[runner]
        for agent in agents.values():
            agent.compute = compute
        return {index: outboxes[index] for index in agents}

    def answer(self, requests):
        gradients = [request for request in requests if isinstance(request, Gradient)]
        found = {}
        for _, group in groupby(sorted(gradients, key=size), size):
            alike = list(group)
            self.sizes.append(len(alike))
            found |= dict(zip(map(id, alike), self.together(alike), strict=True))
        return [(found[id(each)], None) if id(each) in found else each.answer() for each in requests]

    def together(self, requests):
        """The gradients of all requests, whose batches are of one size, by one call of a vmapped function."""
        model = requests[0].objective.model

        def loss(vector, inputs, targets):
            outputs = functional_call(model.module, model.named(vector), (inputs,))
            return torch.nn.functional.cross_entropy(outputs, targets)

        vectors = torch.stack([request.vector for request in requests])
        inputs, targets = (
            torch.stack([getattr(request.batch, part) for request in requests]) for part in ("inputs", "targets")
        )
        return vmap(grad(loss))(vectors, inputs, targets)


def size(request):
    return len(request.batch)


@pytest.mark.parametrize("method", METHODS)
def test_an_engine_that_answers_gradients_together_gives_the_numbers_of_the_loop(method):
    config = resolve(SETTING | OF_METHOD.get(method, {}) | {"algorithm": method})
    loop, grouped = LocalRun(config), LocalRun(config)
    grouped.host.engine = Grouped()
    for run in (loop, grouped):
        assert [line["round"] for line in run.rounds()] == [1, 2]
    assert max(grouped.host.engine.sizes) >= 5
    for index, agent in loop.host.agents.items():
        torch.testing.assert_close(grouped.host.agents[index]["model"], agent["model"], rtol=1e-5, atol=1e-5)
    works = [[line[kind] for line in run.history.lines for kind in COUNTED] for run in (loop, grouped)]
    assert works[0] == works[1]
