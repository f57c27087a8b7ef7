"""Agents whose data is bad: noisy inputs, wrong labels, or a planted trigger.

A process holds each example once, so inputs are altered when a batch is taken; only labels are copied. What happens to
an example depends only on the seed, the agent and the example's place in the agent's data.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ross_flwr.config import ConfigError, require
from ross_flwr.learning.examples import Batch, Split
from ross_flwr.learning.streams import stream
from ross_flwr.tasks.options import CorruptionOptions

__all__ = ["CORRUPTIONS", "TARGET", "Corruption", "draw_corrupted"]

CORRUPTIONS = {
    "none": "all data is as published",
    "feature-noise": "Gaussian noise of deviation noise-sigma is added to normalised images, tables and signals",
    "label-noise": "a label, or each byte to predict, becomes any other one, each with the same probability",
    "asymmetric-label-noise": "label y becomes y + 1, the last one 0",
    "label-flip": "label y becomes C - 1 - y",
    "backdoor": "a white square of three pixels in the corner of the image, and the label 0",
}

TRIGGER = 3
"""Side of the white square that a backdoor plants, in pixels."""

TARGET = 0
"""The label that a backdoor teaches."""


def draw_corrupted(
    options: CorruptionOptions, attackers: Collection[int], *, num_agents: int, seed: int
) -> frozenset[int]:
    """Return the agents whose data is bad: as many non-attackers as the options say, drawn by the seed.

    Raises
    ------
    ConfigError
        When the corruption is not known, or there are too few agents.
    """
    require("corruption", options.corruption, CORRUPTIONS)
    if options.corruption == "none":
        return frozenset()
    count = options.corrupted
    candidates = [i for i in range(num_agents) if i not in attackers]
    if count > len(candidates):
        raise ConfigError(f"corrupted = {count} is too many: {len(candidates)} agents do not attack")
    return frozenset(stream(seed, "corrupted").permutation(candidates)[:count].tolist())


@dataclass(frozen=True, eq=False)
class Corruption:
    """What is wrong with the data of a corrupted agent.

    Attributes
    ----------
    kind : str
        A key of `CORRUPTIONS`.
    rate : float
        The share of the examples that it changes.
    sigma : float
        Standard deviation of `feature-noise`.
    num_classes : int
        C.
    seed : int
        The run's seed.
    white : Tensor, optional
        A white pixel after normalisation, shape [channels, 1, 1], for a backdoor.
    """

    kind: str
    rate: float
    sigma: float
    num_classes: int
    seed: int
    white: Tensor | None = None

    def __call__(self, split: Split, labels: Tensor, agent: int) -> Split:
        """Return `split`, whose labels are `labels`, [n], or [n, T] tokens, as `agent` holds it."""
        generator = stream(self.seed, "corruption", agent)
        marked = torch.zeros(len(labels), dtype=torch.bool)
        marked[torch.from_numpy(generator.permutation(len(labels))[: round(self.rate * len(labels))])] = True
        wrong = marked.view(-1, *[1] * (labels.dim() - 1))
        relabelled = torch.where(wrong, self._relabel(labels.cpu(), generator), labels.cpu())
        return _Corrupted(self, split, relabelled, marked, agent)

    def triggered(self, split: Split, labels: Tensor) -> Split:
        """Return `split` with the trigger in every image and the target as its label; accuracy on it is attack success.

        `split` should hold no example of the target class.
        """
        return _Corrupted(self, split, torch.full_like(labels, TARGET).cpu(), torch.ones(len(labels)).bool(), 0)

    def _relabel(self, labels: Tensor, generator: np.random.Generator) -> Tensor:
        match self.kind:
            case "label-noise":
                others = torch.from_numpy(generator.integers(1, max(self.num_classes, 2), tuple(labels.shape)))
                return (labels + others) % self.num_classes
            case "asymmetric-label-noise":
                return (labels + 1) % self.num_classes
            case "label-flip":
                return self.num_classes - 1 - labels
            case "backdoor":
                return torch.full_like(labels, TARGET)
        return labels

    def alter(self, inputs: Tensor, indices: Tensor, agent: int) -> Tensor:
        """Return normalised inputs, shape [B, ...], with noise, or images with a trigger; `indices` name them."""
        if self.kind == "feature-noise":
            shape = inputs.shape[1:]
            noise = [
                stream(self.seed, "feature noise", agent, index).standard_normal(tuple(shape), dtype=np.float32)
                for index in indices.tolist()
            ]
            return inputs + self.sigma * torch.from_numpy(np.stack(noise)).to(inputs.device)
        if self.kind == "backdoor" and self.white is not None:
            inputs = inputs.clone()
            inputs[..., -TRIGGER:, -TRIGGER:] = self.white.to(inputs.device)
        return inputs


class _Corrupted:
    """A split with other labels, whose `marked` examples (bool, [n]) are altered when a batch is taken."""

    def __init__(self, corruption: Corruption, clean: Split, labels: Tensor, marked: Tensor, agent: int) -> None:
        self.corruption = corruption
        self.clean = clean
        self.labels = labels
        self.marked = marked
        self.agent = agent

    def __len__(self) -> int:
        return len(self.clean)

    def batch(self, indices: Tensor) -> Batch:
        """Return the examples at `indices`, int64 of shape [B]."""
        batch = self.clean.batch(indices)
        marked = self.marked.index_select(0, indices).nonzero().squeeze(1)
        if len(marked):
            positions = marked.to(batch.inputs.device)
            altered = self.corruption.alter(batch.inputs[positions], indices[marked], self.agent)
            batch.inputs.index_copy_(0, positions, altered)
        return replace(batch, targets=self.labels.index_select(0, indices).to(batch.targets.device))
