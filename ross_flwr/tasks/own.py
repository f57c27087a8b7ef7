"""The task of an app that brings its own module, data sets and loss."""

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from math import isnan, nan
from typing import Any, TypeAlias

import torch
from torch import nn
from torch.utils.data import DataLoader

from ross_flwr.config import ConfigError
from ross_flwr.learning.buffers import still_buffers
from ross_flwr.learning.flat import FlatModel
from ross_flwr.learning.objective import ModuleObjective
from ross_flwr.learning.optimizers import Factory
from ross_flwr.learning.outputs import Loss, Metric, Test
from ross_flwr.learning.streams import stream
from ross_flwr.tasks.loaded import Data, Loaded

__all__ = ["Own", "Tested"]

Tested: TypeAlias = tuple[float, float] | Mapping[str, float]
"""Loss and accuracy, which is a share of 1, or numbers by name, the loss among them."""

HELD_OUT = 5
"""The most that is held out of the training data for Q_i is one example in this many."""


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
        Mean loss of (outputs, targets). A loss of ``torch.nn`` gets the tensor of scores in outputs that are tuples,
        or objects with ``logits``; any other gets them as they are, and the module if it has an argument ``model``.
    metrics : mapping of str to callable, optional
        Numbers of (outputs, targets) on the test data, reported beside loss and accuracy.
    utility : callable, optional
        What a model is worth, as a number of (outputs, targets) on Q_i, where ``utility = "own"``; more is better.
    pair : callable, optional
        From a collated batch to (inputs, targets), for batches that are neither pairs nor dictionaries with one label.
    train : callable, optional
        How the app itself trains: from the module and a DataLoader of K mini-batches; K is the method's `local-steps`.
    optimizer : callable, optional
        From the parameters to an optimizer, which takes the local steps instead of SGD. What it remembers is part of an
        agent's state. In `ross` it begins anew in each pass.
    test : callable, optional
        How the app itself tests: from the module and the DataLoader of the test data to loss and accuracy (from 0 to
        1), or to a mapping of names to numbers, one of them ``"loss"``.
    batch_size : int (default: 32)
        Examples in a mini-batch of an agent whose training data is not a DataLoader with a batch size. No more are
        computed on at once, whatever they are for.
    hold_out : int (default: 0)
        The most examples that are held out of an agent's training data for Q_i if there is no `validation_data`: a
        fifth, drawn by `seed`.
    seed : int (default: 0)
        Of the run.
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
        train: Callable[[nn.Module, DataLoader[Any]], object] | None = None,
        optimizer: Factory | None = None,
        test: Callable[[nn.Module, DataLoader[Any]], Tested] | None = None,
        batch_size: int = 32,
        hold_out: int = 0,
        seed: int = 0,
        device: torch.device | None = None,
    ) -> None:
        self.device = device or torch.device("cpu")
        self._module = model.to(self.device)
        self.train_data = train_data
        self.test_data = test_data
        self.validation_data = validation_data
        self.loss = loss
        self.metrics = metrics
        self.utility = utility
        self.pair = pair
        self.train = train
        self.optimizer = optimizer
        self.test = test
        self._batch_size = batch_size
        self._hold_out = hold_out
        self._seed = seed
        self._loaded: dict[int, tuple[Loaded, Loaded | None]] = {}

    @cached_property
    def model(self) -> FlatModel:
        """The module that all agents of this process compute with, and the model that each starts from.

        The first call of `objective` finds out which buffers a batch leaves as they are: these do not travel. Without
        such a call, all float buffers do.
        """
        return FlatModel(self._module)

    def batch_size(self, agent: int) -> int:
        """Return the batch size of the agent's DataLoader, or that of the task."""
        return self._data(agent)[0].batch_size or self._batch_size

    def objective(self, agent: int) -> ModuleObjective:
        """Return the loss of `agent` on its own data."""
        (training, validation), train = self._data(agent), self.train
        if "model" not in self.__dict__:
            first = torch.arange(min(len(training), self.batch_size(agent)))
            still = still_buffers(self._module, lambda: training.batch(first).inputs)
            self.model = FlatModel(self._module, still)
        test = Loaded(self.test_data(agent), "test_data", self.device, self.pair, keep=True)
        size = test.batch_size if test.batch_size and test.batch_size > 1 else self.batch_size(agent)
        return ModuleObjective(
            self.model,
            training,
            validation,
            test,
            self.loss,
            size,
            metrics=self.metrics,
            own_utility=self.utility,
            trainer=(lambda module, batches: train(module, training.loader(batches))) if train else None,
            own_test=self._own_test(test, size),
            own_optimizer=self.optimizer,
        )

    def describe(self) -> dict[str, Any]:
        """Return the size of the model."""
        return {"parameters": self.model.size}

    def _data(self, agent: int) -> tuple[Loaded, Loaded | None]:
        """Return the training data of `agent` and its Q_i."""
        if agent not in self._loaded:
            training, validation = Loaded(self.train_data(agent), "train_data", self.device, self.pair), None
            if self.validation_data:
                validation = Loaded(self.validation_data(agent), "validation_data", self.device, self.pair)
            elif held := min(self._hold_out, len(numbers := training.distinct) // HELD_OUT):
                order = stream(self._seed, "held out", agent).permutation(len(numbers))
                training, validation = training.without([numbers[place] for place in order[:held]])
            self._loaded[agent] = training, validation
        return self._loaded[agent]

    def _own_test(self, data: Loaded, size: int) -> Test | None:
        if self.test is None:
            return None
        test, loader = self.test, data.loader(torch.split(torch.arange(len(data)), size))

        def measure(module: nn.Module) -> dict[str, float]:
            measured = test(module, loader)
            named = measured
            if isinstance(measured, list | tuple) and len(measured) == 2:
                named = dict(zip(("loss", "accuracy"), measured, strict=True))
            if not isinstance(named, Mapping) or "loss" not in named:
                raise ConfigError(
                    f"the app's own test returns {measured!r:.80}: expected (loss, accuracy), or a mapping with 'loss'"
                )
            found = {"accuracy": nan} | {name: float(value) for name, value in named.items()}
            if not (isnan(found["accuracy"]) or 0 <= found["accuracy"] <= 1):
                raise ConfigError(
                    f"the app's own test returns accuracy = {found['accuracy']:g}: expected a share from 0 to 1, and "
                    "the loss before it"
                )
            return found

        return measure
