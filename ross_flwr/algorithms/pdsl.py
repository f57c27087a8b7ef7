"""PDSL: ROSS on gradients that are private."""

from ross_flwr.algorithms.algorithm import register
from ross_flwr.algorithms.ross import ROSS


@register("pdsl")
class PDSL(ROSS):
    """PDSL (Wang, Yuan, Wang and Li, arXiv:2503.23726): ROSS on clipped gradients with Gaussian noise.

    ::

        G_ji = (1/B) Σ_b ∇ℓ_b(x_j) min(1, C / ‖∇ℓ_b(x_j)‖) + N(0, (z · 2C/B)² I)      for every j ∈ M_i

    and from there on as in ROSS. The own gradient is noisy too before it enters û_i, x̂_i and the game. Noise is drawn
    anew for every j. `dp-clip` is C, and z is `dp-noise`, or fitted to `dp-epsilon`; without any, C = 1 and ε = 10 for
    the whole run. The paper's text was not available: clipping per example is our choice, and so are these numbers.
    With C = ∞ and z = 0 it is ROSS.

    Examples
    --------
    >>> PDSL().steps == ROSS().steps, PDSL.private
    (True, True)
    """

    private = True
