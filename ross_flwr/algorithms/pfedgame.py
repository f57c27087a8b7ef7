"""Aggregation as a game of two."""

from math import exp

import torch
from torch import Tensor

from ross_flwr.algorithms import options
from ross_flwr.algorithms.algorithm import Algorithm, register, step
from ross_flwr.algorithms.local_steps import AdaptThenCombine
from ross_flwr.algorithms.messages import Inbox
from ross_flwr.learning.agent import Agent

PEERS = 2
"""q, how many peers the own model meets."""


@register("pfedgame")
class PFedGame(AdaptThenCombine):
    """pFedGame (arXiv:2410.04058): mix the own model with the best peers' one by one, by Shapley values of the pair.

    ::

        x½_i = x_i after K local steps;   z = x½_i
        for the q = 2 neighbours j with the largest v(x½_j), from the best on:
            φ_i = ½ (v(z) + v(½ z + ½ x½_j) − v(x½_j));   φ_j = ½ (v(x½_j) + v(½ z + ½ x½_j) − v(z))
            z ← (φ_i z + φ_j x½_j) / (φ_i + φ_j)
        x_i = z

    v is the accuracy on Q_i or exp(−loss), the likelihood of an example's class; in both cases the empty coalition is
    worth 0. A negative φ counts as 0. The abstract names the choice of peers and the constant-sum game of two; we
    reconstructed the choice by v and the game's values. No number of liars is assumed: a model that makes the pair
    worse gets no weight.

    State: the model. Per agent and pass: one exchange, k·P·4 bytes, K gradients and k + 2 min(q, k) utilities.
    """

    family = "personal"

    utility: str = options.utility("loss")

    @property
    def needs_validation(self) -> bool:
        """True: models are judged on Q_i."""
        return True

    @property
    def undefended(self) -> Algorithm:
        """Attackers take the plain mean of the models."""
        return UndefendedPFedGame(**vars(self))

    @step()
    def mix(self, agent: Agent, inbox: Inbox) -> None:
        """Mix the own model with those that arrived."""
        models = inbox.gather("model")
        agent["model"] = self.combine(agent, models.pop(agent.index), models)

    def combine(self, agent: Agent, own: Tensor, others: dict[int, Tensor]) -> Tensor:
        """Return z after its games with the q best."""
        values = {j: self.value(agent, model) for j, model in others.items()}
        mixed = own
        for j in sorted(values, key=values.__getitem__, reverse=True)[:PEERS]:
            alone, together = self.value(agent, mixed), self.value(agent, torch.lerp(mixed, others[j], 0.5))
            phi_own, phi_peer = max(alone + together - values[j], 0), max(values[j] + together - alone, 0)
            if phi_peer:
                mixed = torch.lerp(mixed, others[j], phi_peer / (phi_own + phi_peer))
        return mixed

    def value(self, agent: Agent, model: Tensor) -> float:
        """Return v of a model, from 0 for a useless one to 1."""
        return exp(-agent.loss(model, "validation")) if self.utility == "loss" else agent.utility(model, self.utility)


class UndefendedPFedGame(PFedGame):
    """What attackers run."""

    def combine(self, agent: Agent, own: Tensor, others: dict[int, Tensor]) -> Tensor:
        """Return the plain mean of the models."""
        return agent.mix({agent.index: own, **others})
