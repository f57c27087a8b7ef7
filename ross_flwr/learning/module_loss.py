"""The loss of a module at any flat vector, on any batch."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._C._nn import flatten_dense_tensors  # one call, for which other threads wait but once

from ross_flwr.config import ConfigError
from ross_flwr.learning.examples import Batch
from ross_flwr.learning.flat import FlatModel
from ross_flwr.learning.outputs import Loss, accuracy, call, criterion, is_of_torch, mean_of, plain, refuse_nan
from ross_flwr.learning.stacked import Stack
from ross_flwr.learning.streams import seeded
from ross_flwr.learning.tensors import Tree, map_tensors

__all__ = ["ModuleLoss"]


class ModuleLoss:
    """The loss of an `nn.Module`, and what else it makes of a batch.

    Parameters
    ----------
    model : FlatModel
        The module, with any flat vector of shape [P] for its state.
    loss : callable
        Mean loss of (outputs, targets); see `outputs.criterion`.
    chunk : int
        Examples that are computed on at once, except in training.
    """

    def __init__(self, model: FlatModel, loss: Loss, chunk: int) -> None:
        self._model = model
        self.loss_function = loss
        self.criterion = criterion(loss, model.module)
        self.chunk = chunk
        self._shift: Tensor | None = None
        self._takes_gradients = False

    @property
    def model(self) -> FlatModel:
        """The module with its state as one vector; each thread computes on its own."""
        return self._model.here

    @cached_property
    def stack(self) -> Stack | None:
        """What computes on many models at once, if the module is a chain of common layers."""
        return None if isinstance(self.criterion, partial) else Stack.of(self.model)

    @cached_property
    def draws(self) -> bool:
        """Whether module or loss may draw random numbers in training."""
        stack = self.stack
        return stack is None or stack.draws or not is_of_torch(self.loss_function)

    def gradient(self, vector: Tensor, batch: Batch, *, training: bool = True, part: slice | None = None) -> Tensor:
        """Return the gradient of the mean loss on `batch` at `vector`, shape [P]; zero for float buffers.

        It is also zero for parameters that do not affect the loss. If a `part` of the parameters is given, nothing is
        computed or kept for the others, and the gradient has the entries of the part alone.

        `vector` stays unchanged: training mode moves the buffers of a copy, and `buffer_shift` says how far.
        """
        if not training:
            with seeded(0, vector.device) if self.draws else nullcontext():
                return self._gradient(self._guarded(vector), batch, training=False)
        if not self.model.has_buffers:
            return self._gradient(vector, batch, training=True, part=part)
        moved = vector.clone()
        gradient = self._gradient(moved, batch, training=True, part=part)
        self._shift = moved[self.model.num_parameters :] - vector[self.model.num_parameters :]
        return gradient

    def buffer_shift(self) -> Tensor | None:
        """Return by how much the last `gradient` moved the float buffers, or None when there are none."""
        return self._shift

    def evaluate(self, vector: Tensor, batch: Batch) -> tuple[float, float]:
        """Return mean loss and accuracy on `batch` at `vector`."""
        return mean_of((len(part), self._measure(vector, part)) for part in batch.parts(self.chunk))

    def outputs(self, vector: Tensor, batch: Batch) -> Tree:
        """Return what the module makes of the inputs of `batch` at `vector`, in evaluation mode.

        Of outputs with ``logits``, such as those of Hugging Face's models, these alone are returned.
        """
        parts = [map_tensors(Tensor.detach, plain(self._outputs(vector, part))) for part in batch.parts(self.chunk)]
        return parts[0] if len(parts) == 1 else map_tensors(_cat, *parts)

    def evaluating(self, vector: Tensor, function: Callable[[nn.Module], Any], *, draws: bool = True) -> Any:
        """Return the function's value of the module at `vector`, in evaluation mode.

        Gradients are computed only for modules whose ``forward`` takes some itself. Random numbers that it `draws` are
        always the same.
        """
        self.model.bind(self._guarded(vector))
        self._mode(training=False)
        try:
            if not self._takes_gradients:
                try:
                    with torch.inference_mode(), seeded(0, vector.device) if draws else nullcontext():
                        return function(self.model.module)
                except RuntimeError as error:
                    if "grad" not in str(error) and "Inference" not in str(error):
                        raise
            with torch.enable_grad(), seeded(0, vector.device):
                value = function(self.model.module)
            self._takes_gradients = True
            return value
        finally:
            self.model.settle()

    def _gradient(self, vector: Tensor, batch: Batch, *, training: bool, part: slice | None = None) -> Tensor:
        model = self.model
        model.bind(vector)
        self._mode(training=training)
        self._forget_gradients()
        with _learning(model.parameters, part) as entries:
            try:
                for each in [batch] if training else batch.parts(self.chunk):
                    loss = self._loss(call(model.module, each.inputs), each)
                    if part is None or loss.requires_grad:
                        torch.autograd.backward(loss if len(each) == len(batch) else loss * (len(each) / len(batch)))
            finally:
                model.settle()
            parts = [_flat(p)[within] for p, within in entries] if part else [_all(model.parameters)]
        if part is not None:
            self._forget_gradients()
        elif model.has_buffers:
            parts.append(torch.zeros_like(vector[model.num_parameters :]))
        return torch.cat(parts) if part or model.has_buffers else parts[0]

    def _measure(self, vector: Tensor, batch: Batch) -> tuple[float, float]:
        outputs = self._outputs(vector, batch)
        loss = self._loss(outputs, batch)
        return float(loss.detach()), accuracy(outputs, batch.targets, self.criterion)

    def _loss(self, outputs: Any, batch: Batch) -> Tensor:
        loss = self.criterion(outputs, batch.targets)
        if not isinstance(loss, Tensor) or loss.numel() != 1:
            found = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else f"a {type(loss).__name__}"
            raise ConfigError(f"the loss returned {found}: expected a tensor of one number, the mean over the batch")
        refuse_nan(loss, batch.inputs, batch.targets)
        return loss

    def _outputs(self, vector: Tensor, batch: Batch) -> Any:
        return self.evaluating(vector, lambda module: call(module, batch.inputs), draws=self.draws)

    def _guarded(self, vector: Tensor) -> Tensor:
        """Return what a module may write its buffers into in evaluation, so that `vector` stays as it is."""
        return vector.clone() if self.model.has_buffers else vector

    def _forget_gradients(self) -> None:
        for parameter in self.model.parameters:
            parameter.grad = None

    def _mode(self, *, training: bool) -> None:
        if self.model.module.training is not training:
            self.model.module.train(training)


def _all(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Return the gradients of all parameters, shape [P]."""
    dense = [each.grad for each in parameters if each.grad is not None and not each.grad.is_sparse]
    return flatten_dense_tensors(dense if len(dense) == len(parameters) else [_flat(each) for each in parameters])


def _flat(parameter: nn.Parameter) -> Tensor:
    gradient = parameter.grad
    if gradient is None:
        return torch.zeros_like(parameter).view(-1)
    return (gradient.to_dense() if gradient.is_sparse else gradient).reshape(-1)


def _cat(*parts: Tensor) -> Tensor:
    return torch.cat(parts)


@contextmanager
def _learning(parameters: Sequence[nn.Parameter], part: slice | None) -> Iterator[list[tuple[nn.Parameter, slice]]]:
    """Give the parameters with entries in `part` of the vector, and where in each these are; without a part, all.

    Inside, no other parameter requires a gradient.
    """
    if part is None:
        yield [(parameter, slice(None)) for parameter in parameters]
        return
    entries, offset = [], 0
    for parameter in parameters:
        begin, end = max(0, part.start - offset), min(parameter.numel(), part.stop - offset)
        if begin < end:
            entries.append((parameter, slice(begin, end)))
        parameter.requires_grad_(begin < end)
        offset += parameter.numel()
    try:
        yield entries
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
