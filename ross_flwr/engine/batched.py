"""Runs all agents of a node up to their next requests, and answers these together."""

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate, repeat
from math import isfinite
from threading import local
from time import perf_counter_ns
from typing import Any, NamedTuple, cast

import torch
from greenlet import getcurrent, greenlet
from torch import Tensor
from torch.nn.functional import embedding_bag

from ross_flwr.algorithms.algorithm import Algorithm
from ross_flwr.algorithms.messages import Inbox, Outbox
from ross_flwr.engine.engines import Engine, Loop
from ross_flwr.engine.processes import Processes, can_fork
from ross_flwr.engine.threads import Crew, cores
from ross_flwr.learning.agent import Agent
from ross_flwr.learning.examples import alike, stacked
from ross_flwr.learning.flat import FlatModel
from ross_flwr.learning.objective import ModuleObjective, Objective
from ross_flwr.learning.requests import Average, Gradient, Request, Test, Utilities, compute
from ross_flwr.learning.rows import matrix_of, rows_of
from ross_flwr.learning.stacked import ENTRIES, Stack

__all__ = ["Batched", "choose"]

LARGEST = 2**20
"""Parameters up to which a stack of models was measured to be faster than one after the other, on a CPU."""


class Batched:
    """Runs each agent's step in a greenlet, pauses it at every request, and answers those of all agents together.

    The steps are the same code as in the `Loop`, and the numbers agree to float tolerance. Gradients of one module on
    mini-batches of one size are computed in stacks (`learning.stacked`), and averages of models that are rows of one
    matrix at once; the rest is answered one by one.

    Parameters
    ----------
    threads : int
        How many compute gradients, utilities and tests at once. With `stacking`, several stacks and tests.
    stacking : bool
        Whether requests are answered in stacks. If not, the numbers are those of the `Loop` to the last bit.
    forking : bool
        Whether processes compute at once instead of threads.
    """

    def __init__(self, threads: int = 1, *, stacking: bool = True, forking: bool = False) -> None:
        self.threads, self.stacking = threads, stacking
        self._processes = Processes(threads, _answers) if forking else None
        name, what = "batched" if stacking else "loop", "processes" if forking else "threads"
        self.name = name + (f", {threads} {what}" if threads > 1 else "")

    def run(
        self, algorithm: Algorithm, step: str, agents: Mapping[int, Agent], inboxes: Mapping[int, Inbox]
    ) -> dict[int, Outbox]:
        """Return what each agent sends, by agent."""
        outboxes: dict[int, Outbox] = {}
        waiting: list[Paused] = []
        groups: deque[Sequence[Paused]] = deque()
        hub, crew = getcurrent(), self._crew(agent.objective for agent in agents.values())

        def work(index: int) -> None:
            outboxes[index] = algorithm.run_step(step, agents[index], inboxes[index])

        def go_on(runner: greenlet, agent: Agent, value: Any) -> None:
            request = runner.switch(value)
            while not self.stacking and isinstance(request, Average):  # over before others could be asked
                request = runner.switch(request.answer())
            if request is None:
                _idle.runners.append(runner)
                return
            waiting.append(Paused(runner, agent, request, perf_counter_ns()))
            if not self.stacking:
                begin()

        def begin() -> None:
            found = self._groups(waiting)
            for group in found:  # a single gradient of fully connected layers is over before another thread is awake
                shared = not self.stacking or len(found) > 1 < len(group)
                crew.add([each.request for each in group], shared=shared)
            groups.extend(found)
            waiting.clear()

        try:
            for index, agent in agents.items():
                agent.compute = hub.switch
                go_on(_runner(hub), agent, partial(work, index))
            begin()
            while groups:
                for each, (answer, took) in zip(groups.popleft(), crew.take(), strict=True):
                    if not isinstance(each.request, Average):  # it did not compute all the while
                        kind = "utilities" if isinstance(each.request, Utilities) else "gradients"
                        each.agent.counts[f"{kind}-ns"] += took - (perf_counter_ns() - each.since)
                    go_on(each.runner, each.agent, answer)
                if not groups:
                    begin()
        finally:
            crew.stop()
            for agent in agents.values():
                agent.compute = compute
        return {index: outboxes[index] for index in agents}

    def answer(self, requests: Sequence[Request]) -> list[Any]:
        """Return the answers, each computed alone."""
        crew = self._crew(request.objective for request in requests if isinstance(request, Test))
        try:
            for request in requests:
                crew.add([request])
            return [answer for _ in requests for answer, _ in crew.take()]
        finally:
            crew.stop()

    def close(self) -> None:
        """End its processes, if it has some; new ones begin when it is used again."""
        if self._processes:
            self._processes.close()

    def _crew(self, objectives: Iterable[Objective]) -> Crew | Processes:
        """Return what answers requests about these objectives."""
        if self._processes is None:
            return Crew(self.threads, _answers)
        self._processes.meet(objectives)
        return self._processes

    def _groups(self, paused: "Sequence[Paused]") -> "list[Sequence[Paused]]":
        """Return the steps that wait, those together whose requests are answered together."""
        if not self.stacking:
            return [[each] for each in paused]
        groups: dict[Hashable, list[Paused]] = {}
        for k, each in enumerate(paused):
            groups.setdefault(_kind(each.request) or k, []).append(each)
        parts: list[Sequence[Paused]] = []
        for group in groups.values():
            request, most = group[0].request, len(group)
            if isinstance(request, Gradient):  # the gradients of a few agents stay in the processor's cache
                most = max(1, ENTRIES // request.objective.size)
            parts += [group[first : first + most] for first in range(0, len(group), most)]
        return parts


class Paused(NamedTuple):
    """A step that waits for an answer, and since when, in nanoseconds."""

    runner: greenlet
    agent: Agent
    request: Request
    since: int


class _Idle(local):
    """The greenlets of a thread that wait for work. Making one takes ten times as long as switching to it."""

    def __init__(self) -> None:
        self.runners: list[greenlet] = []


_idle = _Idle()


def _runner(hub: greenlet) -> greenlet:
    """Return a greenlet that runs what it is given, and gives None to the `hub` when it has."""
    runner = _idle.runners.pop() if _idle.runners else greenlet(_serve)
    runner.parent = hub
    return runner


def _serve(work: Callable[[], None]) -> None:
    while True:
        work()
        del work
        work = getcurrent().parent.switch(None)


def choose(wanted: str, model: FlatModel, num_agents: int, *, clipped: bool = False, forking: bool = False) -> Engine:
    """Return the engine that the key `engine` asks for, or the loop where the model cannot be stacked.

    ``"auto"`` stacks where it was measured to be faster: for two agents or more, whose model is a chain of fully
    connected layers (on a GPU of convolutions too) with at most a million parameters. On a CPU, agents with such chains
    and with convolutions use all `cores` in threads. Others do so in processes, where `forking` is possible, and so do
    those whose gradients are `clipped`.
    """
    stack = None if wanted == "loop" else Stack.of(model)
    on_cpu = model.device.type == "cpu"
    threads = min(cores(), num_agents) if on_cpu else 1
    if wanted == "batched":
        if stack is None:
            return Loop("the model is no chain of layers that are known to stack")
        return Loop("the model draws random numbers in training") if stack.draws else Batched(threads)
    if wanted == "loop" or num_agents == 1:
        return Loop()
    if (clipped or stack is None or stack.draws) and threads > 1 and forking and can_fork():
        return Batched(threads, stacking=False, forking=True)
    if stack is None or stack.draws:
        return Loop()
    stacking = model.size <= LARGEST and not (stack.convolves and on_cpu)
    return Batched(threads, stacking=stacking) if stacking or threads > 1 else Loop()


def _kind(request: Request) -> Hashable | None:
    """Return what requests have in common that are answered together; None for one that is answered alone."""
    if isinstance(request, Average):
        return request.own.shape, request.own.dtype
    if not isinstance(request, Gradient) or isfinite(request.clip) or type(request.objective) is not ModuleObjective:
        return None
    objective, batch = request.objective, request.batch
    common = None if objective.draws else alike(batch)
    return common and (objective.model, objective.loss_function, common)


def _answers(requests: Sequence[Any]) -> Iterator[tuple[Any, int]]:
    """Return the answers to requests of one kind, and the nanoseconds that each took."""
    began = perf_counter_ns()
    if len(requests) == 1:
        answers: Sequence[Any] = [requests[0].answer()]
    else:
        answers = _averages(requests) if isinstance(requests[0], Average) else _gradients(requests)
    share = (perf_counter_ns() - began) // len(requests)
    return zip(answers, repeat(share))


def _averages(requests: Sequence[Average]) -> Sequence[Tensor]:
    """Return the averages, as rows of one matrix."""
    found = rows_of([vector for each in requests for vector in (each.own, *each.others)])
    if found is None:
        mixed = requests[0].own.new_empty(len(requests), len(requests[0].own))
        for row, each in zip(mixed, requests, strict=True):
            row.copy_(each.answer())
        return mixed.unbind()
    matrix, rows = found
    ends = list(accumulate(len(each.others) + 1 for each in requests))
    weights = [weight for each in requests for weight in (1 - sum(each.weights), *each.weights)]
    index, begins = (torch.tensor(each, device=matrix.device) for each in (rows, [0, *ends[:-1]]))
    return embedding_bag(index, matrix, begins, mode="sum", per_sample_weights=matrix.new_tensor(weights)).unbind()


def _gradients(requests: Sequence[Gradient]) -> list[tuple[Tensor, Tensor | None]]:
    """Return the gradients of one module on mini-batches of one size."""
    objective = cast(ModuleObjective, requests[0].objective)
    stack = cast(Stack, objective.stack)
    if not objective.model.module.training:
        objective.model.module.train()
    vectors = matrix_of([each.vector for each in requests])
    batches = stacked([each.batch for each in requests])
    gradients, lost = stack.gradients(vectors, *batches, objective.loss_function)
    if lost.isnan().any():  # either a model has diverged, or the data is refused
        return [each.answer() for each in requests]
    return [(row, None) for row in gradients.unbind()]
