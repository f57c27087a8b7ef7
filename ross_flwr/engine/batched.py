"""Runs all agents of a node up to their next requests, and answers these together."""

from collections.abc import Hashable, Mapping, Sequence
from itertools import islice
from math import isfinite
from time import perf_counter_ns
from typing import Any, cast

import torch
from greenlet import getcurrent, greenlet
from torch import Tensor

from ross_flwr.algorithms.algorithm import Algorithm
from ross_flwr.algorithms.messages import Inbox, Outbox
from ross_flwr.engine.engines import Engine, Loop
from ross_flwr.learning.agent import Agent
from ross_flwr.learning.examples import alike, stacked
from ross_flwr.learning.flat import FlatModel
from ross_flwr.learning.objective import ModuleObjective
from ross_flwr.learning.requests import Gradient, Utilities, compute
from ross_flwr.learning.stacked import ENTRIES, Stack

__all__ = ["Batched", "choose"]

LARGEST = 2**20
"""Parameters up to which a stack of models was measured to be faster than one after the other, on a CPU."""


class Batched:
    """Runs each agent's step in a greenlet, pauses it at every request, and answers those of all agents together.

    The steps are the same code as in the `Loop`, and the numbers agree to float tolerance. Gradients of one module on
    mini-batches of one size are computed in stacks (`learning.stacked`); the rest is answered one by one.
    """

    name = "batched"

    def run(
        self, algorithm: Algorithm, step: str, agents: Mapping[int, Agent], inboxes: Mapping[int, Inbox]
    ) -> dict[int, Outbox]:
        """Return what each agent sends, by agent."""
        outboxes: dict[int, Outbox] = {}
        rows = max([1, *(ENTRIES // agent.objective.size for agent in agents.values())])
        for first in range(0, len(agents), rows):  # the vectors of a few agents stay in the processor's cache
            some = dict(islice(agents.items(), first, first + rows))
            outboxes |= _together(algorithm, step, some, inboxes)
        return outboxes


def _together(
    algorithm: Algorithm, step: str, agents: Mapping[int, Agent], inboxes: Mapping[int, Inbox]
) -> dict[int, Outbox]:
    """Run the step of some agents, in a greenlet each."""
    outboxes: dict[int, Outbox] = {}
    waiting: list[tuple[greenlet, Agent, Any, int]] = []
    hub = getcurrent()

    def work(index: int) -> None:
        outboxes[index] = algorithm.run_step(step, agents[index], inboxes[index])

    def go_on(runner: greenlet, agent: Agent, value: Any) -> None:
        request = runner.switch(value)
        if not runner.dead:
            waiting.append((runner, agent, request, perf_counter_ns()))

    try:
        for index, agent in agents.items():
            agent.compute = hub.switch
            go_on(greenlet(work), agent, index)
        while waiting:
            paused, waiting[:] = list(waiting), []
            answers = _answer([request for _, _, request, _ in paused])
            for (runner, agent, request, since), (answer, took) in zip(paused, answers, strict=True):
                kind = "gradients" if isinstance(request, Gradient) else "utilities"
                agent.counts[f"{kind}-ns"] += took - (perf_counter_ns() - since)  # it did not compute all the while
                go_on(runner, agent, answer)
    finally:
        for agent in agents.values():
            agent.compute = compute
    return {index: outboxes[index] for index in agents}


def choose(wanted: str, model: FlatModel, num_agents: int) -> Engine:
    """Return the engine that the key `engine` asks for, or the loop where the model cannot be stacked.

    ``"auto"`` takes the batched one where it was measured to be faster: for two agents or more, whose model is a chain
    of fully connected layers (on a GPU of convolutions too) with at most a million parameters.
    """
    stack = None if wanted == "loop" else Stack.of(model)
    if wanted == "batched":
        if stack is None:
            return Loop("the model is no chain of layers that are known to stack")
        return Loop("the model draws random numbers in training") if stack.draws else Batched()
    if stack is None or stack.draws or num_agents == 1 or model.size > LARGEST:
        return Loop()
    return Loop() if stack.convolves and model.device.type == "cpu" else Batched()


def _answer(requests: Sequence[Gradient | Utilities]) -> list[tuple[Any, int]]:
    """Return the answer to each request, and the nanoseconds that it took."""
    groups: dict[Hashable, list[int]] = {}
    for k, request in enumerate(requests):
        groups.setdefault(_kind(request) or k, []).append(k)
    found: dict[int, tuple[Any, int]] = {}
    for group in groups.values():
        began = perf_counter_ns()
        alike = [requests[k] for k in group]
        answers = _gradients(alike) if len(alike) > 1 else [alike[0].answer()]  # type: ignore[arg-type]
        share = (perf_counter_ns() - began) // len(group)
        found |= {k: (answer, share) for k, answer in zip(group, answers, strict=True)}
    return [found[k] for k in range(len(requests))]


def _kind(request: Gradient | Utilities) -> Hashable | None:
    """Return what requests have in common that are answered together; None for one that is answered alone."""
    objective, batch = request.objective, request.batch
    if not isinstance(request, Gradient) or isfinite(request.clip) or type(objective) is not ModuleObjective:
        return None
    common = alike(batch) if objective.stack and not objective.stack.draws else None
    return common and (objective.model, objective.loss_function, common)


def _gradients(requests: Sequence[Gradient]) -> list[tuple[Tensor, Tensor | None]]:
    """Return the gradients of one module on mini-batches of one size."""
    objective = cast(ModuleObjective, requests[0].objective)
    stack = cast(Stack, objective.stack)
    if not objective.model.module.training:
        objective.model.module.train()
    vectors = torch.stack([each.vector for each in requests])
    batches = stacked([each.batch for each in requests])
    gradients, lost = stack.gradients(vectors, *batches, objective.loss_function)
    if lost.isnan().any():  # either a model has diverged, or the data is refused
        return [each.answer() for each in requests]
    return [(row, None) for row in gradients]
