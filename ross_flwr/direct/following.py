"""Whom a node follows, and whom it spares, when they or it are far from each other.

A node follows those who are far ahead and more than half of the neighbours that it can reach, if those are at least
two; but no farther than `Pace.reachable`. A node that was away, and knows it, also follows half of them, or the only
one, but only to where they send from, and no farther than it could be itself, at its fastest of late, had it not been
away. So a single liar moves nobody who was not away. A node that has only one neighbour at all follows it in the same
way, for the time since they were last in step.

A node that most of its neighbours are far behind has run ahead alone. It waits for each of them for as long as it has
been out of step with it. It also waits for a single one that is far behind, if that one, at its pace and `slowest`, can
come near before its budget is spent: so the parts of a ring that was cut join again.
"""

from collections.abc import Collection
from statistics import median_high, median_low

from ross_flwr.direct.pace import Pace
from ross_flwr.direct.standings import MISSES, Standing

__all__ = ["most", "spare"]


def most(standings: Collection[Standing], here: int, pace: Pace, now: float) -> int:
    """Return the exchange in which to believe the neighbours; that is `here`, or nearby, if there is none to follow."""
    there = [standing for standing in standings if standing.state != "lost"]
    if not there:
        return here
    far = min(median_low(each.position for each in there), pace.reachable(now))
    if len(there) > 1 and far > here + pace.span:
        return far
    sent = [min(each.position, each.shown) for each in there]
    if len(standings) == 1:
        return min(sent[0], _could_be(there[0], pace, now))
    away = 0 if any(each.state == "new" for each in there) else pace.away(now)
    return median_high(min(position, here + away) for position in sent)


def spare(standing: Standing, standings: Collection[Standing], here: int, pace: Pace, now: float) -> None:
    """Wait for a neighbour that is far behind if most are, or if it can come near before its budget is spent."""
    behind = here - standing.position
    if standing.misses < MISSES or behind <= pace.span:
        return
    up = [each for each in standings if each.state == "up"]
    alone = 2 * sum(here - each.position > pace.span for each in up) > len(up)
    exchanges = int((now - standing.met[1]) / (2 * pace.patience))  # each of them may take twice the patience
    if alone and exchanges:
        standing.misses, standing.met = MISSES - exchanges, (here, now)
        standing.budget.grant(2 * pace.patience * exchanges, now)
    elif standing.state == "up" and behind <= pace.within((left := standing.budget.left(now)) / pace.slowest):
        standing.misses = MISSES - int(left / (2 * pace.patience))


def _could_be(standing: Standing, pace: Pace, now: float) -> int:
    """Return where this node could be, had it lost no time since it was in step with a neighbour."""
    exchange, when = standing.met
    left = now - when > pace.patience or standing.since > when  # honest neighbours wait, while they are connected
    return exchange + pace.within(now - when) if left else exchange
