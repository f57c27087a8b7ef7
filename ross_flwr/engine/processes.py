"""Processes that answer agents' requests, so that a run uses all cores that it is given, whatever its model."""

import gc
import os
import pickle
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import cycle
from logging import getLogger
from multiprocessing import Pipe, current_process, get_context
from multiprocessing.connection import Connection, wait
from typing import Any, TypeAlias

import torch

from ross_flwr.engine.arena import Arena
from ross_flwr.engine.threads import Job
from ross_flwr.learning.objective import ModuleObjective, Objective
from ross_flwr.learning.requests import Average, Request

__all__ = ["Processes", "can_fork"]

AHEAD = 2
"""Jobs that a process has at most: the one it is at and the next, so that it need not wait."""

GIVEN, BEGUN, TAKEN_BACK = range(3)
"""What has become of a job, in the first byte of its memory."""

WORTH = 500_000
"""Nanoseconds that a request takes at least for which the way to another process pays."""

PATIENCE, SLOWER = 60.0, 20
"""Seconds that are waited for an answer: so many, and so many times what the slowest of the last requests took."""

SHORT = 2**15
"""Bytes that a pipe takes at once, whatever else is in it."""

ROOM, VECTORS = 2**24, 16
"""Bytes for examples, and how many models there are, in the memory for one job; they are taken when first needed."""

_log = getLogger(__name__)

Work: TypeAlias = Callable[[Sequence[Any]], Iterable[tuple[Any, int]]]


def can_fork() -> bool:
    """Return whether this process may have others that share its memory: on Linux, unless it is itself such a one."""
    return sys.platform == "linux" and not current_process().daemon


class Processes:
    """Answers requests in the order in which they are added, as a `Crew` does, with processes forked from this one.

    They have its agents' data without a copy, and get vectors through shared memory. This process takes part instead of
    waiting. Where the last request of a kind took too short a time to be worth the way, it answers the next one itself.
    If a process ends, the others do its work; what fails in another process is tried in this one.

    Parameters
    ----------
    number : int
        How many compute, this one included.
    work : callable
        Answers some requests together, with the nanoseconds that each took.
    """

    def __init__(self, number: int, work: Work) -> None:
        self._number, self._work = number, work
        self._jobs: deque[Job] = deque()
        self._open: deque[Job] = deque()  # those that nobody has begun
        self._known: dict[int, Any] = {}
        self._workers: list[Worker] = []
        self._took: dict[type, int] = {}  # by the last request of a kind
        self._failed: set[type] = set()  # elsewhere

    def meet(self, objectives: Iterable[Objective]) -> None:
        """Let requests with these objectives be answered elsewhere; processes that do not know them end."""
        torch.set_num_threads(1)
        new = [each for each in objectives if id(each) not in self._known and type(each) is ModuleObjective]
        if new:
            self._end()
            self._known |= {id(part): part for each in new for part in (each, *each.data)}

    def add(self, requests: Sequence[Request], *, shared: bool = True) -> None:
        """Have some requests answered together; by any process if they may be `shared`."""
        job = Job(requests, shared and all(map(self._is_known, requests)))
        self._jobs.append(job)
        if job.free:
            self._open.append(job)
            self._hand_out()

    def take(self) -> Any:
        """Return the answers to the requests that were added first."""
        job = self._jobs.popleft()
        if not job.free:
            self._begin(job)
        while not job.done:
            if mine := self._open.popleft() if self._open else self._taken_back():
                self._begin(mine)
            self._collect(waiting=not (job.done or mine))
            self._hand_out()
        if job.error:
            raise job.error
        return job.answers

    def stop(self) -> None:
        """Begin nothing more, and forget what was begun."""
        self._open.clear()
        self._jobs.clear()
        for worker in self._workers:
            for job in worker.jobs:
                job.done = True

    def close(self) -> None:
        """End the processes, and forget the objectives; others may be met."""
        self._end()
        self._known = {}

    def _end(self) -> None:
        for worker in self._workers:
            worker.end()
        self._workers = []

    def _is_known(self, request: Request) -> bool:
        """Return whether a request may be answered elsewhere."""
        return not isinstance(request, Average) and id(request.objective) in self._known

    def _next_is_worth(self) -> bool:
        """Return whether there is a job that nobody has begun, and the first pays the way to another process."""
        kind = type(self._open[0].requests[0]) if self._open else None
        return kind is not None and kind not in self._failed and self._took.get(kind, 0) > WORTH

    def _hand_out(self) -> None:
        """Give every process work that is worth it."""
        if self._next_is_worth() and not self._workers:
            self._fork()
        for ahead in range(AHEAD):
            for worker in self._workers:
                if self._next_is_worth() and len(worker.jobs) == ahead:
                    job = self._open.popleft()
                    if not worker.give(job):
                        self._begin(job)

    def _fork(self) -> None:
        try:
            while len(self._workers) < self._number - 1:
                self._workers.append(Worker(self._known, self._work))
        except OSError as error:
            _log.warning("no more than %s processes compute for this run: %s", len(self._workers) + 1, error)
            self._number = len(self._workers) + 1

    def _taken_back(self) -> Job | None:
        """Return a job that a process was given and has not begun, if there is one."""
        return next(filter(None, (worker.take_back() for worker in self._workers)), None)

    def _collect(self, *, waiting: bool) -> None:
        """Take what processes have answered, after `waiting` for it. Those that keep it waiting too long are ended."""
        busy = [worker for worker in self._workers if worker.jobs]
        patience = PATIENCE + SLOWER * max(self._took.values(), default=0) / 1e9
        ready = wait([worker.connection for worker in busy], patience if waiting else 0)
        if waiting and not ready:
            for worker in busy:  # a lock may have been held when it was forked
                self._failed.update(type(job.requests[0]) for job in worker.jobs)
                worker.process.kill()
        for worker in busy:
            if worker.connection not in ready:
                continue
            try:
                self._note(*worker.receive())
            except (EOFError, OSError):
                worker.process.join(1)
                worker.end()
                _log.warning(
                    "a process that computed for this run ended with exit code %s: the others do its work",
                    worker.process.exitcode,
                )
                self._workers.remove(worker)
                self._number -= 1
                self._open.extendleft(job for job in reversed(worker.jobs) if not job.done)

    def _note(self, job: Job, answers: list[tuple[Any, int]] | None) -> None:
        """Take what a process has answered to a job; if it has failed, the answer or the error is found here."""
        if job.done:
            return
        if answers is None:
            self._failed.add(type(job.requests[0]))
            self._begin(job)
        else:
            self._finish(job, answers)

    def _begin(self, job: Job) -> None:
        """Answer requests in this process."""
        try:
            self._finish(job, list(self._work(job.requests)))
        except Exception as error:  # raised when their turn comes
            job.error, job.done = error, True

    def _finish(self, job: Job, answers: list[tuple[Any, int]]) -> None:
        job.answers, job.done = answers, True
        self._took[type(job.requests[0])] = answers[0][1]


class Worker:
    """A process that does the jobs that it is given, one after the other.

    Parameters
    ----------
    known : mapping of int to object
        What it has in common with this one; see `Arena`.
    work : callable
        Answers requests.

    Attributes
    ----------
    jobs : deque of Job
        What it was given and has not answered.
    """

    def __init__(self, known: dict[int, Any], work: Work) -> None:
        size = ROOM + VECTORS * 4 * max(each.size for each in known.values() if isinstance(each, ModuleObjective))
        self.jobs: deque[Job] = deque()
        self._arenas = [Arena(size, known) for _ in range(AHEAD)]
        self._given = self._received = 0
        self.connection, theirs = Pipe()
        self.process = get_context("fork").Process(target=_serve, args=(theirs, self._arenas, work), daemon=True)
        with _no_garbage_collected():
            self.process.start()
        theirs.close()

    def give(self, job: Job) -> bool:
        """Give it a job, and return whether that can be done."""
        try:
            data = self._arenas[self._given % AHEAD].dump(job.requests)
        except (pickle.PicklingError, TypeError, AttributeError):
            return False
        if self.jobs and len(data) > SHORT:  # it may be sending as much, and wait for this process as this one for it
            return False
        self._arenas[self._given % AHEAD].memory[0] = GIVEN
        self._given += 1
        self.jobs.append(job)
        with suppress(OSError):  # it has ended, as `receive` will find
            self.connection.send_bytes(data)
        return True

    def take_back(self) -> Job | None:
        """Return the last job that it has not begun, if there is one; if it begins just now, both do it."""
        for back, job in enumerate(reversed(self.jobs), start=1):
            memory = self._arenas[(self._given - back) % AHEAD].memory
            if not job.done and memory[0] == GIVEN:
                memory[0] = TAKEN_BACK
                return job
        return None

    def receive(self) -> tuple[Job, list[tuple[Any, int]] | None]:
        """Return the first of its jobs with the answers; with None if it has failed, or another has done the job.

        Raises
        ------
        EOFError, OSError
            When it has ended.
        """
        data = self.connection.recv_bytes()
        arena, job = self._arenas[self._received % AHEAD], self.jobs.popleft()
        self._received += 1
        return job, arena.load(data) if data else None

    def end(self) -> None:
        """End it, whatever it is at."""
        self.connection.close()
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def _serve(connection: Connection, arenas: Sequence[Arena], work: Work) -> None:
    """Do the jobs that come, until the process that sends them closes the connection or ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    gc.freeze()  # what is garbage in the other process is finalised there: a run that was given up writes its results
    gc.enable()
    _close_all_but(connection.fileno())
    torch.set_num_threads(1)
    for arena in cycle(arenas):
        try:
            requests = arena.load(connection.recv_bytes(), copy=False)
        except (EOFError, OSError):
            return
        data = b""
        if arena.memory[0] == GIVEN:
            arena.memory[0] = BEGUN
            with suppress(Exception):  # the other process will tell
                data = arena.dump(list(work(requests)), after=arena.end)
        with suppress(OSError):
            connection.send_bytes(data)


@contextmanager
def _no_garbage_collected() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _close_all_but(kept: int) -> None:
    """Close the files of the process that this one was forked from, so that what it closes is closed."""
    for descriptor in map(int, os.listdir("/proc/self/fd")):
        if descriptor > 2 and descriptor != kept:
            with suppress(OSError):
                os.close(descriptor)
