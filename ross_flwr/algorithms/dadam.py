"""Decentralized Adam."""

import torch

from ross_flwr.algorithms import options
from ross_flwr.algorithms.algorithm import register, step
from ross_flwr.algorithms.local_steps import LocalSteps
from ross_flwr.algorithms.messages import Form, Inbox, Outbox, broadcast, vector
from ross_flwr.learning.agent import Agent
from ross_flwr.learning.optimizers import PREFIX, read_optimizer


@register("dadam")
class DAdam(LocalSteps):
    """Decentralized Adam (DADAM: Nazari, Tarzanagh and Michailidis, IEEE TSP 2022), with moments mixed or not.

    ::

        K times, from z_i = x_i, with g = ∇F_i(z_i; ξ_i):
            m_i ← β₁ m_i + (1 − β₁) g;   v_i ← β₂ v_i + (1 − β₂) g²;   z_i ← z_i − η m̂_i / (√v̂_i + ε)
        x_i ← Σ_j w_ij z_j;   m_i ← Σ_j w_ij m_j;   v_i ← Σ_j w_ij v_j

    m̂ and v̂ are corrected for their start at zero. The paper mixes models alone (``mix-momentum=false``), so that
    every agent scales the coordinates in its own way; Chen et al. (arXiv:2109.03194) show that such methods may not
    converge, and that v has to agree. With another `optimizer`, what it remembers is mixed.

    State: x_i, m_i, v_i (zero at first). Per agent, pass and k neighbours: one exchange, K gradients, 3·k·P·4 bytes,
    and k·P·4 without mixing the moments. With W = I it is Adam; with ``optimizer=momentum(α)`` it is `dmsgd`, and
    without mixing the moments `local-dsgd` with the same optimizer.
    """

    family = "decentralized optimisation"

    optimizer: str = options.optimizer("adam")
    mix_momentum: bool = options.mix_momentum()

    @property
    def takes_own_steps(self) -> bool:
        """The moments of an app's own training are not known."""
        return False

    @property
    def takes_own_optimizer(self) -> bool:
        """Moments are mixed under the names that `optimizer` gives them."""
        return not self.mix_momentum

    @property
    def moments(self) -> tuple[str, ...]:
        """The moments that travel, by their names in PyTorch's optimizer."""
        return read_optimizer(self.optimizer).kind.moments if self.mix_momentum else ()

    def contents(self, agent: Agent) -> dict[str, Form]:
        """Return what a message holds: moments have an entry for every parameter, and none for float buffers."""
        moment = Form((sum(agent.objective.parameter_sizes),), agent["model"].dtype)
        return {"model": vector(agent), **dict.fromkeys(self.moments, moment)}

    @step(sends=contents)
    def share(self, agent: Agent, inbox: Inbox) -> Outbox:
        """Train, and send z_i, m_i and v_i."""
        model = self.train(agent)
        return broadcast(model=model, **{name: agent[PREFIX + name] for name in self.moments})

    @step()
    def mix(self, agent: Agent, inbox: Inbox) -> None:
        """Average the neighbourhood's models and moments."""
        agent["model"] = agent.mix(inbox.gather("model"))
        for name in self.moments:
            mixed = agent.mix(inbox.gather(name), models=False)
            # a lossy codec, or a liar, may turn squares negative
            agent[PREFIX + name] = torch.relu(mixed) if name == "exp_avg_sq" else mixed
