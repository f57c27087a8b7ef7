"""Who is where, who is late, who is back: what a node decides about its neighbours, apart from acting on it.

This file holds every rule by which a node waits for its neighbours, goes on without them or follows them. Events go in
with the time at which they happened; decisions come out. There is no clock, no thread and no socket here. Exchanges
are counted over the whole run: with s exchanges in a pass, exchange ``t * s + k`` is what step k of pass t sends.

**How long does a node wait?** `patience` seconds for each exchange. A late neighbour that turns out to be behind is
itself waiting for others: it is excused, and gets the same time again. A neighbour that misses `MISSES` exchanges in a
row is given up: until something arrives from it, the node waits for it only for a moment, and only if it is near. The
node does not wait at all for a neighbour that it cannot reach.

**Whom does a node follow?** Those who are far ahead of it. But a neighbour may lie about its position, and another may
be behind only because it was away. So a node goes

- where more than half of the neighbours that answer say they are, if those are at least two;
- where half of them say they are, or the only one, but no farther than it could be itself, at its fastest of late, had
  it lost no time since it was last in step with them. A single liar gains nothing by that but the time lost on it.

A neighbour that was in step and is suddenly far ahead has been away, went on a little ahead of this node and waits for
it there. It is followed only once it moves on.

**Who waits for those behind?** A node that most of its neighbours are far behind has run ahead alone. It waits for each
of them for as long as it has been out of step with it.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median_high, median_low
from typing import TypeAlias

__all__ = ["GREETING", "Ask", "Decision", "Edge", "GoOn", "Jump", "Progress", "Wait"]

Edge: TypeAlias = tuple[int, int]
"""Source and destination: two agents."""

MISSES = 3
"""A neighbour that misses this many exchanges in a row is given up."""

AHEAD = 1
"""A node takes envelopes of the awaited exchange and of this many after it: a neighbour may be one ahead."""

MARGIN = 2
"""A node that follows its neighbours goes on this many passes ahead of them."""

GREETING = 5.0
"""Seconds that the answer to a greeting may take, and the longest pause between greetings to a silent neighbour."""

FIRST_PAUSE = 0.05
"""Seconds before a silent neighbour is greeted again; every pause is twice as long as the one before."""

LATELY = 16
"""The node's pace is that of its fastest pass among this many."""


@dataclass(frozen=True)
class Wait:
    """Wait for the next event, but not beyond this time."""

    until: float


@dataclass(frozen=True)
class Ask:
    """Ask these neighbours for their positions, pass the answers to `Progress.told`, and wait meanwhile."""

    neighbors: frozenset[str]


@dataclass(frozen=True)
class GoOn:
    """Go on to the next exchange, without what is missing on these edges; these neighbours are given up from now on."""

    missing: tuple[Edge, ...] = ()
    given_up: tuple[str, ...] = ()


@dataclass(frozen=True)
class Jump:
    """Follow the neighbours: ask all of them for their positions, pass on the answers, and call `Progress.land`."""


Decision: TypeAlias = Wait | Ask | GoOn | Jump


@dataclass
class Standing:
    """How one neighbouring node stands."""

    name: str
    since: float  # when it entered its state
    state: str = "new"  # until it answers for the first time, then "up" or "lost"
    misses: int = 0  # exchanges in a row in which it was missing; below 0 if it may miss more than others
    position: int = 0  # the exchange that it awaits, as far as it has said or shown so
    in_step: bool = False  # whether it was near this node when it was last heard of
    waits_at: int | None = None  # where it waits for this node, if it suddenly was far ahead
    met: tuple[int, float] = (0, 0.0)  # this node's exchange, and the time, when something last arrived from it in time
    greet_at: float = 0.0  # when to greet it next
    pause: float = FIRST_PAUSE  # and how long to pause after that

    @property
    def awaited(self) -> bool:
        """Whether the node waits for it in an exchange."""
        return self.state != "lost" and self.misses < MISSES

    def lose(self, now: float) -> None:
        """Note that it cannot be reached."""
        self.state, self.since, self.misses = "lost", now, MISSES

    def postpone(self, now: float) -> None:
        """Greet it after a pause."""
        self.greet_at = now + self.pause
        self.pause = min(2 * self.pause, GREETING)

    def stands(self, position: int, near: int) -> None:
        """Note the exchange that it awaits; up to `near` it is in step."""
        if position <= near:
            self.in_step, self.waits_at = True, None
        elif self.in_step:
            self.in_step, self.waits_at = False, position
        elif self.waits_at is not None and position > self.waits_at:
            self.waits_at = None
        if self.waits_at is None:
            self.position = position


@dataclass
class Waiting:
    """The wait for one exchange: how often late neighbours were asked, who has not answered, whether any is excused."""

    edges: tuple[Edge, ...]
    since: float
    asked: int = 0
    silent: frozenset[str] = frozenset()
    excused: bool = False

    def end(self, patience: float, now: float) -> tuple[float, bool]:
        """Return the time until which to wait for late neighbours, and whether to ask them before waiting on."""
        end = self.since + patience
        if self.excused:
            return end + patience, False
        if self.asked < 2:
            # Ask halfway too: others that wait for the same neighbour give up at about that time, so are not behind.
            moment = end - patience / 2 if self.asked == 0 else end
            return moment, now >= moment
        return end + (min(GREETING, patience) if self.silent else 0.0), False


class Progress:
    """The progress of one node among its neighbours.

    Parameters
    ----------
    homes : mapping of int to str
        The neighbouring node, by name, of every agent that an agent here exchanges messages with.
    exchanges : int
        Exchanges in a pass.
    patience : float
        Seconds to wait for an exchange.
    now : float
        The time, in seconds; so is every argument of this name.
    behind_by : float
        Seconds that the other nodes may have been at work when this one begins.

    Attributes
    ----------
    exchange : int
        The awaited exchange.
    standings : dict[str, Standing]
        How each neighbouring node stands, by name.
    """

    def __init__(
        self, homes: Mapping[int, str], exchanges: int, patience: float, now: float, *, behind_by: float = 0.0
    ) -> None:
        self.exchanges = exchanges
        self.patience = patience
        self.behind_by = behind_by
        self.exchange = 0
        self.standings = {name: Standing(name, now, greet_at=now) for name in homes.values()}
        self._sources = {agent: self.standings[name] for agent, name in homes.items()}
        self._begun = False
        self._pass_began = now
        self._passes = deque[float](maxlen=LATELY)
        self._arrived: dict[int, set[Edge]] = {}
        self._latest: dict[Edge, int] = {}
        self._followed = 0
        self._waiting = Waiting((), now)

    @property
    def span(self) -> int:
        """The lead, or the lag, up to which two nodes are near: `MARGIN`, and what is on its way between them."""
        return MARGIN * self.exchanges + 3

    def begin(self, exchange: int, now: float) -> None:
        """Begin with the first exchange of a pass; earlier ones are over."""
        if not self._begun:
            self._begun = True
            for standing in self.standings.values():
                standing.met = exchange, now - self.behind_by
        self._pass_began = now
        self._enter(exchange)

    def wait(self, exchange: int, edges: Iterable[Edge], now: float) -> None:
        """Wait for what comes on `edges` in an exchange, and end all earlier ones. `decide` says for how long."""
        self._enter(exchange)
        self._waiting = Waiting(tuple(edges), now)

    def announced(self, exchange: int, edge: Edge, now: float) -> bool:
        """Note that an envelope begins to arrive, and return whether there is room for it."""
        standing = self._source(edge)
        self._latest[edge] = max(exchange, self._latest.get(edge, 0))
        if exchange > max(standing.position, standing.waits_at or 0):
            standing.stands(exchange, self.exchange + self.span)
        self._spare(standing, now)
        return self.exchange <= exchange <= self.exchange + AHEAD

    def arrived(self, exchange: int, edge: Edge, now: float) -> None:
        """Note that an envelope that had room has arrived."""
        standing = self._source(edge)
        self._arrived.setdefault(exchange, set()).add(edge)
        standing.misses = 0
        standing.met = self.exchange, now

    def refused(self, name: str, position: int) -> None:
        """Note that a neighbour, which awaits `position`, dropped an envelope because it was too old."""
        self.standings[name].stands(position, self.exchange + self.span)

    def told(self, name: str, position: int | None) -> None:
        """Note which exchange a neighbour that was asked awaits; None if it does not answer."""
        standing = self.standings[name]
        self._waiting.silent -= {name}
        if position is not None:
            late = standing in map(self._source, self._expected())
            self._waiting.excused |= late and position < self.exchange
            standing.stands(position, self.exchange + self.span)

    def answered(self, name: str, position: int, now: float) -> None:
        """Note that a neighbour answers a greeting, and awaits `position`."""
        standing = self.standings[name]
        standing.state, standing.since = "up", now
        standing.stands(position, self.exchange + self.span)
        if abs(position - self.exchange) <= self.span:
            standing.misses = 0
        self._spare(standing, now)

    def unanswered(self, name: str, now: float) -> None:
        """Note that a neighbour does not answer a greeting; one that never has gets the time of one exchange."""
        standing = self.standings[name]
        if standing.state == "new" and now - standing.since > self.patience:
            standing.lose(now)
        standing.postpone(now)

    def lost(self, name: str, now: float) -> None:
        """Note that the connection to a neighbour broke."""
        standing = self.standings[name]
        if now - standing.since > GREETING:
            standing.pause = FIRST_PAUSE
        standing.lose(now)
        standing.postpone(now)

    def decide(self, now: float) -> Decision:
        """Return what to do about the awaited exchange."""
        far = self.exchange + self.span  # and nobody is believed to be farther than some neighbour is
        if any(each.position > far for each in self.standings.values()) and (most := self.most(now)) > far:
            self._followed = most
            return Jump()
        waiting, expected = self._waiting, self._expected()
        late = {each.name: each for each in map(self._source, expected) if each.awaited}
        if not late:
            near = any(each.state == "up" and self._lag(each) <= self.span for each in map(self._source, expected))
            moment = waiting.since + min(self.patience, *self._passes or [0.0])
            return Wait(moment) if near and now < moment else self._go_on(now)
        end, ask = waiting.end(self.patience, now)
        if ask:
            waiting.asked += 1
            waiting.silent = frozenset(name for name, each in late.items() if each.state == "up")
            return Ask(waiting.silent)
        return Wait(end) if now < end else self._go_on(now)

    def land(self, end: int, now: float) -> int:
        """Return the pass, `end` at most, in which to go on after a `Jump`: one that the neighbours have not begun.

        What they have done since the decision is added once more, for what they do before this node begins. Those who
        are not where most are stay given up.
        """
        most, here = self.most(now), self.exchange // self.exchanges
        reached = most // self.exchanges
        ahead = max(0, reached - self._followed // self.exchanges) + MARGIN
        for standing in self.standings.values():
            near = standing.state == "up" and standing.position >= most - self.span
            standing.misses = 0 if near else MISSES
        target = min(end, reached + ahead if reached > here else here + 1)
        self.begin(target * self.exchanges, now)
        return target

    def most(self, now: float) -> int:
        """Return the exchange in which to believe the neighbours, as the module explains."""
        up = [standing for standing in self.standings.values() if standing.state == "up"]
        if not up:
            return self.exchange
        possible = median_high(min(each.position, self._could_be(each, now)) for each in up)
        return max(possible, median_low(each.position for each in up)) if len(up) > 1 else possible

    def _could_be(self, standing: Standing, now: float) -> int:
        """Return where this node could be, had it lost no time since it was in step with a neighbour."""
        exchange, when = standing.met
        left = now - when > self.patience or standing.since > when  # honest neighbours wait, while they are connected
        return exchange + int((now - when) / min(self._passes) * self.exchanges) if left and self._passes else exchange

    def _spare(self, standing: Standing, now: float) -> None:
        """Wait for a neighbour that is far behind if most are."""
        up = [each for each in self.standings.values() if each.state == "up"]
        alone = 2 * sum(self._lag(each) > self.span for each in up) > len(up)
        exchanges = int((now - standing.met[1]) / (2 * self.patience))  # each of them may take twice the patience
        if alone and exchanges and standing.misses >= MISSES and self._lag(standing) > self.span:
            standing.misses, standing.met = MISSES - exchanges, (self.exchange, now)

    def _go_on(self, now: float) -> GoOn:
        missing = tuple(self._missing())
        sources = {each.name: each for each in map(self._source, missing)}
        for standing in sources.values():
            standing.misses += 1
        given_up = tuple(name for name, standing in sources.items() if standing.misses == MISSES)
        self._enter(self.exchange + 1)
        if self.exchange % self.exchanges == 0:
            self._passes.append(max(now - self._pass_began, 1e-3))
            self._pass_began = now
        return GoOn(missing, given_up)

    def _enter(self, exchange: int) -> None:
        self.exchange = exchange
        self._arrived = {number: edges for number, edges in self._arrived.items() if number >= exchange}

    def _missing(self) -> list[Edge]:
        return [edge for edge in self._waiting.edges if edge not in self._arrived.get(self.exchange, ())]

    def _expected(self) -> list[Edge]:
        """Return the edges on which something is missing and may still come: envelopes come in their order."""
        return [edge for edge in self._missing() if self._latest.get(edge, 0) <= self.exchange]

    def _lag(self, standing: Standing) -> int:
        return self.exchange - standing.position

    def _source(self, edge: Edge) -> Standing:
        return self._sources[edge[0]]
