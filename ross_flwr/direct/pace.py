"""How fast a node works, and for how long it was away: what it knows about itself."""

from collections import deque
from math import inf

from ross_flwr.direct.standings import GREETING, MISSES

__all__ = ["MARGIN", "SLOWEST", "START", "Pace"]

FASTEST = 1e-3
"""Seconds that a pass takes at least."""

QUICKER = 100
"""Other nodes may be this many times as quick as this one at its fastest of late."""

MARGIN = 2
"""A node that follows its neighbours goes on this many passes ahead of them."""

SLOWEST = 1.7
"""By default, a neighbour may take this many times as long as the node itself without spending its budget."""

BRIEF = 0.2
"""And by so many seconds, or a twentieth of the patience if that is less: it may be far away."""

START = 20.0
"""Seconds that nodes may begin apart: a neighbour may be so late in the first exchange without spending its budget."""

LATELY = 16
"""The node's pace is that of its fastest pass among this many."""


class Pace:
    """How fast a node works, and for how long it was away.

    Parameters
    ----------
    exchanges : int
        Exchanges in a pass.
    patience : float
        Seconds to wait for an exchange.
    now : float
        The time.
    slowest : float
        How many times as long as the node itself a neighbour may work for an exchange without spending its budget.
    """

    def __init__(self, exchanges: int, patience: float, now: float, slowest: float = SLOWEST) -> None:
        self.exchanges = exchanges
        self.patience = patience
        self.slowest = slowest
        self.span = MARGIN * exchanges + 3  # the lead or lag up to which nodes are near: that, and what is on its way
        self.brief = min(BRIEF, patience / 20)
        self.grace = START  # and nothing after the first exchange
        self.longest = MISSES * (patience + min(GREETING, patience))  # no neighbour waits longer for a silent node
        self.entered = now  # when the node entered the awaited exchange
        self.began = now  # when it began the pass
        self.origin = 0, now  # an exchange, and a time at which no node was beyond it
        self.passes = deque[float](maxlen=LATELY)
        self._works = deque[float](maxlen=exchanges)
        self._away = 0.0
        self._back = inf  # when the time away is forgotten

    @property
    def work(self) -> float:
        """Seconds that the node itself works for an exchange, on average."""
        return sum(self._works) / self.exchanges

    @property
    def spared(self) -> float:
        """Seconds that a neighbour may be late without spending its budget: a slow but honest machine may be."""
        return max((self.slowest - 1) * self.work, self.brief, self.grace)

    @property
    def tolerance(self) -> float:
        """Seconds that the node waits even for a neighbour whose budget is spent, so that it can get in step again."""
        return self.work / 2

    def start(self, exchange: int, behind_by: float, now: float) -> None:
        """Begin the first pass of all, `behind_by` seconds after the other nodes."""
        self.origin = exchange, now - behind_by - GREETING
        self._away = behind_by

    def worked(self, now: float) -> None:
        """Note that the work for an exchange is done."""
        if not self.lapse(self.entered, now):
            self._works.append(now - self.entered)

    def lapse(self, since: float, now: float) -> bool:
        """Return whether something that began at `since` took longer than anybody waits: the node was away."""
        if now - since <= self.longest:
            return False
        self._away, self._back = now - since, now + self.longest + GREETING
        return True

    def ends_pass(self, now: float) -> None:
        """Note that a pass has ended."""
        if not self.passes:
            self._back = now + self.longest + GREETING
        self.passes.append(max(now - self.began, FASTEST))
        self.began = now

    def spend(self, exchanges: int) -> None:
        """Note that the node has jumped over so many exchanges: that makes up for time away."""
        self._away = max(0.0, self._away - exchanges / self.exchanges * min(self.passes, default=inf))

    def away(self, now: float) -> int:
        """Return how many exchanges the node could have done while it was away, which it forgets after a while."""
        return self.within(self._away) if now <= self._back else 0

    def reachable(self, now: float) -> int:
        """Return the farthest exchange in which any node of the run can be."""
        exchange, when = self.origin
        return exchange + int((now - when) / max(FASTEST, min(self.passes, default=0.0) / QUICKER) * self.exchanges)

    def within(self, seconds: float) -> int:
        """Return how many exchanges the node could do in this time, at its fastest of late; 0 before its first pass."""
        return int(seconds / min(self.passes) * self.exchanges) if self.passes else 0
