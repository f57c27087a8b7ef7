"""Byzantine-resilient decentralized gradient descent."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ross_flwr.algorithms.algorithm import register
from ross_flwr.algorithms.screening import ModelScreening
from ross_flwr.config import option
from ross_flwr.learning import rules
from ross_flwr.learning.agent import Agent


def trimmed_mean(own: Tensor, others: Sequence[Tensor], f: int) -> Tensor:
    """Per coordinate, drop the f largest and the f smallest of the others; return the mean of the rest and the own."""
    kept = len(others) - 2 * f
    return rules.trimmed_mean(torch.stack(tuple(others)), f=f).mul_(kept).add_(own).div_(kept + 1)


def median(own: Tensor, others: Sequence[Tensor], f: int) -> Tensor:
    """Return the median of every coordinate."""
    return rules.median(torch.stack((own, *others)))


def krum(own: Tensor, others: Sequence[Tensor], f: int) -> Tensor:
    """Return the vector that is nearest to its n − f − 2 nearest others."""
    return rules.krum(torch.stack((own, *others)), own=own, f=f)


def bulyan(own: Tensor, others: Sequence[Tensor], f: int) -> Tensor:
    """Pick n − 2f vectors one by one with Krum; per coordinate, return the mean of the n − 4f nearest their median.

    El Mhamdi, Guerraoui and Rouault, ICML 2018. The last picks are from fewer than 2f + 3 vectors, where Krum takes the
    largest f it can serve.
    """
    left, chosen = [own, *others], []
    while len(left) > 2 * f:
        best = int(rules._krum_order(torch.stack(left), f)[0])
        chosen.append(left.pop(best))
    picked = torch.stack(chosen)
    order = (picked - rules.median(picked)).abs().argsort(dim=0, stable=True)
    return picked.gather(0, order[: len(picked) - 2 * f]).mean(0)


Screening = Callable[[Tensor, Sequence[Tensor], int], Tensor]
SCREENINGS: dict[str, tuple[Screening, Callable[[int], int]]] = {
    "trimmed-mean": (trimmed_mean, lambda f: 2 * f + 1),
    "median": (median, lambda f: 2 * f + 1),
    "krum": (krum, lambda f: 2 * f + 2),
    "bulyan": (bulyan, lambda f: 4 * f + 2),
}
"""Functions of (own, others, f), each with how many others it needs."""


@register("bridge")
class BRIDGE(ModelScreening):
    """BRIDGE (Fang, Yang, Bajwa, IEEE TSIPN 2022): x_i ← screen(x_i, {x_j}) − η ∇F_i(x_i; ξ_i).

    Screen, then step with the gradient taken before. BRIDGE-T trims the neighbours' values and averages the rest with
    the own one; -M takes the median, -K Krum's choice and -B Bulyan, each of the closed neighbourhood. When fewer
    neighbours were heard than a rule needs for f, the own model stands for the screened one.

    State: the model. Per agent and round: one exchange, k·P·4 bytes, one gradient. With the trimmed mean and f = 0 it
    is D-PSGD with equal weights.
    """

    screening: str = option("trimmed-mean", "what becomes of the neighbours' models", choices=SCREENINGS)
    byzantine: int = option(1, "f, the lying neighbours a robust method is prepared for", minimum=0)

    def neighbors_needed(self) -> int:
        """Return what the rule needs."""
        return SCREENINGS[self.screening][1](self.byzantine)

    def proposal(self, agent: Agent) -> Tensor:
        """Return x_i: the step comes after the screening."""
        return agent["model"]

    def combine(self, agent: Agent, own: Tensor, others: dict[int, Tensor]) -> Tensor:
        """Return the screened model less η ∇F_i(x_i)."""
        screening, _ = SCREENINGS[self.screening]
        enough = len(others) >= self.neighbors_needed()
        screened = screening(own, tuple(others.values()), self.byzantine) if enough else own
        return screened - self.learning_rate * agent.gradient(own)
