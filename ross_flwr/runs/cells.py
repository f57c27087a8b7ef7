"""The cells of a comparison, run in processes of their own."""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from logging import Formatter, StreamHandler, getLogger
from logging.handlers import QueueHandler, QueueListener
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path
from threading import Thread
from typing import Any

from ross_flwr.config import ConfigError, resolve
from ross_flwr.files import replacing
from ross_flwr.runs.assemble import assemble
from ross_flwr.runs.assembly import Assembly
from ross_flwr.runs.compare import Cell, Plan
from ross_flwr.runs.ended import REFUSED
from ross_flwr.runs.finished import EXPERIMENT
from ross_flwr.runs.local import LocalRun

__all__ = ["CellsFailedError", "claim", "collecting_failures", "run_cells"]


class CellsFailedError(ConfigError):
    """All that can run has run, and these cells could not.

    Attributes
    ----------
    reasons : dict of tuple to str
        One sentence for each, by its place.
    """

    def __init__(self, reasons: dict[tuple[str, ...], str]) -> None:
        (place, reason), *others = reasons.items()
        more = f"; {len(others)} more failed, as cells.csv tells" if others else ""
        super().__init__(f"{'/'.join(place)} cannot run: {reason}{more}")
        self.reasons = reasons


@contextmanager
def collecting_failures(reasons: dict[tuple[str, ...], str]) -> Iterator[None]:
    """Put why cells failed into `reasons`, and go on."""
    try:
        yield
    except CellsFailedError as error:
        reasons |= error.reasons


def claim(plan: Plan, root: Path) -> None:
    """Put a copy of the experiment file into the folder of the results, whose order a report takes from it.

    Raises
    ------
    ConfigError
        When the folder holds cells of another comparison, or cannot take a file.
    """
    sized = ("num-rounds", "evaluate-every", "evaluate-at") if plan.budget else ()
    for cell in plan.cells():
        method, _, topology, _ = cell.place
        tuned = plan.tuning.grids[method].lists if plan.tuning and (method, topology) in plan.untuned else ()
        cell.refuse_another(root, (*tuned, *sized))
    if plan.file:
        try:
            root.mkdir(parents=True, exist_ok=True)
            with replacing(root / EXPERIMENT) as part:
                part.write_bytes(plan.file.read_bytes())
        except OSError as error:
            raise ConfigError(f"{root} cannot take results: {error.strerror or error}") from None


def run_cells(cells: list[Cell], root: Path, jobs: int) -> Iterator[Cell]:
    """Run what is not done yet, `jobs` at once in processes of their own, and yield each cell as it is done.

    A cell that was stopped resumes from its checkpoint. On interruption, running cells finish and keep their round.
    That a method cannot run with its graph, rule and attackers is the result of its cell. Anything else that stops a
    cell, such as data that is missing, is no result: the other cells run, and the next call tries it again.
    What a cell logs goes to standard error, with its place before each line.

    Raises
    ------
    ConfigError
        Before anything runs, when a cell's folder holds a run of another configuration, or its keys name something that
        there is not.
    CellsFailedError
        After all has run, when a cell could not.
    """
    refusals: dict[tuple[str, ...], str] = {}
    for cell in cells:
        cell.refuse_another(root)
        if cell.folder(root).read_summary() is None:
            try:
                refusals[cell.place] = _refusal(assemble(cell.config))
            except ConfigError as error:
                raise ConfigError(f"{'/'.join(cell.place)} cannot run: {error}") from None
    waiting = []
    for cell in cells:
        if cell.place in refusals:
            _keep_refusal(cell.folder(root).path, refusals[cell.place])
        if refusals.get(cell.place) == "":
            waiting.append(cell)
        else:
            yield cell
    if waiting:
        yield from _run_waiting(waiting, root, jobs)


def _run_waiting(waiting: list[Cell], root: Path, jobs: int) -> Iterator[Cell]:
    context = multiprocessing.get_context("spawn")
    stop, lines = context.Event(), context.Queue()
    with _printing(lines), ProcessPoolExecutor(min(jobs, len(waiting)), context, _listen, (stop, lines)) as pool:
        with _deaf(), _one_core_each():
            pending = {pool.submit(_run, cell.place, cell.keys, cell.folder(root).path): cell for cell in waiting}
            pool.submit(int)  # the pool looks for processes that have died among those that it had at the last call
        try:
            failed: dict[tuple[str, ...], str] = {}
            for done in as_completed(pending):
                try:
                    done.result()
                except BrokenProcessPool:
                    raise ConfigError(
                        f"a process that ran {'/'.join(pending[done].place)} or another cell was killed, perhaps for "
                        "want of memory: the same command goes on from the checkpoints; --jobs 1 takes least memory"
                    ) from None
                except ConfigError as error:
                    failed[pending[done].place] = str(error)
                else:
                    yield pending[done]
        except BaseException:
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise
    if failed:
        raise CellsFailedError({cell.place: failed[cell.place] for cell in waiting if cell.place in failed})


@contextmanager
def _printing(lines: "Queue[Any]") -> Iterator[None]:
    """Print what other processes log, on a standard error that a progress bar may have replaced."""
    listener = QueueListener(lines, StreamHandler())
    listener.start()
    try:
        yield
    finally:
        listener.stop()


@contextmanager
def _deaf() -> Iterator[None]:
    """Let the processes that are started here not hear Ctrl-C, which in a terminal would interrupt their round."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)


@contextmanager
def _one_core_each() -> Iterator[None]:
    """Let the processes that are started here compute with one thread each, unless OMP_NUM_THREADS says otherwise."""
    given = "OMP_NUM_THREADS" in os.environ
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        yield
    finally:
        if not given:
            del os.environ["OMP_NUM_THREADS"]


def _refusal(assembly: Assembly) -> str:
    """Return why the parts of a run do not fit each other; nothing where they do."""
    try:
        assembly.check()
    except ConfigError as error:
        return str(error)
    return ""


def _keep_refusal(path: Path, refused: str) -> None:
    """Write why a method cannot run there, and remove what an earlier experiment said if it can."""
    file = path / REFUSED
    if not refused:
        file.unlink(missing_ok=True)
    elif not file.is_file() or file.read_bytes() != refused.encode():
        path.mkdir(parents=True, exist_ok=True)
        with replacing(file) as part:
            part.write_bytes(refused.encode())


_stop: Event
"""Set in a process that runs cells when it must finish its round and stop."""

_lines: "Queue[Any]"
"""Takes what a process that runs cells logs."""


def _listen(stop: Event, lines: "Queue[Any]") -> None:
    global _stop, _lines
    _stop, _lines = stop, lines
    Thread(target=_end_with_the_comparison, daemon=True).start()


def _end_with_the_comparison() -> None:
    """End this process once the one that started it has been killed: checkpoints are whole at any time."""
    if comparison := multiprocessing.parent_process():
        comparison.join()
        os._exit(1)


def _run(place: tuple[str, ...], keys: dict[str, Any], path: Path) -> None:
    if _stop.is_set():
        return
    with _logging_for(place):
        run = LocalRun(resolve(keys), path)
        run.restore()
        with closing(run.rounds()) as rounds:
            for _ in rounds:
                if _stop.is_set():
                    return


@contextmanager
def _logging_for(place: tuple[str, ...]) -> Iterator[None]:
    """Send what is logged meanwhile to the process that prints it, with the `place` of the cell before it."""
    handler = QueueHandler(_lines)
    name = "/".join(place).replace("%", "%%")
    handler.setFormatter(Formatter(f"{name}: %(message)s"))
    getLogger().addHandler(handler)
    try:
        yield
    finally:
        getLogger().removeHandler(handler)
