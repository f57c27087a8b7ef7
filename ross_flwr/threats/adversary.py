"""Attackers that lie in their messages: to whom, and what they know."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from ross_flwr.algorithms.messages import Exchange, Message, MessageTransform
from ross_flwr.learning.agent import Agent
from ross_flwr.learning.requests import Of
from ross_flwr.learning.rules import Rule
from ross_flwr.threats.attacks import Attack, View

__all__ = ["Adversary"]


@dataclass(frozen=True, kw_only=True)
class Adversary(MessageTransform):
    """A link of the message chain that rewrites what attackers send.

    An attacker knows its own vectors, who else attacks, and what it heard: the last vector of each honest neighbour
    under the same name, including this step's inbox. It assumes that its victim hears these vectors, with the
    attacker's own mixing row. If it does not hear the victim, it assumes that the victim is at their mean. It keeps
    what it remembers in its state. It tells itself and other attackers the truth. An attack that is not blind tells the
    truth to all until it has heard one honest vector. It lies only in floating-point tensors.

    Parameters
    ----------
    attack : Attack
        What attackers do.
    attackers : frozenset of int
        Who attacks.
    num_agents : int
        N.
    about : sequence of {"own", "cross"} (default: both)
        What attackers lie about: cross-gradients (``"cross"``), everything else (``"own"``), or both.
    since : int (default: 0)
        The pass (counted from 0) in which attackers begin to lie.
    omniscient : bool (default: False)
        Attackers know what honest agents send their victim in this step, before any link of the chain, and the victim's
        mixing row. All agents must be hosted here.
    rule : Rule
        The rule that attackers expect their victims to use.
    learning_rate : float
        η.
    """

    attack: Attack
    attackers: frozenset[int]
    num_agents: int
    about: Sequence[Of] = ("own", "cross")
    since: int = 0
    omniscient: bool = False
    rule: Rule
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

    def _listen(self, agent: Agent, inbox: Mapping[int, Message]) -> None:
        """Remember the last of every vector that honest neighbours sent."""
        if not self.attack.blind:
            for source, message in inbox.items():
                if source != agent.index and source not in self.attackers:
                    agent.state.update({f"heard.{name}.{source}": vector for name, vector in message.items()})

    def _message(self, agent: Agent, victim: int, message: Message, exchange: Exchange) -> Message:
        """Return the message that `victim` gets instead of `message`."""
        row = self._row(agent, victim, exchange)
        changed = dict(message)
        for name, tensor in message.items():
            if self._is_about(name) and tensor.is_floating_point():
                known = self._known(agent, victim, row, name, tensor, exchange)
                if known or self.attack.blind:
                    changed[name] = self._lie(agent, victim, name, tensor, row, known, exchange)
        return changed

    def _is_about(self, name: str) -> bool:
        """Whether attackers lie in tensors of this name."""
        if name == "gradient":
            return "cross" in self.about
        return "own" in self.about and not self.attack.gradients_only

    def _row(self, agent: Agent, victim: int, exchange: Exchange) -> Mapping[int, float]:
        """Return the victim's mixing row, or the attacker's in its place; the attacker's weight is w_ib in both."""
        if self.omniscient and victim in exchange.agents:
            return exchange.agents[victim].mixing_row
        return {**agent.mixing_row, agent.index: agent.mixing_column[victim]}

    def _known(
        self, agent: Agent, victim: int, row: Mapping[int, float], name: str, own: Tensor, exchange: Exchange
    ) -> dict[int, Tensor]:
        """Return the honest tensors like `own` that, the attacker assumes, its victim hears: flat, by source."""
        if self.omniscient:
            found = {j: exchange.outboxes.get(j, {}).get(victim, {}).get(name) for j in row}
        else:
            found = {j: agent.state.get(f"heard.{name}.{j}") for j in row}
        return {
            j: tensor.flatten().to(own)
            for j, tensor in found.items()
            if tensor is not None and tensor.shape == own.shape and j not in self.attackers
        }

    def _lie(
        self,
        agent: Agent,
        victim: int,
        name: str,
        own: Tensor,
        row: Mapping[int, float],
        known: Mapping[int, Tensor],
        exchange: Exchange,
    ) -> Tensor:
        """Return what `victim` gets instead of `own`, in the same form; the attack sees flat vectors."""
        prefix = f"noted.{exchange.step}.{name}.{victim}."
        notes = {key.removeprefix(prefix): agent.state.pop(key) for key in list(agent.state) if key.startswith(prefix)}
        view = View(
            own=own.flatten(),
            known=known,
            receiver=victim,
            row=row,
            attackers=self.attackers,
            num_agents=self.num_agents,
            position=agent.receivers.index(victim),
            pass_number=agent.pass_number,
            seed=agent.seed,
            name=name,
            draws=lambda purpose: agent.stream(f"{purpose} {exchange.step} {name}", victim),
            notes=notes,
            model=agent.state.get(f"heard.model.{victim}"),
            objective=agent.objective,
            rule=self.rule,
            learning_rate=self.learning_rate,
            progress=agent.progress,
        )
        lie = self.attack.lie(view)
        agent.state.update({prefix + key: vector for key, vector in notes.items()})
        return lie.to(own).view_as(own)
