"""Sources for arrays: named tensors, and an array file of your own."""

import pickle
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ross_flwr.config import ConfigError
from ross_flwr.data.classes import numbered
from ross_flwr.data.examples import Examples, Place, Source, assemble
from ross_flwr.data.pixels import channels_first

__all__ = ["array_file", "from_tensors", "read_arrays"]


def from_tensors(tensors: Mapping[str, Tensor], classes: Sequence[str] = (), num_classes: int = 0) -> Source:
    """Make a source from named tensors: images, labels, test-images, test-labels and owners."""
    test = Examples(tensors["test-images"], tensors["test-labels"]) if "test-images" in tensors else None
    train = Examples(tensors["images"], tensors["labels"])
    return assemble(train, test, num_classes or len(classes), owners=tensors.get("owners"), classes=tuple(classes))


_NAMES = (
    ("images", "labels", "test_images", "test_labels"),
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("x_train", "y_train", "x_test", "y_test"),
)
"""The names of the arrays: ours, MedMNIST's and Keras's."""


def array_file(place: Place) -> Source:
    """One .npz or .pt file with the arrays images and labels, and optionally test_images, test_labels, owners."""
    arrays = read_arrays(place)
    names = next((names for names in _NAMES if {*names[:2]} <= set(arrays)), None)
    if names is None:
        wanted = "; ".join(", ".join(each) for each in _NAMES)
        found = ", ".join(map(str, arrays)) or "no arrays"
        raise ConfigError(f"data-path = '{place.path}' holds {found}: call them {wanted}")
    tensors = {}
    for ours, name in zip(("images", "test-images"), names[::2], strict=True):
        if name in arrays:
            tensors[ours] = _images(arrays[name](), name)
    columns = [_flat(arrays[name](), name) for name in names[1::2] if name in arrays]
    labels, classes = numbered(columns, names[1])
    tensors |= dict(zip(("labels", "test-labels"), labels, strict=False))
    owners = place.owner_column or "owners"
    if owners in arrays:
        tensors["owners"] = torch.from_numpy(np.unique(_flat(arrays[owners](), owners), return_inverse=True)[1])
    for prefix in ("", "test-"):
        images, labelled = (len(tensors.get(f"{prefix}{name}", ())) for name in ("images", "labels"))
        if images != labelled:
            raise ConfigError(f"data-path = '{place.path}' holds {images} {prefix}images and {labelled} labels of them")
    return from_tensors(tensors, classes)


Arrays = Mapping[Any, Callable[[], NDArray[Any]]]


def read_arrays(place: Place) -> Arrays:
    """Return what reads each array in a file. Nothing is unpickled: anything but plain arrays is refused."""
    file = place.located
    with _reading(place):
        if file.suffix == ".npz":
            stored = np.load(file, allow_pickle=False)
            return {name: partial(_stored, place, stored, name) for name in stored.files}
        if file.suffix == ".pt":
            mapped = zipfile.is_zipfile(file)  # as written since PyTorch 1.6; Linux can drop mapped images from memory
            found = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped).items()
            return {name: partial(_plain, each, name) for name, each in found if isinstance(each, Tensor)}
    raise ConfigError(f"data-path = '{place.path}' is not a .npz or .pt file, which dataset = 'file' takes")


def _stored(place: Place, stored: Mapping[str, NDArray[Any]], name: str) -> NDArray[Any]:
    with _reading(place):
        return stored[name]


def _plain(tensor: Tensor, name: str) -> NDArray[Any]:
    if tensor.layout != torch.strided or tensor.is_quantized:
        kind = "quantized" if tensor.is_quantized else "sparse"
        raise ConfigError(f"{name} is a {kind} tensor: store a dense one")
    array: NDArray[Any] = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).detach().numpy()
    return array


@contextmanager
def _reading(place: Place) -> Iterator[None]:
    """Turn what is wrong with a file of arrays into one sentence."""
    try:
        yield
    except (OSError, ValueError, TypeError, AttributeError, RuntimeError, EOFError) as error:
        raise ConfigError(f"data-path = '{place.path}' cannot be read as arrays by name: {error}") from error
    except (pickle.UnpicklingError, zipfile.BadZipFile, zlib.error) as error:
        raise ConfigError(f"data-path = '{place.path}' holds more than plain arrays, or is damaged") from error


def _images(array: NDArray[Any], name: str) -> Tensor:
    shape, kind = array.shape, array.dtype.kind
    if array.ndim not in (3, 4):
        raise ConfigError(f"{name} has shape {shape}: it takes n × height × width, with channels first or last or none")
    if kind not in "biuf":
        raise ConfigError(f"{name} holds {array.dtype}: pixels are whole or real numbers")
    if kind == "f":
        images = torch.from_numpy(array.astype(np.float32, copy=False))
    else:
        low, high = (int(each) for each in (array.min(initial=0), array.max(initial=0)))
        if low < 0 or high > 65535:
            raise ConfigError(f"{name} holds whole numbers from {low} to {high}: pixels go from 0 to 255, or to 65535")
        images = torch.from_numpy(array.astype(np.uint8 if high <= 255 else np.float32, copy=False))
    last = array.ndim == 3 or (shape[1] not in (1, 3, 4) and shape[3] in (1, 3, 4))
    return channels_first(images) if last else images


def _flat(array: NDArray[Any], name: str) -> NDArray[Any]:
    """Return one label an example, shape (n,), from shape (n,) or (n, 1)."""
    if array.ndim == 0 or array.size != len(array):
        raise ConfigError(f"{name} has shape {array.shape}: it takes one label for each of n examples")
    return array.reshape(-1)
