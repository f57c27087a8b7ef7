"""The Flag Aggregator."""

from ross_flwr.algorithms.algorithm import register
from ross_flwr.algorithms.local_steps import AdaptThenCombine
from ross_flwr.config import part
from ross_flwr.learning import rules


@register("flag")
class Flag(AdaptThenCombine):
    """Flag Aggregator (Almasi et al., arXiv:2302.05865): follow the subspace that most neighbours' differences share.

    ::

        x½_i = x_i after K local steps;   g_j = (x½_j − x½_i) / ‖x½_j − x½_i‖
        Y    = the r-dimensional flag median of {g_j}, r = ⌈(k + 1)/2⌉
        x_i  = x½_i + median_j ‖x½_j − x½_i‖ · 1/m Σ_j Y Yᵀ g_j,   m = k + 1

    The paper's server aggregates gradients; here the rule, `rules.Flag`, acts on differences to the own model. W is
    ignored. State: the model. Per agent and pass: one exchange, k·P·4 bytes, K gradients. With one neighbour it is the
    mean of the two.
    """

    family = "Byzantine-robust"

    rule: rules.Rule = part(rules.Flag)
