"""Tables: the class of each row, or a number in it."""

from collections.abc import Callable, Collection
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from ross_flwr.config import ConfigError, require
from ross_flwr.data import Place, Records, read_table, tuning_records
from ross_flwr.learning.flat import FlatModel
from ross_flwr.learning.outputs import Loss, Metric
from ross_flwr.tasks.corruptions import CORRUPTIONS
from ross_flwr.tasks.dealt import Dealt, Part

__all__ = ["TABULAR_MODELS", "Tabular", "area_under_curve", "tabular"]


def mlp(inputs: int, outputs: int, hidden: int) -> nn.Module:
    """Build a multilayer perceptron: one hidden layer of `hidden` ReLU units."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))


def logistic(inputs: int, outputs: int, _hidden: int) -> nn.Module:
    """Build logistic regression on a table, for classes: one linear layer."""
    return nn.Linear(inputs, outputs)


def linear(inputs: int, outputs: int, _hidden: int) -> nn.Module:
    """Build linear regression on a table, for numbers: one linear layer."""
    return nn.Linear(inputs, outputs)


TABULAR_MODELS: dict[str, Callable[[int, int, int], nn.Module]] = {"mlp": mlp, "logistic": logistic, "linear": linear}
"""Models of tables by name: (inputs, outputs, hidden) -> module."""


class Tabular(Dealt):
    """The rows of a table, dealt to the agents. See `Dealt` for the parameters.

    Examples
    --------
    >>> task = tabular()(4, 0)
    >>> task.source.classes, len(task.source.test)
    (('<=50K', '>50K'), 800)
    """

    name = "tabular"
    defaults = ("adult", "file")
    unused = frozenset({"download", "image-size", "num-classes"})

    @cached_property
    def source(self) -> Records:
        """The table, on the device."""
        options = self.options
        place = Place(options.data_path, label_column=options.label_column, owner_column=options.owner_column)
        source = read_table(self.dataset, place)
        return (tuning_records(source) if options.test_split == "tuning" else source).to(self.device)

    @property
    def takes(self) -> str:
        """How many inputs there are."""
        return f"rows of {len(self.source.inputs)} numbers, standardised or 0 and 1, which summary.json names"

    @property
    def num_outputs(self) -> int:
        """The number of classes, or 1 for a number."""
        return 1 if self.source.numeric else self.source.num_classes

    @cached_property
    def model(self) -> FlatModel:
        """The module that all agents of this process compute with, and the model that each starts from."""
        name, source = self.options.model or "mlp", self.source
        require("model", name, TABULAR_MODELS)
        wrong = {"linear": not source.numeric, "logistic": source.numeric}
        if wrong.get(name):
            kinds = ("a number", "a class") if name == "linear" else ("a class", "a number")
            raise ConfigError(f"model = '{name}' predicts {kinds[0]}, and the label is {kinds[1]}: use model = 'mlp'")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            module = TABULAR_MODELS[name](source.train.inputs.shape[1], self.num_outputs, self.options.hidden)
        return FlatModel(module.to(self.device), outputs=(*source.inputs, *source.classes))

    @property
    def corruptions(self) -> Collection[str]:
        """All but a backdoor, and for numbers only noisy inputs."""
        return {"feature-noise"} if self.source.numeric else CORRUPTIONS.keys() - {"backdoor"}

    @property
    def metrics(self) -> dict[str, Metric]:
        """The area under the ROC curve of classes; the root of the mean squared error of numbers, in their unit."""
        if not self.source.numeric:
            return {"auc": area_under_curve}
        deviation = self.source.scale[1]
        return {"rmse": lambda outputs, targets: deviation * self.loss(outputs, targets).sqrt()}

    def part(self, indices: Tensor, *, test: bool = False) -> Part:
        """Return the training or test rows at `indices`."""
        return Part(self.source, indices, test=test)

    @property
    def loss(self) -> Loss:
        """The cross-entropy of classes, or the mean squared error of standardised numbers."""
        return _loss

    def describe(self) -> dict[str, Any]:
        """Return what the summary of a run says of the data and the model."""
        return {**super().describe(), "inputs": list(self.source.inputs)}


tabular = Tabular.deal
"""Return a function that makes a task on a table from N and a seed, for `simulate`; see `Dealt.deal`."""


def area_under_curve(outputs: Tensor, targets: Tensor) -> float:
    """Return the area under the ROC curve; of more than two classes, the mean over those of each against the rest.

    It is the share of pairs, one of the class and one not, in which the score of the first is higher; ties count half
    (Hanley and McNeil, 1982).

    Examples
    --------
    >>> area_under_curve(torch.tensor([[0.0, 1.0], [0.0, 3.0], [0.0, 2.0]]), torch.tensor([0, 1, 1]))
    1.0
    """
    scores = outputs.double().softmax(-1)
    areas = []
    for each in range(1 if outputs.shape[1] == 2 else 0, outputs.shape[1]):
        _, ranks, counts = torch.unique(scores[:, each], return_inverse=True, return_counts=True)
        middle = counts.cumsum(0) - (counts - 1) / 2
        positive = targets == each
        pairs = int(positive.sum()) * int((~positive).sum())
        if pairs:
            least = int(positive.sum()) * (int(positive.sum()) + 1) / 2
            areas.append((float(middle[ranks[positive]].sum()) - least) / pairs)
    return sum(areas) / len(areas) if areas else float("nan")


def _loss(outputs: Tensor, targets: Tensor) -> Tensor:
    if targets.is_floating_point():
        return nn.functional.mse_loss(outputs.squeeze(1), targets)
    return nn.functional.cross_entropy(outputs, targets)
