"""PyTorch data sets as an agent's data."""

import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from itertools import chain, islice
from operator import index
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset, default_collate

from ross_flwr.config import ConfigError
from ross_flwr.learning.examples import Batch
from ross_flwr.learning.streams import seeded
from ross_flwr.learning.tensors import leaves, map_tensors

__all__ = ["Data", "Loaded"]

Data: TypeAlias = Dataset[Any] | DataLoader[Any]

LABELS = ("label", "target")
"""How the name of an entry with targets ends, but for an s; "y" alone is one too."""

KEPT = 2**28
"""At most this many bytes of batches are kept in memory."""


class Loaded:
    """The examples of a map-style Dataset, collated as its DataLoader would.

    The indices of a batch seed the random transforms that draw from PyTorch's generator, so the same indices give the
    same batch on every node.

    Parameters
    ----------
    data : Dataset or DataLoader
        Of a DataLoader, the data set, the collate function, the batch size and the indices are used, but not the order.
        Its sampler is asked once, so a weighted sampler gives the same draw in every epoch.
    name : str
        What to call it in an error.
    device : torch.device
        Where batches go. Their real numbers become float32, like the model's.
    pair : callable, optional
        From a collated batch to (inputs, targets), for batches that are neither pairs nor dictionaries with labels.
    keep : bool (default: False)
        Whether to keep small batches in memory, for data that is read in the same batches every time.

    Attributes
    ----------
    batch_size : int or None
        The DataLoader's batch size, if there is one.

    Raises
    ------
    ConfigError
        When there are no examples, they cannot be taken by number, or the sampler gives no finite list of numbers; from
        `batch`, when a batch is not such a pair.
    """

    def __init__(
        self,
        data: Data,
        name: str,
        device: torch.device,
        pair: Callable[[Any], Iterable[Any]] | None = None,
        keep: bool = False,
    ) -> None:
        dataset: Any = data.dataset if isinstance(data, DataLoader) else data
        if (
            isinstance(dataset, IterableDataset)
            or not hasattr(dataset, "__getitem__")
            or not hasattr(dataset, "__len__")
        ):
            raise ConfigError(
                f"{name} returned a {type(dataset).__name__}, whose examples have no number: expected a Dataset with "
                "__getitem__ and __len__, or a DataLoader of one"
            )
        self.dataset = dataset
        self.collate: Callable[[Any], Any] = data.collate_fn if isinstance(data, DataLoader) else default_collate
        self.batch_size: int | None = None
        self._numbers: range | list[int] = range(len(dataset))
        if isinstance(data, DataLoader):
            self._numbers, self.batch_size = _sampled(data, name)
        if not self._numbers:
            raise ConfigError(f"{name} returned no examples: expected at least one")
        self.name = name
        self.device = device
        self.pair = pair
        self._kept: dict[bytes, Batch] = {}
        self._room = KEPT if keep else 0

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def distinct(self) -> list[int]:
        """The numbers of its examples in the data set, ascending; a sampler may draw one several times."""
        return sorted(set(self._numbers))

    def without(self, numbers: Sequence[int]) -> tuple["Loaded", "Loaded"]:
        """Return the split without the examples of these numbers, and the split of these alone, each once."""
        rest, held = copy(self), copy(self)
        rest._numbers, rest._kept = [each for each in self._numbers if each not in {*numbers}], {}
        held._numbers, held._kept = [*numbers], {}
        return rest, held

    def loader(self, batches: Sequence[Tensor]) -> DataLoader[Any]:
        """Return a DataLoader of the mini-batches at these indices, collated as the app's own."""
        numbers = [[self._numbers[place] for place in indices.tolist()] for indices in batches]
        return DataLoader(self.dataset, batch_sampler=numbers, collate_fn=self.collate)

    def batch(self, indices: Tensor) -> Batch:
        """Return the examples at `indices`, int64 of shape [B]."""
        key = indices.numpy().tobytes()
        if key in self._kept:
            return self._kept[key]
        numbers = [self._numbers[place] for place in indices.tolist()]
        if type(self.dataset) is TensorDataset and self.collate is default_collate:  # a fifth of the time
            batch = self.read([tensor[numbers] for tensor in self.dataset.tensors])
        else:
            with seeded(zlib.crc32(key), self.device):
                batch = self.read(self.collate(self._examples(numbers)))
        size = sum(tensor.nbytes for tensor in leaves((batch.inputs, batch.targets)))
        if size <= self._room:
            self._kept[key] = batch
            self._room -= size
        return batch

    def _examples(self, numbers: list[int]) -> Any:
        if hasattr(self.dataset, "__getitems__"):  # as a DataLoader would: all at once, if the data set can do that
            return self.dataset.__getitems__(numbers)
        return [self.dataset[number] for number in numbers]

    def read(self, collated: Any) -> Batch:
        """Return a collated batch, ready for the model."""
        parts = self.pair(collated) if self.pair else _by_name(collated)
        trees = list(parts) if isinstance(parts, list | tuple) else []
        if len(trees) != 2 or not all(isinstance(leaf, Tensor) for leaf in leaves(trees)):
            kinds = [type(part).__name__ for part in trees] or type(parts).__name__
            raise ConfigError(
                f"{self.name} gives batches of {kinds}: expected (inputs, targets), each a tensor or tuples, lists and "
                "dictionaries of tensors, or a dictionary with one label; pair= can make them of anything else"
            )
        return Batch(*(map_tensors(self._ready, tree) for tree in trees))

    def _ready(self, tensor: Tensor) -> Tensor:
        tensor = tensor.to(self.device)
        return tensor.float() if tensor.is_floating_point() else tensor


def _by_name(collated: Any) -> Any:
    """Return (inputs, targets) of a dictionary with one entry that is called a label or target; other batches as is.

    The inputs are the other tensors, in a dictionary if there are several.
    """
    if not isinstance(collated, Mapping):
        return collated
    tensors = {
        name: entry for name, entry in collated.items() if all(isinstance(leaf, Tensor) for leaf in leaves(entry))
    }
    labels = [name for name in tensors if name == "y" or str(name).lower().rstrip("s").endswith(LABELS)]
    if len(labels) != 1 or len(tensors) < 2:
        return collated
    targets = tensors.pop(labels[0])
    return (next(iter(tensors.values())) if len(tensors) == 1 else tensors), targets


def _sampled(loader: DataLoader[Any], name: str) -> tuple[list[int], int | None]:
    """Return the indices that a loader reads in an epoch, ascending, and its batch size."""
    own_batches = loader.batch_size is None and loader.batch_sampler is not None
    sampler: Any = loader.batch_sampler if own_batches else loader.sampler
    kind = type(sampler).__name__
    if not hasattr(sampler, "__len__"):
        raise ConfigError(f"{name} returned a DataLoader whose {kind} has no length: expected a sampler with __len__")
    with seeded(0, torch.device("cpu")):  # every process draws the same indices
        drawn = list(islice(sampler, len(sampler)))
    try:
        numbers = sorted(map(index, chain.from_iterable(drawn) if own_batches else drawn))
    except TypeError as error:
        raise ConfigError(
            f"{name} returned a DataLoader whose {kind} gives {drawn[0]!r:.60}: expected the index of an example"
        ) from error
    return numbers, max(map(len, drawn), default=None) if own_batches else loader.batch_size
