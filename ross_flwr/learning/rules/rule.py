"""What a rule is, what it may use, and the names of the rules."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import ClassVar, TypeVar, dataclass_transform

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from ross_flwr.config import ConfigError, declare
from ross_flwr.learning import options
from ross_flwr.learning.rules.stacks import weighed

__all__ = ["RULES", "Bounded", "Rule", "Stacked", "View", "Weighing", "register_rule", "require_feasible"]

R = TypeVar("R", bound="type[Rule]")


def _no_loss(vector: Tensor, data: str) -> float:
    raise ValueError("this rule judges models by their loss: give View a loss")


def _unbounded() -> float:
    return inf


def _no_gradient(vector: Tensor) -> Tensor:
    raise ValueError("this rule judges models by a gradient on the validation set: give View a gradient")


@dataclass(slots=True, kw_only=True)  # not frozen: one is made for every mix, and a frozen one takes twice as long
class View:
    """What a rule may know besides the vectors. A rule must not change any of it.

    Attributes
    ----------
    weights : mapping of int to float
        The mixing weight w_ij of every neighbour that was heard. The agent's own weight is the rest of 1, including
        the weights of missing neighbours.
    progress : float (default: 0)
        The share of the run that is over, from 0 to 1.
    loss : callable
        From a model, shape [P], and ``"batch"`` or ``"validation"`` to the agent's own loss there.
    gradient : callable
        From a model to the gradient there of the agent's loss on Q_i, both of shape [P].
    step : callable
        Returns how far the agent's own model has come in this pass, and of a momentum its length; infinity where
        that is not known.
    untrained : callable
        Returns the loss on Q_i of the model that the agent began with; infinity where that is not known.
    generator : callable
        Returns the random stream of this pass, each time from its beginning, so that all vectors an agent mixes in a
        pass get the same draws.
    sizes : sequence of int
        The lengths of the model's tensors, in order; float buffers come after them.
    models : bool (default: True)
        Whether the vectors are models. Momenta are sums of gradients.
    given : dict of int to float
        The weights that a rule gave to the models of this step, for the momenta that follow.

    Examples
    --------
    >>> from ross_flwr.learning.rules import Mean
    >>> view = View(weights={2: 0.5})
    >>> Mean()(torch.tensor([0.0]), {2: torch.tensor([4.0])}, view)
    tensor([2.])
    """

    weights: Mapping[int, float]
    progress: float = 0.0
    loss: Callable[[Tensor, str], float] = _no_loss
    gradient: Callable[[Tensor], Tensor] = _no_gradient
    step: Callable[[], float] = _unbounded
    untrained: Callable[[], float] = _unbounded
    generator: Callable[[], Generator] = np.random.default_rng
    sizes: Sequence[int] = ()
    models: bool = True
    given: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Rule(ABC):
    """Combines a neighbourhood's vectors, some of which may lie, into one.

    A subclass is a frozen dataclass of its parameters, each declared with `option`. `register_rule` gives it a name,
    and its parameters become configuration keys.

    Examples
    --------
    >>> class Keep(Rule):
    ...     def __call__(self, own, others, view):
    ...         return own.clone()
    >>> Keep()(torch.tensor([1.0]), {2: torch.tensor([900.0])}, View(weights={2: 0.5}))
    tensor([1.])
    """

    name: ClassVar[str] = ""

    @abstractmethod
    def __call__(self, own: Tensor, others: Mapping[int, Tensor], view: View) -> Tensor:
        """Return the vector, a new tensor of shape [P].

        Parameters
        ----------
        own : Tensor
            The agent's own vector x_i, shape [P], the only one that certainly does not lie.
        others : mapping of int to Tensor
            The vectors x_j of the neighbours that were heard, perhaps none, by neighbour. They are finite. Other
            agents share them, so a rule must not change them.
        view : View
            What else the rule may know.
        """

    @property
    def needs_validation(self) -> bool:
        """Whether the rule asks for losses on the validation set Q_i."""
        return False

    def obstacle(self, m: int) -> str:
        """Return in one clause why the rule cannot work on `m` vectors, the own included; empty if it can."""
        return ""


@dataclass(frozen=True, kw_only=True)
class Bounded(Rule):
    """A rule that assumes at most f liars, for which it needs a f + b vectors.

    Neighbours may be missing in a run. Of fewer than 2f + 1 vectors, the f liars are as many as the others: nothing
    tells them apart, and the agent keeps its own.

    Examples
    --------
    >>> from ross_flwr.learning.rules import Krum
    >>> Krum(byzantine=1).obstacle(5), Krum(byzantine=2).obstacle(5)
    ('', 'krum needs at least 2f + 3 = 7 vectors and has 5')
    """

    byzantine: int = options.byzantine()

    least: ClassVar[tuple[int, int]] = (2, 1)
    """(a, b): the rule needs a f + b vectors, the own included."""

    def obstacle(self, m: int) -> str:
        """Compare `m` with a f + b."""
        a, b = self.least
        needed = a * self.byzantine + b
        if m >= needed:
            return ""
        formula = f"{a if a > 1 else ''}f + {b}"
        return f"{self.name or type(self).__name__} needs at least {formula} = {needed} vectors and has {m}"

    def outvotes(self, m: int) -> bool:
        """Return whether f liars are the fewer among `m` vectors."""
        return m > 2 * self.byzantine

    def faced(self, m: int) -> int:
        """Return the largest f' ≤ f for which `m` vectors suffice, or 0."""
        a, b = self.least
        return max(0, min(self.byzantine, (m - b) // a))


@dataclass(frozen=True, kw_only=True)
class Stacked(Bounded):
    """A rule that treats all vectors alike, the own included, and ignores W.

    Examples
    --------
    >>> class Smallest(Stacked):
    ...     def aggregate(self, vectors):
    ...         return vectors.min(0).values
    >>> others = {2: torch.tensor([2.0]), 3: torch.tensor([900.0])}
    >>> Smallest()(torch.tensor([3.0]), others, View(weights={2: 0.3, 3: 0.3}))
    tensor([2.])
    """

    def __call__(self, own: Tensor, others: Mapping[int, Tensor], view: View) -> Tensor:
        """Aggregate the stack. An agent whose own vector is not finite has diverged, and stays diverged."""
        if not others or not self.outvotes(len(others) + 1) or not own.isfinite().all():
            return own.clone()
        return self.aggregate(torch.stack([own, *others.values()]))

    @abstractmethod
    def aggregate(self, vectors: Tensor) -> Tensor:
        """Return the aggregate, a new tensor of shape [P], of `vectors`, shape [m, P], the own one first."""


@dataclass(frozen=True, kw_only=True)
class Weighing(Rule):
    """A rule that gives every neighbour a weight: (1 − Σ_j c_j) x_i + Σ_j c_j x_j.

    Examples
    --------
    >>> class Half(Weighing):
    ...     def weights(self, own, others, view):
    ...         return {j: view.weights[j] / 2 for j in others}
    >>> Half()(torch.tensor([0.0]), {2: torch.tensor([4.0])}, View(weights={2: 0.5}))
    tensor([1.])
    """

    def __call__(self, own: Tensor, others: Mapping[int, Tensor], view: View) -> Tensor:
        """Weigh the neighbours, and mix."""
        weights = self.weights(own, others, view)
        kept = {j: weights[j] for j in others if weights.get(j)}
        return weighed(own, [others[j] for j in kept], list(kept.values()))

    @abstractmethod
    def weights(self, own: Tensor, others: Mapping[int, Tensor], view: View) -> Mapping[int, float]:
        """Return c_j by neighbour; refused neighbours are left out."""


RULES: dict[str, type[Rule]] = {}
"""Rules by the name that the key `aggregator` takes."""


@dataclass_transform(kw_only_default=True, frozen_default=True)
def register_rule(name: str) -> Callable[[R], R]:
    """Class decorator: make a `Rule` known as `name`, a value of the key `aggregator`, with its options as keys.

    Examples
    --------
    >>> @register_rule("keep")
    ... class Keep(Rule):
    ...     def __call__(self, own, others, view):
    ...         return own.clone()
    >>> from ross_flwr import resolve
    >>> resolve({"aggregator": "keep"}).values["aggregator"]
    'keep'
    """

    def decorate(cls: R) -> R:
        dataclass(frozen=True, kw_only=True)(cls)
        cls.name = name
        declare(f"aggregator={name}", cls)
        RULES[name] = cls
        return cls

    return decorate


def require_feasible(rule: Rule, sizes: Collection[int]) -> None:
    """Refuse `rule` if a neighbourhood is too small for it.

    Parameters
    ----------
    rule : Rule
        The rule.
    sizes : collection of int
        The most vectors that each agent can have, its own included, from agent 0 on.

    Raises
    ------
    ConfigError
        Naming the first such agent, and the largest `byzantine` that every agent can face, if there is one.

    Examples
    --------
    >>> from ross_flwr.learning.rules import Krum
    >>> require_feasible(Krum(byzantine=1), [5, 5, 6])
    >>> require_feasible(Krum(byzantine=2), [5, 7])  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    ross_flwr.config.keys.ConfigError: byzantine = 2 is too many for rule 'krum' at agent 0, which has 4 neighbours: ...
    """
    for agent, size in enumerate(sizes):
        problem = rule.obstacle(size)
        if problem:
            f = getattr(rule, "byzantine", 0)
            easier = (replace(rule, **{"byzantine": lower}) for lower in range(f - 1, -1, -1))
            possible = next((each for each in easier if not any(map(each.obstacle, set(sizes)))), None)
            remedy = f"byzantine = {getattr(possible, 'byzantine', 0)} at most, " if possible else ""
            raise ConfigError(
                f"byzantine = {f} is too many for rule '{rule.name}' at agent {agent}, which has {size - 1} "
                f"neighbours: {problem}; use {remedy}another rule or a denser topology"
            )
