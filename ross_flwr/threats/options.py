"""The keys of attackers and faults."""

from dataclasses import replace

from ross_flwr.config import ConfigError, group, keys_of, option, require
from ross_flwr.learning.requests import Of
from ross_flwr.threats.attacks import ATTACKS, Attack
from ross_flwr.threats.faults import Absence, Dropout, Slow, Stopped
from ross_flwr.threats.poisons import POISONS, Poison

__all__ = ["AttackOptions", "FaultOptions"]


@group("Attackers")
class AttackOptions:
    """Who attacks, and how."""

    attack: str = option("gradient-scaling", "what attackers do; `ross-flwr list attacks` shows them")
    attackers: int = option(0, "how many agents attack, chosen by the seed", unit="agents", minimum=0)
    attackers_placed: str = option(
        "random",
        "where attackers are in the graph: anywhere, or side by side, an agent with its nearest",
        choices=("random", "adjacent"),
    )
    attack_strength: float = option(
        0.0,
        "the number of the attack: the factor of gradient-scaling, one-class and longest-class, c of "
        "gradient-constant, σ of gradient-noise and gaussian, s of sign-flip and screen-adaptive, ε of ipm and "
        "dissensus, z of alie, k of stale; 0 for the one that `ross-flwr list attacks` names or implies",
    )
    attack_target: str = option(
        "all",
        "what attacks spoil: cross-gradients, everything else (the own gradients, models, momenta), or both",
        choices=("all", "model", "gradients"),
    )
    attack_from: int = option(1, "the first round in which attackers attack", unit="round", minimum=1)
    omniscient: bool = option(
        False, "whether attackers know what honest agents send in the same step, and not only what they have heard"
    )

    def chosen(self) -> Attack | Poison | None:
        """Return the attack that the keys `attack` and `attack-strength` describe; None for ``"none"``.

        Raises
        ------
        ConfigError
            When there is no such attack, or it does not take this number.
        """
        require("attack", self.attack, ("none", *POISONS, *ATTACKS))
        if self.attack == "none":
            return None
        found: Attack | Poison = POISONS[self.attack]() if self.attack in POISONS else ATTACKS[self.attack]()
        return self._with_strength(found) if self.attack_strength else found

    def _with_strength(self, found: Attack | Poison) -> Attack | Poison:
        """Return the attack with `attack-strength` as its number."""
        for key in keys_of(type(found)):
            whole = key.kind is int and self.attack_strength.is_integer()
            number = int(self.attack_strength) if whole else self.attack_strength
            value = replace(key, name="attack-strength").parse(number)
            return replace(found, **{key.name.replace("-", "_"): value})
        raise ConfigError(
            f"attack-strength = {self.attack_strength:g} is not allowed: attack = '{self.attack}' takes no number, "
            "so use 0"
        )

    @property
    def about(self) -> tuple[Of, ...]:
        """What `attack-target` names: gradients and messages of the agent's own, cross-gradients, or both."""
        targets: dict[str, tuple[Of, ...]] = {"all": ("own", "cross"), "model": ("own",), "gradients": ("cross",)}
        return targets[self.attack_target]


@group("Faults")
class FaultOptions:
    """Who is away, and what gets lost."""

    dropout: float = option(0.0, "part of the rounds that each agent misses, by chance", minimum=0.0, maximum=0.99)
    outage_rounds: int = option(1, "how long an agent that drops out stays away", unit="rounds", minimum=1)
    stopped: int = option(0, "agents that stop for ever, after a round drawn for each", unit="agents", minimum=0)
    slow: int = option(0, "agents that take part in every third round only", unit="agents", minimum=0)
    message_loss: float = option(
        0.0, "part of the messages that get lost on their way, by chance", minimum=0.0, maximum=1.0
    )

    @property
    def absences(self) -> list[Absence]:
        """Why agents are away."""
        found: list[Absence] = []
        if self.dropout:
            found.append(Dropout(self.dropout, self.outage_rounds))
        if self.stopped:
            found.append(Stopped(self.stopped))
        if self.slow:
            found.append(Slow(self.slow))
        return found
