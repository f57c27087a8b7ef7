"""Which buffers of a module belong to what is learned."""

from collections.abc import Callable
from copy import deepcopy
from functools import reduce

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from ross_flwr.learning.outputs import call
from ross_flwr.learning.streams import seeded
from ross_flwr.learning.tensors import Tree

__all__ = ["still_buffers"]


def still_buffers(module: nn.Module, inputs: Callable[[], Tree]) -> frozenset[str]:
    """Return the names of the float buffers that a forward pass in training leaves as they are.

    A copy of the module makes that pass, unless all buffers are the statistics of normalisation layers, which move.

    Parameters
    ----------
    module : nn.Module
        Any module. It stays as it is.
    inputs : callable
        Returns the inputs of some training examples.

    Examples
    --------
    >>> module = nn.BatchNorm1d(2)
    >>> module.register_buffer("mask", torch.full((2,), -1e9))
    >>> still_buffers(nn.Sequential(module), lambda: torch.zeros(3, 2))
    frozenset({'0.mask'})
    """
    names = [name for name, buffer in module.named_buffers() if buffer.is_floating_point()]
    if all(_is_statistic(module, name) for name in names):
        return frozenset()
    try:
        copy = deepcopy(module).train()
        before = {name: (buffer, buffer._version, buffer.clone()) for name, buffer in copy.named_buffers()}
        given = inputs()
        with seeded(0, next(module.parameters()).device):
            call(copy, given)
    except Exception:  # any error of the module; where it makes this one again, it is told
        return frozenset()
    after = dict(copy.named_buffers())
    return frozenset(
        name for name in names if _is_still(after.get(name), *before[name]) and not _is_statistic(module, name)
    )


def _is_statistic(module: nn.Module, name: str) -> bool:
    *owners, key = name.split(".")
    return isinstance(reduce(getattr, owners, module), _NormBase) and key.startswith("running_")


def _is_still(after: torch.Tensor | None, buffer: torch.Tensor, version: int, value: torch.Tensor) -> bool:
    return after is buffer and buffer._version == version and torch.equal(buffer, value)
