"""What noise is worth: (ε, δ) of Gaussian queries, by Google's dp-accounting.

A Gaussian query with noise of z sensitivities has the precision 1/z². Queries on the same example, also adaptive ones,
come to one query with the sum of their precisions. That is exact, so neither moments nor bounds are in between.
"""

from functools import lru_cache
from math import inf, sqrt

from ross_flwr.extras import import_extra

__all__ = ["epsilon_of", "precision_of"]


@lru_cache(maxsize=1024)
def epsilon_of(precision: float, delta: float) -> float:
    """Return ε of queries with this sum of precisions, at δ.

    Examples
    --------
    >>> round(epsilon_of(1 / 4.0**2, 1e-5), 3)  # one query with z = 4
    0.926
    """
    if precision in (0, inf):
        return precision
    return float(import_extra("dp_accounting", "privacy").get_epsilon_gaussian(1 / sqrt(precision), delta))


def precision_of(epsilon: float, delta: float) -> float:
    """Return the sum of precisions that (ε, δ) allow: the inverse of `epsilon_of`.

    Examples
    --------
    >>> round(epsilon_of(precision_of(1.0, 1e-5), 1e-5), 9)
    1.0
    """
    return float(import_extra("dp_accounting", "privacy").get_sigma_gaussian(epsilon, delta) ** -2)
