"""The threats of a run: who attacks and how, who is away, and which messages get lost."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from ross_flwr.algorithms import Algorithm
from ross_flwr.algorithms.messages import MessageTransform
from ross_flwr.config import ConfigError
from ross_flwr.learning.agent import Agent, GradientTransform
from ross_flwr.learning.rules import Rule
from ross_flwr.learning.streams import stream
from ross_flwr.threats.adversary import Adversary
from ross_flwr.threats.attacks import Attack
from ross_flwr.threats.faults import Attendance, Loss
from ross_flwr.threats.options import AttackOptions, FaultOptions
from ross_flwr.threats.poisons import Poison, Poisoning

__all__ = ["Threats", "draw_attackers", "read_threats"]


@dataclass(frozen=True, kw_only=True)
class Threats:
    """What goes wrong in a run; by default, nothing.

    Attributes
    ----------
    attackers : frozenset of int
        The agents that do not follow the algorithm.
    since : int
        The pass (counted from 0) in which attackers begin. Until then they follow the algorithm with all its defences;
        from then on they run its undefended form (`Algorithm.undefended`).
    corrupted : frozenset of int
        The agents whose data is bad. They follow the algorithm and count as honest.
    poisons : sequence of GradientTransform
        Links of every attacker's gradient chain.
    lies, losses : sequence of MessageTransform
        Links of all agents' message chain: those that change what messages say, and those that lose messages after
        everything else has been done to them.
    absent : callable, optional
        From an agent and a pass to whether the agent is away.
    omniscient : bool
        Whether the lies need all agents in one process.

    Examples
    --------
    >>> def reverse(gradient, agent, request):
    ...     return -gradient
    >>> threats = Threats(attackers=frozenset({1}), poisons=[reverse])
    >>> [len(threats.gradient_chain(agent)) for agent in range(3)]
    [0, 1, 0]
    """

    attackers: frozenset[int] = frozenset()
    since: int = 0
    corrupted: frozenset[int] = frozenset()
    poisons: Sequence[GradientTransform] = ()
    lies: Sequence[MessageTransform] = ()
    losses: Sequence[MessageTransform] = ()
    absent: Callable[[int, int], bool] | None = None
    omniscient: bool = False

    def gradient_chain(self, agent: int) -> list[GradientTransform]:
        """Return the gradient chain of an agent: the poisons, if it attacks."""
        return list(self.poisons) if agent in self.attackers else []

    def check_agent(self, agent: Agent) -> None:
        """Refuse poisons that do not suit the data of an agent that attacks.

        Raises
        ------
        ConfigError
            Naming the attack.
        """
        for link in self.gradient_chain(agent.index):
            poison = link.poison if isinstance(link, Poisoning) else link
            if isinstance(poison, Poison):
                poison.check(agent)

    def check(self, algorithm: Algorithm) -> None:
        """Refuse an attack on cross-gradients alone if the algorithm sends none.

        Raises
        ------
        ConfigError
            Naming the attack and its target.
        """
        if "cross_gradients" in algorithm.steps:
            return
        for link in (*self.poisons, *self.lies):
            match link:
                case Poisoning(poison=attack, about=["cross"]) | Adversary(attack=attack, about=["cross"]):
                    pass
                case Adversary(attack=Attack(gradients_only=True) as attack):
                    pass
                case _:
                    continue
            raise ConfigError(
                f"the attack, {attack}, is about cross-gradients alone, and {algorithm.name} sends none: use another "
                "attack or attack-target, or a method such as ross with beside = ''"
            )

    def check_nodes(self, nodes: int) -> None:
        """Refuse attackers that would need to see other nodes' agents.

        Raises
        ------
        ConfigError
            When attackers are omniscient and agents are on several nodes.
        """
        if self.omniscient and nodes > 1:
            raise ConfigError(
                f"omniscient = true takes all agents in one process, and they are on {nodes} nodes: use "
                "`ross-flwr run`, num-nodes = 1, or omniscient = false"
            )


def draw_attackers(
    options: AttackOptions, neighbors: Callable[[int], Iterable[int]], *, num_agents: int, seed: int
) -> frozenset[int]:
    """Return the attackers: `attackers` agents drawn by the seed, or one drawn and those nearest to it.

    Parameters
    ----------
    options : AttackOptions
        How many, and where.
    neighbors : callable
        From an agent to its neighbours in the first graph.
    num_agents, seed : int
        Of the run.

    Raises
    ------
    ConfigError
        When the attack is not known, or leaves no honest agent.
    """
    attack = options.chosen()
    if options.attackers >= num_agents:
        raise ConfigError(f"attackers = {options.attackers} leaves no honest agent among num-agents = {num_agents}")
    if attack is None:
        return frozenset()
    drawn: list[int] = stream(seed, "attackers").permutation(num_agents).tolist()
    order = breadth_first(drawn, neighbors) if options.attackers_placed == "adjacent" else drawn
    return frozenset(order[: options.attackers])


def breadth_first(order: Sequence[int], neighbors: Callable[[int], Iterable[int]]) -> list[int]:
    """Return the first agent of `order`, then its neighbours, then theirs; then those who cannot be reached, likewise.

    Examples
    --------
    >>> breadth_first([3, 0, 1, 2, 4], lambda i: [(i - 1) % 5, (i + 1) % 5])
    [3, 2, 4, 1, 0]
    """
    found: list[int] = []
    for first in order:
        near = [first]
        for agent in near:
            if agent not in found:
                found.append(agent)
                near += sorted(neighbors(agent))
    return found


def read_threats(
    attack: AttackOptions,
    fault: FaultOptions,
    algorithm: Algorithm,
    aggregator: Rule,
    attackers: frozenset[int] = frozenset(),
    corrupted: frozenset[int] = frozenset(),
    *,
    num_agents: int,
    num_rounds: int,
    passes: int,
    seed: int,
) -> Threats:
    """Return the threats that the keys ask for.

    Raises
    ------
    ConfigError
        When nobody is left.
    """
    chosen, since = attack.chosen(), (attack.attack_from - 1) * passes
    poisons: list[GradientTransform] = []
    lies: list[MessageTransform] = []
    if attackers and isinstance(chosen, Poison):
        poisons.append(Poisoning(chosen, attack.about, since))
    elif attackers and isinstance(chosen, Attack):
        lies.append(
            Adversary(
                attack=chosen,
                attackers=attackers,
                num_agents=num_agents,
                about=attack.about,
                since=since,
                omniscient=attack.omniscient,
                rule=aggregator,
                learning_rate=algorithm.learning_rate,
            )
        )
    omniscient = attack.omniscient and bool(lies)
    _check_faults(fault, num_agents)
    attendance = Attendance(fault.absences, seed, num_agents, num_rounds, passes)
    return Threats(
        attackers=attackers,
        since=since,
        corrupted=corrupted,
        poisons=poisons,
        lies=lies,
        losses=[Loss(fault.message_loss)] if fault.message_loss else [],
        absent=attendance.absent if attendance.absences else None,
        omniscient=omniscient,
    )


def _check_faults(fault: FaultOptions, num_agents: int) -> None:
    for key, count in (("stopped", fault.stopped), ("slow", fault.slow)):
        if count >= num_agents:
            raise ConfigError(f"{key} = {count} leaves nobody as usual among num-agents = {num_agents}")
