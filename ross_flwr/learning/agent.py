"""One participant: what it holds and what it can compute. An algorithm's steps use nothing else."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from math import inf, isnan
from time import perf_counter_ns
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from ross_flwr.learning.batches import Batches, Portions
from ross_flwr.learning.counts import Counts
from ross_flwr.learning.examples import Batch
from ross_flwr.learning.objective import Objective
from ross_flwr.learning.requests import Average, Compute, Gradient, Gradients, Of, Part, Utilities, compute, cut
from ross_flwr.learning.rules import Mean, Rule, View
from ross_flwr.learning.rules.stacks import distance
from ross_flwr.learning.streams import stream

__all__ = ["Agent", "GradientTransform"]


CHANGED_IN_PLACE = (
    "agent['{name}'] was changed in place, but messages or other agents may hold the same tensor: write "
    "agent['{name}'] = agent['{name}'] - …, not agent['{name}'] -= …"
)


def changes(vector: Tensor) -> int:
    """Return how often a vector was changed in place, as PyTorch counts it; 0 if it does not."""
    return 0 if vector.is_inference() else vector._version


class GradientTransform(Protocol):
    """One link of the gradient chain: it changes gradients after an agent has computed them."""

    def __call__(self, gradient: Tensor, agent: "Agent", request: Gradient) -> Tensor:
        """Return what replaces `gradient`, shape [P]: a new tensor, or the same one unchanged.

        `request` is what the agent was asked: for the gradient of ``request.objective`` at ``request.vector`` on
        ``request.batch``, and ``request.of`` tells whose model that is.
        """


class Came:
    """How far an agent's own model has come in a pass, also where it is mixed more than once; of a momentum its length.

    Infinity where what is mixed is the model of the last pass.
    """

    def __init__(self) -> None:
        self.last = (0, inf)

    def __call__(self, agent: "Agent", own: Tensor, models: bool) -> float:
        """Return it for `own`, which is about to be mixed."""
        if not models:
            return float(torch.linalg.vector_norm(own, dtype=torch.float64))
        moved = distance(own, agent["model"])
        if moved:
            self.last = (agent.pass_number, moved)
        number, moved = self.last
        return moved if number == agent.pass_number else inf


class Agent:
    """Agent i.

    Parameters
    ----------
    index, seed, objective : int, int, Objective
        i, from 0 to N-1, the run's seed, and its loss, on its own data.
    mixing_row : mapping of int to float
        w_ij for every j in M_i, i itself included; the row sums to 1 unless the graph is directed.
    batch_size, validation_batch : int
        Examples in a mini-batch of the agent's data, and of its validation set Q_i, 0 (the default) for all of Q_i.
    rule : Rule, optional
        How `mix` combines a neighbourhood's vectors into one; without it, the mean by the mixing row.

    Attributes
    ----------
    mixing_column : mapping of int to float
        w_ji for i itself and every j that hears i; the mixing row, unless `place` says otherwise.
    neighbors, receivers : tuple[int, ...]
        Those whom i hears, and those who hear i, ascending.
    state : dict[str, Tensor]
        All that an agent carries from one step to the next; ``agent["model"]`` reads and replaces it.
    pass_number, total_passes, num_agents : int
        t, counted from 0 and set by the host, how many passes the run has, and N.
    undefended_from : float
        The pass from which the agent defends itself nowhere: an attacker's first, and infinity for honest agents.
    clip : float
        C, to which the gradient of every training example is clipped; infinity for no clipping.
    gradient_chain : sequence of GradientTransform
        The transforms that every computed gradient passes through, in this order.
    compute : callable
        Answers the agent's requests; an engine may set its own.
    counts, reported : Counts, dict[str, Any]
        What it has computed, and what its steps had to `report`, since the last report.

    Examples
    --------
    >>> from ross_flwr import tasks
    >>> agent = Agent(0, tasks.images("digits")(2, 0).objective(0), {0: 0.5, 1: 0.5}, seed=0, batch_size=32)
    >>> agent.mix({0: torch.zeros(2), 1: torch.ones(2)})
    tensor([0.5000, 0.5000])
    """

    def __init__(
        self,
        index: int,
        objective: Objective,
        mixing_row: Mapping[int, float],
        seed: int,
        batch_size: int,
        rule: Rule | None = None,
        validation_batch: int = 0,
    ) -> None:
        self.index, self.seed, self.objective = index, seed, objective
        self.place(mixing_row)
        self.batches = Batches(objective, index, seed, batch_size)
        self.portions = Portions(objective, index, seed, validation_batch)
        self.rule = rule or Mean()
        self.state: dict[str, Tensor] = {}
        self.pass_number, self.total_passes = 0, 1
        self.num_agents = len(mixing_row)
        self.undefended_from = self.clip = inf
        self.gradient_chain: Sequence[GradientTransform] = ()
        self.compute: Compute = compute
        self.counts = Counts()
        self.reported: dict[str, Any] = {}
        self._changes: dict[str, int] = {}  # in place, of the vectors in the state when they were put there
        self._given: dict[int, float] = {}
        self._came = Came()

    def __getitem__(self, name: str) -> Tensor:
        return self.state[name]

    def __setitem__(self, name: str, vector: Tensor) -> None:
        if vector is self.state.get(name) and changes(vector) > self._changes.get(name, inf):
            raise ValueError(CHANGED_IN_PLACE.format(name=name))
        self.state[name], self._changes[name] = vector, changes(vector)

    def place(self, mixing_row: Mapping[int, float], mixing_column: Mapping[int, float] | None = None) -> None:
        """Set the agent's place in a graph: row and column i of W, by the other agent."""
        self.mixing_row = dict(sorted(mixing_row.items()))
        self.mixing_column = self.mixing_row if mixing_column is None else dict(sorted(mixing_column.items()))
        self.neighbors = tuple(j for j in self.mixing_row if j != self.index)
        self.receivers = tuple(j for j in self.mixing_column if j != self.index)

    @property
    def validation(self) -> Batch:
        """The examples of Q_i that the agent looks at in this pass."""
        return self.portions.take(self.pass_number)

    @property
    def progress(self) -> float:
        """The share of the run that is over, from 0 to 1."""
        return self.pass_number / self.total_passes

    @property
    def undefended(self) -> bool:
        """Whether the agent runs the undefended form of its method, and mixes by the plain mean."""
        return self.pass_number >= self.undefended_from

    def stream(self, purpose: str, draw: int = 0) -> np.random.Generator:
        """Return this agent's random stream for `purpose` in this pass."""
        return self.streams(purpose, draw=draw)

    @property
    def streams(self) -> Callable[..., np.random.Generator]:
        """From a purpose to this agent's random stream in this pass, now and later."""
        return partial(stream, self.seed, agent=self.index, pass_number=self.pass_number)

    def report(self, **entries: Any) -> None:
        """Keep `entries` for the report of the round, such as the ``weights`` of neighbours' gradients."""
        self.reported.update(entries)

    def gradient(self, vector: Tensor, batch_number: int | None = None, *, of: Of = "own", part: Part = None) -> Tensor:
        """Return the gradient of the agent's loss at `vector`, shape [P], after the gradient chain.

        Parameters
        ----------
        vector : Tensor
            The point at which to take the gradient, shape [P].
        batch_number : int, optional
            The mini-batch; by default that of the pass. Local step s of K takes ``K * agent.pass_number + s``.
        of : {"own", "cross", "exact"}
            Whose model `vector` is, see `Of`. At its own, the agent notes how the batch moves float buffers.
        part : slice, optional
            The entries that are wanted, the others being computed only where transforms of the chain need them.
        """
        with self.counts.timed("gradients", self.batches.size):
            number = self.pass_number if batch_number is None else batch_number
            batch, asked = self.batches.take(number), None if self.gradient_chain else part
            request = Gradient(self.objective, vector, batch, self.streams, number, of, self.clip, asked)
            gradient, shift = self.compute(request)
            if shift is not None and of == "own" and torch.equal(vector, self.state["model"]):
                self.state["buffer_shift"] = shift
        for transform in self.gradient_chain:
            gradient = transform(gradient, self, request)
        return cut(cast(Tensor, gradient), part)

    def end_pass(self) -> None:
        """Move the model's float buffers by what the agent's own batch changed; the algorithm has only mixed them."""
        shift = self.state.pop("buffer_shift", None)
        if shift is not None:
            model = self.state["model"].clone()
            model[-len(shift) :] += shift
            self.state["model"] = model

    def utilities(self, models: Iterable[Tensor], kind: str) -> list[float]:
        """Return how good each of the models is on the validation set Q_i.

        `models` are vectors of shape [P]: a stack [K, P], or a generator, of which only one is in memory at a time.
        `kind` is ``"accuracy"``, ``"accuracy-then-loss"``, ``"loss"`` (minus the mean loss) or ``"own"``, the app's.
        """
        began = perf_counter_ns()
        found: list[float] = self.compute(Utilities(self.objective, models, kind, self.validation))
        self.counts.add("utilities", len(found), len(self.validation))
        self.counts["utilities-ns"] += perf_counter_ns() - began
        return found

    def utility(self, vector: Tensor, kind: str) -> float:
        """Return how good one model is on Q_i, as `utilities` does for many."""
        return self.utilities((vector,), kind)[0]

    def loss(self, vector: Tensor, data: str = "batch") -> float:
        """Return the loss on this pass's mini-batch (``"batch"``) or on Q_i (``"validation"``); NaN is infinity."""
        if data == "validation":
            loss = -self.utility(vector, "loss")
        else:
            with self.counts.timed("utilities", self.batches.size):
                loss = self.objective.loss(vector, self.batches.take(self.pass_number))
        return inf if isnan(loss) else loss

    def validation_gradient(self, model: Tensor, batch: Batch | None = None) -> Tensor:
        """Return the gradient at `model` on `batch`, by default the examples of Q_i in this pass."""
        batch = self.validation if batch is None else batch
        with self.counts.timed("gradients", len(batch)):
            return cast(Tensor, self.compute(Gradients(self.objective, model, [batch]))[0])

    def mix(self, vectors: Mapping[int, Tensor], *, models: bool = True) -> Tensor:
        """Combine the neighbourhood's vectors by the rule, by default the mean, into a new tensor of shape [P].

        Parameters
        ----------
        vectors : mapping of int to Tensor
            The own vector and those heard, by agent, shape [P] each. A missing neighbour's weight returns to the own.
        models : bool (default: True)
            Whether they are models. Rules that judge models give momenta the same weights, so mix models first.
        """
        others = {j: vectors[j] for j in self.neighbors if j in vectors}
        if self.undefended or type(self.rule) is Mean:
            weights = [self.mixing_row[j] for j in others]
            return cast(Tensor, self.compute(Average(vectors[self.index], list(others.values()), weights)))
        view = View(
            weights={j: self.mixing_row[j] for j in others},
            progress=self.progress,
            loss=self.loss,
            gradient=self.validation_gradient,
            step=lambda: self._came(self, vectors[self.index], models),
            untrained=lambda: _untrained_loss(self),
            generator=lambda: self.stream("aggregation"),
            sizes=self.objective.parameter_sizes,
            models=models,
            given=self._given,
        )
        return self.rule(vectors[self.index], others, view)


def _untrained_loss(agent: Agent) -> float:
    """Return the loss on Q_i of the model that the agent began with, which it holds until it first mixes."""
    if "untrained_loss" not in agent.state:
        agent["untrained_loss"] = torch.tensor([agent.loss(agent["model"], "validation")])
    return float(agent["untrained_loss"])
