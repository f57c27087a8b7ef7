"""What a method is made of: steps, and the messages between them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, TypeAlias, TypeVar, dataclass_transform

import numpy as np
from numpy.typing import NDArray

from ross_flwr.algorithms import options
from ross_flwr.algorithms.messages import Form, Forms, Inbox, Outbox, vector
from ross_flwr.config import ConfigError, declare, option
from ross_flwr.learning.agent import Agent
from ross_flwr.learning.options import use_validation
from ross_flwr.learning.rules import Rule

__all__ = [
    "ALGORITHMS",
    "Algorithm",
    "Momentum",
    "Noise",
    "TrainingData",
    "register",
    "require_symmetric",
    "require_undirected",
    "step",
]

TrainingData: TypeAlias = Literal["own", "own and validation", "validation", "pooled"]
Noise: TypeAlias = Literal["independent", "pairwise", "joint"]
StepFunction: TypeAlias = Callable[[Any, Agent, Inbox], Outbox | None]
Declared: TypeAlias = Iterable[str] | Mapping[str, Form]
"""The tensors of a message: names of vectors of shape [P], or names and forms."""

Sends: TypeAlias = Declared | Callable[[Any, Agent], Declared]
F = TypeVar("F", bound=StepFunction)
A = TypeVar("A", bound="type[Algorithm]")


def step(*, sends: Sends = (), optional: bool = False) -> Callable[[F], F]:
    """Mark a method of an `Algorithm` as a step. Steps run in the order of their methods, inherited ones first.

    Parameters
    ----------
    sends : names, names with forms, or callable
        What each message holds. A name stands for a vector of shape [P], float32; any other tensor needs a `Form`. A
        callable computes either from the algorithm and the agent. Receivers drop every message that looks different.
    optional : bool (default: False)
        Whether the step may send some neighbours nothing. Otherwise a neighbour that gets nothing counts the agent as
        missing.

    Examples
    --------
    >>> import torch
    >>> from ross_flwr import Algorithm, Form, broadcast, step
    >>> class Counting(Algorithm):
    ...     @step(sends={"model": Form((2,)), "count": Form((1,), torch.int64)})
    ...     def share(self, agent, inbox):
    ...         return broadcast(model=agent["model"], count=torch.tensor([agent.pass_number]))
    """

    def mark(function: F) -> F:
        function.__sends__ = sends  # type: ignore[attr-defined]
        function.__optional__ = optional  # type: ignore[attr-defined]
        return function

    return mark


@dataclass(frozen=True, kw_only=True)
class Algorithm:
    """A decentralized method: a list of steps, each a message handler of one agent.

    A subclass is a frozen dataclass of its hyper-parameters, each declared with `option`; `register` makes it one. It
    has one method per step, decorated with `@step`. An algorithm with s steps costs s−1 exchanges per pass.

    Examples
    --------
    >>> from ross_flwr import DPSGD
    >>> method = DPSGD(learning_rate=0.2)
    >>> method.name, method.learning_rate, method.steps
    ('dpsgd', 0.2, ('share', 'mix'))
    """

    learning_rate: float = option(0.1, "step size η", minimum=0.0)
    use_validation: bool = use_validation()
    validation_batch: int = options.validation_batch(0)
    rule: Rule | None = None
    """How its agents mix; without it, as the run's `aggregator` says."""

    name: ClassVar[str]
    family: ClassVar[str] = ""
    """The kind of method, for `ross-flwr list`."""
    needs: ClassVar[tuple[str, ...]] = ()
    """What the method needs from its graph, in words."""
    trains_on: ClassVar[TrainingData] = "own"
    """What agents train on: ``"own"`` data, that and Q_i (``"own and validation"``), Q_i alone (``"validation"``), or
    the union of the honest agents' data (``"pooled"``). All but the first are for references."""
    fixed_graph: ClassVar[bool] = False
    """Whether the graph must stay the same in all rounds."""
    takes_rule: ClassVar[bool] = True
    """Whether agents combine vectors by the rule."""
    averages: ClassVar[bool] = True
    """Whether agents average the models that they hear, by weights that sum to 1; otherwise they add them up."""
    private: ClassVar[bool] = False
    """Whether training examples are protected unless the run says how; see the room `privacy`."""
    noise: ClassVar[Noise] = "independent"
    """Whether private agents draw noise of their own, or correlated noise from seeds that two or all agents share. With
    the latter, an agent takes one gradient of each mini-batch."""
    invariant: ClassVar[str] = ""
    """What stays true of all agents together as long as they mix by W and by no other rule; empty for nothing."""
    steps: ClassVar[tuple[str, ...]] = ()
    """The steps in their order. A method that repeats a step sets this attribute on the instance."""
    declared: ClassVar[dict[str, Any]] = {}
    """The steps as they were declared. An override that is no `step` itself sends what the one it replaces does."""

    def __init_subclass__(cls) -> None:
        """Find the steps, inherited ones first."""
        marked = (item for base in reversed(cls.__mro__) for item in vars(base).items())
        cls.declared = {name: part for name, part in marked if hasattr(part, "__sends__")}

    @property
    def needs_validation(self) -> bool:
        """Whether agents are asked for utilities, and so need a validation set Q_i."""
        return self.rule is not None and self.rule.needs_validation

    @property
    def takes_own_steps(self) -> bool:
        """Whether an app's own training can take the place of its local steps."""
        return False

    @property
    def exposed(self) -> str:
        """The switch that lets gradients out without noise, in words; empty for none."""
        return ""

    @property
    def takes_own_optimizer(self) -> bool:
        """Whether an app's own optimizer can take its local steps."""
        return hasattr(self, "optimizer")

    @property
    def undefended(self) -> "Algorithm":
        """The form of the method that attackers run, without what defends honest agents.

        Attackers mix by the plain mean whatever the rule, so a method whose only defence is a rule stays as it is. One
        that screens, weighs or bounds what it hears names a form that does not. It has steps of the same names, sends
        messages of the same form, and works on the state that the method itself began.
        """
        return self

    def check(self, mixing: NDArray[np.float64], total_passes: int) -> None:
        """Raise `ConfigError` when the method cannot run with mixing matrix W, shape [N, N], in this many passes.

        Most methods average by the rows of W, which have to sum to 1.
        """
        sums = mixing.sum(axis=1)
        if not np.allclose(sums, 1):
            agent = int(np.abs(sums - 1).argmax())
            raise ConfigError(
                f"{self.name} averages with weights that sum to 1, and those of agent {agent} sum to "
                f"{sums[agent]:.3g}: use algorithm = 'sgp', or mixing = 'metropolis' on an undirected graph"
            )

    def batches(self, pass_number: int, degree: int) -> list[int]:
        """Return the number of the mini-batch of each gradient that an agent with `degree` neighbours takes in a pass.

        Noise is fitted to it: an agent may take fewer, not more.
        """
        return [pass_number] * (1 + degree if "cross_gradients" in self.steps else 1)

    def start(self, agent: Agent) -> None:
        """Set up the agent's state; ``agent["model"]`` is already set."""

    def run_step(self, name: str, agent: Agent, inbox: Inbox) -> Outbox:
        """Run the step called `name`; an attacker runs that of the undefended form."""
        form = self.undefended if agent.undefended else self
        return getattr(form, name)(agent, inbox) or {}

    def forms(self, name: str, agent: Agent) -> Forms:
        """Return what the messages of the step called `name` hold, for agents with the model of `agent`."""
        sends: Sends = self.declared[name].__sends__
        declared = sends(self, agent) if callable(sends) else sends
        return declared if isinstance(declared, Mapping) else dict.fromkeys(declared, vector(agent))

    def optional(self, name: str) -> bool:
        """Return whether the step called `name` may send some neighbours nothing."""
        return bool(self.declared[name].__optional__)


@dataclass(frozen=True, kw_only=True)
class Momentum(Algorithm):
    """An algorithm whose agents carry a momentum, ``agent["momentum"]`` of shape [P], zero at first."""

    momentum: float = options.momentum()

    def start(self, agent: Agent) -> None:
        """Begin with no momentum."""
        super().start(agent)
        agent["momentum"] = agent["model"].new_zeros(agent["model"].shape)


ALGORITHMS: dict[str, type[Algorithm]] = {}
"""Methods by the name that the key `algorithm` takes."""


@dataclass_transform(kw_only_default=True, frozen_default=True)
def register(name: str) -> Callable[[A], A]:
    """Class decorator: make an `Algorithm` known as `name`, with its options as configuration keys.

    Examples
    --------
    >>> from ross_flwr import broadcast
    >>> @register("my-gossip")
    ... class MyGossip(Algorithm):
    ...     @step(sends=("model",))
    ...     def share(self, agent, inbox):
    ...         return broadcast(model=agent["model"])
    ...
    ...     @step()
    ...     def mix(self, agent, inbox):
    ...         agent["model"] = agent.mix(inbox.gather("model"))
    >>> MyGossip.name, MyGossip().steps
    ('my-gossip', ('share', 'mix'))
    """

    def decorate(cls: A) -> A:
        dataclass(frozen=True, kw_only=True)(cls)
        cls.name = name
        cls.steps = tuple(cls.declared)
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


def require_undirected(name: str, mixing: NDArray[np.float64]) -> None:
    """Refuse a directed graph, by its mixing matrix W, shape [N, N], for a method that answers its senders."""
    if ((mixing > 0) != (mixing.T > 0)).any():
        raise ConfigError(
            f"{name} sends gradients back to where the models came from, and this graph is directed: use an undirected "
            "topology, or a method such as dpsgd or sgp"
        )
