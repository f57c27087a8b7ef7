"""What an agent asks an engine to compute."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from math import inf, isinf
from typing import Any, Literal, TypeAlias

from numpy.random import Generator
from torch import Tensor

from ross_flwr.learning.clipping import clipped_mean
from ross_flwr.learning.examples import Batch
from ross_flwr.learning.objective import ModuleObjective, Objective, Performance
from ross_flwr.learning.rules.stacks import weighed
from ross_flwr.learning.streams import seeded

__all__ = [
    "Average",
    "Compute",
    "Gradient",
    "Gradients",
    "Of",
    "Part",
    "Request",
    "Test",
    "Utilities",
    "compute",
    "cut",
]

Of: TypeAlias = Literal["own", "cross", "exact"]
"""Whose model a gradient is of: the agent's own, or a neighbour's that asked for a cross-gradient.

``"exact"`` is the agent's own too; methods that say so (`Algorithm.exposed`) have it without a private agent's noise.
"""

Part: TypeAlias = slice | None
"""Which entries of a gradient are wanted; None for all."""


@dataclass(slots=True, eq=False)  # not frozen: one is made for every gradient, and a frozen one takes thrice as long
class Gradient:
    """A request for the gradient of an objective at `vector` on `batch`.

    Attributes
    ----------
    objective : Objective
        The agent's loss.
    vector : Tensor
        The model, shape [P].
    batch : Batch
        The mini-batch.
    stream : callable
        Returns the agent's random stream for a purpose.
    number : int
        The number of the mini-batch in the agent's `Batches`.
    of : {"own", "cross", "exact"}
        Whose model it is.
    clip : float
        C, to which the gradient of every example is clipped before the mean, in the L2 norm; infinity for no clipping.
    part : slice, optional
        The entries of the gradient that are wanted. An answer may have all of them.
    """

    objective: Objective
    vector: Tensor
    batch: Batch
    stream: Callable[[str], Generator]
    number: int
    of: Of = "own"
    clip: float = inf
    part: Part = None

    @property
    def seed(self) -> int:
        """The seed of what the model draws, as dropout does."""
        return int(self.stream("noise").integers(2**62))

    def answer(self) -> tuple[Tensor, Tensor | None]:
        """Return the gradient, shape [P] or the part, and by how much the batch moves the float buffers, if it does.

        Clipping keeps the buffers as they are: how an example moves them is not bounded.
        """
        if not isinf(self.clip):
            return clipped_mean(self.objective, self.vector, self.batch, self.clip, noise=self.seed), None
        draws = not isinstance(self.objective, ModuleObjective) or self.objective.draws
        with seeded(self.seed, self.vector.device) if draws else nullcontext():
            if self.part is None:  # an app's own objective need not know parts
                return self.objective.gradient(self.vector, self.batch), self.objective.buffer_shift()
            return self.objective.gradient(self.vector, self.batch, part=self.part), self.objective.buffer_shift()


@dataclass(slots=True, eq=False)
class Gradients:
    """A request for the gradients of an objective at `model` on each of some `batches` of Q_i, without dropout."""

    objective: Objective
    model: Tensor
    batches: Sequence[Batch]

    def answer(self) -> list[Tensor]:
        """Return the gradients, shape [P] each."""
        return [self.objective.gradient(self.model, batch, training=False) for batch in self.batches]


@dataclass(slots=True, eq=False)
class Utilities:
    """A request for the utility, of some `kind`, of each of the `models` on `batch`, examples of the validation set."""

    objective: Objective
    models: Iterable[Tensor]
    kind: str
    batch: Batch

    def answer(self) -> list[float]:
        """Return a number for each model."""
        if isinstance(self.objective, ModuleObjective):
            return self.objective.utilities(self.models, self.kind, self.batch)
        return [self.objective.utility(model, self.kind, self.batch) for model in self.models]


@dataclass(slots=True, eq=False)
class Average:
    """A request for (1 − Σ_j c_j) x_i + Σ_j c_j x_j, a new vector; x_i is `own`, and c_j are the `weights`."""

    own: Tensor
    others: Sequence[Tensor]
    weights: Sequence[float]

    def answer(self) -> Tensor:
        """Return it."""
        return weighed(self.own, self.others, self.weights)


@dataclass(slots=True, eq=False)
class Test:
    """A request for the loss and accuracy of `vector` on the test set."""

    __test__ = False  # for pytest

    objective: Objective
    vector: Tensor

    def answer(self) -> Performance:
        """Return them."""
        return self.objective.test(self.vector)


Request: TypeAlias = Gradient | Gradients | Utilities | Average | Test

Compute: TypeAlias = Callable[[Request], Any]
"""Answers a request. An engine that gives its agents another one sees all requests of a step at once."""


def compute(request: Request) -> Any:
    """Answer a request at once."""
    return request.answer()


def cut(gradient: Tensor, part: Part) -> Tensor:
    """Return the part of a gradient, given that or the whole, shape [P]; the whole without a part."""
    return gradient if part is None or len(gradient) == part.stop - part.start else gradient[part]
