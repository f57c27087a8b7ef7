"""How long a run waits for nodes that keep all others waiting: each has a budget, which is spent."""

from collections.abc import Collection
from dataclasses import dataclass, field
from math import inf

from ross_flwr.direct.pace import BRIEF
from ross_flwr.direct.standings import BUDGET, Budget

__all__ = ["Patience", "Wait"]


@dataclass
class Patience:
    """The patience of a run with each of its nodes, over all exchanges and segments.

    A `Budget` each, whose unit of time is the longest wait: that of an exchange and that of a segment differ.

    Attributes
    ----------
    slowest : float
        How many times as long as the others a node may take without spending its budget.
    """

    slowest: float
    _now: float = 0.0  # in longest waits
    _budgets: dict[int, Budget] = field(default_factory=dict)  # by node

    def left(self, node: int) -> float:
        """Return how many of the longest waits are left of a node's budget."""
        return self._budgets[node].left(self._now) if node in self._budgets else BUDGET

    def spend(self, nodes: Collection[int], waits: float) -> None:
        """Take so much out of the budgets of these nodes."""
        for node in nodes:
            self._budgets.setdefault(node, Budget(BUDGET, self._now)).spend(waits, self._now)

    def regain(self, waits: float) -> None:
        """Note that so much time has passed."""
        self._now += waits


class Wait:
    """The wait for one exchange, or for one segment.

    Once more than half of the nodes have replied, those who owe a reply spend the silence that follows, but for the
    beginning: `slowest` times what the slowest reply took is free, and `BRIEF` seconds of silence are. A node whose
    budget is spent is waited for no longer than that. So one node, however it times its replies, slows the others down
    for a while, and then to little less than ``1 / slowest`` of their rate.

    Parameters
    ----------
    patience : Patience
        The budgets.
    longest : float
        Seconds that it may last, from the latest reply on.
    now : float
        The time, in seconds; so is every argument of this name.
    """

    def __init__(self, patience: Patience, longest: float, now: float) -> None:
        self.longest = longest
        self._patience = patience
        self._began = self._latest = now
        self._longest_took = 0.0
        self._came = 0

    def until(self, owed: Collection[int]) -> float:
        """Return the time until which to wait for the nodes that owe a reply, if no other comes."""
        left = max(map(self._patience.left, owed)) if self._counts(owed) else inf
        return self._latest + min(self.longest, self._free + self.longest * left)

    def heard(self, owed: Collection[int], now: float, took: float) -> None:
        """Note a reply, `took` seconds after its node was asked. Until it came, these nodes owed one, it among them."""
        self._spend(owed, now)
        self._longest_took = max(self._longest_took, took)
        self._came, self._latest = self._came + 1, now

    def end(self, owed: Collection[int], now: float) -> list[int]:
        """Wait no longer; return those of the nodes that owe a reply whose budgets are spent."""
        self._spend(owed, now)
        overdue = [node for node in sorted(owed) if self._patience.left(node) < 1e-9]
        self._patience.regain((now - self._began) / self.longest)
        return overdue

    @property
    def _free(self) -> float:
        brief = min(BRIEF, self.longest / 20)
        # A node may have been asked before the others; then it took longer than from the beginning to its reply.
        return max(self._began + self._patience.slowest * self._longest_took - self._latest, brief)

    def _counts(self, owed: Collection[int]) -> bool:
        return self._came > len(owed) > 0

    def _spend(self, owed: Collection[int], now: float) -> None:
        if self._counts(owed):
            self._patience.spend(owed, max(0.0, now - self._latest - self._free) / self.longest)
