"""Threads that answer agents' requests, so that a run uses all cores that it is given."""

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import cache
from math import isinf
from typing import Any

import torch

from ross_flwr.cores import given_cores
from ross_flwr.learning.examples import Drawn
from ross_flwr.learning.flat import helping
from ross_flwr.learning.objective import ModuleObjective
from ross_flwr.learning.requests import Gradient, Request, Test, Utilities

__all__ = ["Crew", "Job", "cores"]


def cores() -> int:
    """Return how many cores this process may use: those it is given, or OMP_NUM_THREADS if that is less."""
    given = given_cores()
    wanted = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return min(given, int(wanted)) if wanted.isdigit() and int(wanted) else given


@dataclass(slots=True, eq=False)
class Job:
    """Some requests, and their answers or an error once they are `done`; `free` if any thread may answer them."""

    requests: Sequence[Request]
    free: bool
    done: bool = False
    answers: Any = None
    error: Exception | None = None


class Crew:
    """Answers requests in the order in which they are added, with several threads that compute at once.

    Each thread has a copy of the module. This one takes part instead of waiting. Requests that draw random numbers or
    run an app's code are answered in this thread, when their turn comes.

    Parameters
    ----------
    threads : int
        How many compute, this one included.
    work : callable
        Answers some requests together.
    """

    def __init__(self, threads: int, work: Callable[[Sequence[Any]], Any]) -> None:
        self._work, self._threads = work, threads
        self._jobs: deque[Job] = deque()
        self._open: deque[Job] = deque()  # those that nobody has begun
        self._helpers: list[Future[None]] = []
        if threads > 1:
            torch.set_num_threads(1)

    def add(self, requests: Sequence[Request], *, shared: bool = True) -> None:
        """Have some requests answered together; by any thread if they may be `shared`."""
        job = Job(requests, shared and self._threads > 1 and all(map(_is_free, requests)))
        self._jobs.append(job)
        if job.free:
            _read(requests)
            self._open.append(job)
            self._helpers = [each for each in self._helpers if not each.done()]
            if len(self._helpers) < self._threads - 1:
                self._helpers.append(_pool(self._threads - 1).submit(self._help))

    def take(self) -> Any:
        """Return the answers to the requests that were added first."""
        job = self._jobs.popleft()
        if not job.free:
            return self._work(job.requests)
        while not job.done and self._begin():
            pass
        if not job.done:
            wait(self._helpers)
        if job.error:
            raise job.error
        return job.answers

    def stop(self) -> None:
        """Begin nothing more."""
        self._open.clear()

    def _help(self) -> None:
        while self._begin():
            pass

    def _begin(self) -> bool:
        """Answer the next requests that nobody has begun; return False if there are none."""
        try:
            job = self._open.popleft()
        except IndexError:
            return False
        try:
            job.answers = self._work(job.requests)
        except Exception as error:  # raised when their turn comes
            job.error = error
        job.done = True
        return True


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "ross_flwr", helping)


def _is_free(request: Request) -> bool:
    """Return whether any thread may answer a request: whether nothing is drawn, and no code of an app runs."""
    objective = getattr(request, "objective", None)
    if type(objective) is not ModuleObjective or objective.draws:
        return False
    if isinstance(request, Test):
        pooled = hasattr(objective.test_data, "pool") and objective.triggered is None
        return pooled and not (objective.own_test or objective.metrics)
    if isinstance(request, Utilities):
        return request.kind != "own"
    return not isinstance(request, Gradient) or isinf(request.clip)


def _read(requests: Sequence[Request]) -> None:
    """Read examples that only this thread may read, and those of a single request: it keeps other threads waiting."""
    for request in requests:
        batch = getattr(request, "batch", None)
        if isinstance(batch, Drawn) and (len(requests) == 1 or not batch.pool):
            _ = batch.inputs
