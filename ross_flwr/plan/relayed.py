"""Nodes whose messages travel through Flower's SuperLink and ServerApp."""

from collections import Counter
from functools import partial
from math import ceil

from ross_flwr.plan.network import Load, Network
from ross_flwr.plan.places import Link, Relay, Server

__all__ = ["Relayed"]


class Relayed(Network):
    """The ServerApp takes what nodes send, and hands it to others with their next message.

    A message starts the ClientApp on its node, which runs a step, and after the last one of a pass the first of the
    next. A node gets its next message when it and all that send to it have replied, and the first of a round when all
    nodes have. Without steps that send, a pass is one message.

    Parameters
    ----------
    load, link, server, cores : Load, Link, Server, int
        As in `Network`.
    relay : Relay
        What Flower takes.
    passes : int (default: 1)
        Passes in a round.

    Examples
    --------
    Two nodes look for messages every 3 s and compute for 1 s. The ServerApp takes 0.4 s for each, too long for their
    first look after a reply:

    >>> load = Load([[0, 0], [1, 1]], [{}, {}], [[0, 0], [0, 0]])
    >>> round(Relayed(load, Link(), Server(), Relay(poll=3, app=0.4)).pace().seconds, 6)
    4.0
    """

    def __init__(self, load: Load, link: Link, server: Server, relay: Relay, cores: int = 1, passes: int = 1) -> None:
        super().__init__(load, link, server, cores)
        self.relay, self.passes = relay, passes
        self._turns = max(1, len(load.seconds) - 1)
        self._into = load.coming
        self._looked = [0.0] * load.num_nodes
        self._reach = [[{node} for node in range(load.num_nodes)] for _ in load.sacks]
        for reach, sacks in zip(self._reach, load.sacks, strict=True):
            for a, b in sacks:
                reach[a].add(b)
        self._awaited = load.awaited
        self._replies: Counter[int] = Counter()
        self._heard: Counter[tuple[int, int]] = Counter()

    def begin(self) -> None:
        """Let the ServerApp send the first messages."""
        for node in range(self.load.num_nodes):
            self._tell(node, 0, 0.0)

    def _tell(self, node: int, number: int, now: float) -> None:
        work = self.relay.app / 2 + self.relay.app_byte * self._in(node, number)
        self.at(self.server_app.serve(now, work), partial(self._lie, node, number))

    def _in(self, node: int, number: int) -> float:
        return self._into[number % self._turns][node]

    def _out(self, node: int, number: int) -> float:
        return self.load.distinct[(number + 1) % self._turns][node]

    def _lie(self, node: int, number: int, now: float) -> None:
        """Let a message lie at the SuperLink until its node looks."""
        ready = self.superlink.serve(now, self.relay.link / 2 + self.relay.link_byte * self._in(node, number))
        looks = ceil(max(0.0, ready - self._looked[node]) / self.relay.poll)
        self.at(self._looked[node] + looks * self.relay.poll, partial(self._take, node, number))

    def _take(self, node: int, number: int, now: float) -> None:
        way = (self.server_up, self.server.up), (self.downs[node], self.link.down)
        self.at(self.carry(now, self._in(node, number), *way), partial(self._run, node, number))

    def _run(self, node: int, number: int, now: float) -> None:
        step, last = number % self._turns + 1, len(self.load.seconds) - 1
        steps = {min(step, last), 0} if step >= last else {step}
        size = self._in(node, number) + self._out(node, number)
        work = sum(self.load.seconds[each][node] for each in steps) + self.relay.start + self.relay.node_byte * size
        done = self.processors[node].serve(now, work)
        self.at(done + self.relay.notice, partial(self._reply, node, number))

    def _reply(self, node: int, number: int, now: float) -> None:
        size = self._out(node, number)
        way = (self.ups[node], self.link.up), (self.server_down, self.server.down)
        self._looked[node] = came = self.carry(now, size, *way)
        work = self.relay.link / 2 + self.relay.link_byte * size
        self.at(self.superlink.serve(came, work), partial(self._pull, node, number))

    def _pull(self, node: int, number: int, now: float) -> None:
        done = self.server_app.serve(now, self.relay.app / 2 + self.relay.app_byte * self._out(node, number))
        self._replies[number] += 1
        turn, rest = divmod(number + 1, self._turns)
        all_have = self._replies[number] == self.load.num_nodes
        goes_on = self.end(turn - 1, self.load.num_nodes, done) if all_have and not rest else turn < len(self._ends)
        if rest or turn % self.passes:
            free = [each for each in self._reach[rest][node] if self._hears(each, number)]
        else:
            free = [*range(self.load.num_nodes)] if all_have else []
        for each in free if goes_on else ():
            self.at(done, partial(self._tell, each, number + 1))

    def _hears(self, node: int, number: int) -> bool:
        """Note that a reply is there for which the node waits; return whether it was the last."""
        self._heard[node, number] += 1
        return self._heard[node, number] == self._awaited[(number + 1) % self._turns][node]
