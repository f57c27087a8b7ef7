"""ROSS with a screen and corrected local steps."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ross_flwr.algorithms import options
from ross_flwr.algorithms.algorithm import register
from ross_flwr.algorithms.cross_gradients import WeightedCrossGradients
from ross_flwr.config import option
from ross_flwr.learning.agent import Agent
from ross_flwr.learning.classes import class_gradients
from ross_flwr.learning.least_squares import distances
from ross_flwr.learning.shapley import WEIGHTINGS, Game, shapley_values

LEEWAY = 4.0
"""A rest counts as noise if its square is at most this many times the smallest in the neighbourhood."""


@register("ross-plus")
class ROSSPlus(WeightedCrossGradients):
    """Our extension of ROSS (Wang et al., arXiv:2411.00365): a screen before the game, corrected local steps after it.

    ::

        G_ij = ∇F_j(x_i; ξ_j)                                            for j in M_i, computed by j
        r_j  = min_p ‖G_ij − Σ_c p_c ∇F(x_i; Q_i of class c)‖²           over p ≥ 0, Σ_c p_c = 1
        P_i  = {j ∈ M_i: r_j < (1 − s) ‖G_ij‖² or r_j ≤ 4 min_k r_k}     the plausible ones, of m agents
        v(S) = U(x_i − η/|S| Σ_{j∈S} G_ij; Q_i)                          for S ⊆ P_i
        φ_ij = Shapley value of j in the game (P_i, v);   π_i = weights(φ_i)
        û_i  = α u_i + Σ_j π_ij G_ij;   z¹ = x_i − η û_i
        zˢ⁺¹ = zˢ − η (û_i + ∇F_i(zˢ; ξ_iˢ) − G_ii)                      for s = 1 … K−1, if π_ii > 0
        x̂_i  = the last zˢ before L(zˢ⁺¹; Q_i) − L(x_i; Q_i) ≥ κ |L(x_i; Q_i)|
        x_i  = Σ_j w_ij x̂_j;   u_i = Σ_j w_ij û_j

    Two things are added to ROSS. Neither is in the paper.

    The screen P_i leaves out gradients that data like Q_i could not produce. Where data is skewed, an honest gradient
    often harms Q_i as a whole, so its Shapley value is negative, like that of a poisoned one. But an honest gradient is
    the gradient of some mixture of classes, and a poisoned one is not. Late in a run, when models fit, honest gradients
    are mostly noise; then the screen keeps those with the shortest rests. ``screen=0`` lets all of M_i play.

    The local steps get more out of a pass. Three exchanges pay for up to K steps instead of one. Each is corrected by
    what the neighbours' data say, as SCAFFOLD corrects steps by control variates. ``local-slack``, κ, bounds them: an
    agent whose own gradient is poisoned climbs faster with every step. ``local-steps=1`` is ROSS's single step.

    The defaults are not ROSS's. ``README.md`` beside this file says how they were measured.

    State: x_i, u_i (zero at first). Per agent, pass and k neighbours: three exchanges, k + K gradients and that of
    Q_i's classes, 4·k·P·4 bytes (3·k·P·4 without mixing the momentum), at most min(2^m, 2 + R (m−1)) + K utilities,
    and C·P numbers of memory for a moment. On a complete graph with uniform weights, no screen, one local step and
    α = 0 it is SGD on the mean gradient.

    Examples
    --------
    >>> ROSSPlus(screen=0.0, local_steps=1).mini_batches
    1
    """

    weighting: str = options.weighting("softmax")
    temperature: float = option(
        3.0, "of weighting = 'softmax', relative to the largest |φ|; large is uniform", minimum=1e-3
    )
    utility: str = options.utility("loss")
    coalition: str = option(
        "mean",
        "a coalition's step: along the mean of its gradients, or their sum over m, as if the absent sent zeros",
        choices=("mean", "sum"),
    )
    probe: str = option(
        "sgd", "the step the game looks at: along gradients alone, or with the momentum", choices=("sgd", "momentum")
    )
    fallback: str = options.fallback("self")
    shapley: str = options.shapley()
    permutations: int = options.permutations()
    screen: float = option(
        0.35,
        "s, how much of a gradient a mixture of the gradients of Q_i's classes has to explain for it to play, unless "
        "what it leaves is no more than a mini-batch's noise; 0 lets all play",
        minimum=0.0,
        maximum=1.0,
    )
    local_steps: int = options.local_steps(5)
    local_slack: float = option(
        2.0,
        "κ: local steps end before the loss on Q_i has grown by this many times what it was; less is slower",
        minimum=0.0,
    )

    @property
    def needs_validation(self) -> bool:
        """The game is played on Q_i."""
        return True

    @property
    def mini_batches(self) -> int:
        """One for each local step."""
        return self.local_steps

    def weights(self, agent: Agent, gradients: dict[int, Tensor]) -> dict[int, float]:
        """Play the game and return π_ij by j; empty when the step is to be skipped."""
        players = list(gradients)
        if self.screen:
            players = self.plausible(agent, gradients, players)
        if not players:
            return self._fallback(agent, gradients)
        phi = shapley_values(
            self.game(agent, [gradients[j] for j in players]),
            self.shapley,
            permutations=self.permutations,
            generator=agent.stream("shapley"),
        )
        weights = WEIGHTINGS[self.weighting](phi, self.temperature)
        if weights.any():
            return dict(zip(players, weights.tolist(), strict=True))
        return self._fallback(agent, gradients)

    def plausible(self, agent: Agent, gradients: dict[int, Tensor], players: list[int]) -> list[int]:
        """Return the players whose gradients data like Q_i could have."""
        stacked = torch.stack([gradients[j] for j in players])
        rests, lengths = distances(stacked, class_gradients(agent, agent["model"]))
        keeps = (rests < (1 - self.screen) * lengths) | (rests <= LEEWAY * rests.min())
        return [j for j, keep in zip(players, keeps, strict=True) if keep]

    def proposal(
        self, agent: Agent, momentum: Tensor, weights: dict[int, float], gradients: dict[int, Tensor]
    ) -> Tensor:
        """Return x̂_i after at most K local steps, or one step where the own gradient has no weight."""
        model = super().proposal(agent, momentum, weights, gradients)
        if self.local_steps == 1 or not weights.get(agent.index):
            return model
        before = agent.loss(agent["model"], "validation")
        for s in range(1, self.local_steps):
            gradient = agent.gradient(model, self.local_steps * agent.pass_number + s)
            ahead = model - self.learning_rate * (momentum + gradient - gradients[agent.index])
            if agent.loss(ahead, "validation") - before >= self.local_slack * abs(before):
                break
            model = ahead
        return model

    def _fallback(self, agent: Agent, gradients: dict[int, Tensor]) -> dict[int, float]:
        return {
            "self": {agent.index: 1.0},
            "uniform": {j: 1 / len(gradients) for j in gradients},
            "skip": {},
        }[self.fallback]

    def game(self, agent: Agent, gradients: Sequence[Tensor]) -> Game:
        """Return the game of those who sent these gradients, in their order."""
        base = agent["model"]
        if self.probe == "momentum":
            base = base - self.learning_rate * self.momentum * agent["momentum"]

        def after(coalition: tuple[int, ...]) -> Tensor:
            size = len(gradients) if self.coalition == "sum" else len(coalition)
            model = base.clone()
            for player in coalition:
                model.sub_(gradients[player], alpha=self.learning_rate / size)
            return model

        return Game(len(gradients), lambda coalitions: agent.utilities(map(after, coalitions), self.utility))
