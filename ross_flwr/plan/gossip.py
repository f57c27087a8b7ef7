"""Nodes that send to each other, without a server."""

from collections import defaultdict
from collections.abc import Callable
from functools import partial

from ross_flwr.plan.network import Load, Network, Sack
from ross_flwr.plan.places import SERVER, Link

__all__ = ["Gossip"]


class Gossip(Network):
    """A node begins a step when it has done the one before and has read what its neighbours sent after that.

    Parameters
    ----------
    load, link, cores : Load, Link, int
        As in `Network`.
    cost : callable
        From a sack to the processor seconds that sender and receiver spend on it, half of them each.

    Examples
    --------
    Two nodes that compute for 1 s and exchange 100 bytes over links of 50 bytes a second, 0.5 s long:

    >>> both = {(0, 1): Sack(1, 100), (1, 0): Sack(1, 100)}
    >>> load = Load([[0, 0], [1, 1]], [both, {}], [[100, 100], [0, 0]])
    >>> Gossip(load, Link(50, 50, 0.5), lambda sack: 0).pace().seconds
    3.5
    """

    def __init__(self, load: Load, link: Link, cost: Callable[[Sack], float], cores: int = 1) -> None:
        super().__init__(load, link, SERVER, cores)
        self.cost = cost
        nodes = range(load.num_nodes)
        self._leaving = [
            [[(b, each) for (a, b), each in sacks.items() if a == node] for node in nodes] for sacks in load.sacks
        ]
        self._awaited = load.awaited
        self._had: dict[tuple[int, int, int], int] = defaultdict(int)

    def begin(self) -> None:
        """Let every node run the first step."""
        for node in range(self.load.num_nodes):
            self._run(node, 0, 0, 0.0)

    def _run(self, node: int, turn: int, step: int, now: float) -> None:
        work = self.load.seconds[step][node] + sum(self.cost(sack) for _, sack in self._leaving[step][node]) / 2
        self.at(self.processors[node].serve(now, work), partial(self._send, node, turn, step))

    def _send(self, node: int, turn: int, step: int, now: float) -> None:
        for other, sack in self._leaving[step][node]:
            came = self.carry(now, sack.size, (self.ups[node], self.link.up), (self.downs[other], self.link.down))
            self.at(came, partial(self._read, other, turn, step, sack))
        self._have(node, turn, step, now)

    def _read(self, node: int, turn: int, step: int, sack: Sack, now: float) -> None:
        self.at(self.processors[node].serve(now, self.cost(sack) / 2), partial(self._have, node, turn, step))

    def _have(self, node: int, turn: int, step: int, now: float) -> None:
        """Note that one of the things is there for which the node waits, and go on after the last."""
        self._had[node, turn, step] += 1
        if self._had[node, turn, step] < self._awaited[step][node]:
            return
        if step + 1 < len(self.load.seconds):
            self._run(node, turn, step + 1, now)
        elif self.end(turn, 1, now):
            self._run(node, turn + 1, 0, now)
