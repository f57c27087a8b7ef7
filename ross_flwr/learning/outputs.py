"""What stands between a module and a loss: how inputs go in, and which of the outputs are scores."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from inspect import Parameter, signature
from math import isnan, nan
from operator import mul
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ross_flwr.config import ConfigError
from ross_flwr.learning.tensors import Tree, leaves

__all__ = [
    "Loss",
    "Metric",
    "Test",
    "Trainer",
    "accuracy",
    "call",
    "criterion",
    "is_of_torch",
    "mean_of",
    "plain",
    "refuse_nan",
    "scores",
]

Loss: TypeAlias = Callable[..., Tensor]
"""From (outputs, targets) to their mean loss, with a gradient; a third argument called ``model`` gets the module."""

Metric: TypeAlias = Callable[[Any, Any], Tensor | float]
"""From (outputs, targets) to one number."""

Trainer: TypeAlias = Callable[[nn.Module, Sequence[Tensor]], object]
"""An app's own training: it takes a module, and the indices of the mini-batches on which to change it."""

Test: TypeAlias = Callable[[nn.Module], Mapping[str, float]]
"""An app's own test: it returns the loss of a module, its accuracy and other numbers."""

NAMED = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)


def call(module: nn.Module, inputs: Tree) -> Any:
    """Return what the module makes of the inputs, which are its one argument.

    A dictionary goes in by keyword if the names in it are those of arguments that ``forward`` takes.

    Examples
    --------
    >>> call(nn.Bilinear(2, 3, 1), {"input1": torch.zeros(4, 2), "input2": torch.zeros(4, 3)}).shape
    torch.Size([4, 1])
    """
    if not isinstance(inputs, Mapping):
        return module(inputs)
    arguments = signature(module.forward).parameters.values()
    names = {each.name for each in arguments if each.kind in NAMED}
    anything = any(each.kind is Parameter.VAR_KEYWORD for each in arguments)
    by_keyword = inputs.keys() <= names or (anything and (not names or bool(inputs.keys() & names)))
    return module(**inputs) if by_keyword else module(inputs)


def plain(outputs: Any) -> Tree:
    """Return the outputs; of an object with ``logits``, such as those of Hugging Face's models, these alone."""
    logits = getattr(outputs, "logits", None)
    return logits if isinstance(logits, Tensor) else outputs


def scores(outputs: Any) -> Any:
    """Return the tensor of a module's outputs that a loss of PyTorch takes.

    It is the outputs themselves, their ``logits``, or the first tensor in a tuple that is more than one number.

    Examples
    --------
    >>> scores((torch.tensor(0.5), torch.zeros(2, 3), torch.zeros(2))).shape
    torch.Size([2, 3])
    """
    outputs = plain(outputs)
    if isinstance(outputs, Mapping) and isinstance(outputs.get("logits"), Tensor):
        return outputs["logits"]
    if isinstance(outputs, list | tuple):
        return next((each for each in outputs if isinstance(each, Tensor) and each.dim()), outputs)
    return outputs


def is_of_torch(loss: Loss) -> bool:
    """Return whether a loss is one of ``torch.nn``."""
    return (loss.__module__ or "").startswith("torch.nn.")


def criterion(loss: Loss, module: nn.Module) -> Callable[[Any, Any], Tensor]:
    """Return the loss as a function of (outputs, targets).

    A loss of ``torch.nn`` gets the `scores` of the outputs; any other gets what the module returns, and the module
    itself if it takes an argument called ``model``.
    """
    if is_of_torch(loss):
        return lambda outputs, targets: loss(scores(outputs), targets)
    return partial(loss, model=module) if "model" in signature(loss).parameters else loss


def accuracy(outputs: Any, targets: Tree, loss: Callable[[Any, Any], Tensor]) -> float:
    """Return the share of correct classes; NaN unless targets are classes, one for each row of scores.

    One score stands for classes 0 and 1: as a probability if the loss is indifferent at 0.5, or else as a logit.
    """
    found = scores(outputs)
    if not isinstance(found, Tensor) or not isinstance(targets, Tensor):
        return nan
    if targets.is_floating_point() or found.shape[:-1] != targets.shape:
        return nan
    if found.shape[-1] > 1:
        return float((found.argmax(-1) == targets).float().mean())
    if ((targets != 0) & (targets != 1)).any():
        return nan
    half, zeros = torch.full_like(found, 0.5), torch.zeros_like(targets)
    probabilities = isinstance(outputs, Tensor) and torch.isclose(loss(half, zeros), loss(half, zeros + 1))
    return float(((found[..., 0] > (0.5 if probabilities else 0.0)) == targets.bool()).float().mean())


def accuracies(outputs: Tensor, targets: Tensor, loss: Callable[[Any, Any], Tensor]) -> list[float]:
    """Return the `accuracy` of each of K outputs, shape [K, B, ...], on the same targets."""
    if targets.is_floating_point() or outputs.shape[1:-1] != targets.shape or outputs.shape[-1] == 1:
        return [accuracy(each, targets, loss) for each in outputs]
    rates: list[float] = (outputs.argmax(-1) == targets).flatten(1).float().mean(1).tolist()
    return rates


def mean_of(measured: Iterable[tuple[int, tuple[float, float]]]) -> tuple[float, float]:
    """Return the means of losses and accuracies, each of a number of examples.

    Examples
    --------
    >>> mean_of([(3, (1.0, 0.0)), (1, (2.0, 1.0))])
    (1.25, 0.25)
    """
    counts, pairs = zip(*measured, strict=True)
    shares = [count / sum(counts) for count in counts]
    loss, correct = (sum(map(mul, shares, values)) for values in zip(*pairs, strict=True))
    return loss, correct


def refuse_nan(loss: Tensor, *examples: Tree) -> None:
    """Refuse examples that make the loss NaN because they hold NaN themselves."""
    if isnan((loss.sum() if loss.dim() else loss).item()) and any(
        bool(leaf.isnan().any()) for leaf in leaves(examples)
    ):
        raise ConfigError("the agent's data holds NaN, which makes its loss NaN: remove or replace such examples")
