"""Agents that are away and messages that get lost: nobody's fault, and nobody's lie."""

from dataclasses import dataclass
from functools import cached_property

from ross_flwr.algorithms.messages import Exchange, Message, MessageTransform, Refused
from ross_flwr.learning.agent import Agent, stream

__all__ = ["FAULTS", "Faults", "Loss"]

FAULTS = {
    "dropout": "each agent misses this part of the rounds, by chance, for outage-rounds at a time",
    "stopped": "so many agents stop for ever, each after a round drawn by the seed",
    "slow": "so many agents take part in one of slow-rounds rounds only",
    "message-loss": "this part of the messages gets lost on its way, by chance",
}
"""Keys and what they do."""


@dataclass(frozen=True)
class Faults:
    """Who is away when: the same on every transport, for it follows from the seed.

    An agent that is away computes and sends nothing in that round; it keeps its state, and goes on with it on return.

    Parameters
    ----------
    seed, num_agents, num_rounds : int
        Of the run.
    passes : int
        Passes over the method's steps in one round.
    dropout, outage_rounds, stopped, slow, slow_rounds
        The keys of these names.
    """

    seed: int
    num_agents: int
    num_rounds: int
    passes: int = 1
    dropout: float = 0.0
    outage_rounds: int = 1
    stopped: int = 0
    slow: int = 0
    slow_rounds: int = 3

    def absent(self, agent: int, pass_number: int) -> bool:
        """Whether `agent` is away in the round of this pass (counted from 0)."""
        number = pass_number // self.passes
        if number >= self._last_round.get(agent, self.num_rounds):
            return True
        if agent in self._phase and number % self.slow_rounds != self._phase[agent]:
            return True
        if not self.dropout:
            return False
        return bool(stream(self.seed, "dropout", agent, number // self.outage_rounds).random() < self.dropout)

    @cached_property
    def _last_round(self) -> dict[int, int]:
        """After how many rounds an agent stops."""
        generator = stream(self.seed, "stopped")
        drawn = generator.permutation(self.num_agents)[: self.stopped]
        return {int(i): int(generator.integers(1, max(2, self.num_rounds))) for i in drawn}

    @cached_property
    def _phase(self) -> dict[int, int]:
        """In which of its slow-rounds rounds a slow agent takes part."""
        generator = stream(self.seed, "slow")
        drawn = generator.permutation(self.num_agents)[: self.slow]
        return {int(i): int(generator.integers(self.slow_rounds)) for i in drawn}


@dataclass(frozen=True)
class Loss(MessageTransform):
    """A link of the message chain that loses messages by chance.

    Parameters
    ----------
    seed : int
        Of the run.
    rate : float
        The part of the messages that gets lost.
    """

    seed: int
    rate: float

    def receive(self, agent: Agent, source: int, message: Message, exchange: Exchange) -> Message:
        """Return the message, or refuse it as lost."""
        draw = stream(self.seed, f"loss {exchange.number}", source, exchange.pass_number, agent.index).random()
        if draw < self.rate:
            raise Refused("lost")
        return message
