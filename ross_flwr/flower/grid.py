"""Messages through Flower's Grid: one loop polls for replies, at its own pace.

Flower's `send_and_receive` polls every 3 s in a deployment, and waits for all replies.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from flwr.app import Message
from flwr.serverapp import Grid
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from ross_flwr.config import one_line
from ross_flwr.flower.patience import Patience, Wait

__all__ = ["PROBLEM", "Post", "Reply"]

PROBLEM = 500
"""Letters that are told of a node's problem."""

RESTING = 2.0
"""After a look at all awaited replies, the SuperLink is left alone for at least as many times the time that it took."""


OF_THE_APP = frozenset({1, 2, 6, 7})
"""Flower's codes for errors of the app: it cannot be loaded, raises an error, has a mod that refuses, or is no app."""


@dataclass(frozen=True)
class Reply:
    """A node's answer; `message` is None if the node failed, and `problem` says why.

    A `late` reply answers a message of an earlier exchange. If the node `raised` an error, its app failed, not the
    machine or the way to it.
    """

    node: int
    message: Message | None
    late: bool = False
    problem: str = ""
    raised: bool = False


class Post:
    """Sends messages to nodes and collects their replies.

    Parameters
    ----------
    grid : Grid
        Reaches the nodes.
    drop : callable
        Called with a reason, a node and an explanation when a message or a reply is lost: ``unreachable``, ``error``,
        ``late``, ``malformed`` (Flower cannot read it) or ``stranger`` (it comes from another node); and when a node
        is ``overdue``.
    patience : Patience
        The budgets from which nodes are waited for.
    clock, sleep : callable, optional
        The time in seconds, and how to wait.

    Attributes
    ----------
    waiting : dict[str, int]
        Messages without a reply: their node, by the message's number.
    """

    def __init__(
        self,
        grid: Grid,
        drop: Callable[[str, int, str], None],
        patience: Patience,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.grid = grid
        self.waiting: dict[str, int] = {}
        self.clock = clock
        self.drop = drop
        self.patience = patience
        self._sleep = sleep
        # Of the next exchange: nodes and times of the messages that are sent, and the replies with what they took.
        self._ahead: dict[str, tuple[int, float]] = {}
        self._early: list[tuple[Reply, float]] = []

    @property
    def busy(self) -> set[int]:
        """Nodes whose reply is awaited."""
        return set(self.waiting.values())

    @property
    def ahead(self) -> set[int]:
        """Nodes that have had their message of the next exchange."""
        return {node for node, _ in self._ahead.values()}

    def send(self, messages: Iterable[Message]) -> list[str]:
        """Send messages; return the numbers of those that Flower accepted."""
        numbers = []
        for message in messages:
            node = message.metadata.dst_node_id
            taken = [number for number in self.grid.push_messages([message]) if number]
            self.waiting.update(dict.fromkeys(taken, node))
            numbers += taken
            if not taken:
                self.drop("unreachable", node, "Flower takes no message for it")
        return numbers

    def receive(self, go_on: Callable[[float], bool]) -> Iterator[tuple[str, Reply]]:
        """Yield the number and the reply of each answered message, as long as `go_on` returns true.

        Parameters
        ----------
        go_on : callable
            Called between two polls with the seconds since the first; returns whether to wait on.
        """
        began = self.clock()
        while True:
            looking = 0.0
            for number in [*self.waiting]:
                looked = self.clock()
                reply = self._pull(number)
                looking += self.clock() - looked
                if reply:
                    yield number, reply
            elapsed = self.clock() - began
            if not go_on(elapsed):
                return
            self._sleep(max(pause(elapsed), RESTING * looking))

    def _pull(self, number: str) -> Reply | None:
        """Return the reply to a message, if it has come.

        Each is pulled by itself: Flower raises an error if it cannot read what a node has sent, and loses whatever it
        has pulled along with that.
        """
        node = self.waiting[number]
        try:
            message = next(iter(self.grid.pull_messages([number])), None)  # one that comes twice counts once
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError, DecodeError) as error:
            return self._lose(number, "malformed", f"Flower cannot read its reply: {error}")
        if message is None:
            return None
        if not message.has_content():
            raised = message.error.code in OF_THE_APP
            return self._lose(number, "error", said(message.error.reason or ""), raised=raised)
        if message.metadata.src_node_id != node:
            return self._lose(number, "stranger", f"it replies as node {message.metadata.src_node_id}")
        del self.waiting[number]
        return Reply(node, message)

    def _lose(self, number: str, reason: str, text: str, *, raised: bool = False) -> Reply:
        node, problem = self.waiting.pop(number), one_line(text[:PROBLEM])
        self.drop(reason, node, problem)
        return Reply(node, None, problem=problem, raised=raised)

    def exchange(
        self, messages: Iterable[Message], timeout: float, onward: Callable[[Message], Iterable[Message]] | None = None
    ) -> list[Reply]:
        """Send messages and return the replies that come within `timeout` seconds, also late ones to earlier messages.

        A node whose reply is awaited gets no message, because it does one thing at a time. If no node is free, this
        waits for a late one. It does not wait for nodes whose budgets are spent. What `onward` makes of a reply that
        came in time is sent at once, and belongs to the next exchange, as do the replies.
        """
        busy = self.busy
        sent = self.send(message for message in messages if message.metadata.dst_node_id not in busy)
        began = self.clock()
        own = dict.fromkeys(sent, began) | {number: at for number, (_, at) in self._ahead.items()}
        early, self._early, self._ahead = self._early, [], {}
        wait = Wait(self.patience, timeout, began)
        replies: list[Reply] = []

        def take(reply: Reply, owed: set[int], took: float) -> None:
            wait.heard(owed, self.clock(), took)
            replies.append(reply)
            if onward and reply.message:
                self._send_ahead(onward(reply.message))

        def go_on(elapsed: float) -> bool:
            if not own:
                return not replies and bool(self.waiting) and elapsed < timeout
            owed = self.owed(own)
            return bool(owed) and elapsed < timeout and self.clock() < wait.until(owed)

        for reply, took in early:
            take(reply, set(), took)
        for number, reply in self.receive(go_on):
            if number in self._ahead:
                self._early.append((reply, self.clock() - self._ahead[number][1]))
            elif number in own:
                take(reply, {reply.node, *self.owed(own)}, self.clock() - own[number])
            else:
                if reply.message:
                    self.drop("late", reply.node, "its reply came after the exchange")
                replies.append(replace(reply, late=True))
        self.give_up(wait, self.owed(own))
        return replies

    def _send_ahead(self, messages: Iterable[Message]) -> None:
        for message in messages:
            for number in self.send([message]):
                self._ahead[number] = self.waiting[number], self.clock()

    def owed(self, numbers: Iterable[str]) -> set[int]:
        """Return the nodes that have not replied to these messages."""
        return {self.waiting[number] for number in numbers if number in self.waiting}

    def give_up(self, wait: Wait, owed: set[int]) -> None:
        """Wait no longer for these nodes, and count those whose budgets are spent."""
        for node in wait.end(owed, self.clock()):
            self.drop("overdue", node, "the others have waited for it for long enough; if it is slow, set slowest")


def said(reason: str) -> str:
    r"""Return what an error says, without what Flower and Ray put around it.

    Examples
    --------
    >>> said("<class 'ClientAppException'>:<'\nException ClientAppException occurred. Message: no data'>")
    'no data'
    """
    return reason.rpartition("occurred. Message: ")[2].strip().removesuffix("'>").strip() or "it gives no reason"


def pause(elapsed: float) -> float:
    """Return the seconds to the next poll: 2 ms at first, 0.1 s after 2 s, and 1 s when nothing has come for long."""
    return max(0.002, min(elapsed / 20, max(0.1, elapsed / 100), 1.0))
