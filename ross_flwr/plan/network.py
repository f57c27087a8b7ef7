"""What a simulation of a run is made of: what nodes do, lines in which work waits, and events in the order of time."""

import heapq
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from statistics import fmean

from ross_flwr.plan.places import Link, Server

__all__ = ["Line", "Load", "Network", "Pace", "Sack"]

WARM_UP, COUNTED = 3, 6
"""Passes that are simulated before those that count, and these."""


@dataclass(frozen=True)
class Sack:
    """What one node sends another after a step: so many messages between agents, and their bytes together."""

    count: float
    size: float


@dataclass(frozen=True)
class Load:
    """What nodes do in a pass over the method's steps.

    Attributes
    ----------
    seconds : sequence of sequences of float
        Processor seconds, by step and node.
    sacks : sequence of mappings
        What travels after each step, by the numbers of the two nodes.
    distinct : sequence of sequences of float
        Bytes of different tensors that leave a node, by step and node. Several agents may get the same.
    """

    seconds: Sequence[Sequence[float]]
    sacks: Sequence[Mapping[tuple[int, int], Sack]]
    distinct: Sequence[Sequence[float]]

    @property
    def num_nodes(self) -> int:
        """How many nodes there are."""
        return len(self.seconds[0])

    @property
    def coming(self) -> list[list[float]]:
        """Bytes that reach a node, by step and node."""
        nodes = range(self.num_nodes)
        return [[sum(each.size for (_, b), each in sacks.items() if b == n) for n in nodes] for sacks in self.sacks]

    @property
    def awaited(self) -> list[Counter[int]]:
        """How many nodes a node waits for after a step, itself among them, by step and node."""
        nodes = range(self.num_nodes)
        return [Counter([*nodes, *(b for a, b in sacks if a != b)]) for sacks in self.sacks]


class Line:
    """Serves one job after the other, or as many at a time as it has `places`.

    Examples
    --------
    >>> line = Line()
    >>> line.serve(0.0, 2.0), line.serve(1.0, 3.0), line.busy
    (2.0, 5.0, 5.0)
    """

    def __init__(self, places: int = 1) -> None:
        self._free = [0.0] * places
        self.busy = 0.0

    def serve(self, now: float, seconds: float) -> float:
        """Return when a job that comes now, and takes this long, is done."""
        done = max(now, self._free[0]) + seconds
        heapq.heapreplace(self._free, done)
        self.busy += seconds / len(self._free)
        return done


@dataclass(frozen=True)
class Pace:
    """How long a pass takes, and how long each kind of line is busy in it, all in seconds."""

    seconds: float
    busy: Mapping[str, float]


class Network(ABC):
    """Nodes with their processors and links, the server with its own, and the events to come.

    Parameters
    ----------
    load, link, server : Load, Link, Server
        What nodes do, how they reach each other, and what is in the middle.
    cores : int
        Processors of this machine, if nodes share it.
    """

    def __init__(self, load: Load, link: Link, server: Server, cores: int = 1) -> None:
        self.load, self.link, self.server = load, link, server
        nodes = range(load.num_nodes)
        shared = [Line(cores)] if link.shared else []
        self.processors = shared * len(nodes) or [Line() for _ in nodes]
        self.ups, self.downs = [Line() for _ in nodes], [Line() for _ in nodes]
        self.server_up, self.server_down = Line(), Line()
        self.superlink, self.server_app = shared * 2 or [Line(), Line()]
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._number = count()
        self._ends: list[list[float]] = [[] for _ in range(WARM_UP + COUNTED)]
        self._before: dict[str, float] = {}

    @abstractmethod
    def begin(self) -> None:
        """Put the first events into the list."""

    def pace(self) -> Pace:
        """Run all events in the order of their times, and return how long a pass takes."""
        self.begin()
        while self._events:
            now, _, event = heapq.heappop(self._events)
            event(now)
        seconds = (fmean(self._ends[-1]) - fmean(self._ends[WARM_UP - 1])) / COUNTED
        busy = {name: (time - self._before[name]) / COUNTED for name, time in self._busy().items()}
        return Pace(seconds, busy)

    def at(self, time: float, event: Callable[[float], None]) -> None:
        """Let `event` happen at `time`, which it is told."""
        heapq.heappush(self._events, (time, next(self._number), event))

    def carry(self, now: float, size: float, *way: tuple[Line, float]) -> float:
        """Return when `size` bytes that leave now have come through lines of these rates, all at the same time."""
        return max(line.serve(now, size / rate) for line, rate in way) + self.link.latency

    def end(self, turn: int, nodes: int, now: float) -> bool:
        """Note that so many nodes end a pass; return whether another follows."""
        self._ends[turn] += [now] * nodes
        if turn == WARM_UP - 1 and len(self._ends[turn]) == self.load.num_nodes:
            self._before = self._busy()
        return turn + 1 < len(self._ends)

    def _busy(self) -> dict[str, float]:
        """Return for how many seconds each kind of line has worked, the mean over nodes."""
        processor = "this machine's processor" if self.link.shared else "each node's processor"
        kinds = {
            processor: self.processors,
            "each node's link up": self.ups,
            "each node's link down": self.downs,
            "the server's link up": [self.server_up],
            "the server's link down": [self.server_down],
        }
        if not self.link.shared:
            kinds |= {"the SuperLink": [self.superlink], "the ServerApp": [self.server_app]}
        return {name: fmean(line.busy for line in lines) for name, lines in kinds.items()}
