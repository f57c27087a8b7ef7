"""Which gradients an agent's own validation set says could be honest."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ross_flwr.learning.least_squares import Array, distances

__all__ = ["screen"]

LEEWAY = 4.0
"""A rest counts as noise if its square is at most this many times that of the agent's own gradient."""


def screen(gradients: Tensor, classes: Tensor, share: float) -> tuple[Array, NDArray[np.bool_]]:
    """Return by which factor to shorten each gradient, shape [m], and which ones then pass, bool of shape [m].

    ::

        τ   = max(‖g_1‖, max_c ‖h_c‖);   g'_j = g_j min(1, τ/‖g_j‖)
        r_j = min_p ‖g'_j − Σ_c p_c h_c‖²   over p ≥ 0, Σ_c p_c = 1
        j passes if  r_j < (1 − s) ‖g'_j‖²  or  r_j ≤ 4 r_1

    The gradient of a mixture of classes is no longer than the longest class gradient, so nobody may pull harder: a
    longer gradient is shortened, not refused, because honest ones are longer by the noise of a mini-batch. Then a
    mixture has to explain the part s of it, or leave no more than noise. How much noise there is the agent knows from
    its own gradient, and nothing that others send changes the bounds. The own gradient always passes.

    Parameters
    ----------
    gradients : Tensor
        g_1 … g_m, the agent's own first, shape [m, P].
    classes : Tensor
        h_1 … h_C, the gradients of the classes of Q_i at the same model, shape [C, P].
    share : float
        s, from 0 to 1.

    Examples
    --------
    >>> classes = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    >>> gradients = torch.tensor([[1.0, 0.5, 0.1], [8.0, 0.0, 0.0], [-1.0, -0.5, 0.0]])
    >>> factors, passes = screen(gradients, classes, share=0.35)
    >>> factors.tolist(), passes.tolist()
    ([1.0, 0.25, 1.0], [True, True, False])
    """
    lengths = torch.linalg.vector_norm(gradients, dim=1, dtype=torch.float64).cpu().numpy()
    longest = torch.linalg.vector_norm(classes, dim=1, dtype=torch.float64).max().item()
    bound = max(longest, lengths[0])
    factors = np.divide(bound, lengths, out=np.ones(len(lengths)), where=lengths > bound)
    rests, squares = distances(gradients * torch.from_numpy(factors).to(gradients)[:, None], classes)
    passes = (rests < (1 - share) * squares) | (rests <= LEEWAY * rests[0])
    passes &= np.isfinite(rests)
    passes[0] = True
    return factors, passes
