"""Measurements on validation examples, and by class."""

from math import nan

import torch
from torch import Tensor

from ross_flwr.learning.agent import Agent
from ross_flwr.learning.examples import Batch
from ross_flwr.learning.requests import Gradients

__all__ = ["by_class", "class_gradients", "f1_scores"]


def by_class(batch: Batch) -> list[Batch]:
    """Split a batch by its labels: classes or groups; without any, the whole batch counts as one class."""
    if batch.labels is None:
        return [batch]
    return [batch.take(batch.labels == each) for each in torch.unique(batch.labels)]


def class_gradients(agent: Agent, model: Tensor) -> Tensor:
    """Return the gradient at `model` of the loss on each class of Q_i, shape [C, P]; all count as one."""
    validation = agent.validation
    with agent.counts.timed("gradients", len(validation)):
        return torch.stack(agent.compute(Gradients(agent.objective, model, by_class(validation))))


def f1_scores(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the F1 score of every class, shape [C], from outputs [B, C]; NaN for a class without targets."""
    num_classes = outputs.shape[-1]
    pairs = torch.bincount(targets * num_classes + outputs.argmax(-1), minlength=num_classes**2)
    confusion = pairs.view(num_classes, num_classes)
    there = confusion.sum(1)
    return (2 * confusion.diagonal() / (there + confusion.sum(0))).where(there > 0, nan)
