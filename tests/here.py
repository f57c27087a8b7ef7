"""The cells of a comparison in this process, where starting others for them is not the subject."""

from concurrent.futures import Future
from contextlib import contextmanager

import pytest


class Here:
    """A pool of no processes, which does at once what it is told."""

    def __init__(self, _jobs, _context, initializer, initargs):
        initializer(*initargs)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, work, *arguments):
        future = Future()
        try:
            future.set_result(work(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future


@contextmanager
def cells_here():
    """Run cells here: around a fixture or a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ross_flwr.runs.cells.ProcessPoolExecutor", Here)
        yield
