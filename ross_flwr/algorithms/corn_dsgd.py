"""CorN-DSGD: decentralized SGD with noise of the covariance that survives mixing least."""

from ross_flwr.algorithms.algorithm import register
from ross_flwr.algorithms.decor import DECOR


@register("corn-dsgd")
class CorNDSGD(DECOR):
    """CorN-DSGD (Rodio, Chen and Larsson, arXiv:2501.14644): correlated noise of the optimal covariance.

    ::

        g̃_i = (1/B) Σ_b ∇ℓ_b(x_i) min(1, C / ‖∇ℓ_b(x_i)‖) + z · 2C/B · n_i,   (n_1, …, n_N) ~ N(0, Σ)
        x_i ← Σ_j w_ij (x_j − η g̃_j)

    Σ minimises tr(W Σ Wᵀ) subject to (Σ⁻¹)_ii ≤ 1 for all i. Agents that are no neighbours have correlated noise too,
    and Σ is no sum of parts that two agents share, so all agents know the seeds of all. Outsiders learn as little as
    from independent noise of the same z, and nothing is hidden from the agents; see ``privacy/README.md``.

    In all else it is as `decor`.
    """

    noise = "joint"
