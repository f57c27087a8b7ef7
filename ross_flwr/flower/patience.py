"""How long a run waits for nodes that keep all others waiting: each has a budget, which is spent."""

from collections.abc import Collection
from dataclasses import dataclass, field
from math import inf

from ross_flwr.direct.pace import BRIEF
from ross_flwr.direct.standings import BUDGET, REGAINED

__all__ = ["Patience", "Wait"]


@dataclass
class Patience:
    """The patience of a run with each of its nodes, over all exchanges and segments.

    A budget is `BUDGET` times the longest wait for an exchange, and regains a tenth of the time that passes.

    Attributes
    ----------
    slowest : float
        How many times as long as the others a node may take without spending its budget.
    """

    slowest: float
    _spent: dict[int, float] = field(default_factory=dict)  # by node, in longest waits

    def left(self, node: int) -> float:
        """Return how many of the longest waits are left of a node's budget."""
        return BUDGET - self._spent.get(node, 0.0)

    def spend(self, nodes: Collection[int], waits: float) -> None:
        """Take so much out of the budgets of these nodes."""
        self._spent.update({node: min(BUDGET, self._spent.get(node, 0.0) + waits) for node in nodes})

    def regain(self, waits: float) -> None:
        """Note that so much time has passed."""
        self._spent = {node: spent - REGAINED * waits for node, spent in self._spent.items()}
        self._spent = {node: spent for node, spent in self._spent.items() if spent > 0}


class Wait:
    """The wait for one exchange, or for one segment.

    Once more than half of the nodes have replied, those who owe a reply spend the silence that follows, but for the
    beginning: (`slowest` - 1) times what the latest reply took, or `BRIEF` seconds, are free. A node whose budget is
    spent is waited for no longer than that. So one node, however it times its replies, slows the others down for a
    while, and then to little less than ``1 / slowest`` of their rate.

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
        self._came = 0

    def until(self, owed: Collection[int]) -> float:
        """Return the time until which to wait for the nodes that owe a reply, if no other comes."""
        left = max(map(self._patience.left, owed)) if self._counts(owed) else inf
        return self._latest + min(self.longest, self._free + self.longest * left)

    def heard(self, owed: Collection[int], now: float) -> None:
        """Note a reply. Until it came, these nodes owed one, the sender among them."""
        self._spend(owed, now)
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
        return max((self._patience.slowest - 1) * (self._latest - self._began), brief)

    def _counts(self, owed: Collection[int]) -> bool:
        return self._came > len(owed) > 0

    def _spend(self, owed: Collection[int], now: float) -> None:
        if self._counts(owed):
            self._patience.spend(owed, max(0.0, now - self._latest - self._free) / self.longest)
