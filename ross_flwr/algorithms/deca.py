"""DECA: decentralized Adam, block by block."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from ross_flwr.algorithms.algorithm import Algorithm, register, step
from ross_flwr.algorithms.messages import Form, Inbox, Outbox, broadcast
from ross_flwr.config import option
from ross_flwr.learning.agent import Agent

ALPHA = 0.9, 0.999
"""α₁ and α₂, Adam's decays of the moments."""

EPSILON = 1e-8

DISPLACEMENTS = ("none", "paper", "negated", "by-rate", "as-gradient")


@register("deca")
class DECA(Algorithm):
    """DECA (Yuan et al., arXiv:2606.03209): Adam on one block of parameters at a time, so that little memory is enough.

    ::

        for one of B disjoint blocks after the other, R passes each, from m = v = 0;   θ is the active block:
            g = ∇F_i(x_i; ξ_i) on the block
            m½ = α₁ m + (1 − α₁) g;   v½ = α₂ v + (1 − α₂) g²
            θ½ = θ − η m̂ / (√v̂ + ε),   m̂ = m½ / (1 − α₁^(r+1)),   v̂ = v½ / (1 − α₂^(r+1))
            θ⁺ = Σ_j w_ij θ½_j;   h = the displacement θ⁺ − θ
            m = β₁ m½ + (1 − β₁) h;   v = β₂ v½ + (1 − β₂) h²

    The paper's text was not available; these equations are a third party's. As written, h points against the gradient,
    and it has the size of a step, not of a gradient. `displacement` says what h is: ``paper`` is θ⁺ − θ, ``negated`` is
    θ − θ⁺, ``by-rate`` is (θ − θ⁺)/η, ``as-gradient`` is (√v̂ + ε)(θ − θ⁺)/η, the m̂ that would have led to θ⁺, and
    ``none`` leaves the moments to gradients. 1 − β₁ is `displacement-share` and 1 − β₂ a hundredth of it, as 1 − α₂ is
    of 1 − α₁. ``README.md`` beside this file says how the default was measured.

    Blocks are equal shares of the parameters in their order. Float buffers are no part of them and stay at home.

    State: x_i, and m, v of the active block. Only its gradient is computed and kept. Per agent, pass and k neighbours:
    one exchange, one gradient, k·⌈P/B⌉·4 bytes. With B = 1 and ``displacement=none`` it is `dadam` with moments that
    stay at home.
    """

    family = "decentralized optimisation"
    invariant = "Σ_i θ⁺_i = Σ_i θ½_i"

    blocks: int = option(8, "B, how many blocks of parameters take turns to learn", unit="blocks", minimum=1)
    block_passes: int = option(10, "R, the passes in which a block learns in one turn", unit="passes", minimum=1)
    displacement: str = option(
        "as-gradient",
        "what moments learn of the way to the neighbourhood's mean: nothing, the way as the paper has it, backwards, "
        "that over the learning rate, or the gradient that would have led there",
        choices=DISPLACEMENTS,
    )
    displacement_share: float = option(0.1, "1 − β₁, the displacement's share of a moment", minimum=0.0, maximum=1.0)

    def start(self, agent: Agent) -> None:
        """Begin with no block active."""
        agent["turn"] = torch.tensor([-1, 0])

    @step(sends=lambda self, agent: {"block": Form((self.longest(agent),), agent["model"].dtype)})
    def share(self, agent: Agent, inbox: Inbox) -> Outbox:
        """Take Adam's step on the active block, and send θ½."""
        block = self.block(agent)
        self.begin(agent, block)
        gradient = agent.gradient(agent["model"], part=block)
        agent["first_moment"] = agent["first_moment"].lerp(gradient, 1 - ALPHA[0])
        agent["second_moment"] = (ALPHA[1] * agent["second_moment"]).addcmul_(gradient, gradient, value=1 - ALPHA[1])
        agent["turn"] = agent["turn"] + torch.tensor([0, 1])
        ahead = agent["first_moment"] / self.scale(agent)
        moved = agent["model"][block].sub(ahead, alpha=self.learning_rate / (1 - ALPHA[0] ** int(agent["turn"][1])))
        return broadcast(block=pad(moved, (0, self.longest(agent) - len(moved))))

    @step()
    def mix(self, agent: Agent, inbox: Inbox) -> None:
        """Average the neighbourhood's blocks, and let the moments learn of the displacement."""
        block = self.block(agent)
        mixed = agent.mix(inbox.gather("block"))[: block.stop - block.start]
        if self.displacement != "none":
            h, share = self.learned(agent, mixed - agent["model"][block]), self.displacement_share
            agent["first_moment"] = agent["first_moment"].lerp(h, share)
            agent["second_moment"] = agent["second_moment"].lerp(h.square_(), share / 100)
        model = agent["model"].clone()
        model[block] = mixed
        agent["model"] = model

    def block(self, agent: Agent) -> slice:
        """Return where the active block stands in a flat vector."""
        parameters, k = sum(agent.objective.parameter_sizes), self.active(agent)
        return slice(parameters * k // self.blocks, parameters * (k + 1) // self.blocks)

    def active(self, agent: Agent) -> int:
        """Return the number of the active block."""
        return agent.pass_number // self.block_passes % self.blocks

    def longest(self, agent: Agent) -> int:
        """Return ⌈P/B⌉, the length of a message; shorter blocks end with a zero."""
        return -(-sum(agent.objective.parameter_sizes) // self.blocks)

    def begin(self, agent: Agent, block: slice) -> None:
        """Start the moments at zero if another block was active; ``agent["turn"]`` is the block and r."""
        if agent["turn"][0] != self.active(agent):
            agent["turn"] = torch.tensor([self.active(agent), 0])
            agent["first_moment"] = agent["second_moment"] = torch.zeros_like(agent["model"][block])

    def scale(self, agent: Agent) -> Tensor:
        """Return √v̂ + ε."""
        return (agent["second_moment"] / (1 - ALPHA[1] ** int(agent["turn"][1]))).sqrt_().add_(EPSILON)

    def learned(self, agent: Agent, displacement: Tensor) -> Tensor:
        """Return h, given θ⁺ − θ."""
        if self.displacement == "paper":
            return displacement
        back = displacement.neg_()
        if self.displacement != "negated":
            back.div_(self.learning_rate or 1.0)
        return back.mul_(self.scale(agent)) if self.displacement == "as-gradient" else back
