"""DECOR: decentralized SGD with noise that neighbours cancel."""

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ross_flwr.algorithms.algorithm import Noise, register, require_undirected
from ross_flwr.algorithms.local_steps import AdaptThenCombine


@register("decor")
class DECOR(AdaptThenCombine):
    """DECOR (Allouah, Koloskova, El Firdoussi, Jaggi and Guerraoui, ICML 2024): neighbours add opposite noise.

    ::

        g̃_i = (1/B) Σ_b ∇ℓ_b(x_i) min(1, C / ‖∇ℓ_b(x_i)‖) + z · 2C/B · (σ n_i + s Σ_{j∈N_i} n_ij),   n_ij = −n_ji
        x_i ← Σ_j w_ij (x_j − η g̃_j)

    All n are standard normal, and n_ij comes from a seed that i and j share. Across agents the noise has the covariance
    Σ = σ² I + s² L, with L the Laplacian; of all σ and s with max_i (Σ⁻¹)_ii = 1, these let the least survive in
    tr(W Σ Wᵀ). Outsiders, who know no seed, learn as little as from independent noise of the same z, and models suffer
    less. A neighbour takes its own seeds away and learns more; see ``privacy/README.md``. `dp-clip`, `dp-noise` and
    `dp-epsilon` are as in `pdsl`. The paper's code has a momentum in addition.

    With C = ∞ and z = 0 it is `local-dsgd`. State: x_i. Per agent, pass and k neighbours: one exchange, K gradients and
    k·P·4 bytes.
    """

    family = "decentralized optimisation"
    private = True
    noise: ClassVar[Noise] = "pairwise"
    fixed_graph = True

    def check(self, mixing: NDArray[np.float64], total_passes: int) -> None:
        """Refuse a directed graph."""
        super().check(mixing, total_passes)
        require_undirected(self.name, mixing)
