"""Nodes whose messages travel through Flower's SuperLink and ServerApp."""

from collections import defaultdict
from functools import partial
from math import ceil

from ross_flwr.plan.network import Load, Network
from ross_flwr.plan.places import Link, Relay, Server

__all__ = ["Relayed"]


class Relayed(Network):
    """The ServerApp takes what nodes send, and hands it to others with their next message.

    A message starts the ClientApp on its node, which runs a step, and after the last one of a pass the first of the
    next. The ServerApp goes on when all nodes have replied. Without steps that send, a pass is one message.

    Parameters
    ----------
    load, link, server, cores : Load, Link, Server, int
        As in `Network`.
    relay : Relay
        What Flower takes.

    Examples
    --------
    Two nodes look for messages every 3 s and compute for 1 s. The ServerApp takes 0.4 s for each, too long for their
    first look after a reply:

    >>> load = Load([[0, 0], [1, 1]], [{}, {}], [[0, 0], [0, 0]])
    >>> round(Relayed(load, Link(), Server(), Relay(poll=3, app=0.4)).pace().seconds, 6)
    4.0
    """

    def __init__(self, load: Load, link: Link, server: Server, relay: Relay, cores: int = 1) -> None:
        super().__init__(load, link, server, cores)
        self.relay = relay
        self._turns = max(1, len(load.seconds) - 1)
        self._into = load.coming
        self._looked = [0.0] * load.num_nodes
        self._replies: dict[int, int] = defaultdict(int)

    def begin(self) -> None:
        """Let the ServerApp send the first messages."""
        self._tell(0, 0.0)

    def _tell(self, number: int, now: float) -> None:
        for node in range(self.load.num_nodes):
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
        if self._replies[number] < self.load.num_nodes:
            return
        turn, rest = divmod(number + 1, self._turns)
        if rest or self.end(turn - 1, self.load.num_nodes, done):
            self.at(done, partial(self._tell, number + 1))
