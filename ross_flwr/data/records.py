"""What sources of tables, series and texts return: inputs, targets, and a group for every example.

Groups are what partitions deal by and validation sets are balanced by: the classes, or, where targets are numbers or
texts, quantiles of the targets or the sources of the texts.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ross_flwr.config import ConfigError
from ross_flwr.data.examples import held_out

__all__ = ["Records", "Rows", "records", "tuning_records"]

_QUANTILES = 10


@dataclass(frozen=True, eq=False)
class Rows:
    """Inputs, targets and groups of n examples.

    Attributes
    ----------
    inputs : Tensor
        Shape [n, ...].
    targets : Tensor
        int64 classes, float32 numbers of shape [n], or int64 tokens of shape [n, T].
    labels : Tensor
        The group of each example, int64 of shape [n]: its class, if targets are classes.
    """

    inputs: Tensor
    targets: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor) -> "Rows":
        """Copy the examples at `indices` (int64, shape [m]), in that order."""
        return Rows(*(each.index_select(0, indices) for each in (self.inputs, self.targets, self.labels)))

    def to(self, device: torch.device) -> "Rows":
        """Return these examples on `device`."""
        return Rows(*(each.to(device) for each in (self.inputs, self.targets, self.labels)))


@dataclass(frozen=True, eq=False)
class Records:
    """A data set of tables, series or texts.

    Attributes
    ----------
    train, test : Rows
        The examples dealt to the agents, and those used for testing.
    classes : tuple[str, ...]
        What the groups are called.
    inputs : tuple[str, ...]
        What the inputs are called.
    owners : Tensor, optional
        The owner of each training example: int64, [n], from 0.
    scale : tuple[float, float]
        Mean and deviation of a number that is predicted. Targets are standardised by them.

    Examples
    --------
    >>> from ross_flwr.data import Place, read_table
    >>> adult = read_table("adult", Place())
    >>> adult.classes, adult.numeric, len(adult.train), len(adult.test)
    (('<=50K', '>50K'), False, 3200, 800)
    """

    train: Rows
    test: Rows
    classes: tuple[str, ...]
    inputs: tuple[str, ...] = ()
    owners: Tensor | None = None
    scale: tuple[float, float] = (0.0, 1.0)

    @property
    def num_classes(self) -> int:
        """The number of groups."""
        return len(self.classes)

    @property
    def numeric(self) -> bool:
        """Whether targets are numbers."""
        return self.train.targets.is_floating_point()

    @property
    def grouped(self) -> bool:
        """Whether groups are no classes that targets name."""
        return self.numeric or self.train.targets.dim() > 1

    def to(self, device: torch.device) -> "Records":
        """Return the same data with its examples on `device`."""
        return replace(self, train=self.train.to(device), test=self.test.to(device))


def records(
    inputs: Tensor,
    targets: Tensor,
    classes: tuple[str, ...] = (),
    *,
    names: tuple[str, ...] = (),
    owners: Tensor | None = None,
    num_train: int = 0,
) -> Records:
    """Make a data set with one target for each example: a class, or a number that is standardised.

    Parameters
    ----------
    inputs, targets : Tensor
        Shape [n, ...] and [n].
    classes, names : tuple of str
        What the classes and the inputs are called; without `classes`, targets are numbers.
    owners : Tensor, optional
        int64 of shape [n].
    num_train : int
        How many examples, the first, are to train on; 0 holds out every fifth of each group as test data.

    Raises
    ------
    ConfigError
        When there are too few examples.

    Examples
    --------
    >>> found = records(torch.zeros(50, 3), torch.arange(50.0))
    >>> len(found.train), len(found.test), found.num_classes
    (40, 10, 10)
    """
    if len(targets) < 2 or num_train == len(targets):
        raise ConfigError(
            f"the data has {len(targets)} examples, which are too few to train on some and test on others"
        )
    labels = targets if classes else _quantiles(targets, targets[:num_train] if num_train else targets)
    everything = torch.arange(len(targets))
    kept, held = (everything[:num_train], everything[num_train:]) if num_train else held_out(labels)
    scale = (0.0, 1.0)
    if not classes:
        deviation, mean = torch.std_mean(targets[kept], correction=0)
        scale = (float(mean), float(deviation) or 1.0)
        targets = ((targets - scale[0]) / scale[1]).float()
        classes = tuple(f"quantile {each + 1} of {_QUANTILES}" for each in range(_QUANTILES))
    rows = Rows(inputs, targets, labels)
    return Records(rows.take(kept), rows.take(held), classes, names, None if owners is None else owners[kept], scale)


def tuning_records(found: Records) -> Records:
    """Return the data set with every fifth training example of each group as its test data, the same in every run.

    Examples
    --------
    >>> held_out = tuning_records(records(torch.zeros(50, 3), torch.arange(50.0)))
    >>> len(held_out.train), len(held_out.test)
    (32, 8)
    """
    kept, held = held_out(found.train.labels.cpu())
    owners = None if found.owners is None else found.owners[kept]
    return replace(found, train=found.train.take(kept), test=found.train.take(held), owners=owners)


def _quantiles(targets: Tensor, known: Tensor) -> Tensor:
    """Return the quantile of `known` that each target lies in, int64 from 0."""
    cuts = np.quantile(known.double().numpy(), np.arange(1, _QUANTILES) / _QUANTILES)
    return torch.from_numpy(np.searchsorted(cuts, targets.double().numpy(), side="right"))
