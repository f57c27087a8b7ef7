"""What an attack is, and what an attacker knows when it lies."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from numpy.random import Generator
from torch import Tensor

from ross_flwr.learning import rules
from ross_flwr.learning.objective import Objective
from ross_flwr.learning.streams import seeded, stream

__all__ = ["Attack", "View", "normal", "unit"]


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """What an attacker knows when it lies to one victim about one vector. Costly values are computed when asked for.

    Parameters
    ----------
    own : Tensor
        What the attacker would send if it were honest, shape [P].
    known : mapping of int to Tensor
        The honest vectors that, the attacker assumes, its victim hears, including the victim's own, by source.
    receiver : int
        The victim, i.
    row : mapping of int to float
        The victim's mixing weights w_ij, as far as the attacker knows them, by j in the closed neighbourhood.
    attackers : collection of int
        All attackers.
    num_agents : int
        N.
    position : int
        The victim's position among the receivers of the attacker, counted from 0.
    pass_number : int
        t, counted from 0.
    seed, name : int, str
        The run's seed, and the name of the vector in its message.
    draws : callable
        From a purpose to the stream of this attacker, victim, step, vector and pass.
    notes : dict[str, Tensor]
        What the attack remembers from pass to pass about this victim, step and vector. It may write here.
    model : Tensor, optional
        The victim's model, shape [P], if the attacker has heard it.
    objective : Objective
        The attacker's own loss, and its sample of the validation distribution.
    rule : Rule
        The rule by which, the attacker expects, its victim combines the vectors that it hears.
    learning_rate : float
        η.
    progress : float (default: 0)
        The part of the run that is over.

    Examples
    --------
    >>> from ross_flwr import tasks
    >>> view = View(
    ...     own=torch.tensor([1.0, 2.0]),
    ...     known={0: torch.tensor([1.0, 0.0]), 1: torch.tensor([3.0, 4.0])},
    ...     receiver=0,
    ...     row={0: 0.4, 1: 0.3, 2: 0.3},
    ...     attackers={2},
    ...     num_agents=3,
    ...     position=0,
    ...     pass_number=0,
    ...     seed=0,
    ...     name="model",
    ...     draws=lambda purpose: stream(0, purpose),
    ...     notes={},
    ...     model=None,
    ...     objective=tasks.images("digits", hidden=2)(3, 0).objective(2),
    ...     rule=rules.Mean(),
    ...     learning_rate=0.1,
    ... )
    >>> view.mean, view.neighbors, view.liars
    (tensor([2., 2.]), 2, 1)
    """

    own: Tensor
    known: Mapping[int, Tensor]
    receiver: int
    row: Mapping[int, float]
    attackers: Collection[int]
    num_agents: int
    position: int
    pass_number: int
    seed: int
    name: str
    draws: Callable[[str], Generator]
    notes: dict[str, Tensor]
    model: Tensor | None
    objective: Objective
    rule: rules.Rule
    learning_rate: float
    progress: float = 0.0

    @cached_property
    def vectors(self) -> Tensor:
        """The honest vectors x_1 … x_m, shape [m, P]."""
        return torch.stack(list(self.known.values())) if self.known else self.own.new_empty(0, len(self.own))

    @cached_property
    def mean(self) -> Tensor:
        """μ, the mean of the honest vectors, shape [P]."""
        return self.vectors.mean(0)

    @cached_property
    def deviation(self) -> Tensor:
        """σ, the unbiased standard deviation of each coordinate, shape [P]; zero for a single vector."""
        return self.vectors.std(0, correction=1 if len(self.vectors) > 1 else 0)

    @property
    def victim(self) -> Tensor:
        """x_i, the victim's own vector, shape [P]; the mean of the others if the attacker has not heard it."""
        return self.known.get(self.receiver, self.mean)

    @cached_property
    def weights(self) -> Tensor:
        """The victim's weights w_ij of the honest vectors, float64 of shape [m]."""
        return torch.tensor([self.row[j] for j in self.known], dtype=torch.float64)

    @cached_property
    def liar_weights(self) -> Tensor:
        """The victim's weights of the attackers in its neighbourhood, float64."""
        return torch.tensor([self.row[b] for b in self.row if b in self.attackers], dtype=torch.float64)

    @property
    def liars(self) -> int:
        """m_i, the number of the victim's neighbours that attack."""
        return len(self.liar_weights)

    @property
    def neighbors(self) -> int:
        """n_i, the number of the victim's neighbours."""
        return len(self.row) - 1

    @cached_property
    def generator(self) -> Generator:
        """Random numbers of the attacker's own."""
        return self.draws("attack")

    @cached_property
    def common(self) -> Generator:
        """Random numbers that all attackers draw alike, for all victims and in every pass."""
        return stream(self.seed, f"attack {self.name}")

    def defence(self, lie: Tensor) -> Tensor:
        """Return what the victim makes of the honest vectors if all its liars send `lie`, shape [P]."""
        others = {j: lie if j in self.attackers else self.known.get(j) for j in self.row if j != self.receiver}
        heard = {j: vector for j, vector in others.items() if vector is not None}
        seen = rules.View(
            weights={j: self.row[j] for j in heard},
            progress=self.progress,
            loss=lambda vector, data: -self.utility(vector),
            gradient=self.gradient,
            generator=lambda: self.draws("defence"),
            sizes=self.objective.parameter_sizes,
        )
        return self.rule(self.victim, heard, seen)

    def utility(self, model: Tensor) -> float:
        """Return minus the loss of `model` on the attacker's validation set."""
        return self.objective.utility(model, "loss", self.objective.validation)

    def gradient(self, model: Tensor) -> Tensor:
        """Return the gradient of the loss on the attacker's validation set at `model`, shape [P]."""
        with seeded(int(self.draws("dropout").integers(2**62)), model.device):
            return self.objective.gradient(model, self.objective.validation)


@dataclass(frozen=True)
class Attack(ABC):
    """What an attacker sends instead of the truth.

    A subclass is a frozen dataclass. The key `attack-strength` sets its first field, if it has one, which is declared
    with `option`; the default is the published value.

    Examples
    --------
    >>> @dataclass(frozen=True)
    ... class Halve(Attack):
    ...     blind = True
    ...     def lie(self, view):
    ...         return view.own / 2

    ``ATTACKS["halve"] = Halve`` makes it known to configurations by that name.
    """

    blind: ClassVar[bool] = False
    """Whether the attack uses only the attacker's own vectors. Others tell the truth until they hear an honest one."""
    gradients_only: ClassVar[bool] = False
    """Whether the attack is about cross-gradients alone."""

    @abstractmethod
    def lie(self, view: View) -> Tensor:
        """Return what the victim receives instead of ``view.own``, a new tensor of shape [P]."""


def normal(generator: Generator, like: Tensor) -> Tensor:
    """Return a vector drawn from N(0, I), shape [P]."""
    return torch.from_numpy(generator.standard_normal(len(like))).to(like)


def unit(vector: Tensor) -> Tensor:
    """Return the vector at length 1; zero stays zero."""
    scaled: Tensor = torch.nn.functional.normalize(vector, dim=0)
    return scaled
