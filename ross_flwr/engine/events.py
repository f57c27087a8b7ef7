"""What the agents of a run report on a round."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

__all__ = ["AgentReport", "Round"]


@dataclass(slots=True)
class AgentReport:
    """What one agent did in one round.

    Attributes
    ----------
    agent : int
        Its index.
    gradients, utilities : int
        Gradients and utilities it evaluated.
    work : float
        The example passes in them: one for each example run forward and backward, a third for each run forward alone.
    sent : dict[int, dict[str, int]]
        Bytes by neighbour and tensor name.
    missing : list[int]
        Neighbours from whom a message did not arrive.
    weights : dict[int, float]
        The weight of each neighbour's gradient in the agent's last step, if the method weighs them.
    time : dict[str, float]
        Seconds spent in ``gradients``, in ``utilities`` and in ``exchange``, the delivery of messages in its process.
    spent : float, optional
        Of a private agent that released gradients: the sum of their precisions, for the example that most are of.
    loss, accuracy : float, optional
        On the test set, at the agent's own model; None in rounds without a test.
    attack_success : float, optional
        The share of triggered test images that the agent's model assigns to the backdoor's target.
    metrics : dict[str, float]
        The user's own numbers, from the same test.
    """

    agent: int
    gradients: int = 0
    utilities: int = 0
    work: float = 0.0
    sent: dict[int, dict[str, int]] = field(default_factory=dict)
    missing: list[int] = field(default_factory=list)
    weights: dict[int, float] = field(default_factory=dict)
    time: dict[str, float] = field(default_factory=dict)
    spent: float | None = None
    loss: float | None = None
    accuracy: float | None = None
    attack_success: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)

    def add(self, performance: Mapping[str, float]) -> None:
        """Add the results of a test of the agent's model: ``loss``, ``accuracy`` and whatever else was measured."""
        measured = dict(performance)
        self.loss, self.accuracy = measured.pop("loss"), measured.pop("accuracy")
        self.attack_success = measured.pop("attack-success", None)
        self.metrics = measured


@dataclass(frozen=True, slots=True)
class Round:
    """A finished round: its number, from 1; the agents' reports; wall seconds; and the models, if available."""

    number: int
    reports: Sequence[AgentReport]
    seconds: float
    models: Mapping[int, Tensor] | None = None
