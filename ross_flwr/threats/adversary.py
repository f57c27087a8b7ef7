"""Who lies in its messages, to whom, and knowing what."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from numpy.random import Generator
from torch import Tensor

from ross_flwr.algorithms.messages import Exchange, Message, MessageTransform
from ross_flwr.learning.agent import Agent, stream
from ross_flwr.learning.rules import Aggregation
from ross_flwr.threats.attacks import ATTACKS, BLIND, GRADIENTS_ONLY

__all__ = ["Adversary"]


@dataclass(frozen=True, kw_only=True)
class Adversary(MessageTransform):
    """A link of the message chain that rewrites what attackers send.

    An attacker knows its own vectors, who else attacks, and what it heard: the last vector of each honest neighbour
    under the same name, this step's inbox included. That it takes for its victim's neighbourhood, with its own mixing
    row, and a victim that it does not hear to be at the mean. What it remembers stands in its state. To itself and to
    other attackers it tells the truth. An attack that needs honest vectors (not in `BLIND`) tells the truth to all
    until it has heard one.

    Parameters
    ----------
    attack : str
        A name in `ATTACKS`.
    attackers : frozenset of int
        Who attacks.
    seed, num_agents : int
        Of the run.
    strength : float (default: 0)
        The attack's number; 0 for that of its paper.
    target : str (default: "all")
        Lies are about cross-gradients (``"gradients"``), about everything else (``"model"``), or both.
    since : int (default: 0)
        The pass (counted from 0) in which attackers begin to lie.
    omniscient : bool (default: False)
        Attackers know what honest agents send their victim in this step, and the victim's mixing row. All agents have
        to be hosted here.
    aggregation : Aggregation
        What optimised attacks expect of their victims.
    learning_rate : float
        η.
    """

    attack: str
    attackers: frozenset[int]
    seed: int
    num_agents: int
    strength: float = 0.0
    target: str = "all"
    since: int = 0
    omniscient: bool = False
    aggregation: Aggregation
    learning_rate: float

    def send(self, agent: Agent, outbox: dict[int, Message], exchange: Exchange) -> dict[int, Message]:
        """Return what an attacker sends instead of `outbox`; honest agents' messages are left as they are."""
        if agent.index not in self.attackers:
            return outbox
        self._listen(agent, exchange.inboxes[agent.index])
        if agent.pass_number < self.since:
            return outbox
        lies = {
            victim: self._message(agent, victim, message, exchange)
            for victim, message in outbox.items()
            if victim in agent.receivers and victim not in self.attackers
        }
        return {**outbox, **lies}

    def _message(self, agent: Agent, victim: int, message: Message, exchange: Exchange) -> Message:
        """Return the message that `victim` gets instead of `message`."""
        row = self._row(agent, victim, exchange.agents)
        changed = dict(message)
        for name, tensor in message.items():
            if self._is_about(name) and tensor.is_floating_point():
                known = self._known(agent, victim, row, name, exchange.outboxes)
                changed[name] = self._lie(agent, victim, exchange.step, name, tensor, row, known)
        return changed

    def _is_about(self, name: str) -> bool:
        """Whether attackers lie in tensors of this name."""
        if name == "gradient":
            return self.target != "model"
        return self.target != "gradients" and self.attack not in GRADIENTS_ONLY

    def _listen(self, agent: Agent, inbox: Mapping[int, Message]) -> None:
        """Remember the last of every vector that honest neighbours sent."""
        if self.attack not in BLIND:
            for source, message in inbox.items():
                if source != agent.index and source not in self.attackers:
                    agent.state.update({f"heard.{name}.{source}": vector for name, vector in message.items()})

    def _row(self, agent: Agent, victim: int, agents: Mapping[int, Agent]) -> Mapping[int, float]:
        """Return the victim's mixing row, or the attacker's in its place; the attacker's weight is w_ib in both."""
        if self.omniscient and victim in agents:
            return agents[victim].mixing_row
        return {**agent.mixing_row, agent.index: agent.mixing_column[victim]}

    def _known(
        self,
        agent: Agent,
        victim: int,
        row: Mapping[int, float],
        name: str,
        outboxes: Mapping[int, Mapping[int, Message]],
    ) -> dict[int, Tensor]:
        """Return the honest vectors that the attacker takes its victim to hear, by source."""
        if self.omniscient:
            found = {j: outboxes.get(j, {}).get(victim, {}).get(name) for j in row}
        else:
            found = {j: agent.state.get(f"heard.{name}.{j}") for j in row}
        return {j: vector for j, vector in found.items() if vector is not None and j not in self.attackers}

    def _lie(
        self,
        agent: Agent,
        victim: int,
        step: str,
        name: str,
        own: Tensor,
        row: Mapping[int, float],
        known: Mapping[int, Tensor],
    ) -> Tensor:
        """Return what `victim` gets to hear instead of `own`."""
        model = agent.state.get(f"heard.model.{victim}")
        if (self.attack not in BLIND and not known) or (self.attack in GRADIENTS_ONLY and model is None):
            return own
        vectors = torch.stack(list(known.values())) if known else own.new_empty(0, len(own))
        center = known[victim] if victim in known else vectors.mean(0)
        weights = torch.tensor([row[j] for j in known], dtype=torch.float64)
        liars = torch.tensor([row[b] for b in row if b in self.attackers], dtype=torch.float64)
        shares = torch.cat([weights, liars.mean().expand(len(liars))])

        def draws(purpose: str) -> Generator:
            return agent.stream(f"{purpose} {step} {name}", victim)

        def defence(lie: Tensor) -> Tensor:
            stack = torch.cat([vectors, lie.expand(len(liars), -1)])
            return self.aggregation(stack, own=center, weights=shares / shares.sum(), generator=draws("defence"))

        def gradient(vector: Tensor) -> Tensor:
            with torch.random.fork_rng():
                torch.manual_seed(int(draws("dropout").integers(2**62)))
                return agent.objective.gradient(vector, agent.objective.validation)

        prefix = f"noted.{step}.{name}.{victim}."
        notes = {key.removeprefix(prefix): agent.state.pop(key) for key in list(agent.state) if key.startswith(prefix)}
        lie = ATTACKS[self.attack](
            vectors,
            own=own,
            victim=center,
            weights=weights,
            liar_weight=float(liars.sum()),
            liars=len(liars),
            neighbors=len(row) - 1,
            num_attackers=len(self.attackers),
            num_agents=self.num_agents,
            generator=draws("attack"),
            common=stream(self.seed, f"attack {name}"),
            position=agent.receivers.index(victim),
            notes=notes,
            round=agent.pass_number,
            defence=defence,
            model=model,
            learning_rate=self.learning_rate,
            utility=lambda vector: agent.objective.utility(vector, "loss"),
            gradient=gradient,
            **({"strength": self.strength} if self.strength else {}),
        )
        agent.state.update({prefix + key: vector for key, vector in notes.items()})
        return lie
