"""ROSS: cross-gradients weighted by Shapley values."""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ross_flwr.algorithms import options
from ross_flwr.algorithms.algorithm import Algorithm, Momentum, register, require_undirected, step
from ross_flwr.algorithms.cross_gradients import OwnGradient, gradient_game
from ross_flwr.algorithms.local_steps import local_steps
from ross_flwr.algorithms.messages import Inbox, Message, Outbox, broadcast
from ross_flwr.learning.agent import Agent
from ross_flwr.learning.optimizers import read_optimizer
from ross_flwr.learning.requests import Of
from ross_flwr.learning.shapley import WEIGHTINGS, shapley_values


@register("ross")
class ROSS(Momentum):
    """ROSS (Wang, Yuan, Li and Duan, arXiv:2411.00365): cross-gradients weighted by Shapley values, momentum, gossip.

    ::

        share            send x_i to every j ∈ N_i
        cross_gradients  send G_ji = ∇F_i(x_j; ξ_i) to every j ∈ N_i;   G_ii = ∇F_i(x_i; ξ_i)
        descend          v(S) = U(x_i − η/|S| Σ_{j∈S} G_ij; Q_i)              for S ⊆ M_i
                         φ_ij = Shapley value of j in the game (M_i, v);      π_i = weights(φ_i)
                         û_i  = α u_i + Σ_j π_ij G_ij;   x̂_i = x_i − η û_i;   send x̂_i and û_i
        mix              x_i  = Σ_j w_ij x̂_j;   u_i = Σ_j w_ij û_j

    The paper's text was not available. Its summaries state the cross-gradients, the Shapley values estimated on a small
    validation set, validation accuracy as the utility U, momentum, and mixing with a doubly stochastic W. They leave
    open what the options choose. ``README.md`` beside this file says how the defaults were measured.

    With ``local-steps=K``, ∇F_i(x_j; ξ_i) is the sum of the gradients of K steps of SGD from x_j, on a mini-batch each:
    a coalition's probe is the mean of the models that its members train. Another optimizer, which begins anew from
    every x_j, or an app's own training may take these steps.

    State: x_i, u_i (zero at first). Per agent, pass and k neighbours: three exchanges, 1 + k gradients, 4·k·P·4 bytes
    (3·k·P·4 without mixing the momentum) and at most min(2^m, 2 + R (m − 1)) utilities, m = k + 1. On a complete graph
    with uniform weights and α = 0 it is SGD on the mean gradient.

    Examples
    --------
    >>> ROSS(weighting="softmax").steps
    ('share', 'cross_gradients', 'descend', 'mix')
    """

    family = "cross-gradients"

    weighting: str = options.weighting("relu")
    utility: str = options.utility("accuracy-then-loss")
    fallback: str = options.fallback("skip")
    shapley: str = options.shapley()
    permutations: int = options.permutations()
    mix_momentum: bool = options.mix_momentum()
    local_steps: int = options.local_steps(1)
    optimizer: str = options.optimizer("sgd")

    def __post_init__(self) -> None:
        """Refuse an optimizer that cannot be read."""
        read_optimizer(self.optimizer)

    @property
    def takes_own_steps(self) -> bool:
        """G_ji is what j's step makes of x_i, whoever makes it."""
        return True

    @property
    def needs_validation(self) -> bool:
        """The game is played on Q_i."""
        return True

    @property
    def undefended(self) -> Algorithm:
        """Attackers follow their own gradient alone."""
        same = ("learning_rate", "momentum", "mix_momentum", "local_steps", "optimizer")
        return OwnGradient(**{name: getattr(self, name) for name in same})

    def batches(self, pass_number: int, degree: int) -> list[int]:
        """Return K mini-batches, on each of which neighbours' gradients are taken too."""
        first = self.local_steps * pass_number
        return [first + s for s in range(self.local_steps)] * (1 + degree)

    def check(self, mixing: NDArray[np.float64], total_passes: int) -> None:
        """Refuse a directed graph: a gradient goes back to where its model came from."""
        super().check(mixing, total_passes)
        require_undirected(self.name, mixing)

    @step(sends=("model",))
    def share(self, agent: Agent, inbox: Inbox) -> Outbox:
        """Send x_i."""
        return broadcast(model=agent["model"])

    @step(sends=("gradient",))
    def cross_gradients(self, agent: Agent, inbox: Inbox) -> dict[int, Message]:
        """Send G_ji to every neighbour j, and G_ii to oneself."""
        return {
            j: {"gradient": self.gradient(agent, model, of="own" if j == agent.index else "cross")}
            for j, model in inbox.gather("model").items()
        }

    @step(sends=lambda self, agent: ("model", "momentum") if self.mix_momentum else ("model",))
    def descend(self, agent: Agent, inbox: Inbox) -> Outbox:
        """Play the game, step along the weighted gradients, and send x̂_i and û_i."""
        gradients = inbox.gather("gradient")
        weights = self.weights(agent, gradients)
        agent.report(weights=weights)
        model, momentum = agent["model"], agent["momentum"]
        if weights:
            momentum = self.momentum * momentum
            for j, weight in weights.items():
                momentum.add_(gradients[j], alpha=weight)
            model = model - self.learning_rate * momentum
        if self.mix_momentum:
            return broadcast(model=model, momentum=momentum)
        agent["momentum"] = momentum
        return broadcast(model=model)

    @step()
    def mix(self, agent: Agent, inbox: Inbox) -> None:
        """Average the neighbourhood's models and momenta."""
        agent["model"] = agent.mix(inbox.gather("model"))
        if self.mix_momentum:
            agent["momentum"] = agent.mix(inbox.gather("momentum"), models=False)

    def gradient(self, agent: Agent, model: Tensor, of: Of) -> Tensor:
        """Return what agent i makes of `model`: its gradient there, or the sum of those of K steps from there."""
        rate, optimizer = self.learning_rate, self.optimizer
        return local_steps(agent, self.local_steps, rate, start=model, of=of, optimizer=optimizer)

    def weights(self, agent: Agent, gradients: dict[int, Tensor]) -> dict[int, float]:
        """Return π_ij by j; empty when the step is to be skipped."""
        players, generator = list(gradients), agent.stream("shapley")
        game = gradient_game(agent, list(gradients.values()), self.learning_rate, self.utility)
        phi = shapley_values(game, self.shapley, permutations=self.permutations, generator=generator)
        weights = WEIGHTINGS[self.weighting](phi)
        if weights.any():
            return dict(zip(players, weights.tolist(), strict=True))
        fallbacks = {"self": {agent.index: 1.0}, "uniform": dict.fromkeys(players, 1 / len(players)), "skip": {}}
        return fallbacks[self.fallback]
