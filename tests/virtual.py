"""Nodes without sockets or clocks: each does what its `Progress` decides, at times that are only numbers.

Honest nodes hold a number between 0 and 1 for a model and mix by the median with f = 1; a liar sends another number.
"""

import heapq
import random
import statistics
from collections import Counter, deque
from functools import partial
from math import inf

from ross_flwr.algorithms.messages import Refused
from ross_flwr.direct.pace import Pace
from ross_flwr.direct.progress import AHEAD, Ask, GoOn, Progress, Wait
from ross_flwr.direct.standings import GREETING
from ross_flwr.learning.rules import Median

EXCHANGES = 2
"""Exchanges in a pass."""

LATENCY = 0.005

PASSES = 10**6
"""Passes in the run: more than anybody gets to."""


def ring(n):
    return {i: sorted({(i - 1) % n, (i + 1) % n} - {i}) for i in range(n)}


def complete(n):
    return {i: [j for j in range(n) if j != i] for i in range(n)}


class Net:
    """Nodes on a graph, one agent each; pass t of node i takes `works[i]` seconds and the time it waits.

    Parameters
    ----------
    liar : int, optional
        A node that may lie about where it stands.
    fetch : float
        Seconds that a model takes.
    """

    def __init__(self, graph, works, *, patience, liar=None, fetch=0.05, seed=0):
        self.graph, self.patience, self.fetch = graph, patience, fetch
        self.now, self.end, self.loss = 0.0, inf, 0.0
        self.random = random.Random(seed)
        self.cuts = set()
        self._events = []
        self._number = 0
        self.nodes = [(Liar if i == liar else Node)(self, i, work) for i, work in enumerate(works)]
        self.honest = [node for node in self.nodes if node.index != liar]
        for node in self.nodes:
            node.start()

    def at(self, time, action):
        self._number += 1
        heapq.heappush(self._events, (time, self._number, action))

    def run(self, seconds):
        until = self.now + seconds
        while self._events and self._events[0][0] <= until:
            self.now, _, action = heapq.heappop(self._events)
            action()
        self.now = until

    def connects(self, i, j):
        return frozenset((i, j)) not in self.cuts

    def crash(self, i):
        self.nodes[i].alive = False
        for j in self.graph[i]:
            self.nodes[j].after(0.01, partial(self.nodes[j].lose, i))

    def cut(self, i, j):
        self.cuts.add(frozenset((i, j)))
        for a, b in ((i, j), (j, i)):
            self.nodes[a].after(0.01, partial(self.nodes[a].lose, b))

    def hold(self, i, seconds):
        self.nodes[i].held_until = self.now + seconds

    def mend(self):
        """Let everything work again, once those who are held are let go."""
        self.run(max(0.0, *(node.held_until - self.now for node in self.nodes)))
        self.cuts.clear()
        self.loss = 0.0
        for node in self.nodes:
            if not node.alive:
                node.start()


class Node:
    """A node that tells the truth. It saves its state at the start of every pass."""

    def __init__(self, net, index, work):
        self.net, self.index, self.work = net, index, work
        self.alive, self.held_until, self.life, self.saved = False, 0.0, 0, (0, 0.0)
        self.jumps = []
        self.history = []
        self.value = index / len(net.graph)
        self.dropped = Counter()

    @property
    def exchange(self):
        return self.progress.exchange

    def start(self):
        """Begin, or begin again from what was saved, as a new process."""
        self.alive, self.life = True, self.life + 1
        neighbors = self.net.graph[self.index]
        names = {j: str(j) for j in neighbors}
        now = self.net.now
        exchange, saved_at = self.saved
        end = EXCHANGES * PASSES
        self.progress = Progress(names, Pace(EXCHANGES, self.net.patience, now), now, end=end, behind_by=now - saved_at)
        self.progress.begin(exchange, now)
        self.outboxes = {j: deque() for j in neighbors}
        self.on_the_way, self.kept, self.door = set(), {}, {}
        self.waiting = self.timer = None
        self.unanswered = set()
        for j in neighbors:
            self.greet(j)
        self.compute(exchange)

    def after(self, seconds, action):
        """Do something later, unless the process has died by then; one that is held does it when it is let go."""
        life = self.life

        def act():
            if self.alive and self.life == life:
                if self.net.now < self.held_until:
                    self.net.at(self.held_until, act)
                else:
                    action()

        self.net.at(self.net.now + seconds, act)

    # Rounds.

    def compute(self, exchange):
        if exchange < EXCHANGES * self.net.end:
            self.after(self.work / EXCHANGES * self.net.random.uniform(0.9, 1.1), partial(self.wait, exchange))

    def wait(self, exchange):
        if exchange % EXCHANGES == 0:
            self.saved = exchange, self.net.now
        neighbors = self.net.graph[self.index]
        for j in neighbors:
            self.send(j, exchange)
        self.waiting = exchange, self.net.now
        self.progress.wait(exchange, [(j, self.index) for j in neighbors], self.net.now)
        self.look()

    def look(self):
        while self.waiting:
            exchange, since = self.waiting
            decision = self.progress.decide(self.net.now)
            if isinstance(decision, Wait):
                self.set_timer(decision.until)
                return
            if isinstance(decision, Ask):
                for name in decision.neighbors:
                    self.ask(int(name))
                continue
            self.waiting = None
            if isinstance(decision, GoOn):
                self.went_on(exchange, since, decision)
                self.compute(self.exchange)
            else:
                self.after(self.net.fetch, self.ask_all)
        self.open_door()

    def set_timer(self, until):
        self.timer = timer = object()
        self.after(until - self.net.now + 1e-9, lambda: self.timer is timer and self.look())

    def went_on(self, exchange, since, decision):
        self.dropped["overdue"] += len(decision.overdue)
        arrived = self.kept.pop(exchange, {})
        self.mix([value for _, value in arrived.values()])
        edges = {(j, self.index) for j in self.net.graph[self.index]}
        assert set(decision.missing) == edges - arrived.keys()
        assert {number for number, _ in arrived.values()} <= {exchange}, "something of another exchange was used"
        assert self.exchange == exchange + 1
        weights = dict.fromkeys(arrived, 1 / (len(edges) + 1))
        own = 1 / (len(edges) + 1) * (1 + len(decision.missing))
        assert abs(own + sum(weights.values()) - 1) < 1e-9
        if self.held_until <= since:
            patience = self.net.patience
            assert self.net.now - since <= 2 * patience + min(GREETING, patience) + 0.01, "it waited too long"
        self.history.append((self.net.now, exchange, len(decision.missing)))

    def mix(self, heard):
        """Combine the own number and those heard as the median does."""
        if Median(byzantine=1).outvotes(len(heard) + 1):
            self.value = statistics.median([self.value, *heard])

    def ask_all(self):
        self.unanswered = {name for name, standing in self.progress.standings.items() if standing.state == "up"}
        for name in [*self.unanswered]:
            self.ask(int(name))
        if not self.unanswered:
            self.land()

    def land(self):
        before = self.exchange
        target = self.progress.land(min(self.net.end, PASSES), self.net.now)
        assert before < target * EXCHANGES == self.exchange
        ahead = self.exchange - max([node.exchange for node in self.net.honest if node is not self], default=0)
        self.jumps.append((self.net.now, before, self.exchange, ahead))
        self.kept = {number: kept for number, kept in self.kept.items() if number >= self.exchange}
        self.open_door()
        self.compute(self.exchange)

    def claim(self):
        """Say which exchange it awaits."""
        return self.exchange

    def believes(self, note, *arguments):
        """Note something; return whether it was not refused."""
        try:
            note(*arguments)
        except Refused as error:
            self.dropped[error.reason] += 1
            return False
        return True

    # Greetings and questions.

    def hears(self, j):
        other = self.net.nodes[j]
        return other.alive and self.net.connects(self.index, j) and self.net.now >= other.held_until

    def ask(self, j):
        other = self.net.nodes[j]

        def tell(position):
            if not self.believes(self.progress.told, str(j), position):
                self.progress.told(str(j), None)
            if str(j) in self.unanswered:
                self.unanswered.discard(str(j))
                if not self.unanswered:
                    self.land()
            self.look()

        if self.hears(j):
            self.after(2 * LATENCY, lambda: tell(other.claim() if other.alive else None))
        else:
            self.after(min(GREETING, self.net.patience), lambda: tell(None))

    def greet(self, j):
        other, standing = self.net.nodes[j], self.progress.standings[str(j)]
        if standing.state == "up":
            return
        if not self.hears(j):
            refused = not other.alive or not self.net.connects(self.index, j)
            self.after(0.01 if refused else GREETING, partial(self.not_there, j))
            return

        def answered():
            if standing.state != "up" and other.alive:
                if not self.believes(self.progress.answered, str(j), other.claim(), self.net.now):
                    self.not_there(j)
                    return
                self.look()
                self.pump(j)

        self.after(2 * LATENCY, answered)
        other.after(LATENCY, lambda: other.greet(self.index))  # it sees who is back

    def not_there(self, j):
        if self.progress.standings[str(j)].state != "up":
            self.progress.unanswered(str(j), self.net.now)
            self.greet_again(j)

    def lose(self, j):
        if self.progress.standings[str(j)].state == "up":
            self.progress.lost(str(j), self.net.now)
            self.on_the_way.discard(j)
            self.greet_again(j)

    def greet_again(self, j):
        standing = self.progress.standings[str(j)]
        if standing.state == "lost":
            self.outboxes[j].clear()
        at = standing.greet_at
        self.after(at - self.net.now, lambda: standing.greet_at == at and self.greet(j))
        self.look()

    # Envelopes: one at a time on each edge. A receiver without room lets its sender wait.

    def send(self, j, exchange):
        if self.progress.standings[str(j)].state != "lost":
            box = self.outboxes[j]
            while len(box) > 1 and box[0] < exchange - 1:
                del box[1]
            box.append(exchange)
            self.pump(j)

    def pump(self, j):
        standing, box = self.progress.standings[str(j)], self.outboxes[j]
        if standing.state == "up" and box and j not in self.on_the_way:
            self.on_the_way.add(j)
            other, lives = self.net.nodes[j], (self.life, self.net.nodes[j].life)
            exchange, lost = box[0], self.net.random.random() < self.net.loss

            def arrive():
                if (self.life, other.life) == lives and self.alive and self.net.connects(self.index, j):
                    self.after(0, partial(self.sent, j)) if lost else other.after(
                        0, partial(other.take, self, exchange)
                    )

            self.net.at(self.net.now + LATENCY, arrive)

    def sent(self, j):
        if self.outboxes[j]:
            self.outboxes[j].popleft()
        self.on_the_way.discard(j)
        self.pump(j)

    def take(self, sender, exchange, since=None):
        """Take an envelope, refuse it, or let its sender wait until there is room."""
        edge, now = (sender.index, self.index), self.net.now
        self.door.pop(sender, None)
        try:
            has_room = self.progress.announced(exchange, edge, now)
        except Refused as error:
            self.dropped[error.reason] += 1
            sender.after(0, partial(sender.sent, self.index))
            return
        since = now if since is None else since
        if exchange < self.exchange or self.refuses():
            name, position = str(self.index), self.claim()
            sender.after(LATENCY, lambda: sender.believes(sender.progress.refused, name, position) and sender.look())
        if exchange < self.exchange:
            pass
        elif has_room:
            assert self.exchange <= exchange <= self.exchange + AHEAD
            self.kept.setdefault(exchange, {})[edge] = exchange, sender.value
            self.progress.arrived(exchange, edge, now)
        elif now - since < self.net.patience:
            self.door[sender] = exchange, since
            wait = self.net.patience - (now - since) + 1e-9
            self.after(wait, lambda: self.door.get(sender) == (exchange, since) and self.take(sender, exchange, since))
            self.look()
            return
        sender.after(0, partial(sender.sent, self.index))
        self.look()

    def open_door(self):
        for sender, (exchange, since) in [*self.door.items()]:
            if exchange <= self.exchange + AHEAD:
                self.after(0, lambda s=sender, e=exchange, t=since: self.door.get(s) == (e, t) and self.take(s, e, t))

    def refuses(self):
        return False


class Liar(Node):
    """A node that claims to be elsewhere, sends late, rarely or what is not due, or says that all comes too late."""

    offset, shift, silent, refusing, rhythm, delay = 0, 0, False, False, 1, 0.0

    def mix(self, heard):
        self.value = 1e6

    def claim(self):
        return self.exchange + self.offset

    def send(self, j, exchange):
        if not self.silent and exchange % self.rhythm == 0:
            self.after(self.delay, lambda: super(Liar, self).send(j, exchange + self.shift))

    def refuses(self):
        return self.refusing
