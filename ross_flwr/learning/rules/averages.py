"""Rules that average by the mixing matrix."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ross_flwr.learning.rules.rule import View, Weighing, register_rule

__all__ = ["Mean", "VarianceCorrectedMean", "variance_corrected"]

RESOLUTION = 1e-12
"""An average whose variance is below this share of what it should be is constant up to rounding, and stays constant."""


@register_rule("mean")
class Mean(Weighing):
    """Σ_j w_ij x_j, the weighted mean: plain gossip, without any defence.

    Examples
    --------
    >>> Mean()(torch.tensor([1.0]), {2: torch.tensor([3.0])}, View(weights={2: 0.25}))
    tensor([1.5000])
    """

    def weights(self, own: Tensor, others: Mapping[int, Tensor], view: View) -> Mapping[int, float]:
        """Return w_ij."""
        return view.weights


@register_rule("variance-corrected-mean")
class VarianceCorrectedMean(Mean):
    """Σ_j w_ij x_j, each tensor of the model spread out again as models are: y ← ȳ + (y − ȳ) √(v* / var y).

    The vanishing variance problem (arXiv:2404.04616): averaging models that are not alike shrinks the variance of
    their parameters, to 1/m for m independent models, and with it the gradients. v* is the variance of the own model's
    tensor. Momenta are mixed by W alone. It is no defence.

    Examples
    --------
    >>> view = View(weights={2: 0.5}, sizes=[2])
    >>> VarianceCorrectedMean()(torch.tensor([0.0, 4.0, 7.0]), {2: torch.tensor([1.0, -1.0, 7.0])}, view)
    tensor([-1.,  3.,  7.])
    """

    def __call__(self, own: Tensor, others: Mapping[int, Tensor], view: View) -> Tensor:
        """Mix, and correct models."""
        mixed = super().__call__(own, others, view)
        if not view.models or not others:
            return mixed
        return variance_corrected(mixed, own, view.sizes)


def variance_corrected(mixed: Tensor, model: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return `mixed` with each tensor as spread out as that of `model` is.

    Parameters
    ----------
    mixed : Tensor
        The average, shape [P].
    model : Tensor
        The one whose variances to follow, shape [P].
    sizes : sequence of int
        The lengths of the tensors to correct, in order; what follows them (float buffers) stays unchanged.
    """

    def variances(vector: Tensor) -> Tensor:
        parts = torch.split(vector[: sum(sizes)].double(), list(sizes))
        return torch.stack([part.var(correction=0) for part in parts])

    found, wanted = variances(mixed), variances(model)
    factors = torch.where(found > RESOLUTION * wanted, (wanted / found).sqrt(), 1.0).tolist()
    corrected = mixed.clone()
    for part, factor in zip(torch.split(corrected[: sum(sizes)], list(sizes)), factors, strict=True):
        part.copy_(torch.lerp(part.mean(), part, factor))
    return corrected
