"""What a method is made of: steps, and the messages between them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias, TypeVar, dataclass_transform

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ross_flwr.config import ConfigError, declare, option
from ross_flwr.learning.agent import Agent

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "Broadcast",
    "Inbox",
    "Message",
    "Momentum",
    "Outbox",
    "broadcast",
    "register",
    "require_symmetric",
    "step",
]

Message: TypeAlias = dict[str, Tensor]
"""Named tensors from one agent to another. Neither side changes them after they are sent."""


class Inbox(dict[int, Message]):
    """The messages that arrived from the step before, by source in ascending order.

    What an agent sent to itself is among them. A neighbour whose message was late, lost or bad is not.
    """

    def gather(self, name: str) -> dict[int, Tensor]:
        """Return the tensor called `name` of every message, by source."""
        return {source: message[name] for source, message in self.items()}


@dataclass(frozen=True, slots=True)
class Broadcast:
    """The same message to the whole closed neighbourhood, the agent itself included."""

    message: Message


Outbox: TypeAlias = Broadcast | Mapping[int, Message]
"""What a step sends: one message to everybody, or one by destination. Empty after a round's last step."""


def broadcast(**tensors: Tensor) -> Broadcast:
    """Send the same named tensors to every neighbour, and to oneself for the next step."""
    return Broadcast(tensors)


StepFunction: TypeAlias = Callable[[Any, Agent, Inbox], Outbox | None]
F = TypeVar("F", bound=StepFunction)
A = TypeVar("A", bound="type[Algorithm]")


def step(function: F) -> F:
    """Mark a method of an `Algorithm` as a step. Their order is the order of the steps, inherited ones first."""
    function.__is_step__ = True  # type: ignore[attr-defined]
    return function


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """A decentralized method: a list of steps, each a message handler of one agent.

    A subclass is a frozen dataclass of its hyper-parameters (made by `register`), each declared with `option`, and has
    one method per step, decorated with `@step`. A method with s steps costs s−1 exchanges a round.
    """

    learning_rate: float = option(0.1, "step size η", minimum=0.0)

    name: ClassVar[str]
    family: ClassVar[str] = ""
    """What kind of method it is, for the list that people read."""
    needs: ClassVar[tuple[str, ...]] = ()
    """What the method asks of its graph, in words."""
    pools_data: ClassVar[bool] = False
    """Whether every agent holds the union of the honest agents' data: for references, which exchange nothing."""
    fixed_graph: ClassVar[bool] = False
    """Whether the graph has to stay the same over the rounds."""
    invariant: ClassVar[str] = ""
    """What holds of all agents together as long as they mix by W and by no other rule; empty for nothing."""
    steps: ClassVar[tuple[str, ...]] = ()
    """The steps in their order. A method that repeats one sets the attribute anew on the instance."""

    @property
    def needs_validation(self) -> bool:
        """Whether agents are asked for utilities, and so need a validation set Q_i."""
        return False

    def check(self, mixing: NDArray[np.float64]) -> None:
        """Raise `ConfigError` when the method cannot run with mixing matrix W, shape [N, N].

        Most methods average by the rows of W, which have to sum to 1.
        """
        sums = mixing.sum(axis=1)
        if not np.allclose(sums, 1):
            agent = int(np.abs(sums - 1).argmax())
            raise ConfigError(
                f"{self.name} averages with weights that sum to 1, and those of agent {agent} sum to "
                f"{sums[agent]:.3g}: use algorithm = 'sgp', or mixing = 'metropolis' on an undirected graph"
            )

    def start(self, agent: Agent) -> None:
        """Set up the agent's state; ``agent["model"]`` is there already."""

    def run_step(self, name: str, agent: Agent, inbox: Inbox) -> Outbox:
        """Run the step called `name`."""
        return getattr(self, name)(agent, inbox) or {}


@dataclass(frozen=True, kw_only=True)
class Momentum(Algorithm):
    """An algorithm whose agents carry a momentum, ``agent["momentum"]`` of shape [P], zero at first."""

    momentum: float = option(0.9, "momentum coefficient α", minimum=0.0, maximum=0.9999)

    def start(self, agent: Agent) -> None:
        """Begin with no momentum."""
        super().start(agent)
        agent["momentum"] = agent["model"].new_zeros(agent["model"].shape)


ALGORITHMS: dict[str, type[Algorithm]] = {}


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(option,))
def register(name: str) -> Callable[[A], A]:
    """Class decorator: make an `Algorithm` known as `name`, with its options as configuration keys."""

    def decorate(cls: A) -> A:
        dataclass(frozen=True, kw_only=True)(cls)
        cls.name = name
        marked = [
            key for base in reversed(cls.__mro__) for key, part in vars(base).items() if hasattr(part, "__is_step__")
        ]
        cls.steps = tuple(dict.fromkeys(marked))
        if not cls.steps:
            raise ConfigError(f"algorithm '{name}' has no steps: decorate its message handlers with @step")
        declare(name, cls)
        ALGORITHMS[name] = cls
        return cls

    return decorate


def require_symmetric(name: str, mixing: NDArray[np.float64]) -> None:
    """Refuse mixing matrix W, shape [N, N], for the method called `name` unless it is symmetric."""
    if not np.allclose(mixing, mixing.T):
        raise ConfigError(
            f"algorithm = '{name}' takes a symmetric mixing matrix, and this one is not: use an undirected topology"
        )
