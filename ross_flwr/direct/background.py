"""The event loop, in its own thread, in which this process makes and answers all calls between nodes."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import cache
from logging import getLogger
from threading import Lock, Thread
from typing import Any, TypeVar

import grpc

__all__ = ["BROKEN", "end", "in_background", "soon"]

logger = getLogger("ross_flwr")

BROKEN = (grpc.aio.AioRpcError, grpc.aio.InternalError, asyncio.InvalidStateError, TimeoutError)
"""How a call ends if the other node is gone."""

_Result = TypeVar("_Result")
_STARTING = Lock()


@cache
def _started() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    Thread(target=loop.run_forever, name="links", daemon=True).start()
    return loop


def _loop() -> asyncio.AbstractEventLoop:
    with _STARTING:  # two threads that first call a cached function together may both run it
        return _started()


def in_background(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run `work` in the event loop, wait for it and return its result."""
    return asyncio.run_coroutine_threadsafe(work, _loop()).result()


def soon(function: Callable[..., object], *arguments: object) -> None:
    """Call `function` in the event loop, and do not wait for it. Calls run in the order in which they are made."""
    _loop().call_soon_threadsafe(function, *arguments)


async def end(*tasks: "asyncio.Task[None]") -> None:
    """Cancel tasks until they have ended: before Python 3.12, `asyncio.wait_for` sometimes loses a cancellation."""
    while left := [task for task in tasks if not task.done()]:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=0.1)
    for task in tasks:
        error = None if task.cancelled() else task.exception()
        if error and not isinstance(error, BROKEN):
            logger.error("a link failed", exc_info=error)
