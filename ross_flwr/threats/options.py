"""The keys of attackers and faults."""

from ross_flwr.config import group, option

__all__ = ["AttackOptions", "FaultOptions"]


@group("Attackers")
class AttackOptions:
    """Who attacks, and how."""

    attack: str = option("gradient-scaling", "what attackers do; `ross-flwr list attacks` shows them")
    attackers: int = option(3, "how many agents attack, chosen by the seed", unit="agents", minimum=0)
    attack_scale: float = option(
        -3.0,
        "the number of attacks on gradients as they are computed: the factor of gradient-scaling, the σ of "
        "gradient-noise, the value of gradient-constant",
    )
    attack_strength: float = option(
        0.0,
        "the number of attacks on messages: s of sign-flip, ε of ipm and dissensus, z of alie, σ of gaussian, k of "
        "stale; 0 takes the one that `ross-flwr list attacks` names or implies",
        minimum=0.0,
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


@group("Faults")
class FaultOptions:
    """Who is away, and what gets lost."""

    dropout: float = option(0.0, "part of the rounds that each agent misses, by chance", minimum=0.0, maximum=0.99)
    outage_rounds: int = option(1, "how long an agent that drops out stays away", unit="rounds", minimum=1)
    stopped: int = option(0, "agents that stop for ever, after a round drawn for each", unit="agents", minimum=0)
    slow: int = option(0, "agents that take part in one of slow-rounds rounds only", unit="agents", minimum=0)
    slow_rounds: int = option(3, "rounds that a slow agent needs for one", unit="rounds", minimum=2)
    message_loss: float = option(
        0.0, "part of the messages that get lost on their way, by chance", minimum=0.0, maximum=1.0
    )
