"""A defence against Sybils, which give themselves away by being alike."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from ross_flwr.algorithms.algorithm import Algorithm, register, step
from ross_flwr.algorithms.local_steps import LocalSteps
from ross_flwr.algorithms.messages import Form, Inbox, Message, vector
from ross_flwr.learning.agent import Agent

DECAY = 0.8
"""λ, how much more often histories of near peers are passed on."""


@register("sybilwall")
class SybilWall(LocalSteps):
    """SybilWall (Werthenbach, Pouwelse, 2023): FoolsGold on the histories of neighbours and, by gossip, of others.

    ::

        x½_i = x_i after K local steps
        h_j ← h_j + x½_j − (x½_j of the round before)     for j ∈ N_i, from the common x⁰ on:  h_j = x½_j − x⁰
        to j ∈ N_i, with x½_i, the history h_p of one p known, p ≠ i, j and not told by j:  P(p) ∝ exp(−λ (δ_p − 1))
        σ    = foolsgold({h_p}, p known);   σ_i = 1
        x_i  = Σ_{j ∈ M_i} σ_j x½_j / Σ_{j ∈ M_i} σ_j

    δ_p counts the hops that the history of p came, 1 for a neighbour; what comes by gossip replaces older gossip and
    never what was heard from p itself. λ = 0.8 is the authors'. The released code takes x½_j whole as the first
    difference, and so h_j = x½_j, which is much the same for all who began alike; it also gives agents the scores of
    distant peers. Neither is followed.

    It is made for Sybils, many identities that push one way; it believes a liar that is like nobody else. On the digits
    with the default keys, after 60 rounds with seeds 0, 1 and 2, accuracy is 0.72, 0.76 and 0.68 without attackers, for
    honest agents are alike too (D-PSGD 0.83, 0.87, 0.83), and 0.09, 0.10 and 0.07 with the default three, who each
    climb their own loss. Liars can tell false histories of others, and of peers that do not exist, P numbers each.

    State: x_i, x⁰, and per known peer p h_p and (δ_p, its round, who told it). Per agent, pass and k neighbours: one
    exchange, K gradients, 2·k·P·4 bytes and 12·k for the gossip's head. Where no two are alike (σ = 1) it is the plain
    mean of the neighbourhood.
    """

    family = "Byzantine-robust"

    @property
    def undefended(self) -> Algorithm:
        """Attackers take the plain mean of the models."""
        return UndefendedSybilWall(**vars(self))

    def start(self, agent: Agent) -> None:
        """Keep x⁰; no peer is known yet."""
        agent["origin"] = agent["model"]

    @step(
        sends=lambda self, agent: {
            "model": vector(agent),
            "history": replace(vector(agent), optional=True),
            "record": Form((3,), torch.int32, optional=True),
        }
    )
    def share(self, agent: Agent, inbox: Inbox) -> dict[int, Message]:
        """Send x½_i to all, and to each the history of another peer."""
        model = self.train(agent)
        return {j: {"model": model, **self.gossip(agent, j)} for j in agent.mixing_column}

    @step()
    def mix(self, agent: Agent, inbox: Inbox) -> None:
        """Take note of the histories, then combine the models by their scores."""
        for source, message in inbox.items():
            if source != agent.index:
                self.note(agent, source, message)
        models = inbox.gather("model")
        agent["model"] = self.combine(agent, models.pop(agent.index), models)

    def gossip(self, agent: Agent, destination: int) -> Message:
        """Return h_p, and p, δ_p and its pass, for a p drawn for `destination`; nothing where there is none to tell."""
        known = {p: agent[f"record.{p}"].tolist() for p in peers(agent)}
        told = [p for p, (_, _, source) in known.items() if destination not in (agent.index, p, source)]
        if not told:
            return {}
        hops = np.array([known[p][0] for p in told])
        shares = np.exp(DECAY * (hops.min() - hops))
        p = int(agent.stream("gossip", destination).choice(told, p=shares / shares.sum()))
        return {"history": agent[f"history.{p}"], "record": record(p, *known[p][:2])}

    def note(self, agent: Agent, source: int, message: Message) -> None:
        """Keep the history of `source`, and the one it told if that is news."""
        agent[f"history.{source}"] = message["model"] - agent["origin"]
        agent[f"record.{source}"] = record(1, agent.pass_number, source)
        if not {"history", "record"} <= message.keys():
            return
        peer, hops, told_in = message["record"].tolist()
        possible = peer >= 0 and told_in >= 0 and 1 <= hops <= agent.pass_number - told_in
        if not possible or peer in agent.mixing_row:
            return
        if f"record.{peer}" not in agent.state or agent[f"record.{peer}"][1] < told_in:
            agent[f"history.{peer}"] = message["history"]
            agent[f"record.{peer}"] = record(hops + 1, told_in, source)

    def combine(self, agent: Agent, own: Tensor, others: dict[int, Tensor]) -> Tensor:
        """Return the mean of the models weighted by their senders' scores."""
        known = peers(agent)
        if not known:
            return own
        scores = foolsgold(torch.stack([agent[f"history.{p}"] for p in known]))
        by_peer: dict[int, float] = dict(zip(known, scores.tolist(), strict=True))
        total = 1 + sum(by_peer[j] for j in others)
        mixed = own / total
        for j, model in others.items():
            mixed.add_(model, alpha=by_peer[j] / total)
        return mixed


class UndefendedSybilWall(SybilWall):
    """What attackers run."""

    def combine(self, agent: Agent, own: Tensor, others: dict[int, Tensor]) -> Tensor:
        """Return the plain mean of the models."""
        return agent.mix({agent.index: own, **others})


def record(*numbers: int) -> Tensor:
    """Return whole numbers as a tensor: (δ_p, its pass, who told it) in the state, (p, δ_p, its pass) in a message."""
    return torch.tensor(numbers, dtype=torch.int32)


def peers(agent: Agent) -> list[int]:
    """Return the peers whose history an agent knows, in ascending order."""
    return sorted(int(name.removeprefix("history.")) for name in agent.state if name.startswith("history."))


def foolsgold(histories: Tensor) -> Tensor:
    """Return a score from 0 to 1 for each row of `histories`, shape [n, P], low for rows with a like (float64, [n]).

    FoolsGold (Fung, Yoon, Beschastnikh, RAID 2020): c = cosines, c_kk = 0; v_k = max_l c_kl; pardon those less alike
    than their like, c_kl ← c_kl v_k/v_l where v_k < v_l; α_k = 1 − max_l c_kl, in parts of the largest; then
    logit(α_k) + ½, cut to [0, 1]. Where all have a like, all get 0.
    """
    directions = nn.functional.normalize(histories.double())
    cosines = (directions @ directions.T).fill_diagonal_(0)
    alike = cosines.max(dim=1).values + 1e-5
    pardoned = cosines * (alike[:, None] / alike).clamp(max=1)
    alpha = (1 - pardoned.max(dim=1).values).clamp(0, 1)
    if alpha.max() <= 1e-9:
        return torch.zeros_like(alpha)
    return (torch.logit(alpha / alpha.max(), eps=1e-6) + 0.5).clamp(0, 1)
