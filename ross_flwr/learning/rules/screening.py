"""Rules that accept some neighbours and refuse the others, judged from the own vector."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, floor, inf

import torch
from torch import Tensor

from ross_flwr.config import option
from ross_flwr.learning import options
from ross_flwr.learning.rules.rule import Bounded, View, Weighing, register_rule
from ross_flwr.learning.rules.stacks import distance

__all__ = ["BALANCE", "IOS", "UBAR", "JudgingByLoss", "JudgingModels", "NearestNeighbors", "ResilientP2P"]

SMALLEST_LOSS = 1e-8
"""Below this value, a smaller loss earns no larger weight."""


OWN_WEIGHT = 0.5
"""a, the weight of the own model beside the accepted ones, in UBAR and BALANCE."""


@dataclass(frozen=True, kw_only=True)
class JudgingModels(Weighing):
    """A rule that can judge only models.

    Momenta get the weights of the same neighbours' models in this step, and none where a model is refused or missing.
    """

    def weights(self, own: Tensor, others: Mapping[int, Tensor], view: View) -> Mapping[int, float]:
        """Judge models; return what was given to them."""
        if view.models:
            view.given.clear()
            view.given.update(self.judged(own, others, view))
        return view.given

    @abstractmethod
    def judged(self, own: Tensor, others: Mapping[int, Tensor], view: View) -> Mapping[int, float]:
        """Return c_j of models, by neighbour; none for those that are refused."""


@dataclass(frozen=True, kw_only=True)
class JudgingByLoss(JudgingModels):
    """A rule that judges models by the agent's own loss at them."""

    use_validation: bool = options.use_validation()

    @property
    def needs_validation(self) -> bool:
        """Losses on Q_i need a validation set."""
        return self.use_validation

    @property
    def loss_data(self) -> str:
        """Where the loss is measured: on Q_i or on the mini-batch of the pass."""
        return "validation" if self.use_validation else "batch"


@register_rule("ubar")
class UBAR(JudgingByLoss):
    """Take the nearest neighbours, and of these the ones that do no worse than the own model.

    ::

        S_i = the ⌊ρ k⌋ neighbours whose x_j is nearest to x_i, at least one
        R_i = {j ∈ S_i : F_i(x_j) ≤ F_i(x_i)};   if empty, or F_i(x_i) is infinite, the best j ∈ S_i
        ½ x_i + ½ mean_{j ∈ R_i} x_j

    Guo et al., "Byzantine-resilient decentralized stochastic gradient descent", 2020 (arXiv:2002.08569). k counts the
    neighbours that were heard. ρ = 0.4 and ½ are the values of published experiments. If the F_j differ much, it
    is too strict; and if |S_i| = 1, as with ρ = 0.4 and four neighbours, the losses decide nothing. Ignores W;
    takes 1 + |S_i| losses.

    Examples
    --------
    >>> others = {2: torch.tensor([2.0]), 3: torch.tensor([900.0])}
    >>> view = View(weights={2: 0.25, 3: 0.25}, loss=lambda x, data: float(abs(x - 3)))
    >>> UBAR()(torch.tensor([1.0]), others, view)
    tensor([1.5000])
    """

    near_share: float = option(
        0.4, "ρ, the share of the neighbours, the nearest ones, that is considered", minimum=0.0, maximum=1.0
    )

    def judged(self, own: Tensor, others: Mapping[int, Tensor], view: View) -> Mapping[int, float]:
        """Return ½/|R_i| for each in R_i."""
        if not others:
            return {}
        near = sorted(others, key=lambda j: distance(others[j], own))[: max(1, floor(self.near_share * len(others)))]
        losses = {j: view.loss(others[j], self.loss_data) for j in near}
        bound = view.loss(own, self.loss_data)
        accepted = [j for j in near if losses[j] <= bound < inf] or [min(near, key=losses.__getitem__)]
        return dict.fromkeys(accepted, (1 - OWN_WEIGHT) / len(accepted))


@register_rule("resilient-p2p")
class ResilientP2P(JudgingByLoss):
    """Weigh models by their inverse loss on the own data.

    ::

        r_l = max(F_i(x_l), 10⁻⁸)
        N⁺_i = {i} ∪ {l ∈ N_i : r_l ≤ r_i}, or all of M_i
        Σ_{l ∈ N⁺_i} c_il x_l,   c_il = r_l⁻¹ / Σ_{p ∈ N⁺_i} r_p⁻¹

    Bhowmick and Koutsoukos, "Resilient peer-to-peer learning based on adaptive aggregation", 2025 (arXiv:2501.04610),
    which has both choices of N⁺_i; over all of M_i every liar keeps some weight. No number of liars is assumed. A
    mini-batch that the agent just trained on flatters its model; Q_i (`use-validation`) does not, and is larger.
    Ignores W; takes 1 + k losses. If all losses are equal, it is the plain mean.

    Examples
    --------
    >>> others = {2: torch.tensor([2.0]), 3: torch.tensor([9.0])}
    >>> view = View(weights={2: 0.25, 3: 0.25}, loss=lambda x, data: float(abs(x - 3)))
    >>> ResilientP2P()(torch.tensor([1.0]), others, view)
    tensor([1.6667])
    >>> ResilientP2P(lower_loss_only=False)(torch.tensor([1.0]), others, view)
    tensor([2.4000])
    """

    lower_loss_only: bool = option(
        True, "whether a neighbour's model needs a loss no higher than the own one's to count at all"
    )

    def judged(self, own: Tensor, others: Mapping[int, Tensor], view: View) -> Mapping[int, float]:
        """Return c_il."""
        bound = max(view.loss(own, self.loss_data), SMALLEST_LOSS)
        losses = {j: max(view.loss(model, self.loss_data), SMALLEST_LOSS) for j, model in others.items()}
        inverse = {j: 1 / loss for j, loss in losses.items() if loss <= bound or not self.lower_loss_only}
        total = 1 / bound + sum(inverse.values())
        return {j: weight / total for j, weight in inverse.items()} if total else {}  # every loss may be infinite


@register_rule("ios")
class IOS(Bounded, Weighing):
    """Cut off the neighbour farthest from the weighted mean, f times (iterative outlier scissor).

    ::

        U = M_i;   f times:  U ← U − {argmax_{j ∈ U, j ≠ i} |x_j − x̄_U|},   x̄_U = Σ_{j∈U} w_ij x_j / Σ_{j∈U} w_ij
        x̄_U

    Wu, Chen and Ling, "Byzantine-resilient decentralized stochastic optimization with robust aggregation rules", IEEE
    TSP 2023: 2f neighbours, so that the honest, including the agent itself, are more. Written for w_ij =
    1/max(m_i, m_j), which is `mixing` = 'metropolis'. Of equally far neighbours, the first is cut off. With fewer than
    2f of them the own vector stays. With f = 0 the weighted mean.

    Examples
    --------
    >>> others = {2: torch.tensor([2.0]), 3: torch.tensor([900.0])}
    >>> IOS(byzantine=1)(torch.tensor([1.0]), others, View(weights={2: 0.25, 3: 0.25}))
    tensor([1.3333])
    """

    def weights(self, own: Tensor, others: Mapping[int, Tensor], view: View) -> Mapping[int, float]:
        """Return the w_ij of the remaining neighbours, divided by their sum with the own weight."""
        if not self.outvotes(len(others) + 1):
            return {}
        own_weight = 1 - sum(view.weights[j] for j in others)
        left = {j: view.weights[j] for j in others}
        for _ in range(min(self.byzantine, len(others))):
            center = own * own_weight
            for j, weight in left.items():
                center.add_(others[j], alpha=weight)
            center.div_(own_weight + sum(left.values()))
            del left[max(left, key=lambda j: (distance(others[j], center), -j))]
        total = own_weight + sum(left.values())
        return {j: weight / total for j, weight in left.items()}


@register_rule("monna")
class NearestNeighbors(Bounded, Weighing):
    """Average the own vector and all but the f that are farthest from it (nearest-neighbour averaging).

    Farhadkhani et al., "Robust collaborative learning with linear gradient overhead" (MoNNA), ICML 2023: 2f neighbours.
    Of m vectors, the own included, the mean takes m − f, and m − 2f where f more stay silent, as the published rule
    says for those who do not wait for them. The paper uses a complete graph; here it is the neighbourhood. Ignores W.
    With f = 0 the plain mean.

    Examples
    --------
    >>> others = {2: torch.tensor([2.0]), 3: torch.tensor([900.0])}
    >>> NearestNeighbors(byzantine=1)(torch.tensor([1.0]), others, View(weights={2: 0.25, 3: 0.25}))
    tensor([1.5000])
    """

    def weights(self, own: Tensor, others: Mapping[int, Tensor], view: View) -> Mapping[int, float]:
        """Return 1/(m − f) for each that is near."""
        near = sorted(others, key=lambda j: distance(others[j], own))[: max(0, len(others) - self.byzantine)]
        return dict.fromkeys(near, 1 / (len(near) + 1))


@register_rule("balance")
class BALANCE(Weighing):
    """Accept neighbours that are similar to the own vector, more and more strictly.

    ::

        A_i = {j ∈ N_i : |x_i − x_j| ≤ γ exp(−t/T) |x_i|}
        ½ x_i + ½ mean_{j ∈ A_i} x_j;   x_i if none is accepted

    Fang et al., "Byzantine-robust decentralized federated learning", CCS 2024 (arXiv:2406.10416). t/T is the part of
    the run that is over. γ = 0.3, exp(−t/T) and ½ are said to be the paper's. The measure is relative to the model's
    norm, so all agents should start from the same model; towards the end it may shut out honest agents with different
    data. Other implementations fall back to the nearest neighbour, who may be the attacker; this one does not. Ignores
    W. With γ = ∞ everybody is accepted.

    Examples
    --------
    >>> others = {2: torch.tensor([11.0]), 3: torch.tensor([900.0])}
    >>> BALANCE()(torch.tensor([10.0]), others, View(weights={2: 0.25, 3: 0.25}))
    tensor([10.5000])
    """

    similarity: float = option(
        0.3, "γ, how far from the own model, relative to its norm, an accepted one may be at first", minimum=0.0
    )

    def weights(self, own: Tensor, others: Mapping[int, Tensor], view: View) -> Mapping[int, float]:
        """Return ½/|A_i| for each in A_i."""
        bound = self.similarity * exp(-view.progress) * distance(own, torch.zeros_like(own))
        accepted = [j for j, vector in others.items() if distance(vector, own) <= bound]
        return dict.fromkeys(accepted, (1 - OWN_WEIGHT) / len(accepted)) if accepted else {}
