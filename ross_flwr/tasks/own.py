"""The task of an app that brings its own module, data sets and loss."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import nn

from ross_flwr.learning.flat import FlatModel
from ross_flwr.learning.objective import Loss, Metric, ModuleObjective
from ross_flwr.tasks.loaded import Data, Loaded

__all__ = ["Own"]


class Own:
    """A module that is trained on PyTorch data sets.

    Parameters
    ----------
    model : nn.Module
        What agents learn. In a local run they start from its parameters.
    train_data, test_data : callable
        From an agent to a map-style Dataset, or a DataLoader of one: what it learns from, and what its model is tested
        on.
    validation_data : callable, optional
        The same for Q_i, on which methods such as ROSS judge models; the agent should not learn from it.
    loss : callable (default: cross-entropy)
        Mean loss of (outputs, targets).
    metrics : mapping of str to callable, optional
        Numbers of (outputs, targets) on the test data, reported beside loss and accuracy.
    utility : callable, optional
        What a model is worth, as a number of (outputs, targets) on Q_i, where ``utility = "own"``; more is better.
    pair : callable, optional
        From a collated batch to (inputs, targets), for data whose batches are not such pairs.
    batch_size : int (default: 32)
        Examples in a mini-batch of an agent whose training data is not a DataLoader with a batch size.
    device : torch.device, optional
        Where model and batches go; the CPU without.

    Examples
    --------
    >>> examples = torch.utils.data.TensorDataset(torch.zeros(6, 3), torch.tensor([0, 1, 0, 1, 0, 1]))
    >>> task = Own(nn.Linear(3, 2), lambda agent: examples, lambda agent: examples, batch_size=2)
    >>> task.model.size, task.objective(0).size
    (8, 8)
    """

    def __init__(
        self,
        model: nn.Module,
        train_data: Callable[[int], Data],
        test_data: Callable[[int], Data],
        validation_data: Callable[[int], Data] | None = None,
        *,
        loss: Loss = nn.functional.cross_entropy,
        metrics: Mapping[str, Metric] | None = None,
        utility: Metric | None = None,
        pair: Callable[[Any], Iterable[Any]] | None = None,
        batch_size: int = 32,
        device: torch.device | None = None,
    ) -> None:
        self.device = device or torch.device("cpu")
        self.model = FlatModel(model.to(self.device))
        self.train_data = train_data
        self.test_data = test_data
        self.validation_data = validation_data
        self.loss = loss
        self.metrics = metrics
        self.utility = utility
        self.pair = pair
        self._batch_size = batch_size
        self._training: dict[int, Loaded] = {}

    def batch_size(self, agent: int) -> int:
        """Return the batch size of the agent's DataLoader, or that of the task."""
        return self._train(agent).batch_size or self._batch_size

    def objective(self, agent: int) -> ModuleObjective:
        """Return the loss of `agent` on its own data."""
        test = Loaded(self.test_data(agent), "test_data", self.device, self.pair, keep=True)
        validation = None
        if self.validation_data:
            validation = Loaded(self.validation_data(agent), "validation_data", self.device, self.pair)
        return ModuleObjective(
            self.model,
            self._train(agent),
            validation,
            test,
            self.loss,
            metrics=self.metrics,
            own_utility=self.utility,
        )

    def describe(self) -> dict[str, Any]:
        """Return the size of the model."""
        return {"parameters": self.model.size}

    def _train(self, agent: int) -> Loaded:
        if agent not in self._training:
            self._training[agent] = Loaded(self.train_data(agent), "train_data", self.device, self.pair)
        return self._training[agent]
