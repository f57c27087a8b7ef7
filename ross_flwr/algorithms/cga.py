"""Cross-gradient aggregation."""

import numpy as np
import torch

from ross_flwr.algorithms.algorithm import register, step
from ross_flwr.algorithms.cross_gradients import LookAheadCrossGradients
from ross_flwr.algorithms.messages import Inbox
from ross_flwr.learning.agent import Agent
from ross_flwr.learning.least_squares import Array, nonnegative

MARGIN = 0.5
"""h, the least factor on a neighbour's gradient."""

RIDGE = 1e-12
"""Added to the squared length, scaled to 1, of each row: makes the minimiser unique where neighbours agree."""


@register("cga")
class CGA(LookAheadCrossGradients):
    """Cross-gradient aggregation (Esfandiari et al., ICML 2021): a direction that no neighbour's gradient opposes.

    ::

        a = w_ii G_ii;   r_j = w_ij G_ij for j in N_i, the rows of R
        v = argmin ½ ‖a + Rᵀ v‖²  subject to  v ≥ h;   g̃_i = a + Rᵀ v
        u_i ← α u_i + g̃_i
        x_i ← x_i + γ Σ_j w_ij (x_j − x_i) − η (g̃_i + α u_i)                            (γ = 1 in the paper)

    With h = 0, g̃ is the point nearest to a with ⟨g̃, r_j⟩ ≥ 0 for all j. Like the released code, this one uses h = 0.5
    and solves for each parameter tensor separately; solving for the whole vector gives other numbers. The weight of a
    missing neighbour goes to a. One difference: here neighbours send gradients; the released code moves mini-batches.

    State: x_i, u_i (zero at first; not mixed). Per agent, pass and k neighbours: two exchanges, 1 + k gradients,
    2·k·P·4 bytes, and O(k² P + k³) for v, in float64. Since v ≥ h, every neighbour keeps at least half of its weight,
    and a false gradient that opposes the others gets more, so it is not robust. Not here: compression (CompCGA).
    """

    @step()
    def descend(self, agent: Agent, inbox: Inbox) -> None:
        """Project, and step along g̃_i."""
        gradients = inbox.gather("gradient")
        own = gradients.pop(agent.index)
        mixing = [agent.mixing_row[j] for j in gradients]
        mixing = [1 - sum(mixing), *mixing]
        rows = torch.stack([own, *gradients.values()]) * own.new_tensor(mixing)[:, None]
        sizes = list(agent.objective.sizes)
        parts = torch.split(rows.double(), sizes, dim=1)  # a factor on a tiny gradient may be too large for float32
        grams = torch.stack([part @ part.T for part in parts]).cpu().numpy()
        factors = np.stack([multipliers(gram, MARGIN) for gram in grams])
        projected = [torch.from_numpy(v).to(part) @ part for v, part in zip(factors, parts, strict=True)]
        shares = np.array(sizes) @ factors / len(own) * mixing
        agent.report(weights=dict(zip([agent.index, *gradients], shares.tolist(), strict=True)))
        self.look_ahead(agent, torch.cat(projected).to(own))


def multipliers(gram: Array, margin: float) -> Array:
    """Return (1, v), v the minimiser of ‖a + Rᵀ v‖² over v ≥ margin.

    Parameters
    ----------
    gram : Array
        Inner products of the rows of (a, R), shape [1 + t, 1 + t].
    margin : float
        The lower bound h.

    Examples
    --------
    >>> rows = np.array([[1.0, 0.0], [-2.0, 1.0]])  # the neighbour opposes a: v = 0.4 would do, the margin is above
    >>> [multipliers(rows @ rows.T, margin).round(3).tolist() for margin in (0.0, 0.5)]
    [[1.0, 0.4], [1.0, 0.5]]
    """
    lower = np.full(len(gram), margin)
    lower[0] = 1.0
    if not np.isfinite(gram).all():
        return lower
    length = np.sqrt(gram.diagonal()[1:])
    zero = gram.diagonal() < np.finfo(np.float64).tiny  # its inner products are no longer exact
    zero[0] = False
    gram = np.where(zero | zero[:, None], 0.0, gram)
    length[zero[1:]] = 1.0
    hessian = gram[1:, 1:] / length[:, None] / length + RIDGE * np.eye(len(length))
    lower[1:] += nonnegative(hessian, gram[1:] @ lower / length) / length
    return lower
