"""The mean of gradients of single examples, each clipped."""

from collections.abc import Iterator
from logging import INFO, getLogger
from math import inf
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn

from ross_flwr.learning.examples import Batch
from ross_flwr.learning.ghost import Ghost
from ross_flwr.learning.objective import ModuleObjective, Objective
from ross_flwr.learning.outputs import call
from ross_flwr.learning.streams import seeded
from ross_flwr.learning.tensors import Tree, map_tensors

__all__ = ["ENTRIES", "clipped_mean"]

ENTRIES = 2**24
"""Entries of gradients of single examples that are in memory at once, of which P belong to each example."""

MANY = 3 * 2**20
"""From this many entries on, ghost clipping is faster whatever the layers are: it does not write them to memory."""

logger = getLogger(__name__)

_one_by_one: WeakSet[nn.Module] = WeakSet()
"""Modules that `torch.vmap` cannot run."""

_ghosts: WeakKeyDictionary[nn.Module, Ghost | None] = WeakKeyDictionary()
"""What clips the gradients of modules; None for those that Opacus cannot."""


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

    Where Opacus is installed and pays, for linear layers and for many entries, it clips without computing the g_b
    (`Ghost`). Else the g_b of several examples are computed together by `torch.vmap`. Modules that it cannot run,
    because they change tensors in place or branch on values, compute one example after the other.
    """
    if isinstance(objective, ModuleObjective) and _pays(objective.model.module, len(batch) * len(vector)):
        found = _by_ghost(objective, vector, batch, clip, noise)
        if found is not None:
            return found
    total = torch.zeros_like(vector)
    for gradients in _gradients(objective, vector, batch, noise, max(1, entries // len(vector))):
        lengths = torch.linalg.vector_norm(gradients, dim=1)
        sound = lengths.isfinite()
        factors = torch.where(sound, (clip / lengths).clamp(max=1.0), 0.0)
        total += factors @ torch.where(sound[:, None], gradients, 0.0)
    return total / len(batch)


def _pays(module: nn.Module, entries: int) -> bool:
    """Return whether ghost clipping is the faster way."""
    layers = (each for each in module.modules() if next(each.parameters(recurse=False), None) is not None)
    return entries >= MANY or all(type(each) in (nn.Linear, nn.Embedding) for each in layers)


def _by_ghost(objective: ModuleObjective, vector: Tensor, batch: Batch, clip: float, noise: int) -> Tensor | None:
    """Return the clipped mean as Opacus has it, or None if it cannot, or if a gradient is not finite."""
    module = objective.model.module
    if module not in _ghosts:
        _ghosts[module] = _ghost(objective, vector, batch.take(torch.arange(min(len(batch), 8))), noise)
    ghost = _ghosts[module]
    if ghost is None:
        return None
    mean, lengths = ghost(objective, vector, batch, clip, noise)
    return mean if bool(lengths.isfinite().all()) else None


def _ghost(objective: ModuleObjective, vector: Tensor, batch: Batch, noise: int) -> Ghost | None:
    """Return what clips the gradients of the module, if it agrees with the gradients of single examples of `batch`.

    There is none for a module that examples go through one by one: what it does to one may depend on the others.
    """
    gradients = torch.cat(list(_gradients(objective, vector, batch, noise, len(batch))))
    if objective.model.module in _one_by_one:
        return None
    expected = torch.linalg.vector_norm(gradients, dim=1), gradients.mean(dim=0)
    try:
        ghost = Ghost(objective)
        mean, lengths = ghost(objective, vector, batch, inf, noise)
        torch.testing.assert_close((lengths, mean), expected, rtol=1e-4, atol=1e-6)
    except (ImportError, RuntimeError, TypeError, ValueError, AttributeError, AssertionError) as error:
        logger.log(INFO, "gradients of single examples are computed, since Opacus does not clip them: %s", error)
        return None
    return ghost


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
