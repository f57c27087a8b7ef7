"""Many models of one architecture, computed on together."""

from collections.abc import Iterator, Mapping
from itertools import repeat
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ross_flwr.learning.flat import FlatModel
from ross_flwr.learning.outputs import Loss
from ross_flwr.learning.probes import Probes

__all__ = ["Stack", "losses"]

ENTRIES = 2**21
"""Entries of the models that are computed on at once: 8 MB stay in a processor's cache, and memory is used again."""

SMALL = 24
"""Examples up to which one convolution with a group for each model is faster than one convolution after the other."""

ELEMENTWISE = (nn.Identity, nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Softplus, nn.Sigmoid, nn.Tanh)
POOLING = (nn.MaxPool2d, nn.AvgPool2d)
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

Named: TypeAlias = Mapping[str, Tensor]
"""Parameters of K models by name, shape [K, ...] each."""


class Stack:
    """A chain of common layers, at K flat vectors at once.

    Models that share no layer's result are computed on by batched products. So many small products in one call take
    about half of the time that they take one by one.

    Attributes
    ----------
    convolves, draws : bool
        Whether there are convolutions, and whether the chain draws random numbers in training.
    """

    def __init__(self, model: FlatModel, layers: list[tuple[str, nn.Module]]) -> None:
        self.model = model
        self.layers = layers
        self.convolves = any(isinstance(layer, nn.Conv2d) for _, layer in layers)
        self.draws = any(isinstance(layer, nn.Dropout) and layer.p > 0 for _, layer in layers)

    @classmethod
    def of(cls, model: FlatModel) -> "Stack | None":
        """Return the stack of a model, or None where its module is no chain of layers that are known here."""
        layers = list(_chain("", model.module))
        names = [f"{name}.{key}" for name, layer in layers for key, _ in layer.named_parameters()]
        known = all(_is_known(layer) for _, layer in layers)
        return cls(model, layers) if known and names == list(model.shapes) else None

    @property
    def rows(self) -> int:
        """How many models are computed on at once."""
        return max(1, ENTRIES // self.model.size)

    def named(self, vectors: Tensor, first: int = 0) -> Named:
        """Return views of `vectors`, shape [K, P], by name; of less than P, without the `first` parameters."""
        shapes = list(self.model.shapes.items())[first:]
        parts = torch.split(vectors, [shape.numel() for _, shape in shapes], 1)
        return {name: part.view(-1, *shape) for (name, shape), part in zip(shapes, parts, strict=True)}

    def outputs(
        self, named: Named, inputs: Tensor, first: int = 0, last: int | None = None, into: Named | None = None
    ) -> Tensor:
        """Return what layers `first` … `last` − 1 make of `inputs`, shape [K, B, ...], or [1, B, ...] for the same.

        Backward writes the gradients of fully connected layers `into` tensors of the same names.
        """
        for name, layer in self.layers[first:last]:
            if isinstance(layer, nn.Linear) and into:
                taken = [each.get(f"{name}.{key}") for each in (named, into) for key in ("weight", "bias")]
                inputs = _Linear.apply(inputs, *taken)  # type: ignore[no-untyped-call]
            elif isinstance(layer, nn.Linear):
                inputs = _linear(inputs, named[f"{name}.weight"], named.get(f"{name}.bias"))
            elif isinstance(layer, nn.Conv2d):
                inputs = _convolution(layer, inputs, named[f"{name}.weight"], named.get(f"{name}.bias"))
            elif isinstance(layer, nn.Flatten):
                inputs = inputs.flatten(2)
            elif isinstance(layer, POOLING):
                inputs = layer(inputs.flatten(0, 1)).unflatten(0, inputs.shape[:2])
            elif not isinstance(layer, nn.Dropout):
                inputs = layer(inputs)
        return inputs

    def probed(self, probes: Probes, inputs: Tensor) -> Iterator[Tensor]:
        """Yield the outputs of all probes on the same inputs, shape [B, ...], some of them at once: [k, B, ...].

        What is linear in the parameters is linear in the probes' coefficients. So the first layer with parameters is
        computed at the m + 1 vectors that the probes are made of, and its results are combined.

        Raises
        ------
        OverflowError
            When this is not finite at one of them, which would spoil the probes that leave it out.
        """
        coefficients, vectors = probes.stacked()
        number = next(k for k, (_, layer) in enumerate(self.layers) if isinstance(layer, nn.Linear | nn.Conv2d))
        count = len(list(self.layers[number][1].parameters()))
        first = sum(self.model.sizes[:count])
        shared = self.outputs(self.named(vectors), inputs[None], 0, number + 1)
        flat = shared.reshape(len(vectors), -1)
        if not (vectors.sum().isfinite() and flat.sum().isfinite()):  # a tenth of the time of looking at each
            raise OverflowError("nothing times infinity is not nothing")
        for some in torch.split(coefficients, max(1, ENTRIES // max(self.model.size - first, flat.shape[1]))):
            rest = self.named(some @ vectors[:, first:], count)
            yield self.outputs(rest, (some @ flat).view(-1, *shared.shape[1:]), number + 1)

    def gradients(self, vectors: Tensor, inputs: Tensor, targets: Tensor, loss: Loss) -> tuple[Tensor, Tensor]:
        """Return the gradient of each model's loss on its own mini-batch, shape [K, P], and the losses, shape [K].

        The K mini-batches have the shapes [K, B, ...].
        """
        gradients = torch.empty_like(vectors)
        named = {name: view.detach().requires_grad_() for name, view in self.named(vectors).items()}
        into = self.named(gradients)
        found = losses(self.outputs(named, inputs, into=into), targets, loss)
        torch.autograd.backward(found.sum())
        for name, view in named.items():
            if view.grad is not None:
                into[name].copy_(view.grad)
        return gradients, found.detach()


def losses(outputs: Tensor, targets: Tensor, loss: Loss) -> Tensor:
    """Return the loss of each of K models, shape [K], from outputs and targets of shape [K, B, ...]."""
    if loss is not nn.functional.cross_entropy or targets.dim() != 2 or targets.is_floating_point():
        return torch.stack([loss(*pair) for pair in zip(outputs, targets, strict=True)])
    each = nn.functional.cross_entropy(outputs.flatten(0, 1), targets.flatten(), reduction="none")
    return each.view(targets.shape).sum(1) / (targets != -100).sum(1)


def _chain(prefix: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the layers of nested `nn.Sequential` modules, with their names."""
    if type(module) is not nn.Sequential or _is_hooked(module):
        yield prefix, module
        return
    for name, layer in module._modules.items():  # one that occurs twice is two layers; named_children leaves it out
        yield from _chain(f"{prefix}.{name}" if prefix else name, layer)


def _is_known(layer: nn.Module) -> bool:
    if _is_hooked(layer):
        return False
    if type(layer) is nn.Flatten:
        return (layer.start_dim, layer.end_dim) == (1, -1)
    if type(layer) is nn.Conv2d:
        return layer.padding_mode == "zeros"
    if type(layer) is nn.MaxPool2d:
        return not layer.return_indices
    return type(layer) in (nn.Linear, nn.Dropout, *ELEMENTWISE, *POOLING)


def _is_hooked(module: nn.Module) -> bool:
    return any(getattr(module, hooks) for hooks in HOOKS)


def _linear(inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return x Wᵀ + b, shape [K, B, ..., O]."""
    flat = inputs.flatten(1, -2).expand(len(weight), -1, -1)
    flipped = weight.transpose(1, 2)
    found = torch.bmm(flat, flipped) if bias is None else torch.baddbmm(bias[:, None], flat, flipped)
    return found.view(len(weight), *inputs.shape[1:-1], -1)


class _Linear(torch.autograd.Function):
    """`_linear`, whose backward writes the gradients of W and b where they belong, so that nobody has to copy them."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, into: Tensor, into_bias: Tensor | None
    ) -> Tensor:
        """Compute it."""
        ctx.save_for_backward(inputs, weight)
        ctx.into = into, into_bias
        return _linear(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient of the inputs, if it is wanted."""
        (inputs, weight), (into, into_bias) = ctx.saved_tensors, ctx.into
        flat = outputs[0].flatten(1, -2)
        torch.bmm(flat.transpose(1, 2), inputs.flatten(1, -2), out=into)
        if into_bias is not None:
            torch.sum(flat, 1, out=into_bias)
        back = torch.bmm(flat, weight).view_as(inputs) if ctx.needs_input_grad[0] else None
        return back, None, None, None, None


def _convolution(layer: nn.Conv2d, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return what K convolutions make of their inputs, [K, B, C, H, W], or all of the same ones, [1, B, C, H, W]."""
    how: Any = {"stride": layer.stride, "padding": layer.padding, "dilation": layer.dilation}
    kernels, biases = weight.flatten(0, 1), None if bias is None else bias.flatten()
    if len(inputs) == 1 and layer.groups == 1:  # one convolution with the channels of all
        found = nn.functional.conv2d(inputs[0], kernels, biases, **how)
    elif inputs.shape[1] <= SMALL or inputs.is_cuda:
        inputs = inputs.expand(len(weight), *inputs.shape[1:])
        flat = inputs.transpose(0, 1).flatten(1, 2)
        found = nn.functional.conv2d(flat, kernels, biases, groups=layer.groups * len(weight), **how)
    else:
        own = repeat(None, len(weight)) if bias is None else bias
        each = zip(inputs.expand(len(weight), *inputs.shape[1:]), weight, own, strict=True)
        return torch.stack([nn.functional.conv2d(*one, groups=layer.groups, **how) for one in each])
    return found.view(len(found), len(weight), -1, *found.shape[2:]).transpose(0, 1)
