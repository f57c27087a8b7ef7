"""One participant: what it holds and what it can compute. Steps of algorithms ask it, and nothing else."""

import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, isnan
from time import perf_counter_ns
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from ross_flwr.learning.objective import Batch, Objective
from ross_flwr.learning.rules import Aggregation
from ross_flwr.learning.variance import variance_corrected

__all__ = ["Agent", "Compute", "Gradient", "GradientTransform", "Of", "Utilities", "compute", "stream"]


def stream(seed: int, purpose: str, agent: int = 0, pass_number: int = 0, draw: int = 0) -> np.random.Generator:
    """Return the random stream of (seed, purpose, agent, pass, draw).

    The streams are counter-based (Philox 4x64; Salmon et al., 2011): the seed and the purpose are the key, the rest is
    the counter, so no stream depends on how much of another was used, in which process, or before or after a restart.
    """
    key = np.array([seed, zlib.crc32(purpose.encode())], dtype=np.uint64)
    counter = np.array([0, draw, agent, pass_number], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


Of: TypeAlias = Literal["own", "cross"]
"""Whose model a gradient is of: the agent's own, or a neighbour's that asked for a cross-gradient."""


class GradientTransform(Protocol):
    """One link of the gradient chain: it changes gradients after an agent has computed them."""

    def __call__(self, gradient: Tensor, agent: "Agent", of: Of) -> Tensor:
        """Return what stands for `gradient`, shape [P], a new tensor or the same one unchanged."""


@dataclass(frozen=True, slots=True, eq=False)
class Gradient:
    """A request for the gradient of an objective at `vector` on `batch`; `noise` seeds what the model draws."""

    objective: Objective
    vector: Tensor
    batch: Batch
    noise: int | None = None

    def answer(self) -> tuple[Tensor, Tensor | None]:
        """Return the gradient, shape [P], and by how much the batch moves the float buffers, if there are any."""
        if self.noise is None:
            return self.objective.gradient(self.vector, self.batch), self.objective.buffer_shift()
        with torch.random.fork_rng():
            torch.manual_seed(self.noise)
            return self.objective.gradient(self.vector, self.batch), self.objective.buffer_shift()


@dataclass(frozen=True, slots=True, eq=False)
class Utilities:
    """A request for the utility, of some `kind`, of each of the `models` on the objective's validation set."""

    objective: Objective
    models: Iterable[Tensor]
    kind: str

    def answer(self) -> list[float]:
        """Return a number for each model."""
        return [self.objective.utility(model, self.kind) for model in self.models]


Compute: TypeAlias = Callable[[Gradient | Utilities], Any]
"""Answers a request. An engine that gives its agents another one sees all requests of a step at once."""


def compute(request: Gradient | Utilities) -> Any:
    """Answer a request at once."""
    return request.answer()


class Agent:
    """Agent i.

    Parameters
    ----------
    index : int
        i, from 0 to N-1.
    objective : Objective
        Its loss, on its own data.
    mixing_row : mapping of int to float
        w_ij for every j in the closed neighbourhood M_i; the row sums to 1 unless the graph is directed.
    seed : int
        The run's seed.
    batch_size : int
        Examples in a mini-batch.
    aggregation : Aggregation, optional
        What `mix` does instead of averaging with the mixing row.
    variance : str, optional
        Whose variance `mix` gives to a mean of models: ``"own"``, ``"others"`` or ``"none"``.

    Attributes
    ----------
    mixing_column : mapping of int to float
        w_ji for i itself and every j that hears i; the mixing row, unless `place` says otherwise.
    neighbors, receivers : tuple[int, ...]
        Those whom i hears, and those who hear i, ascending.
    state : dict[str, Tensor]
        Named flat vectors of shape [P]; ``agent["model"]`` reads and writes it. All that an agent carries from one
        step to the next stands here.
    pass_number : int
        t, counted from 0, set by the host.
    total_passes : int
        How many passes the run has.
    gradient_chain : sequence of GradientTransform
        What every gradient goes through after it is computed, in this order.
    compute : callable
        Answers the agent's requests; an engine may bring its own.
    counts : Counter
        Gradients and utilities evaluated since the last report, and the nanoseconds they took, ``"gradients-ns"`` and
        ``"utilities-ns"`` (the host adds ``"exchange-ns"``); a loss that a method asks for is a utility too.
    attackers : frozenset[int]
        Who lies, for rules of the theory that no real agent could apply; nobody unless the experiment says so.
    reported : dict[str, Any]
        What the steps had to `report` since the last report.
    """

    def __init__(
        self,
        index: int,
        objective: Objective,
        mixing_row: Mapping[int, float],
        seed: int,
        batch_size: int,
        aggregation: Aggregation | None = None,
        variance: str = "none",
    ) -> None:
        self.index = index
        self.objective = objective
        self.place(mixing_row)
        self.seed = seed
        self.batch_size = min(batch_size, objective.num_examples)
        self.aggregation = aggregation
        self.variance = variance
        self.state: dict[str, Tensor] = {}
        self.pass_number = 0
        self.total_passes = 1
        self.gradient_chain: Sequence[GradientTransform] = ()
        self.compute: Compute = compute
        self.counts: Counter[str] = Counter()
        self.attackers: frozenset[int] = frozenset()
        self.reported: dict[str, Any] = {}
        self._batch: tuple[int, Batch] | None = None
        self._order: tuple[int, Tensor] | None = None

    def __getitem__(self, name: str) -> Tensor:
        return self.state[name]

    def __setitem__(self, name: str, vector: Tensor) -> None:
        self.state[name] = vector

    def place(self, mixing_row: Mapping[int, float], mixing_column: Mapping[int, float] | None = None) -> None:
        """Give the agent its place in a graph: row and column i of W, by the other agent."""
        self.mixing_row = dict(sorted(mixing_row.items()))
        self.mixing_column = self.mixing_row if mixing_column is None else dict(sorted(mixing_column.items()))
        self.neighbors = tuple(j for j in self.mixing_row if j != self.index)
        self.receivers = tuple(j for j in self.mixing_column if j != self.index)

    @property
    def progress(self) -> float:
        """The part of the run that is over, from 0 to 1."""
        return self.pass_number / self.total_passes

    def stream(self, purpose: str, draw: int = 0) -> np.random.Generator:
        """Return this agent's random stream for `purpose` in this pass."""
        return stream(self.seed, purpose, self.index, self.pass_number, draw)

    def report(self, **entries: Any) -> None:
        """Keep `entries` for the report of the round, such as ``weights``, the weight of each neighbour's gradient."""
        self.reported.update(entries)

    def gradient(self, vector: Tensor, batch_number: int | None = None, *, of: Of = "own") -> Tensor:
        """Return the gradient of the own loss at `vector`, shape [P], after all of the gradient chain.

        Every call in a pass uses the same mini-batch ξ_i^t, so cross-gradients of different models are comparable.
        A method with K local steps asks for batch ``K * agent.pass_number + s`` in step s.

        Parameters
        ----------
        vector : Tensor
            Where, shape [P].
        batch_number : int, optional
            The mini-batch; the pass's own without.
        of : {"own", "cross"}
            Whose model `vector` is: the agent's own, or that of a neighbour to whom the gradient goes. At its own model
            the agent also notes how the batch moves the float buffers (BatchNorm statistics), for `end_pass`.
        """
        began = perf_counter_ns()
        batch = self._numbered_batch(self.pass_number if batch_number is None else batch_number)
        noise = int(self.stream("noise").integers(2**62)) if self.objective.draws_noise else None
        gradient, shift = self.compute(Gradient(self.objective, vector, batch, noise))
        if shift is not None and of == "own" and torch.equal(vector, self.state["model"]):
            self.state["buffer_shift"] = shift
        self._count("gradients", began)
        for transform in self.gradient_chain:
            gradient = transform(gradient, self, of)
        found: Tensor = gradient
        return found

    def end_pass(self) -> None:
        """Let the model's float buffers follow the agent's own batch; the algorithm has only mixed them."""
        shift = self.state.pop("buffer_shift", None)
        if shift is not None:
            model = self.state["model"].clone()
            model[-len(shift) :] += shift
            self.state["model"] = model

    def utilities(self, models: Iterable[Tensor], kind: str) -> list[float]:
        """Return how good each of the models is on the validation set Q_i.

        Parameters
        ----------
        models : iterable of Tensor
            Vectors of shape [P]: a stack of shape [K, P], or a generator of which one at a time is in memory.
        kind : str
            ``"accuracy"``, ``"loss"`` (minus the mean loss) or ``"own"``, the function of the user's app.
        """
        began = perf_counter_ns()
        found: list[float] = self.compute(Utilities(self.objective, models, kind))
        self._count("utilities", began, len(found))
        return found

    def utility(self, vector: Tensor, kind: str) -> float:
        """Return how good one model is on the validation set Q_i, as `utilities` does for many."""
        return self.utilities((vector,), kind)[0]

    def loss(self, vector: Tensor, data: str = "batch") -> float:
        """Return the own loss at `vector`, on this pass's mini-batch (``"batch"``) or on Q_i (``"validation"``).

        It counts as a utility. NaN, the loss of a model that went astray, is returned as infinity: nothing is worse.
        """
        if data == "validation":
            loss = -self.utility(vector, "loss")
        else:
            began = perf_counter_ns()
            loss = self.objective.loss(vector, self._numbered_batch(self.pass_number))
            self._count("utilities", began)
        return inf if isnan(loss) else loss

    def f1(self, vector: Tensor) -> Tensor:
        """Return the F1 score of every class on Q_i, shape [C], NaN for one that Q_i lacks; it counts as a utility."""
        began = perf_counter_ns()
        scores = self.objective.f1(vector)
        self._count("utilities", began)
        return scores

    def class_gradients(self, vector: Tensor) -> Tensor:
        """Return the gradient of the loss on each class of Q_i at `vector`, shape [C, P]; all count as one gradient."""
        began = perf_counter_ns()
        gradients = self.objective.class_gradients(vector)
        self._count("gradients", began)
        return gradients

    def mix(self, vectors: Mapping[int, Tensor], *, models: bool = True) -> Tensor:
        """Return Σ_j w_ij v_j over the closed neighbourhood, a new tensor of shape [P].

        The weight of a neighbour that is missing from `vectors` returns to the agent's own vector. With an
        `aggregation`, return instead what its rule makes of the vectors, in the order of the agents' indices; all that
        an agent mixes in one pass falls into the same random buckets. A mean of `models` is then corrected to the
        `variance` of the own one or the others'; momenta and trackers are sums of gradients and stay as they are.
        """
        mixed = self._mixed(vectors)
        followed = [vector for j, vector in vectors.items() if (j == self.index) == (self.variance == "own")]
        if not models or self.variance == "none" or not followed:
            return mixed
        return variance_corrected(mixed, followed, self.objective.parameter_sizes)

    def _mixed(self, vectors: Mapping[int, Tensor]) -> Tensor:
        own_weight = self.mixing_row[self.index]
        own_weight += sum(self.mixing_row[j] for j in self.neighbors if j not in vectors)
        if self.aggregation:
            row = {**self.mixing_row, self.index: own_weight}
            heard = [j for j in row if j in vectors]
            return self.aggregation(
                torch.stack([vectors[j] for j in heard]),
                own=vectors[self.index],
                weights=torch.tensor([row[j] for j in heard], dtype=torch.float64),
                generator=self.stream("aggregation"),
            )
        mixed = vectors[self.index] * own_weight
        for j in self.neighbors:
            if j in vectors:
                mixed.add_(vectors[j], alpha=self.mixing_row[j])
        return mixed

    def _count(self, kind: str, began: int, evaluations: int = 1) -> None:
        self.counts[kind] += evaluations
        self.counts[f"{kind}-ns"] += perf_counter_ns() - began

    def _numbered_batch(self, number: int) -> Batch:
        """Return mini-batch `number` of an endless sequence of shuffled passes over the agent's data.

        Each pass is shuffled by its own stream, so batch t needs no memory of the batches before it.
        """
        if self._batch is None or self._batch[0] != number:
            batches = self.objective.num_examples // self.batch_size
            epoch, position = divmod(number, batches)
            if self._order is None or self._order[0] != epoch:
                order = stream(self.seed, "batches", self.index, epoch).permutation(self.objective.num_examples)
                self._order = epoch, torch.from_numpy(order)
            start = position * self.batch_size
            indices = self._order[1][start : start + self.batch_size]
            self._batch = number, self.objective.batch(indices)
        return self._batch[1]
