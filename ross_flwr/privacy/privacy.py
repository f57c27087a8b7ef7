"""How the examples of all agents are protected, and what is said about it."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import inf, isinf, sqrt

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ross_flwr.algorithms import Algorithm
from ross_flwr.config import ConfigError
from ross_flwr.extras import import_extra
from ross_flwr.learning.agent import Agent
from ross_flwr.learning.objective import ModuleObjective
from ross_flwr.learning.rules import Rule
from ross_flwr.privacy.accounting import precision_of
from ross_flwr.privacy.correlated import sources
from ross_flwr.privacy.link import Blurred

__all__ = ["CLIP", "EPSILON", "Privacy"]

CLIP, EPSILON = 1.0, 10.0
"""C and ε of private methods where the run does not say."""


@dataclass(frozen=True, kw_only=True)
class Privacy:
    """Differential privacy of every agent's training examples, towards its neighbours and everybody beyond.

    Parameters
    ----------
    clip : float (default: 1)
        C, the longest gradient of one example, in the L2 norm; infinity clips nothing and takes no noise.
    noise : float (default: 0)
        z, by how many times the noise exceeds what one example can change.
    epsilon : float (default: 0)
        Instead of `noise`: ε of the whole run, to which each agent fits its z; 0 for no such target.
    delta : float (default: 1e-5)
        δ.

    Raises
    ------
    ConfigError
        When these do not fit each other, or dp-accounting is not installed.

    Examples
    --------
    >>> Privacy(clip=0.5, epsilon=2.0).delta
    1e-05
    """

    clip: float = 1.0
    noise: float = 0.0
    epsilon: float = 0.0
    delta: float = 1e-5

    def __post_init__(self) -> None:
        if not self.clip > 0:
            raise ConfigError(f"dp-clip = {self.clip:g} clips everything away: use a length above 0, such as 1")
        for key, value in (("dp-noise", self.noise), ("dp-epsilon", self.epsilon)):
            if not 0 <= value < inf:
                raise ConfigError(f"{key} = {value:g} is not allowed: use a number above 0, or 0 to leave it out")
        if self.noise and self.epsilon:
            raise ConfigError(
                f"dp-noise = {self.noise:g} and dp-epsilon = {self.epsilon:g} both say how much noise there is: use one"
            )
        if isinf(self.clip) and (self.noise or self.epsilon):
            raise ConfigError("noise needs gradients of bounded length: use a finite dp-clip, such as 1")
        if not 0 < self.delta < 1:
            raise ConfigError(f"dp-delta = {self.delta:g} is no probability between 0 and 1: use 1e-5, say")
        if self.noise or self.epsilon:
            import_extra("dp_accounting", "privacy")

    def check(self, algorithm: Algorithm, rule: Rule, module: nn.Module) -> None:
        """Refuse what would tell of examples by another way than gradients.

        Raises
        ------
        ConfigError
            Naming what cannot be protected, and what to use instead.
        """
        if algorithm.trains_on == "pooled":
            raise ConfigError(
                f"algorithm = '{algorithm.name}' pools the data of all agents, which is not private: use dpsgd, say"
            )
        if algorithm.exposed and self.epsilon:
            raise ConfigError(
                f"{algorithm.exposed} lets gradients out without noise, so that no dp-epsilon can hold: use dp-noise"
            )
        while hasattr(rule, "rule"):  # after a pre-aggregation
            rule = rule.rule
        if getattr(rule, "loss_data", "") == "batch":
            raise ConfigError(
                f"rule '{rule.name}' looks at losses on training examples, which dp-clip does not protect: use "
                "use-validation = true, or another aggregator"
            )
        for name, part in module.named_modules():
            if isinstance(part, nn.modules.batchnorm._BatchNorm):
                raise ConfigError(
                    f"layer '{name}' is a BatchNorm, which mixes the examples of a batch, so that dp-clip cannot bound "
                    "what one of them changes: use GroupNorm or LayerNorm"
                )

    def link(
        self,
        algorithm: Algorithm,
        agent: Agent,
        degrees: Iterable[int],
        mixing: Callable[[], NDArray[np.float64]],
        *,
        secret: bool,
        bounded: bool = True,
    ) -> Blurred:
        """Return the link of an agent's gradient chain.

        Parameters
        ----------
        algorithm : Algorithm
            The method.
        agent : Agent
            The agent, with its batches.
        degrees : iterable of int
            How many neighbours it has in each pass of the run.
        mixing : callable
            Returns W, shape [N, N], which correlated noise takes.
        secret : bool
            Whether the operating system gives the noise.
        bounded : bool (default: True)
            Whether the agent stops when its budget is spent; attackers, who take other steps than planned, do not.
        """
        if isinstance(agent.objective, ModuleObjective) and agent.objective.trainer:
            raise ConfigError(
                "this app trains its model itself, so dp-clip cannot reach the gradients of single examples: leave "
                "train out, or protect examples in the app itself"
            )
        noise, budget = self.noise, inf
        if self.epsilon:
            budget = precision_of(self.epsilon, self.delta)
            noise = sqrt(max(1, planned_queries(algorithm, agent, degrees)) / budget)
        link = Blurred(self.clip, noise, budget if bounded else inf, exposed=bool(algorithm.exposed), secret=secret)
        if algorithm.noise == "independent" or not noise:
            return link
        shared, leak = sources(algorithm.noise, mixing(), agent.index)
        return replace(link, shared=shared, common=algorithm.noise == "joint", leak=leak)


def planned_queries(algorithm: Algorithm, agent: Agent, degrees: Iterable[int]) -> int:
    """Return how many gradients a run releases of the example that is in most of them."""
    counts = np.zeros(agent.objective.num_examples, dtype=np.int64)
    for pass_number, degree in enumerate(degrees):
        for number, times in Counter(algorithm.batches(pass_number, degree)).items():
            counts[agent.batches.indices(number).numpy()] += times
    return int(counts.max())
