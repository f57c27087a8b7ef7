"""Who is where, who is late, who is back: what a node decides about its neighbours, apart from acting on it.

Here, and in `waiting`, `following`, `standings` and `pace`, is every rule by which a node waits for its neighbours,
goes on without them or follows them. Events go in with the time at which they happened; decisions come out. There is
no clock, no thread and no socket. Exchanges are counted over the whole run: with s exchanges in a pass, exchange
``t * s + k`` is what step k of pass t sends.

**How long does a node wait?** `patience` seconds for each exchange. A late neighbour that says it is behind may be
waiting for others: it is excused, and gets the same time again. A neighbour that misses `MISSES` exchanges in a row is
given up: until something arrives from it, the node waits for it only for a moment, and only if it is near. The node
does not wait at all for a neighbour that it cannot reach.

Every neighbour has a `Budget`. It spends what the node waits for it alone, after all others have delivered. A neighbour
that delivers little later than the others (`slowest`, `BRIEF`) spends nothing. One whose budget is spent is waited for
only as long as the budget regains, or half the node's own work, so that it can get in step again.

**Whom does a node follow?** Those who are far ahead, if they are most of its neighbours; `following` tells how far.
A neighbour that was in step and is suddenly far ahead has been away, went on a little ahead of this node and waits for
it there. It is followed only once it moves on.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from ross_flwr.algorithms.messages import Refused
from ross_flwr.direct.following import most, spare
from ross_flwr.direct.pace import MARGIN, Pace
from ross_flwr.direct.standings import BUDGET, MISSES, Budget, Standing
from ross_flwr.direct.waiting import Edge, Waiting

__all__ = ["Ask", "Decision", "Edge", "GoOn", "Jump", "Progress", "Wait"]

AHEAD = 1
"""A node takes envelopes of the awaited exchange and of this many after it: a neighbour may be one ahead."""


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
    """Go on to the next exchange, without what is missing on these edges.

    From now on, the neighbours `given_up` are not waited for. The budget of those `overdue` is spent.
    """

    missing: tuple[Edge, ...] = ()
    given_up: tuple[str, ...] = ()
    overdue: tuple[str, ...] = ()


@dataclass(frozen=True)
class Jump:
    """Follow the neighbours: ask all of them for their positions, pass on the answers, and call `Progress.land`."""


Decision: TypeAlias = Wait | Ask | GoOn | Jump


class Progress:
    """The progress of one node among its neighbours.

    Parameters
    ----------
    homes : mapping of int to str
        The neighbouring node, by name, of every agent that an agent here exchanges messages with.
    pace : Pace
        The node's own, of which nothing has passed.
    now : float
        The time, in seconds; so is every argument of this name.
    end : int
        The exchanges of the whole run. Nobody can be beyond it.
    behind_by : float
        Seconds that the other nodes may have been at work when this one begins.

    Attributes
    ----------
    exchange : int
        The awaited exchange.
    standings : dict[str, Standing]
        How each neighbouring node stands, by name.
    """

    def __init__(self, homes: Mapping[int, str], pace: Pace, now: float, *, end: int, behind_by: float = 0.0) -> None:
        self.exchanges = pace.exchanges
        self.patience = pace.patience
        self.end = end
        self.behind_by = behind_by
        self.exchange = 0
        budgets = {name: Budget(BUDGET * pace.patience, now) for name in homes.values()}
        self.standings = {name: Standing(name, now, budget, greet_at=now) for name, budget in budgets.items()}
        self._sources = {agent: self.standings[name] for agent, name in homes.items()}
        self._begun = False
        self._pace = pace
        self._arrived: dict[int, dict[Edge, float]] = {}
        self._latest: dict[Edge, int] = {}
        self._followed = 0, now  # where to, and since when
        self._waiting = Waiting(0, (), now, {}, {})

    def begin(self, exchange: int, now: float) -> None:
        """Begin with the first exchange of a pass; earlier ones are over."""
        if not self._begun:
            self._begun = True
            self._pace.start(exchange, self.behind_by, now)
            for standing in self.standings.values():
                standing.met = exchange, now - self.behind_by
        self._pace.began = now
        self._enter(exchange, now)

    def wait(self, exchange: int, edges: Iterable[Edge], now: float, ready: float | None = None) -> None:
        """Wait for what comes on `edges` in an exchange, and end all earlier ones. Its work was done at `ready`."""
        self._pace.worked(now if ready is None else ready)
        self._enter(exchange, now)
        self._waiting = Waiting(exchange, tuple(edges), now, self._arrived.setdefault(exchange, {}), self._latest)

    def announced(self, exchange: int, edge: Edge, now: float) -> bool:
        """Note that an envelope begins to arrive, and return whether there is room for it."""
        self._check(exchange)
        standing = self._source(edge)
        self._latest[edge] = max(exchange, self._latest.get(edge, 0))
        standing.shown = max(exchange, standing.shown)
        if exchange > max(standing.position, standing.waits_at or 0):
            standing.stands(exchange, self.exchange + self._pace.span)
        spare(standing, self.standings.values(), self.exchange, self._pace, now)
        return self.exchange <= exchange <= self.exchange + AHEAD

    def arrived(self, exchange: int, edge: Edge, now: float) -> None:
        """Note that an envelope that had room has arrived."""
        standing = self._source(edge)
        self._arrived.setdefault(exchange, {})[edge] = now
        standing.misses, standing.met = 0, (self.exchange, now)

    def refused(self, name: str, position: int) -> None:
        """Note that a neighbour, which awaits `position`, dropped an envelope because it was too old."""
        self._check(position)
        self.standings[name].stands(position, self.exchange + self._pace.span)

    def told(self, name: str, position: int | None) -> None:
        """Note which exchange a neighbour that was asked awaits; None if it does not answer."""
        standing = self.standings[name]
        self._waiting.silent -= {name}
        if position is not None:
            self._check(position)
            late = standing in map(self._source, self._waiting.expected)
            self._waiting.excused |= late and position < self.exchange
            standing.stands(position, self.exchange + self._pace.span)

    def answered(self, name: str, position: int, now: float) -> None:
        """Note that a neighbour answers a greeting, and awaits `position`."""
        self._check(position)
        standing = self.standings[name]
        standing.state, standing.since = "up", now
        standing.stands(position, self.exchange + self._pace.span)
        if abs(position - self.exchange) <= self._pace.span:
            standing.misses = 0
        spare(standing, self.standings.values(), self.exchange, self._pace, now)

    def unanswered(self, name: str, now: float) -> None:
        """Note that a neighbour does not answer a greeting; one that never has gets the time of one exchange."""
        standing = self.standings[name]
        if standing.state == "new" and now - standing.since > self.patience:
            standing.lose(now)
        standing.postpone(now)

    def lost(self, name: str, now: float) -> None:
        """Note that the connection to a neighbour broke."""
        self.standings[name].breaks(now)

    def room(self, name: str, now: float) -> float:
        """Return for how many seconds to wait until a neighbour has read what was sent to it before."""
        return min(self.patience, self.standings[name].budget.left(now))

    def held_up(self, name: str, since: float, now: float) -> None:
        """Note that the node waited since then for that, or for as long as it was to."""
        self.standings[name].budget.spend(now - since if now - since > self._pace.brief else 0.0, now)

    def is_behind(self, name: str) -> bool:
        """Return whether a neighbour is far behind this node, as far as it has said or shown."""
        return self.exchange - self.standings[name].position > self._pace.span

    def decide(self, now: float) -> Decision:
        """Return what to do about the awaited exchange."""
        waiting, far = self._waiting, self.exchange + self._pace.span
        self._pace.lapse(waiting.since, now)
        # Nobody is believed to be farther than some neighbour is.
        if (
            any(each.position > far for each in self.standings.values())
            and (there := most(self.standings.values(), self.exchange, self._pace, now)) > far
        ):
            self._followed = there, now
            return Jump()
        if not (edges := waiting.expected):
            return self._go_on(now)
        expected = {each.name: each for each in map(self._source, edges)}
        late = [each for each in expected.values() if each.awaited]
        if not late:
            up = [each for each in expected.values() if each.state == "up"]
            near = [each for each in up if abs(each.position - self.exchange) <= self._pace.span]
            pause = min(self.patience, *self._pace.passes or [0.0])
            moment = min(waiting.since + pause, waiting.spent(near, self._pace.tolerance)) if near else now
            return Wait(moment) if now < moment else self._go_on(now, near)
        end, ask = waiting.end(self.patience, now)
        if now >= (spent := waiting.spent(late, self._pace.tolerance)):
            return self._go_on(now, late, overdue=True)
        if ask:
            waiting.asked += 1
            waiting.silent = frozenset(each.name for each in late if each.state == "up")
            return Ask(waiting.silent)
        return Wait(min(end, spent)) if now < end else self._go_on(now, late)

    def land(self, end: int, now: float) -> int:
        """Return the pass, `end` at most, in which to go on after a `Jump`: one that the neighbours have not begun.

        What they have done since the decision is added once more, for what they do before this node begins; but no
        more than nodes twice as fast as this one could, because a liar may have claimed less before. Those who are not
        where most are stay given up.
        """
        there, here = most(self.standings.values(), self.exchange, self._pace, now), self.exchange // self.exchanges
        reached, (followed, since) = there // self.exchanges, self._followed
        moved = max(0, reached - followed // self.exchanges)
        could = 1 + 2 * self._pace.within(now - since) // self.exchanges if self._pace.passes else moved
        ahead = min(moved, could) + MARGIN
        for standing in self.standings.values():
            near = standing.state == "up" and standing.position >= there - self._pace.span
            standing.misses = 0 if near else MISSES
        target = min(end, reached + ahead if reached > here else here + 1)
        self._pace.spend(there - self.exchange)
        self.begin(target * self.exchanges, now)
        return target

    def _check(self, position: int) -> None:
        """Raise `Refused` if no node of the run can be at `position`."""
        if not 0 <= position <= self.end:
            raise Refused("beyond-end")

    def _go_on(self, now: float, blamed: Collection[Standing] = (), *, overdue: bool = False) -> GoOn:
        missing = tuple(self._waiting.missing)
        if (blamed or now - self._waiting.since > self._pace.brief) and not self._pace.lapse(self._waiting.since, now):
            self._waiting.blame(blamed, self._source, self._pace, now)
        self._pace.grace = 0.0
        sources = {each.name: each for each in map(self._source, missing)}
        for standing in sources.values():
            standing.misses += 1
        given_up = tuple(name for name, standing in sources.items() if standing.misses == MISSES)
        self._enter(self.exchange + 1, now)
        if self.exchange % self.exchanges == 0:
            self._pace.ends_pass(now)
        return GoOn(missing, given_up, tuple(each.name for each in blamed) if overdue else ())

    def _enter(self, exchange: int, now: float) -> None:
        self.exchange = exchange
        self._pace.entered = now
        self._arrived = {number: edges for number, edges in self._arrived.items() if number >= exchange}

    def _source(self, edge: Edge) -> Standing:
        return self._sources[edge[0]]
