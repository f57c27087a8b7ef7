"""What gradients and models tell of the data that they were made from: attacks by a neighbour that only looks."""

from collections.abc import Mapping

import torch
from torch import Size, Tensor

from ross_flwr.config import ConfigError

__all__ = ["area", "entropy", "inverted", "likeness", "threshold"]

THRESHOLDS = 150
"""How many thresholds `threshold` tries."""


def inverted(gradient: Tensor, shapes: Mapping[str, Size]) -> Tensor:
    """Return the input of the example that a gradient is of, shape [inputs], up to its scale under noise.

    ::

        ∂ℓ/∂W = δ xᵀ,   ∂ℓ/∂b = δ,   so   x = (∂ℓ/∂W)ᵀ (∂ℓ/∂b) / ‖∂ℓ/∂b‖²

    for a first layer W x + b (Phong et al., "Privacy-preserving deep learning via additively homomorphic encryption",
    2018). It is exact for one example; of several, it is a mean that the δ weigh.

    Parameters
    ----------
    gradient : Tensor
        Shape [P].
    shapes : mapping of str to Size
        The shapes of the model's parameters, in order; the first two are those of W and b.

    Raises
    ------
    ConfigError
        When the first layer is another.

    Examples
    --------
    >>> delta, x = torch.tensor([2.0, -1.0]), torch.tensor([0.5, 3.0, 1.0])
    >>> gradient = torch.cat([torch.outer(delta, x).flatten(), delta])
    >>> inverted(gradient, {"weight": Size([2, 3]), "bias": Size([2])})
    tensor([0.5000, 3.0000, 1.0000])
    """
    first = list(shapes.values())[:2]
    if [len(shape) for shape in first] != [2, 1] or first[0][0] != first[1][0]:
        raise ConfigError("gradients are inverted for models that begin with a linear layer: use model = 'mlp'")
    weights, bias = torch.split(gradient[: first[0].numel() + first[1].numel()], [each.numel() for each in first])
    return weights.view(first[0]).T @ bias / bias.square().sum()


def likeness(found: Tensor, original: Tensor) -> float:
    """Return the correlation of two images, from -1 to 1; 0 where one has no contrast."""
    both = torch.stack([found.flatten(), original.flatten()]).double()
    both = torch.nn.functional.normalize(both - both.mean(1, keepdim=True), dim=1)
    return float(both[0] @ both[1])


def entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the label-informed entropy of each example, shape [B]: the lower, the surer the model is of the label.

    ::

        −(1 − p_y) log p_y − Σ_{c≠y} p_c log(1 − p_c)

    Song and Mittal, "Systematic evaluation of privacy risks of machine learning models", USENIX Security 2021.

    Parameters
    ----------
    outputs, targets : Tensor
        Logits of shape [B, C], and classes of shape [B].
    """
    shares = outputs.double().softmax(1)
    rest = 1 - shares
    tiny = torch.finfo(torch.float64).tiny
    others = shares * rest.clamp(min=tiny).log()
    right = targets[:, None]
    own = rest.gather(1, right) * shares.gather(1, right).clamp(min=tiny).log()
    return -(own.squeeze(1) + others.sum(1) - others.gather(1, right).squeeze(1))


def area(members: Tensor, others: Tensor) -> float:
    """Return the area under the ROC curve: how often a member scores higher than another example, ties being half.

    Examples
    --------
    >>> area(torch.tensor([3.0, 2.0]), torch.tensor([1.0, 2.0]))
    0.875
    """
    gaps = members[:, None] - others
    return float((gaps > 0).double().mean() + 0.5 * (gaps == 0).double().mean())


def threshold(members: Tensor, others: Tensor) -> float:
    """Return the balanced accuracy of the best of 150 thresholds above which an example counts as a member.

    It is chosen with the truth at hand, so it lies above 0.5 by chance too.
    """
    both = torch.cat([members, others])
    cuts = torch.linspace(float(both.min()), float(both.max()), THRESHOLDS, dtype=torch.float64)
    right = (members[:, None] >= cuts).double().mean(0) + (others[:, None] < cuts).double().mean(0)
    return float(right.max() / 2)
