"""Arithmetic by a transformer that is rewarded for right answers: group-relative policy optimisation."""

from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from operator import add, mul, sub
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ross_flwr.learning.examples import Batch
from ross_flwr.learning.flat import FlatModel
from ross_flwr.learning.objective import ModuleObjective
from ross_flwr.learning.streams import stream
from ross_flwr.tasks.transformer import Transformer

__all__ = ["Arithmetic", "advantages", "grpo_loss"]

OPERATORS = {"+": add, "-": sub, "*": mul}
LENGTH = 2
"""Characters of an answer."""

SHAPE = Transformer(layers=1, width=32, heads=2, context=8)
EXAMPLES = 256
"""Training prompts of an agent."""


def problems() -> Tensor:
    """Return 300 problems with their answers as bytes, int64 of shape [300, 6].

    Examples
    --------
    >>> [bytes(problems()[k].tolist()) for k in (7, 109, 299)]
    [b'0+7= 7', b'0-9=-9', b'9*9=81']
    """
    texts = (
        f"{a}{sign}{b}={compute(a, b):>{LENGTH}}"
        for sign, compute in OPERATORS.items()
        for a in range(10)
        for b in range(10)
    )
    return torch.tensor([list(text.encode()) for text in texts])


class Policy(nn.Module):
    """Draws G answers to each of B prompts, from PyTorch's generator, which an agent seeds."""

    def __init__(self, network: nn.Module, group: int) -> None:
        super().__init__()
        self.network, self.group = network, group

    def forward(self, texts: Tensor) -> tuple[Tensor, Tensor] | Tensor:
        """Return the log-probabilities of drawn answers, shape [B, G], and these, int64 of shape [B, G, 2].

        The texts, int64 of shape [B, 6], are prompts and right answers. In evaluation nothing is drawn: it returns the
        log-probabilities of the right answers, shape [B].
        """
        if not self.training:
            return self.likelihood(texts)
        drawn = self.answered(texts[:, :-LENGTH].repeat_interleave(self.group, 0))
        groups = len(texts), self.group
        return self.likelihood(drawn).reshape(groups), drawn[:, -LENGTH:].reshape(*groups, LENGTH)

    @torch.no_grad()
    def answered(self, texts: Tensor) -> Tensor:
        """Return the prompts with an answer drawn for each."""
        for _ in range(LENGTH):
            drawn = torch.multinomial(self.network(texts)[:, -1].softmax(-1), 1)
            texts = torch.cat([texts, drawn], 1)
        return texts

    def likelihood(self, texts: Tensor) -> Tensor:
        """Return the log-probability of the answer that ends each text."""
        scores: Tensor = self.network(texts[:, :-1])[:, -LENGTH:].log_softmax(-1)
        return scores.gather(-1, texts[:, -LENGTH:, None]).squeeze(-1).sum(-1)


def advantages(rewards: Tensor) -> Tensor:
    """Return (R − mean R) / (std R + 10⁻⁶) within each group, shape [B, G]; zero where all rewards are equal.

    Examples
    --------
    >>> advantages(torch.tensor([[0.0, 10.0], [1.0, 1.0]])).round(decimals=3)
    tensor([[-1.,  1.],
            [ 0.,  0.]])
    """
    return (rewards - rewards.mean(1, keepdim=True)) / (rewards.std(1, correction=0, keepdim=True) + 1e-6)


def grpo_loss(outputs: tuple[Tensor, Tensor] | Tensor, targets: Tensor, scale: float = 1.0) -> Tensor:
    """Return minus the mean reward, with the gradient of GRPO (Shao et al., arXiv:2402.03300).

    A right answer has the reward `scale`, any other none. The gradient is −mean A ∇log π, with A the `advantages`.
    Every step draws its own answers, so the ratio of policies that GRPO clips is 1. There is no penalty on the distance
    from the initial policy. In evaluation it is minus the expected reward, which is exact.
    """
    if isinstance(outputs, Tensor):
        return -scale * outputs.exp().mean()
    likelihoods, answers = outputs
    rewards = scale * (answers == targets.unsqueeze(1)).all(-1).to(likelihoods.dtype)
    return -(rewards.mean() + (advantages(rewards) * (likelihoods - likelihoods.detach())).mean())


class Problems:
    """Some of the problems, perhaps repeatedly, grouped by their operators."""

    def __init__(self, indices: Tensor) -> None:
        self.indices = indices
        self.texts = problems()

    def __len__(self) -> int:
        return len(self.indices)

    def batch(self, indices: Tensor) -> Batch:
        """Return the problems at `indices`, int64 of shape [B]."""
        chosen = self.indices[indices]
        texts = self.texts[chosen]
        return Batch(texts, texts[:, -LENGTH:], chosen // 100)


class Arithmetic:
    """Sums, differences and products of digits, by a pretrained transformer of 21 thousand parameters.

    Most of an agent's training problems have its own operator. Q_i is drawn from all 300, and they are the test.

    Parameters
    ----------
    num_agents, seed : int
        N, and the seed of the run.
    scales : sequence of float
        What a right answer is worth to agent i: ``scales[i % len(scales)]``.
    group : int
        G, how many answers to a prompt are drawn.
    pretraining : int
        Steps of Adam on the answers themselves, with which the initial model is made.
    own : float
        The share of an agent's prompts that have its own operator, the i-th modulo 3.

    Examples
    --------
    >>> task = Arithmetic(3, 0, scales=(1, 100), pretraining=0)
    >>> task.model.size, task.objective(1).num_examples
    (21216, 256)
    """

    name: ClassVar[str] = "arithmetic"
    """The value of the key `task`."""

    first_run: ClassVar[Mapping[str, str | float]] = MappingProxyType(
        {
            "algorithm": "fgrpo",
            "beside": "local-dsgd",
            "attackers": 0,
            "num-agents": 6,
            "num-rounds": 20,
            "topology": "ring",
            "local-steps": 2,
            "optimizer": "adam",
            "learning-rate": 0.005,
        }
    )
    """The keys that ``ross-flwr run`` sets with this task, unless ``-c`` does."""

    def __init__(
        self,
        num_agents: int,
        seed: int,
        *,
        scales: Sequence[float] = (1.0,),
        group: int = 8,
        pretraining: int = 150,
        own: float = 0.8,
    ) -> None:
        self.num_agents, self.seed = num_agents, seed
        self.scales, self.group, self.pretraining, self.own = tuple(scales), group, pretraining, own

    @cached_property
    def model(self) -> FlatModel:
        """The policy that all agents of this process compute with, and the one that each starts from."""
        policy, texts = Policy(SHAPE.build(self.seed), self.group).eval(), problems()
        optimizer = torch.optim.Adam(policy.parameters(), 0.005)
        for number in range(self.pretraining):
            drawn = stream(self.seed, "pretraining", 0, number).integers(len(texts), size=64)
            optimizer.zero_grad()
            torch.autograd.backward(-policy.likelihood(texts[drawn]).mean())
            optimizer.step()
        return FlatModel(policy)

    def batch_size(self, agent: int) -> int:
        """Return how many prompts a mini-batch has."""
        return 16

    def objective(self, agent: int) -> ModuleObjective:
        """Return minus the mean reward of `agent`."""
        draws = stream(self.seed, "problems", agent)
        operators = draws.integers(len(OPERATORS), size=EXAMPLES)
        operators[draws.random(EXAMPLES) < self.own] = agent % len(OPERATORS)
        train = torch.from_numpy(100 * operators + draws.integers(100, size=EXAMPLES))
        validation = torch.from_numpy(draws.permutation(300)[:60])
        scale = self.scales[agent % len(self.scales)]
        return ModuleObjective(
            self.model,
            Problems(train),
            Problems(validation),
            Problems(torch.arange(300)),
            partial(grpo_loss, scale=scale),
            own_test=tested,
        )

    def describe(self) -> dict[str, Any]:
        """Return what the summary of a run says of the task."""
        return {"parameters": self.model.size, "scales": list(self.scales), "group": self.group}


def tested(module: nn.Module) -> dict[str, float]:
    """Return the expected share of right answers to all problems."""
    texts = problems()
    loss = float(grpo_loss(module(texts), texts[:, -LENGTH:]))
    return {"loss": loss, "accuracy": -loss}
