"""Signals: the class of each window of a series."""

from collections.abc import Callable
from functools import cached_property
from math import ceil
from typing import Any

import torch
from torch import Tensor, nn

from ross_flwr.config import require
from ross_flwr.data import Place, Records, read_series, tuning_records
from ross_flwr.learning.flat import FlatModel
from ross_flwr.tasks.corruptions import CORRUPTIONS
from ross_flwr.tasks.dealt import Dealt, Part

__all__ = ["SIGNAL_MODELS", "Signals", "signals"]


def cnn(channels: int, length: int, num_classes: int, hidden: int) -> nn.Module:
    """Build a convolutional network along time: two convolutions of width 5 and stride 2 (16, 32 channels)."""
    return nn.Sequential(
        nn.Conv1d(channels, 16, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv1d(16, 32, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32 * ceil(length / 4), hidden),
        nn.ReLU(),
        nn.Linear(hidden, num_classes),
    )


def mlp(channels: int, length: int, num_classes: int, hidden: int) -> nn.Module:
    """Build a multilayer perceptron on all values of a window: one hidden layer of `hidden` ReLU units."""
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * length, hidden), nn.ReLU(), nn.Linear(hidden, num_classes))


SIGNAL_MODELS: dict[str, Callable[[int, int, int, int], nn.Module]] = {"cnn": cnn, "mlp": mlp}
"""Models of signals by name: (channels, length, num_classes, hidden) -> module."""


class Signals(Dealt):
    """Windows of series, dealt to the agents. See `Dealt` for the parameters.

    Examples
    --------
    >>> task = signals()(4, 0)
    >>> task.source.num_classes, task.source.train.inputs.shape[1:]
    (6, torch.Size([3, 64]))
    """

    name = "signals"
    defaults = ("motions", "file")
    unused = frozenset({"download", "image-size", "num-classes", "label-column"})
    corruptions = CORRUPTIONS.keys() - {"backdoor"}

    @cached_property
    def source(self) -> Records:
        """The windows, on the device."""
        source = read_series(self.dataset, Place(self.options.data_path, owner_column=self.options.owner_column))
        return (tuning_records(source) if self.options.test_split == "tuning" else source).to(self.device)

    @property
    def takes(self) -> str:
        """The shape of a window."""
        channels, length = self.source.train.inputs.shape[1:]
        return f"windows of {channels} channels and {length} values, standardised"

    @cached_property
    def model(self) -> FlatModel:
        """The module that all agents of this process compute with, and the model that each starts from."""
        name, source = self.options.model or "cnn", self.source
        require("model", name, SIGNAL_MODELS)
        channels, length = source.train.inputs.shape[1:]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            module = SIGNAL_MODELS[name](channels, length, source.num_classes, self.options.hidden)
        return FlatModel(module.to(self.device), outputs=source.classes)

    def part(self, indices: Tensor, *, test: bool = False) -> Part:
        """Return the training or test windows at `indices`."""
        return Part(self.source, indices, test=test)

    def describe(self) -> dict[str, Any]:
        """Return what the summary of a run says of the data and the model."""
        return {**super().describe(), "window": list(self.source.train.inputs.shape[1:])}


signals = Signals.deal
"""Return a function that makes a classification of signals from N and a seed, for `simulate`; see `Dealt.deal`."""
