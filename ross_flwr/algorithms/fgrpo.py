"""FGRPO: models weigh by what their agents gained."""

from math import log

import torch
from torch import Tensor

from ross_flwr.algorithms import options
from ross_flwr.algorithms.algorithm import Algorithm, register, step
from ross_flwr.algorithms.local_steps import AdaptThenCombine
from ross_flwr.algorithms.messages import Form, Inbox, Outbox, broadcast, vector
from ross_flwr.config import option
from ross_flwr.learning.agent import Agent

DECAY = 0.9
"""ρ, what a pass leaves of the baseline."""

EPSILON = 1e-8

HIGHEST = 1e6
"""The largest gain that counts; one that is NaN counts as minus that."""


@register("fgrpo")
class FGRPO(AdaptThenCombine):
    """FGRPO (arXiv:2606.03094) on a graph: models weigh by their agents' gains over their own past.

    ::

        x½_i = x_i after K local steps;   R_i = the reward of x½_i on Q_i
        a_i  = (R_i − b_i) / (|b_i| + ε);   b_i ← ρ b_i + (1 − ρ) R_i
        x_i  = Σ_{j ∈ M_i} π_ij x½_j,   π_ij = w_ij exp(a_j / T) / Σ_{k ∈ M_i} w_ik exp(a_k / T)

    b_i is the reward of the initial model at first. Gains are relative, so the scales of rewards may differ. They are
    those that neighbours report, and neighbours can lie. With `rewards` = ``measured`` an agent believes nobody: it
    measures every x½_j on its own prompts, and sets that against its own past: a_j = (R_i(x½_j) − b_i) / (|b_i| + ε).

    The paper's text was not available. Its abstract has weights by a client's gain over its own baseline; we
    reconstructed the rest. What makes this policy optimisation is a task whose loss is minus a reward, such as
    `tasks.arithmetic`; with any other task, minus the loss is the reward.

    State: x_i, R_i, b_i. Per agent, pass and k neighbours: one exchange, k·(P + 1)·4 bytes, K gradients, and one
    utility, or 1 + k where they are measured; one more in the first pass. With equal gains it is `local-dsgd` with one
    exchange.
    """

    family = "decentralized optimisation"
    takes_rule = False

    utility: str = options.utility("loss")
    rewards: str = option(
        "reported",
        "whose word an agent takes for what its neighbours gained: theirs, or its own prompts', Q_i",
        choices=("reported", "measured"),
    )
    gain_temperature: float = option(
        0.3, "T: a neighbour whose gain is larger by T weighs e times as much", minimum=1e-6
    )

    @property
    def needs_validation(self) -> bool:
        """True: rewards are measured on Q_i."""
        return True

    @property
    def undefended(self) -> Algorithm:
        """Attackers mix by W."""
        return UndefendedFGRPO(**vars(self))

    @step(sends=lambda self, agent: {"model": vector(agent), "gain": Form((1,), agent["model"].dtype)})
    def share(self, agent: Agent, inbox: Inbox) -> Outbox:
        """Train, and send x½_i and a_i."""
        if "baseline" not in agent.state:
            agent["baseline"] = self.reward(agent, agent["model"])
        model = self.train(agent)
        agent["reward"] = self.reward(agent, model)
        return broadcast(model=model, gain=gain(agent["reward"], agent["baseline"]))

    @step()
    def mix(self, agent: Agent, inbox: Inbox) -> None:
        """Average the neighbourhood's models by their gains."""
        models, gains = inbox.gather("model"), inbox.gather("gain")
        if self.rewards == "measured":
            heard = {j: self.reward(agent, models[j]) for j in models if j != agent.index}
            gains |= {j: gain(reward, agent["baseline"]) for j, reward in heard.items()}
        agent["baseline"] = DECAY * agent["baseline"] + (1 - DECAY) * agent["reward"]
        agent["model"] = self.combine(agent, models, gains)

    def combine(self, agent: Agent, models: dict[int, Tensor], gains: dict[int, Tensor]) -> Tensor:
        """Return Σ_j π_ij x½_j over the models that arrived."""
        prior = torch.tensor([log(agent.mixing_row[j]) for j in models]).to(agent["model"])
        told = torch.cat([gains[j] for j in models]).clamp(-HIGHEST, HIGHEST)
        weights = (prior + told / self.gain_temperature).softmax(0)
        agent.report(weights=dict(zip(models, weights.tolist(), strict=True)))
        return weights @ torch.stack(list(models.values()))

    def reward(self, agent: Agent, model: Tensor) -> Tensor:
        """Return R_i of a model, shape [1]."""
        return model.new_tensor([agent.utility(model, self.utility)])


class UndefendedFGRPO(FGRPO):
    """What attackers run."""

    def combine(self, agent: Agent, models: dict[int, Tensor], gains: dict[int, Tensor]) -> Tensor:
        """Return the mean of the models by W."""
        return agent.mix(models)


def gain(reward: Tensor, baseline: Tensor) -> Tensor:
    """Return (R − b) / (|b| + ε), shape [1].

    Examples
    --------
    >>> gain(torch.tensor([30.0]), torch.tensor([20.0]))
    tensor([0.5000])
    """
    relative = (reward - baseline) / (baseline.abs() + EPSILON)
    return relative.nan_to_num(nan=-HIGHEST).clamp(-HIGHEST, HIGHEST)
