"""ROSS with a screen, local steps on the validation set, and guarded mixing."""

from dataclasses import replace

import torch
from torch import Tensor

from ross_flwr.algorithms import options
from ross_flwr.algorithms.algorithm import register
from ross_flwr.algorithms.cross_gradients import OwnGradient, WeightedCrossGradients, gradient_game
from ross_flwr.algorithms.local_steps import local_steps
from ross_flwr.algorithms.messages import Inbox, Outbox, broadcast
from ross_flwr.config import option
from ross_flwr.learning.agent import Agent
from ross_flwr.learning.batches import Batches
from ross_flwr.learning.classes import by_class, class_gradients
from ross_flwr.learning.rules.judging import Softmin, untrained_share
from ross_flwr.learning.screen import screen
from ross_flwr.learning.shapley import WEIGHTINGS, shapley_values
from ross_flwr.learning.splits import Whole


@register("ross-plus")
class ROSSPlus(WeightedCrossGradients):
    """Our extension of ROSS (Wang et al., arXiv:2411.00365): Q_i screens, steers and guards.

    ::

        A_i  = d neighbours drawn from N_i, or all if there are fewer, and i itself
        G_ij = ∇F_j(x_i; ξ_j)                                            for j in A_i, computed by j
        h_c  = ∇F(x_i; Q_i of class c);   q_i = ∇F(x_i; Q_i)
        G_ij ← G_ij min(1, τ/‖G_ij‖),   τ = max(‖G_ii‖, max_c ‖h_c‖)
        r_j  = min_p ‖G_ij − Σ_c p_c h_c‖²                               over p ≥ 0, Σ_c p_c = 1
        P_i  = {i} ∪ {j ∈ A_i: r_j < (1 − s) ‖G_ij‖² or r_j ≤ 4 r_i}     the plausible ones, m of them
        û_i  = α u_i + q_i/(m+1) + m/(m+1) Σ_j π_ij G_ij;   π_ij = 1/m
        z¹   = x_i − η û_i
        zˢ⁺¹ = zˢ − η (û_i + ∇F(zˢ; Q_iˢ) − q_i)                         for s = 1 … K−1;   x̂_i = z^K
        x_i  = x̂_i + Σ_j c_ij clip(x̂_j − x̂_i, 2 ‖x̂_i − x_i‖)             c_ij ∝ w_ij exp(−L_j/L_i), L_j = F(x̂_j; Q_i)
        u_i  = û_i + Σ_j c_ij clip(û_j − û_i, 2 ‖û_i‖)

    None of this is in the paper, but for the exchanges. All of it rests on Q_i, which nobody else can touch:

    The screen P_i shortens gradients that are longer than data like Q_i could make them, and leaves out those that it
    could not produce (`learning.screen`). ``screen=0`` lets all of A_i play as they are.

    Each pass asks d neighbours for a gradient (``gradients-from``). Models that mix well are alike, and so is
    what nine neighbours say of each of them.

    Q_i's own gradient is one more player. Where all others are left out, the agent trains on Q_i.

    The local steps get more out of a pass: its three exchanges pay for K steps instead of one. The neighbours say where
    to go, and Q_i, which has all classes, how that changes on the way, as in DANE and SVRG. Q_iˢ is a mini-batch of
    Q_i. ``local-steps=1`` is a single step. With another `optimizer`, it takes a step along what stands after η.

    The guard weighs what neighbours propose by its loss on Q_i, and lets none pull farther than two steps of one's own
    (`rules.Softmin`); momenta follow their models. ``guard=false`` mixes as the key `aggregator` says.

    All but the local steps look at a mini-batch of Q_i in each pass, with all its classes: Q_i stands for
    ``validation-batch`` of its examples above. That is as robust as all of Q_i, and leaves work for more passes.

    The game is off: where both were run, uniform weights behind the screen did no worse than Shapley values.
    ``weighting=relu`` plays it: v(S) = U(x_i − η/|S| Σ_{j∈S} G_ij; Q_i) for S ⊆ P_i, π_i = weights(Shapley values); if
    nobody helps, û_i = α u_i + q_i. ``README.md`` beside this file says how all this was measured.

    State: x_i, u_i (zero at first). Per agent, pass and k neighbours: three exchanges, 1 + d gradients, that of Q_i's
    classes and K − 1 on mini-batches of Q_i, 2·(d + k)·P·4 bytes ((2·d + k)·P·4 without mixing the momentum), 1 + k
    losses on Q_i, and C·P numbers of memory for a moment.

    Examples
    --------
    >>> ROSSPlus(untrained_share=9.0).rule, ROSSPlus(guard=False).rule
    (Softmin(untrained_share=9.0), None)
    """

    weighting: str = options.weighting("uniform")
    utility: str = options.utility("loss")
    shapley: str = options.shapley()
    permutations: int = options.permutations()
    validation_batch: int = options.validation_batch(32)
    screen: float = option(
        0.35,
        "s, how much of a gradient a mixture of the gradients of Q_i's classes has to explain for it to play, unless "
        "what it leaves is no more than a mini-batch's noise; 0 lets all play",
        minimum=0.0,
        maximum=1.0,
    )
    gradients_from: int = options.gradients_from(1)
    local_steps: int = options.local_steps(5)
    optimizer: str = options.optimizer("sgd")
    guard: bool = option(True, "whether models weigh by their loss on Q_i when agents mix; else `aggregator` decides")
    untrained_share: float = untrained_share()

    def __post_init__(self) -> None:
        """Set the rule."""
        if self.guard and self.rule is None:
            object.__setattr__(self, "rule", Softmin(untrained_share=self.untrained_share))

    @property
    def needs_validation(self) -> bool:
        """True: everything rests on Q_i."""
        return True

    @property
    def undefended(self) -> OwnGradient:
        """Attackers follow their own gradient alone, for K steps on their own data."""
        return replace(super().undefended, local_steps=self.local_steps, optimizer=self.optimizer)

    def descend(self, agent: Agent, inbox: Inbox) -> Outbox:
        """Screen and weigh the gradients, take K steps, and send x̂_i and û_i."""
        classes = class_gradients(agent, agent["model"])
        sizes = [len(part) for part in by_class(agent.validation)]
        trusted = classes.new_tensor(sizes) @ classes / sum(sizes)
        players = self.plausible(agent, inbox.gather("gradient"), classes)
        share = len(players) / (len(players) + 1)
        weights = {j: share * weight for j, weight in self.weights(agent, players).items()}
        agent.report(weights=weights)
        momentum = self.momentum * agent["momentum"]
        momentum.add_(trusted, alpha=1 - sum(weights.values()))
        for j, weight in weights.items():
            momentum.add_(players[j], alpha=weight)
        batches = Batches(Whole(agent.objective.validation), agent.index, agent.seed, agent.batches.size)

        def direction(z: Tensor, number: int) -> Tensor:
            if number == self.local_steps * agent.pass_number:
                return momentum
            return momentum + agent.validation_gradient(z, batches.take(number)) - trusted

        rate, optimizer = self.learning_rate, self.optimizer
        descent = local_steps(agent, self.local_steps, rate, direction, optimizer=optimizer)
        model = torch.sub(agent["model"], descent, alpha=rate)
        if self.mix_momentum:
            return broadcast(model=model, momentum=momentum)
        agent["momentum"] = momentum
        return broadcast(model=model)

    def plausible(self, agent: Agent, gradients: dict[int, Tensor], classes: Tensor) -> dict[int, Tensor]:
        """Return the gradients that data like Q_i could have, none of them too long."""
        if not self.screen:
            return gradients
        players = [agent.index, *(j for j in gradients if j != agent.index)]
        factors, passes = screen(torch.stack([gradients[j] for j in players]), classes, self.screen)
        found = zip(players, factors.tolist(), passes, strict=True)
        return {j: gradients[j] if factor == 1 else factor * gradients[j] for j, factor, passed in found if passed}

    def weights(self, agent: Agent, gradients: dict[int, Tensor]) -> dict[int, float]:
        """Return π_ij by j; empty where a game was played and nobody helps."""
        if self.weighting == "uniform":
            return dict.fromkeys(gradients, 1 / len(gradients))
        generator = agent.stream("shapley")
        game = gradient_game(agent, list(gradients.values()), self.learning_rate, self.utility)
        phi = shapley_values(game, self.shapley, permutations=self.permutations, generator=generator)
        found = zip(gradients, WEIGHTINGS[self.weighting](phi).tolist(), strict=True)
        return {j: weight for j, weight in found if weight}
