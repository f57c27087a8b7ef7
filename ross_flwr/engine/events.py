"""What the agents of a run tell of a round."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

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
    sent : dict[int, dict[str, int]]
        Bytes by neighbour and tensor name.
    missing : list[int]
        Neighbours from whom a message did not arrive.
    weights : dict[int, float]
        The weight of each neighbour's gradient in the agent's last step, if the method weighs them.
    time : dict[str, float]
        Seconds spent in ``gradients``, in ``utilities`` and, delivering messages in its process, in ``exchange``.
    loss, accuracy : float, optional
        On the test set, at the agent's own model; None in rounds without a test.
    attack_success : float, optional
        The share of triggered test images that the agent's model takes for the backdoor's target.
    metrics : dict[str, float]
        The user's own numbers, of the same test.
    """

    agent: int
    gradients: int = 0
    utilities: int = 0
    sent: dict[int, dict[str, int]] = field(default_factory=dict)
    missing: list[int] = field(default_factory=list)
    weights: dict[int, float] = field(default_factory=dict)
    time: dict[str, float] = field(default_factory=dict)
    loss: float | None = None
    accuracy: float | None = None
    attack_success: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)

    def add(self, performance: Mapping[str, float]) -> None:
        """Take in what a test of the agent's model gave: ``loss``, ``accuracy`` and whatever else was measured."""
        measured = dict(performance)
        self.loss, self.accuracy = measured.pop("loss"), measured.pop("accuracy")
        self.attack_success = measured.pop("attack-success", None)
        self.metrics = measured

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "AgentReport":
        """Return the report that `dataclasses.asdict` and JSON, which makes keys texts, turned into `entry`.

        Raises
        ------
        AttributeError, KeyError, TypeError, ValueError
            When it is none.
        """
        by_neighbor = {name: {int(j): value for j, value in entry[name].items()} for name in ("sent", "weights")}
        report = cls(**{**entry, **by_neighbor})
        counts = [report.agent, report.gradients, report.utilities, *report.missing]
        counts += [count for kinds in report.sent.values() for count in kinds.values()]
        shares = [report.loss, report.accuracy, report.attack_success, *report.weights.values()]
        sound = all(isinstance(count, int) for count in counts)
        if not (sound and all(isinstance(share, float | int | None) for share in shares)):
            raise ValueError("a report counts in whole numbers, and its shares are numbers")
        return report


@dataclass(frozen=True, slots=True)
class Round:
    """A finished round: its number from 1, the reports of the agents heard, wall seconds, the models if at hand."""

    number: int
    reports: Sequence[AgentReport]
    seconds: float
    models: Mapping[int, Tensor] | None = None
