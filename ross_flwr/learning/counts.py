"""What an agent has computed: how much of it, and how long it took."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter_ns

__all__ = ["Counts"]

THIRDS = {"gradients": 3, "utilities": 1}
"""Thirds of an example pass for each example: forward and backward are a whole one, a forward alone is a third."""


class Counts(Counter[str]):
    """Everything that an agent has computed to learn since its last report. Tests are not in it.

    ``"gradients"`` and ``"utilities"`` (losses and scores are utilities), the ``"thirds"`` of example passes in them,
    and the nanoseconds that they took, ``"gradients-ns"`` and ``"utilities-ns"``. The host adds ``"exchange-ns"``.

    Examples
    --------
    >>> counts = Counts()
    >>> with counts.timed("gradients", 64):
    ...     pass
    >>> counts.add("utilities", 8, 100)
    >>> counts.work == 64 + 8 * 100 / 3
    True
    """

    @contextmanager
    def timed(self, kind: str, examples: int) -> Iterator[None]:
        """Count what is computed inside as one gradient or utility, by `kind`, on `examples` examples, and time it."""
        began = perf_counter_ns()
        yield
        self.add(kind, 1, examples)
        self[f"{kind}-ns"] += perf_counter_ns() - began

    def add(self, kind: str, evaluations: int, examples: int) -> None:
        """Count gradients or utilities, by `kind`, each on `examples` examples."""
        self[kind] += evaluations
        self["thirds"] += THIRDS[kind] * evaluations * examples

    @property
    def work(self) -> float:
        """The example passes: one for each example run forward and backward, a third for each run forward alone."""
        return self["thirds"] / 3
