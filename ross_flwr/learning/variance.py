"""Averages of models that vary as much as a model."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

__all__ = ["variance_corrected"]

RESOLUTION = 1e-12
"""An average whose variance is below this part of what it should be is constant but for rounding, and stays so."""


def variance_corrected(mixed: Tensor, models: Iterable[Tensor], sizes: Sequence[int]) -> Tensor:
    """Return `mixed` with each tensor as spread out as those of `models` are: y ← ȳ + (y − ȳ) √(v* / var y).

    The vanishing variance problem (arXiv:2404.04616): to average models that are not alike shrinks the variance of
    their parameters, by 1/m for m independent ones, and with it the gradients. v* is the mean over `models` of the
    tensor's variance, ȳ the mean of its entries. Where models are alike the factor is 1.

    Parameters
    ----------
    mixed : Tensor
        The average, shape [P].
    models : iterable of Tensor
        Those whose variance to follow, shape [P] each, at least one.
    sizes : sequence of int
        The lengths of the tensors to correct, in order; what comes after them (float buffers) is left as it is.

    Examples
    --------
    >>> variance_corrected(torch.tensor([0.5, 1.5, 7.0]), [torch.tensor([0.0, 4.0, 7.0])], [2])
    tensor([-1.,  3.,  7.])
    """

    def variances(vector: Tensor) -> Tensor:
        parts = torch.split(vector[: sum(sizes)].double(), list(sizes))
        return torch.stack([part.var(correction=0) for part in parts])

    found, wanted = variances(mixed), torch.stack([variances(model) for model in models]).mean(0)
    factors = torch.where(found > RESOLUTION * wanted, (wanted / found).sqrt(), 1.0).tolist()
    corrected = mixed.clone()
    for part, factor in zip(torch.split(corrected[: sum(sizes)], list(sizes)), factors, strict=True):
        part.copy_(torch.lerp(part.mean(), part, factor))
    return corrected
