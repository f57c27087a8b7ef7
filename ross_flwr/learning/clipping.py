"""The mean of gradients of single examples, each clipped."""

from collections.abc import Iterator
from logging import INFO, getLogger
from weakref import WeakSet

import torch
from torch import Tensor, nn

from ross_flwr.learning.examples import Batch
from ross_flwr.learning.objective import ModuleObjective, Objective
from ross_flwr.learning.outputs import call
from ross_flwr.learning.streams import seeded
from ross_flwr.learning.tensors import Tree, map_tensors

__all__ = ["ENTRIES", "clipped_mean"]

ENTRIES = 2**24
"""Entries of gradients of single examples that are in memory at once, of which P belong to each example."""

logger = getLogger(__name__)

_one_by_one: WeakSet[nn.Module] = WeakSet()
"""Modules that `torch.vmap` cannot run."""


def clipped_mean(
    objective: Objective, vector: Tensor, batch: Batch, clip: float, *, noise: int, entries: int = ENTRIES
) -> Tensor:
    """Return (1/B) Σ_b g_b · min(1, C/‖g_b‖), shape [P], g_b being the gradient on example b alone.

    An example whose gradient is not finite adds nothing.

    Parameters
    ----------
    objective : Objective
        The loss.
    vector : Tensor
        The model, shape [P].
    batch : Batch
        The B examples.
    clip : float
        C, the longest that an example's gradient may be, in the L2 norm.
    noise : int
        The seed of what the model draws.
    entries : int
        Entries of the g_b that are computed at once; at least one example is.

    The g_b of several examples are computed together by `torch.vmap`. Modules that it cannot run, because they change
    tensors in place or branch on values, compute one example after the other.
    """
    total = torch.zeros_like(vector)
    for gradients in _gradients(objective, vector, batch, noise, max(1, entries // len(vector))):
        lengths = torch.linalg.vector_norm(gradients, dim=1)
        sound = lengths.isfinite()
        factors = torch.where(sound, (clip / lengths).clamp(max=1.0), 0.0)
        total += factors @ torch.where(sound[:, None], gradients, 0.0)
    return total / len(batch)


def _gradients(objective: Objective, vector: Tensor, batch: Batch, noise: int, chunk: int) -> Iterator[Tensor]:
    """Yield the gradients of single examples, shape [b, P] with b = `chunk` at most."""
    for k, part in enumerate(batch.parts(chunk)):
        seed = noise + k * len(batch)
        together = _together(objective, vector, part, seed)
        if together is not None:
            yield together
            continue
        for b, example in enumerate(part.parts(1)):
            with seeded(seed + b, vector.device):
                alone = objective.gradient(vector, example)
            yield alone[None]


def _together(objective: Objective, vector: Tensor, batch: Batch, noise: int) -> Tensor | None:
    """Return the gradients of all examples of `batch`, shape [b, P], or None if `torch.vmap` cannot."""
    if not isinstance(objective, ModuleObjective) or objective.model.module in _one_by_one:
        return None
    try:
        with seeded(noise, vector.device):
            return _vmapped(objective, vector, batch)
    except (RuntimeError, TypeError, ValueError) as error:
        _one_by_one.add(objective.model.module)
        logger.log(INFO, "gradients of single examples are computed one by one, since vmap fails: %s", error)
        return None


def _vmapped(objective: ModuleObjective, vector: Tensor, batch: Batch) -> Tensor:
    model = objective.model
    if not model.module.training:
        model.module.train()
    measured = _Measured(objective)
    names = [f"module.{name}" for name in model.shapes]
    buffers = vector[model.num_parameters :]

    def loss(parameters: Tensor, example: tuple[Tree, Tree]) -> Tensor:
        parts = torch.split(torch.cat([parameters, buffers]), model.sizes)
        state = {name: part.view(shape) for name, part, shape in zip(names, parts, model.shapes.values(), strict=True)}
        alone = tuple(map_tensors(lambda each: each[None], tree) for tree in example)
        found: Tensor = torch.func.functional_call(measured, state, alone)
        return found

    gradients: Tensor = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0), randomness="different")(
        vector[: model.num_parameters], (batch.inputs, batch.targets)
    )
    return nn.functional.pad(gradients.detach(), (0, len(buffers)))


class _Measured(nn.Module):
    """A module with its loss behind it."""

    def __init__(self, objective: ModuleObjective) -> None:
        super().__init__()
        self.module = objective.model.module
        self.criterion = objective.criterion

    def forward(self, inputs: Tree, targets: Tree) -> Tensor:
        return self.criterion(call(self.module, inputs), targets)
