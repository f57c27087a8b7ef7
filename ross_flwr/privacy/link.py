"""The link of the gradient chain that protects examples."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf

import numpy as np
import torch
from torch import Tensor

from ross_flwr.config import ConfigError
from ross_flwr.learning.agent import Agent
from ross_flwr.learning.requests import Gradient
from ross_flwr.learning.streams import stream
from ross_flwr.privacy import seeds
from ross_flwr.privacy.correlated import Source

__all__ = ["Blurred"]

QUERIES, SPENT = "privacy.queries", "privacy.spent"
"""In an agent's state: how many gradients were released, int64 of shape [1], and the sum of precisions of those on each
example, float64 of shape [n]."""

SLACK = 1e-9
"""By how much of a budget sums of precisions may differ from it in rounding."""


@dataclass(frozen=True)
class Blurred:
    """Has the gradients of single examples clipped, and adds Gaussian noise to their mean.

    One example exchanged for another moves the mean by at most Δ = 2C/B, and the noise has standard deviation z·Δ for
    every parameter. Every gradient is a query with noise of its own, whoever's model it is of.

    Parameters
    ----------
    clip : float
        C, in the L2 norm. With infinity nothing is clipped, and there can be no noise.
    noise : float
        z.
    budget : float (default: infinity)
        The sum of precisions that may be released about an example.
    exposed : bool (default: False)
        Whether the method gets gradients that it wants exact without noise; they are in no account.
    shared : mapping of Source to float, optional
        The factors, in units of z·Δ, on noise from seeds that agents share; without, the noise is the agent's own.
    common : bool (default: False)
        Whether all agents know all these seeds.
    leak : float (default: 1)
        The precision of a query with z = 1: less than 1 where others' noise hides it better than its own does. It is a
        bound where agents have yet to agree on a seed: then each draws noise of its own of the same variance.
    secret : bool (default: False)
        Whether the operating system gives the noise, anew for every query, and pairs of agents agree on secret seeds.
        Without, it follows from the run's seed: runs repeat, and whoever knows the seed can take the noise away.
    """

    clip: float
    noise: float
    budget: float = inf
    exposed: bool = False
    shared: Mapping[Source, float] = field(default_factory=dict)
    common: bool = False
    leak: float = 1.0
    secret: bool = False

    def begin(self, agent: Agent) -> None:
        """Bound the agent's gradients, and put into its state that it has released nothing."""
        agent.clip = self.clip
        agent[QUERIES] = torch.zeros(1, dtype=torch.int64)
        agent[SPENT] = torch.zeros(agent.objective.num_examples, dtype=torch.float64)
        if self.secret and self.shared:
            seeds.begin(agent, common=self.common)

    def __call__(self, gradient: Tensor, agent: Agent, request: Gradient) -> Tensor:
        """Return what may be released instead of `gradient`, the mean of clipped gradients, shape [P].

        Raises
        ------
        ConfigError
            When the budget is spent.
        """
        if self.noise and not (self.exposed and request.of == "exact"):
            self._account(agent, request)
            gradient = gradient + self._drawn(agent, request)
        agent[QUERIES] = agent[QUERIES] + 1
        return gradient

    def _account(self, agent: Agent, request: Gradient) -> None:
        """Add the query to what was released about each example of its batch."""
        spent = agent[SPENT].clone()
        spent[agent.batches.indices(request.number).to(spent.device)] += self.leak * self.noise**-2
        most = float(spent.max())
        if most > self.budget * (1 + SLACK):
            raise ConfigError(
                f"agent {agent.index} has spent dp-epsilon on an example and releases no more gradients: the noise was "
                "fitted to the rounds, batches and neighbours that the run was planned with, so start a new run"
            )
        agent[SPENT] = spent
        agent.report(spent=most)

    def _drawn(self, agent: Agent, request: Gradient) -> Tensor:
        """Return the noise of the agent's next query: none on float buffers, whose gradient is always zero."""
        size = sum(agent.objective.parameter_sizes)
        if self.shared:
            total = np.zeros(size, dtype=np.float32)
            for source, factor in self.shared.items():  # by number, which is the same for all who share
                generator = self._shared(agent, source, request.number)
                total += np.float32(factor) * generator.standard_normal(size, dtype=np.float32)
        else:
            total = self._generator(agent).standard_normal(size, dtype=np.float32)
        noise = torch.zeros_like(request.vector)
        noise[:size] = torch.from_numpy(total) * (self.noise * 2 * self.clip / agent.batches.size)
        return noise

    def _shared(self, agent: Agent, source: Source, number: int) -> np.random.Generator:
        """Return what draws the noise of a source for a mini-batch."""
        one, other = source
        if not self.secret:
            return stream(agent.seed, "shared noise", one, number, other)
        if self.common:
            seed: int | None = seeds.common_seed(agent, one, number)
        else:
            neighbor = other if one == agent.index else one
            seed = None if neighbor == agent.index else seeds.shared_seed(agent, neighbor, number)
        return self._generator(agent) if seed is None else np.random.Generator(np.random.Philox(key=seed))

    def _generator(self, agent: Agent) -> np.random.Generator:
        """Return what draws the noise of the agent's own next query."""
        if self.secret:
            return np.random.Generator(np.random.Philox(key=secrets.randbits(128)))
        return stream(agent.seed, "privacy", agent.index, agent.pass_number, int(agent[QUERIES]))
