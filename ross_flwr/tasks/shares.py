"""Who gets which examples of a data set: training parts, validation sets and the test set."""

from functools import cached_property
from logging import INFO, getLogger
from typing import Protocol

import torch
from torch import Tensor

from ross_flwr import data
from ross_flwr.config import ConfigError
from ross_flwr.learning.streams import stream
from ross_flwr.tasks.options import DataOptions

__all__ = ["Dealable", "Shares"]

VALIDATION_SHARE = 0.1
"""The largest share of the training data that is held out for validation sets, unless one set alone is larger."""

logger = getLogger("ross_flwr")


class Labelled(Protocol):
    """Examples of known classes."""

    @property
    def labels(self) -> Tensor:
        """The class or group of each example, int64 of shape [n]."""


class Dealable(Protocol):
    """What is dealt: training and test data whose examples fall into classes or groups."""

    @property
    def train(self) -> Labelled:
        """The training data."""

    @property
    def test(self) -> Labelled:
        """The test data."""

    @property
    def num_classes(self) -> int:
        """How many classes there are."""

    @property
    def classes(self) -> tuple[str, ...]:
        """What they are called; empty if they have only numbers."""

    @property
    def owners(self) -> Tensor | None:
        """The owner of each training example, int64 of shape [n], if they are known."""


class Shares:
    """The examples of one source, dealt by the seed when first asked for, and in the same way on every node.

    Parameters
    ----------
    source : Dealable
        The data set.
    options : DataOptions
        How it is dealt.
    num_agents : int
        N.
    seed : int
        Of the run.
    """

    def __init__(self, source: Dealable, options: DataOptions, num_agents: int, seed: int) -> None:
        self.source = source
        self.options = options
        self.num_agents = num_agents
        self.seed = seed

    @property
    def parts(self) -> list[Tensor]:
        """Each agent's part: indices into the training data."""
        return self._dealt[0]

    @property
    def topped_up(self) -> dict[int, int]:
        """How many examples each topped-up agent was given, so that it can fill a batch."""
        return self._dealt[1]

    @property
    def validation_pool(self) -> Tensor:
        """Indices of the training data that validation sets are drawn from, and that no agent trains on."""
        return self._pools[0]

    @property
    def training_pool(self) -> Tensor:
        """Indices of the rest of the training data."""
        return self._pools[1]

    def validation(self, agent: int) -> Tensor:
        """Return the indices of the agent's Q_i in the training data."""
        options, pool = self.options, self.validation_pool
        labels, draw = self.source.train.labels[pool], stream(self.seed, "validation set", agent)
        if options.validation == "balanced" or not options.validation_size:
            chosen, _ = data.class_balanced(labels, options.validation_size, draw)
            return pool[chosen]
        classes = labels.bincount().nonzero().squeeze(1).cpu().numpy()
        if options.validation == "own-mix":
            own = self.source.train.labels[self.parts[agent]]
            shares = own.bincount(minlength=self.source.num_classes).cpu().numpy()[classes]
        else:
            shares = draw.permutation(len(classes)) < options.classes_per_agent
        return pool[data.draw_classes(labels.cpu().numpy(), shares, options.validation_size, draw)]

    @cached_property
    def test(self) -> Tensor:
        """The indices of the test examples on which accuracy is reported."""
        labels = self.source.test.labels
        if not 0 < self.options.test_size < len(labels):
            return torch.arange(len(labels))
        size, most = self.options.test_size, data.most_balanced(labels)
        if size > most:
            raise ConfigError(
                f"test-size = {size}, equally many of each class, cannot be drawn: {self._rarest(labels)}, so at most "
                f"{most} can; 0 takes all test examples"
            )
        chosen, _ = data.class_balanced(labels, size, stream(self.seed, "test"))
        return chosen

    @cached_property
    def _pools(self) -> tuple[Tensor, Tensor]:
        labels, size = self.source.train.labels, self.options.validation_size
        pool = min(size * self.num_agents, max(size, int(len(labels) * VALIDATION_SHARE)))
        if pool and self.options.validation != "balanced":  # some examples of every class
            pool = max(pool, int(labels.bincount().count_nonzero()))
        if pool > (most := data.most_balanced(labels)):
            fits = most if most >= int(len(labels) * VALIDATION_SHARE) else most // self.num_agents
            raise ConfigError(
                f"validation-size = {size} takes {pool} examples for num-agents = {self.num_agents}, equally many of "
                f"each class, which cannot be drawn: {self._rarest(labels)}; validation-size = {fits} is the most"
            )
        return data.class_balanced(labels, pool, stream(self.seed, "validation pool"))

    def _rarest(self, labels: Tensor) -> str:
        """Say which class has the fewest examples, of those that have any."""
        counts = labels.bincount()
        rarest = int(torch.where(counts > 0, counts, len(labels) + 1).argmin())
        name = self.source.classes[rarest] if self.source.classes else rarest
        return f"class {name} has only {counts[rarest]}"

    @cached_property
    def _dealt(self) -> tuple[list[Tensor], dict[int, int]]:
        options, owners, pool = self.options, self.source.owners, self.training_pool
        topped_up = options.too_few == "top-up"
        parts = data.partition(
            options.partition,
            self.source.train.labels[pool],
            self.num_agents,
            alpha=options.partition_alpha,
            classes_per_agent=options.classes_per_agent,
            minimum=0 if topped_up else options.batch_size,
            seed=self.seed,
            imbalance=options.imbalance,
            examples_per_agent=options.examples_per_agent,
            owners=None if owners is None else owners[pool],
        )
        added: dict[int, int] = {}
        if topped_up:
            parts, added = data.top_up(parts, options.batch_size, self.seed)
        if added:
            logger.log(INFO, "topped up to batch-size = %d: agents %s", options.batch_size, sorted(added))
        return [pool[part] for part in parts], added
