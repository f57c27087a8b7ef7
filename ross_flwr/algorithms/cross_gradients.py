"""What methods with cross-gradients share."""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ross_flwr.algorithms import options
from ross_flwr.algorithms.algorithm import Algorithm, Momentum, require_undirected, step
from ross_flwr.algorithms.local_steps import local_steps
from ross_flwr.algorithms.messages import Inbox, Message, Outbox, broadcast
from ross_flwr.config import option
from ross_flwr.learning.agent import Agent
from ross_flwr.learning.probes import after_steps
from ross_flwr.learning.shapley import Game

__all__ = ["CrossGradients", "LookAheadCrossGradients", "WeightedCrossGradients", "gradient_game"]


def gradient_game(agent: Agent, gradients: Sequence[Tensor], learning_rate: float, utility: str) -> Game:
    """Return the game of the senders of these gradients: v(S) = U(x_i − η/|S| Σ_{j∈S} G_ij; Q_i)."""

    def values(coalitions: Iterable[tuple[int, ...]]) -> list[float]:
        return agent.utilities(after_steps(agent["model"], gradients, learning_rate, coalitions), utility)

    return Game(len(gradients), values)


@dataclass(frozen=True, kw_only=True)
class CrossGradients(Momentum):
    """Agents compute gradients of their own loss at their neighbours' models: G_ij = ∇F_j(x_i; ξ_j), j ∈ M_i.

    Agent i owns the model and agent j the data. Agent j computes G_ij and sends it to i: gradients travel, data does
    not. Two exchanges, 1 + k gradients (all on one mini-batch) and 2·k·P·4 bytes per agent and pass, k being the
    agent's degree; what the subclass does with the gradients comes on top. State: x_i, and u_i, zero at first.
    """

    family = "cross-gradients"

    def check(self, mixing: NDArray[np.float64], total_passes: int) -> None:
        """Refuse a directed graph: a gradient goes back to where its model came from."""
        super().check(mixing, total_passes)
        require_undirected(self.name, mixing)

    @step(sends=("model",))
    def share(self, agent: Agent, inbox: Inbox) -> Outbox:
        """Send x_i."""
        return broadcast(model=agent["model"])

    @step(sends=("gradient",), optional=True)
    def cross_gradients(self, agent: Agent, inbox: Inbox) -> dict[int, Message]:
        """Send G_ji to every neighbour j that sent its model, and G_ii to oneself."""
        return {
            j: {"gradient": agent.gradient(model, of="own" if j == agent.index else "cross")}
            for j, model in inbox.gather("model").items()
        }


@dataclass(frozen=True, kw_only=True)
class WeightedCrossGradients(CrossGradients):
    """Step along a weighted sum of the cross-gradients, then mix; the subclass chooses the weights.

    ::

        û_i = α u_i + Σ_j π_ij G_ij;   x̂_i = x_i − η û_i
        x_i = Σ_j w_ij x̂_j;   u_i = Σ_j w_ij û_j

    Three exchanges and 4·k·P·4 bytes (3·k·P·4 without mixing the momentum). With ``gradients-from=d``, d neighbours
    drawn anew in each pass get the model and return a gradient: 1 + d gradients and 2·(d + k)·P·4 bytes.
    """

    mix_momentum: bool = options.mix_momentum()
    gradients_from: int = options.gradients_from(-1)

    @property
    def undefended(self) -> "OwnGradient":
        """Attackers follow their own gradient alone."""
        same = ("learning_rate", "momentum", "mix_momentum", "gradients_from")
        return OwnGradient(**{name: getattr(self, name) for name in same})

    @step(sends=("model",), optional=True)
    def share(self, agent: Agent, inbox: Inbox) -> Outbox:
        """Send x_i to all neighbours, or to those that are asked for a gradient in this pass."""
        if not 0 <= self.gradients_from < len(agent.neighbors):
            return super().share(agent, inbox)
        asked = agent.stream("asked").choice(agent.neighbors, self.gradients_from, replace=False).tolist()
        return {j: {"model": agent["model"]} for j in sorted([agent.index, *asked])}

    @abstractmethod
    def weights(self, agent: Agent, gradients: dict[int, Tensor]) -> dict[int, float]:
        """Return π_ij by j; empty when the step is to be skipped."""

    def proposal(
        self, agent: Agent, momentum: Tensor, weights: dict[int, float], gradients: dict[int, Tensor]
    ) -> Tensor:
        """Return x̂_i; `momentum` is û_i."""
        return agent["model"] - self.learning_rate * momentum

    @step(sends=lambda self, agent: ("model", "momentum") if self.mix_momentum else ("model",))
    def descend(self, agent: Agent, inbox: Inbox) -> Outbox:
        """Weigh the gradients, step along them, and send x̂_i and û_i."""
        gradients = inbox.gather("gradient")
        weights = self.weights(agent, gradients)
        agent.report(weights=weights)
        model, momentum = agent["model"], agent["momentum"]
        if weights:
            momentum = momentum * self.momentum
            for j, weight in weights.items():
                momentum.add_(gradients[j], alpha=weight)
            model = self.proposal(agent, momentum, weights, gradients)
        if self.mix_momentum:
            return broadcast(model=model, momentum=momentum)
        agent["momentum"] = momentum
        return broadcast(model=model)

    @step()
    def mix(self, agent: Agent, inbox: Inbox) -> None:
        """Average the neighbourhood's proposals."""
        agent["model"] = agent.mix(inbox.gather("model"))
        if self.mix_momentum:
            agent["momentum"] = agent.mix(inbox.gather("momentum"), models=False)


@dataclass(frozen=True, kw_only=True)
class LookAheadCrossGradients(CrossGradients):
    """Mix the models that were shared for the cross-gradients, then take Nesterov's step, with a momentum of one's own.

    ::

        u_i ← α u_i + g̃_i
        x_i ← x_i + γ Σ_j w_ij (x_j − x_i) − η (g̃_i + α u_i)
    """

    averaging_rate: float = option(
        1.0, "γ, how far models move towards the neighbourhood's mean; 1 is plain mixing", minimum=0.0, maximum=1.0
    )

    @property
    def undefended(self) -> Algorithm:
        """Attackers follow their own gradient alone."""
        return OwnLookAhead(
            learning_rate=self.learning_rate, momentum=self.momentum, averaging_rate=self.averaging_rate
        )

    @step(sends=("gradient",))
    def cross_gradients(self, agent: Agent, inbox: Inbox) -> dict[int, Message]:
        """Mix, and send G_ji to every neighbour j, and G_ii to oneself."""
        self.prepare(agent, inbox.gather("model"))
        return super().cross_gradients(agent, inbox)

    def prepare(self, agent: Agent, models: dict[int, Tensor]) -> None:
        """Mix, and keep the result for the step."""
        agent["mixed"] = torch.lerp(agent["model"], agent.mix(models), self.averaging_rate)

    def look_ahead(self, agent: Agent, gradient: Tensor) -> None:
        """Step along g̃_i from the mixed model."""
        agent["momentum"] = momentum = agent["momentum"] * self.momentum + gradient
        ahead = gradient.add(momentum, alpha=self.momentum)
        agent["model"] = agent.state.pop("mixed").sub(ahead, alpha=self.learning_rate)


@dataclass(frozen=True, kw_only=True)
class OwnGradient(WeightedCrossGradients):
    """What attackers run: π_ii = 1, and K steps that nothing bounds, z ← z − η (α u_i + ∇F_i(z))."""

    local_steps: int = 1
    optimizer: str = "sgd"

    def weights(self, agent: Agent, gradients: dict[int, Tensor]) -> dict[int, float]:
        """Return π_ii = 1."""
        return {agent.index: 1.0}

    def proposal(
        self, agent: Agent, momentum: Tensor, weights: dict[int, float], gradients: dict[int, Tensor]
    ) -> Tensor:
        """Return x̂_i after K steps."""
        inertia, rate = momentum - gradients[agent.index], self.learning_rate

        def direction(z: Tensor, number: int) -> Tensor:
            if number == self.local_steps * agent.pass_number:
                return momentum
            return inertia + agent.gradient(z, number)

        return agent["model"] - rate * local_steps(agent, self.local_steps, rate, direction, optimizer=self.optimizer)


@dataclass(frozen=True, kw_only=True)
class OwnLookAhead(LookAheadCrossGradients):
    """What attackers run: g̃_i = G_ii."""

    @step()
    def descend(self, agent: Agent, inbox: Inbox) -> None:
        """Step along the own gradient."""
        agent.report(weights={agent.index: 1.0})
        self.look_ahead(agent, inbox[agent.index]["gradient"])
