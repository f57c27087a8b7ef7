"""How one neighbour stands with a node: whether it answers, where it is, and how long the node still waits for it."""

from dataclasses import dataclass, field

__all__ = ["BUDGET", "GREETING", "MISSES", "REGAINED", "Budget", "Standing"]

MISSES = 3
"""A neighbour that misses this many exchanges in a row is given up."""

GREETING = 5.0
"""Seconds that the answer to a greeting may take, and the longest pause between greetings to a silent neighbour."""

FIRST_PAUSE = 0.05
"""Seconds before a silent neighbour is greeted again; every pause is twice as long as the one before."""

BUDGET = 2 * MISSES
"""A node waits for a neighbour for this many times its patience in all, and then only for what the budget regains."""

REGAINED = 0.1
"""Seconds that the budget of a neighbour regains per second."""


@dataclass
class Budget:
    """The time for which a node still waits for one neighbour, whatever the neighbour says about itself.

    In T seconds, ``full`` seconds and a tenth of T can be spent.

    Attributes
    ----------
    full : float
        The most seconds that it holds, and those that it holds at first.
    now : float
        The time.
    """

    full: float
    now: float
    _left: float = field(init=False)

    def __post_init__(self) -> None:
        self._left = self.full

    def left(self, now: float) -> float:
        """Return how many seconds are left."""
        return max(self._left, min(self.full, self._left + REGAINED * max(0.0, now - self.now)))

    def spend(self, seconds: float, now: float) -> None:
        """Take some seconds out."""
        self._left, self.now = max(0.0, self.left(now) - seconds), max(now, self.now)

    def cut(self, seconds: float) -> None:
        """Make sure that no more seconds are left: the others were spent before."""
        self._left = min(self._left, seconds)

    def grant(self, seconds: float, now: float) -> None:
        """Make sure that so many seconds are left, even if they are more than `full`."""
        self._left, self.now = max(self.left(now), seconds), max(now, self.now)


@dataclass
class Standing:
    """How one neighbouring node stands."""

    name: str
    since: float  # when it entered its state
    budget: Budget
    state: str = "new"  # until it answers for the first time, then "up" or "lost"
    misses: int = 0  # exchanges in a row in which it was missing; below 0 if it may miss more than others
    position: int = 0  # the exchange that it awaits, as far as it has said or shown so
    shown: int = 0  # the latest exchange of which it has begun to send something
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

    def breaks(self, now: float) -> None:
        """Note that the connection broke."""
        if now - self.since > GREETING:
            self.pause = FIRST_PAUSE
        self.lose(now)
        self.postpone(now)

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
