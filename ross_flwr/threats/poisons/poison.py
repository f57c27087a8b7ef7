"""What a poison is, and which gradients get it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ross_flwr.learning.agent import Agent, GradientTransform
from ross_flwr.learning.requests import Gradient, Of

__all__ = ["Poison", "Poisoning"]


@dataclass(frozen=True)
class Poison(ABC):
    """A link of the gradient chain that does harm.

    A subclass is a frozen dataclass. The key `attack-strength` sets its first field, if it has one, which is declared
    with `option`.
    """

    def check(self, agent: Agent) -> None:  # noqa: B027
        """Refuse an attacker whose data the poison does not suit.

        Raises
        ------
        ConfigError
            Before the run begins.
        """

    @abstractmethod
    def __call__(self, gradient: Tensor, agent: Agent, request: Gradient) -> Tensor:
        """Return what the poison makes of `gradient`, a new tensor of shape [P]."""


@dataclass(frozen=True)
class Poisoning:
    """A link of the gradient chain that applies another link to some gradients only.

    Parameters
    ----------
    poison : GradientTransform
        The other link.
    about : sequence of {"own", "cross"} (default: both)
        The gradients that are poisoned: the agent's own, those at its neighbours' models, or both.
    since : int (default: 0)
        The pass (counted from 0) in which it begins.
    """

    poison: GradientTransform
    about: Sequence[Of] = ("own", "cross")
    since: int = 0

    def __call__(self, gradient: Tensor, agent: Agent, request: Gradient) -> Tensor:
        """Return the poisoned gradient, shape [P], or the honest one before the attack begins and off its target."""
        if agent.pass_number < self.since or request.of not in self.about:
            return gradient
        return self.poison(gradient, agent, request)
