"""What methods share whose passes begin with local steps: the steps, and the two places for mixing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TypeAlias

import torch
from torch import Tensor

from ross_flwr.algorithms import options
from ross_flwr.algorithms.algorithm import Algorithm, Momentum, step
from ross_flwr.algorithms.messages import Inbox, Outbox, broadcast
from ross_flwr.learning.agent import Agent
from ross_flwr.learning.objective import ModuleObjective
from ross_flwr.learning.optimizers import Optimizer, Stepping, read_optimizer
from ross_flwr.learning.requests import Gradient, Of
from ross_flwr.learning.streams import seeded

__all__ = [
    "AdaptThenCombine",
    "CombineThenAdapt",
    "Direction",
    "HeavyBall",
    "LocalSteps",
    "local_steps",
]

Direction: TypeAlias = Callable[[Tensor, int], Tensor]
"""From a model z, shape [P], and the number of a mini-batch to the direction of a step, shape [P]."""


def local_steps(
    agent: Agent,
    steps: int,
    learning_rate: float,
    direction: Direction | None = None,
    start: Tensor | None = None,
    *,
    of: Of = "own",
    optimizer: str = "sgd",
) -> Tensor:
    """Train K steps from x_i and return D_i, shape [P], such that z^K = x_i − η D_i.

    ::

        z^0 = x_i;   z^(s+1) = z^s − η d^s,   d^s = ∇F_i(z^s; ξ_i^s)      for s = 0 … K−1, a mini-batch each

    With SGD, D_i = Σ_s d^s. Another optimizer takes its own step along d^s.

    Parameters
    ----------
    agent : Agent
        Agent i; its model stays as it is.
    steps, learning_rate : int, float
        K and η.
    direction : callable, optional
        Gives d^s instead of the gradient. The vector it returns is not changed.
    start, of : Tensor, {"own", "cross"}
        The model to start from instead of x_i, and whose it is.
    optimizer : str
        What takes the steps, as in the key of this name. Its state is part of the agent's and goes on from pass to
        pass. From another model than x_i it begins anew.

    An app's own optimizer takes the place of this one. An app that trains its model itself does so on these K
    mini-batches, and D_i is its change divided by −η.
    """
    direction, own = direction or partial(agent.gradient, of=of), start is None
    start = agent["model"] if start is None else start
    if isinstance(agent.objective, ModuleObjective) and agent.objective.trainer:
        return own_steps(agent, agent.objective, steps, learning_rate, start, of)
    first = steps * agent.pass_number
    if stepping := optimizing(agent, optimizer, learning_rate, start, agent.state if own else {}):
        for s in range(steps):
            stepping.step(direction(stepping.model, first + s))
        if own:
            agent.state.update(stepping.state)
        return (start - stepping.model).div_(learning_rate or 1.0)
    total = direction(start, first)
    for s in range(1, steps):
        total = total + direction(torch.sub(start, total, alpha=learning_rate), first + s)
    return total


def optimizing(
    agent: Agent, optimizer: str, learning_rate: float, start: Tensor, state: Mapping[str, Tensor]
) -> Stepping | None:
    """Return the optimizer that goes on from `start` with what `state` holds of it; None for plain SGD."""
    objective, parameters = agent.objective, agent.objective.parameter_sizes
    if isinstance(objective, ModuleObjective) and objective.own_optimizer:
        shapes = dict(islice(objective.model.shapes.items(), len(parameters)))
        return Stepping(objective.own_optimizer, start, shapes, state)
    chosen = read_optimizer(optimizer)
    if chosen == Optimizer():
        return None
    make = partial(chosen.kind.make, learning_rate=learning_rate * chosen.schedule.factor(agent.progress))
    return Stepping(make, start, {"": torch.Size([sum(parameters)])}, state, chosen.clip)


def own_steps(
    agent: Agent, objective: ModuleObjective, steps: int, learning_rate: float, model: Tensor, of: Of
) -> Tensor:
    """Return (x − z)/η, shape [P], with z what the app's own training on K mini-batches makes of `model`, x.

    To the method it is D_i, so it goes through the gradient chain as a gradient does.
    """
    first = steps * agent.pass_number
    batches = [agent.batches.indices(first + s) for s in range(steps)]
    request = Gradient(objective, model, agent.batches.take(first), agent.streams, first, of)
    with agent.counts.timed("gradients", steps * agent.batches.size), seeded(request.seed, model.device):
        change = (model - objective.trained(model, batches)) / learning_rate
    agent.counts["gradients"] += steps - 1
    for transform in agent.gradient_chain:
        change = transform(change, agent, request)
    return change


@dataclass(frozen=True, kw_only=True)
class LocalSteps(Algorithm):
    """A method whose agents take K local steps in every pass."""

    local_steps: int = options.local_steps(1)
    optimizer: str = options.optimizer("sgd")

    def __post_init__(self) -> None:
        """Refuse an optimizer that cannot be read."""
        read_optimizer(self.optimizer)

    @property
    def takes_own_steps(self) -> bool:
        """Whether nothing but SGD is in the local steps."""
        cls = type(self)
        return cls.direction is LocalSteps.direction and cls.descent is LocalSteps.descent

    def batches(self, pass_number: int, degree: int) -> list[int]:
        """Return K mini-batches, a gradient on each."""
        first = self.local_steps * pass_number
        return list(range(first, first + self.local_steps))

    def direction(self, agent: Agent, model: Tensor, batch: int) -> Tensor:
        """Return the direction of a step from `model` on mini-batch number `batch`."""
        return agent.gradient(model, batch)

    def descent(self, agent: Agent) -> Tensor:
        """Return D_i, with x_i − η D_i the model after K steps."""
        return local_steps(
            agent,
            self.local_steps,
            self.learning_rate,
            lambda model, batch: self.direction(agent, model, batch),
            optimizer=self.optimizer,
        )

    def train(self, agent: Agent) -> Tensor:
        """Return z_i^K = x_i − η D_i."""
        return torch.sub(agent["model"], self.descent(agent), alpha=self.learning_rate)


@dataclass(frozen=True, kw_only=True)
class HeavyBall(Momentum, LocalSteps):
    """Steps along a momentum that is kept from pass to pass: u_i ← α u_i + ∇F_i(z; ξ_i);   z ← z − η u_i."""

    def direction(self, agent: Agent, model: Tensor, batch: int) -> Tensor:
        """Return u_i."""
        agent["momentum"] = self.momentum * agent["momentum"] + agent.gradient(model, batch)
        return agent["momentum"]


@dataclass(frozen=True, kw_only=True)
class AdaptThenCombine(LocalSteps):
    """Train, send, mix: x_i ← rule(z_i^K, {z_j^K})."""

    @step(sends=("model",))
    def share(self, agent: Agent, inbox: Inbox) -> Outbox:
        """Train, and send z_i^K."""
        return broadcast(model=self.train(agent))

    @step()
    def mix(self, agent: Agent, inbox: Inbox) -> None:
        """Combine the neighbourhood's models."""
        agent["model"] = agent.mix(inbox.gather("model"))


@dataclass(frozen=True, kw_only=True)
class CombineThenAdapt(LocalSteps):
    """Send, mix, and add what K steps from the model before mixing gave: x_i ← rule(x_i, {x_j}) − η D_i.

    All gradients are taken at models before mixing, so they can be computed while messages travel.
    """

    @step(sends=("model",))
    def share(self, agent: Agent, inbox: Inbox) -> Outbox:
        """Send x_i."""
        return broadcast(model=agent["model"])

    @step()
    def mix(self, agent: Agent, inbox: Inbox) -> None:
        """Combine the neighbourhood's models, and descend."""
        mixed = agent.mix(inbox.gather("model"))
        agent["model"] = mixed.sub_(self.descent(agent), alpha=self.learning_rate)
