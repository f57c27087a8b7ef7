"""What a run promises about privacy, in numbers and in words."""

from collections.abc import Mapping, Sequence
from math import ceil, floor, inf, log10
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ross_flwr.algorithms import Algorithm
from ross_flwr.privacy.accounting import epsilon_of
from ross_flwr.privacy.network import neighbours_views, through_gossip
from ross_flwr.privacy.privacy import Privacy

__all__ = ["promise"]

ADJACENCY = "one training example of one agent is exchanged for any other"
AGAINST = {
    "independent": "It holds against all others together, whatever they see.",
    "pairwise": "It holds against those who see all messages and no agent's seeds; a neighbour has seeds in common.",
    "joint": "It holds against those who see all messages and no agent's seeds; agents hide nothing from agents.",
}
NOT_PROTECTED = (
    "Not protected are validation sets Q_i, weights that follow from them, how many examples agents hold, metrics in "
    "histories, and agents that attack."
)
FROM_SEED = "The noise follows from the seed: whoever knows it can take the noise away."
FROM_SYSTEMS = (
    "Nodes took the noise from their operating systems, but for those with reproducible-noise in --node-config."
)
GOSSIP = (
    "by pairwise network DP (Muffliato): what agent v has seen of agent u in the models of its neighbours, if it sees "
    "nothing else and agents do not conspire"
)
NEIGHBOURS = "what agent v sees of agent u in all messages, once it has taken away the noise that it shares"
LARGEST, STEPS = 64, 16
"""Up to how many agents pairs are told, and how finely: precisions are rounded up to sixteenths of what u released."""


def promise(
    privacy: Privacy,
    algorithm: Algorithm,
    released: Mapping[int, Sequence[float]],
    *,
    unheard: Sequence[int] = (),
    mixing: NDArray[np.float64] | None = None,
    gossips: bool = False,
    passes: int = 1,
    secret: bool = False,
) -> dict[str, Any]:
    """Return what the summary says.

    Parameters
    ----------
    privacy, algorithm : Privacy, Algorithm
        How examples were protected, and the method.
    released : mapping of int to sequence of float
        By honest agent, and by round: the precision of what it released of the example that most was released of.
    unheard : sequence of int
        Agents for which that is a bound, as they did not report to the end.
    mixing : array, optional
        W, shape [N, N], if it was the same in all passes.
    gossips : bool (default: False)
        Whether agents sent models alone, and mixed them by W in every pass.
    passes : int (default: 1)
        Passes in a round.
    secret : bool (default: False)
        Whether the operating systems of nodes gave the noise.
    """
    noisy = (privacy.noise > 0 or privacy.epsilon > 0) and not algorithm.exposed
    totals = {i: float(sum(each)) for i, each in sorted(released.items())}
    epsilons = {str(i): epsilon_of(total, privacy.delta) if noisy else inf for i, total in totals.items()}
    largest = max(epsilons.values(), default=inf)
    against, noise = AGAINST[algorithm.noise], (FROM_SYSTEMS if secret else FROM_SEED) if noisy else ""
    found: dict[str, Any] = {
        "statement": "",
        "epsilon": largest,
        "delta": privacy.delta,
        "epsilon-of-agents": epsilons,
        "bounds": list(unheard),
        "adjacency": ADJACENCY,
        "against": against,
        "noise": noise,
        "not-protected": NOT_PROTECTED,
    }
    if noisy:
        said = [f"ε = {largest:.4g} at δ = {privacy.delta:g}, where {ADJACENCY}.", against]
        if unheard:
            agents = ", ".join(map(str, unheard))
            said.append(f"Agents that did not report to the end ({agents}) count as if they had gone on.")
        found["statement"] = " ".join([*said, noise, NOT_PROTECTED])
    else:
        why = f"{algorithm.exposed} lets gradients out without noise" if algorithm.exposed else "there is no noise"
        found["statement"] = f"Nothing is protected, as {why}. {NOT_PROTECTED}"
    if not noisy or mixing is None or len(mixing) > LARGEST:
        return found
    if algorithm.noise == "pairwise":
        seen = {u: total * neighbours_views(mixing)[u] for u, total in totals.items()}
        return found | {"pairs-are": NEIGHBOURS, "pairs": _pairs(seen, totals, privacy.delta)}
    if algorithm.noise == "independent" and gossips:
        seen = through_gossip(mixing, released, passes)
        return found | {"pairs-are": GOSSIP, "pairs": _pairs(seen, totals, privacy.delta)}
    return found


def _pairs(
    seen: Mapping[int, NDArray[np.float64]], totals: Mapping[int, float], delta: float
) -> dict[str, list[float | None]]:
    """Return ε of u towards each v, None towards itself, by u."""

    def epsilon(precision: float, total: float) -> float:
        steps = ceil(STEPS * precision / total - 1e-9)
        found = epsilon_of(_up(steps / STEPS * total), delta)
        return min(found, epsilon_of(total, delta)) if steps <= STEPS else found

    return {
        str(u): [None if v == u else epsilon(each, totals[u]) for v, each in enumerate(precisions)]
        for u, precisions in seen.items()
        if totals[u]
    }


def _up(number: float) -> float:
    """Round up to four digits, so that agents that released alike have the same."""
    digits = 10.0 ** (floor(log10(number)) - 3) if number else 1.0
    return ceil(number / digits - 1e-6) * digits
