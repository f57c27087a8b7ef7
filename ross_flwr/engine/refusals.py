"""Counts what is refused, and logs it without letting anybody flood the log. Every transport uses it."""

from collections import Counter
from collections.abc import Callable
from logging import WARNING, Logger
from time import monotonic

from ross_flwr.config import one_line

__all__ = ["PAUSE", "Refusals", "Sparing"]

PAUSE = 60.0
"""Seconds between two lines on the same subject."""

LONGEST = 300
"""The most characters of a line: others may have written a part of it."""

MEANINGS = {
    "dtype": "its tensors have other types than this step sends",
    "names": "its tensors have other names than this step sends",
    "no-edge": "they are not neighbours",
    "not-finite": "it holds NaN or infinity, as a model that has diverged does",
    "not-hosted": "that agent is not on this node",
    "other-run": "it belongs to another run",
    "other-step": "it belongs to another step, so it came too late or too early",
    "out-of-step": "it builds on a vector that was lost or came while the agent was away, so the whole one comes next",
    "shape": "its tensors have other shapes than this step sends",
}
"""What reasons mean, where the name does not say it all."""


class Sparing:
    """A log with at most one line on each subject in `PAUSE` seconds. A line says how many were left out before it.

    Parameters
    ----------
    logger : Logger
        Where lines go.
    clock : callable, optional
        The time in seconds.
    """

    def __init__(self, logger: Logger, clock: Callable[[], float] = monotonic) -> None:
        self._logger = logger
        self._clock = clock
        self._quiet_until: dict[str, float] = {}
        self._left_out: Counter[str] = Counter()

    def log(self, level: int, subject: str, text: str, count: int = 1) -> None:
        """Write a line on a subject, unless there was one in the last `PAUSE` seconds.

        Parameters
        ----------
        level : int
            The level of the line, as in `logging`.
        subject : str
            What it is about; one of a few.
        text : str
            The line. It may hold what others wrote.
        count : int (default: 1)
            How many events it stands for.
        """
        now = self._clock()
        if now < self._quiet_until.get(subject, now):
            self._left_out[subject] += count
            return
        self._quiet_until[subject] = now + PAUSE
        before = self._left_out.pop(subject, 0)
        more = f" ({before} more since the last such line)" if before else ""
        self._logger.log(level, "%s%s", one_line(text[:LONGEST]), more)


class Refusals:
    """Messages and replies that were refused or lost: counted by reason, and logged sparingly.

    Parameters
    ----------
    logger : Logger
        Where lines go.
    clock : callable, optional
        The time in seconds.

    Attributes
    ----------
    counts : Counter
        By reason.

    Examples
    --------
    >>> from logging import getLogger
    >>> refusals = Refusals(getLogger("example"))
    >>> for _ in range(1000):
    ...     refusals.add("stranger", "refused a message from 10.0.0.9")  # writes one line
    >>> refusals.counts
    Counter({'stranger': 1000})
    """

    def __init__(self, logger: Logger, clock: Callable[[], float] = monotonic) -> None:
        self.counts: Counter[str] = Counter()
        self._log = Sparing(logger, clock)

    def add(self, reason: str, text: str = "", count: int = 1) -> None:
        """Count refusals for one of a few reasons; log `text`, if there is one, with the reason."""
        self.counts[reason] += count
        if text:
            meaning = f", {MEANINGS[reason]}" if reason in MEANINGS else ""
            self._log.log(WARNING, reason, f"{text[: LONGEST - 100]}: {reason}{meaning}", count)
