"""What an agent minimises: the loss on its own data, at any flat vector."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, nan
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn

from ross_flwr.config import ConfigError
from ross_flwr.learning.flat import FlatModel
from ross_flwr.learning.streams import seeded
from ross_flwr.learning.tensors import Tree, leaves, map_tensors

__all__ = ["Batch", "Loss", "Metric", "ModuleObjective", "Objective", "Performance", "Split"]

Loss: TypeAlias = Callable[[Any, Any], Tensor]
"""From (outputs, targets) to their mean loss, with a gradient."""

Metric: TypeAlias = Callable[[Any, Any], Tensor | float]
"""From (outputs, targets) to one number."""


@dataclass(frozen=True)
class Batch:
    """B examples.

    Attributes
    ----------
    inputs, targets : Tree
        A tensor of shape [B, ...] each, or tuples, lists and dictionaries of such tensors. The module gets the inputs
        as its one argument.
    """

    inputs: Tree
    targets: Tree

    def __len__(self) -> int:
        return len(next(leaves(self.inputs)))

    @property
    def labels(self) -> Tensor | None:
        """The targets, int64 of shape [B], if each is a single class."""
        targets = self.targets
        single = isinstance(targets, Tensor) and targets.dim() == 1 and not targets.is_floating_point()
        return targets if single else None

    def take(self, indices: Tensor) -> "Batch":
        """Return the examples at `indices`, int64 or bool of shape [B]."""

        def chosen(tensor: Tensor) -> Tensor:
            return tensor[indices.to(tensor.device)]

        return Batch(map_tensors(chosen, self.inputs), map_tensors(chosen, self.targets))


class Performance(dict[str, float]):
    """Mean loss and accuracy on some data, as ``{"loss": nats, "accuracy": fraction}``, perhaps ``"attack-success"``.

    Accuracy is NaN unless targets are classes, one for each row of outputs. The user's own metrics are added.
    """


class Split(Protocol):
    """Examples that can be taken by index, ready for the model."""

    def __len__(self) -> int:
        """Return the number of examples."""

    def batch(self, indices: Tensor) -> Batch:
        """Return the examples at `indices`, int64 of shape [B]."""


class Objective(Protocol):
    """The interface between an agent and its model and data.

    A flat vector has shape [size], dtype float32.
    """

    @property
    def size(self) -> int:
        """P, the length of a flat vector."""

    @property
    def sizes(self) -> Sequence[int]:
        """The lengths of the tensors that a flat vector is made of, in order; they sum to P."""

    @property
    def output_layer(self) -> slice:
        """Where the output layer stands in a flat vector: the weights of each of the C classes, then the C biases."""

    @property
    def parameter_sizes(self) -> Sequence[int]:
        """Those of `sizes` that are parameters; the rest are float buffers."""

    @property
    def num_examples(self) -> int:
        """How many training examples the agent holds."""

    @property
    def validation(self) -> Batch:
        """The validation set Q."""

    def batch(self, indices: Tensor) -> Batch:
        """Return the training examples at `indices`, shape [B]."""

    def gradient(self, vector: Tensor, batch: Batch, *, training: bool = True) -> Tensor:
        """Return the gradient of the mean loss on `batch` at `vector`, a new tensor of shape [P].

        Without `training`, the module computes as in `loss`: without dropout, and with the model's own statistics.
        """

    def outputs(self, vector: Tensor, batch: Batch) -> Tree:
        """Return what the module makes of the inputs of `batch` at `vector`, in evaluation mode."""

    def loss(self, vector: Tensor, batch: Batch) -> float:
        """Return the mean loss on `batch` at `vector`."""

    def utility(self, vector: Tensor, kind: str, batch: Batch) -> float:
        """Return the accuracy of `vector` on `batch`, examples of Q, minus its loss there, or the app's function."""

    def test(self, vector: Tensor) -> Performance:
        """Return loss and accuracy on the test set."""

    def buffer_shift(self) -> Tensor | None:
        """Return by how much the last `gradient` moved the float buffers, or None when there are none."""


class ModuleObjective:
    """The loss of an `nn.Module` on one agent's data.

    Parameters
    ----------
    model : FlatModel
        The module. Agents in one process share it, since every call binds a vector to it.
    train, validation, test : Split
        The agent's data, its validation set Q (None for methods that need none), and the examples on which accuracy is
        reported.
    loss : callable
        Mean loss of (outputs, targets).
    chunk : int
        Examples evaluated at once.
    triggered : Split, optional
        Test examples with a backdoor's trigger, labelled with its target.
    metrics : mapping of str to callable, optional
        Numbers of (outputs, targets), both of the whole test set, that `test` adds to loss and accuracy.
    own_utility : callable, optional
        The utility of kind ``"own"``: a number of (outputs, targets), both of Q; more is better.
    """

    def __init__(
        self,
        model: FlatModel,
        train: Split,
        validation: Split | None,
        test: Split,
        loss: Loss = nn.functional.cross_entropy,
        chunk: int = 1000,
        triggered: Split | None = None,
        metrics: Mapping[str, Metric] | None = None,
        own_utility: Metric | None = None,
    ) -> None:
        self.model = model
        self.train_data = train
        self.test_data = test
        self.criterion = loss
        self.chunk = chunk
        self.triggered = triggered
        self.metrics = dict(metrics or {})
        self.own_utility = own_utility
        self._validation = None if validation is None else validation.batch(torch.arange(len(validation)))
        self._shift: Tensor | None = None

    @property
    def size(self) -> int:
        """P, the length of a flat vector."""
        return self.model.size

    @property
    def sizes(self) -> Sequence[int]:
        """The lengths of the tensors that a flat vector is made of, in order; they sum to P."""
        return self.model.sizes

    @property
    def output_layer(self) -> slice:
        """Where the output layer stands in a flat vector: the weights of each of the C classes, then the C biases."""
        return self.model.output_layer

    @property
    def parameter_sizes(self) -> Sequence[int]:
        """Those of `sizes` that are parameters; the rest are float buffers."""
        return self.model.sizes[: len(self.model.parameters)]

    @property
    def num_examples(self) -> int:
        """How many training examples the agent holds."""
        return len(self.train_data)

    @property
    def validation(self) -> Batch:
        """The validation set Q.

        Raises
        ------
        ConfigError
            When the agent has none.
        """
        if self._validation is None:
            raise ConfigError("the agent has no validation set Q_i and is asked for a utility: give it validation_data")
        return self._validation

    def batch(self, indices: Tensor) -> Batch:
        """Return the training examples at `indices`, shape [B]."""
        return self.train_data.batch(indices)

    def gradient(self, vector: Tensor, batch: Batch, *, training: bool = True) -> Tensor:
        """Return the gradient of the mean loss on `batch` at `vector`, shape [P]; zero for float buffers.

        It is also zero for parameters that are frozen or do not affect the loss.

        `vector` stays unchanged: training mode moves the buffers of a copy, and `buffer_shift` says how far.
        """
        if not training:
            with seeded(0, vector.device):
                return self._gradient(self._guarded(vector), batch, training=False)
        if not self.model.has_buffers:
            return self._gradient(vector, batch, training=True)
        moved = vector.clone()
        gradient = self._gradient(moved, batch, training=True)
        self._shift = moved[self.model.num_parameters :] - vector[self.model.num_parameters :]
        return gradient

    def buffer_shift(self) -> Tensor | None:
        """Return by how much the last `gradient` moved the float buffers, or None when there are none."""
        return self._shift

    def loss(self, vector: Tensor, batch: Batch) -> float:
        """Return the mean loss on `batch` at `vector`, without dropout and with the model's own statistics."""
        return self._evaluate(vector, batch)[0]

    def utility(self, vector: Tensor, kind: str, batch: Batch) -> float:
        """Return a number for `vector` on `batch`, examples of the validation set Q.

        It is the accuracy (``"accuracy"``), minus the mean loss (``"loss"``) or the app's function (``"own"``). With
        ``"accuracy-then-loss"``, the likelihood exp(−loss) adds less to the accuracy than one example does, so the loss
        decides between models that are right equally often.
        """
        if kind == "own":
            if self.own_utility is None:
                raise ConfigError("utility = 'own' is the app's own function, and it has none: use utility = 'loss'")
            return float(self.own_utility(self.outputs(vector, batch), batch.targets))
        loss, accuracy = self._evaluate(vector, batch)
        if kind == "accuracy-then-loss":
            return accuracy + exp(-loss) / len(batch)
        return accuracy if kind == "accuracy" else -loss

    def test(self, vector: Tensor) -> Performance:
        """Return loss, accuracy and own metrics on the test set, and how often a trigger succeeds if there is one."""
        loss, accuracy = self._test(vector, self.test_data)
        performance = Performance(loss=loss, accuracy=accuracy)
        if self.triggered is not None:
            performance["attack-success"] = self._test(vector, self.triggered)[1]
        if self.metrics:
            batches = [self.test_data.batch(indices) for indices in self._chunks(self.test_data)]
            outputs = map_tensors(_cat, *(self.outputs(vector, batch) for batch in batches))
            targets = map_tensors(_cat, *(batch.targets for batch in batches))
            performance |= {name: float(metric(outputs, targets)) for name, metric in self.metrics.items()}
        return performance

    def _test(self, vector: Tensor, split: Split) -> tuple[float, float]:
        total = len(split)
        loss = accuracy = 0.0
        for indices in self._chunks(split):
            part_loss, part_accuracy = self._evaluate(vector, split.batch(indices))
            loss += part_loss * len(indices) / total
            accuracy += part_accuracy * len(indices) / total
        return loss, accuracy

    def _chunks(self, split: Split) -> Sequence[Tensor]:
        return torch.split(torch.arange(len(split)), self.chunk)

    def _gradient(self, vector: Tensor, batch: Batch, *, training: bool) -> Tensor:
        model = self.model
        model.bind(vector)
        self._mode(training=training)
        for parameter in model.parameters:
            parameter.grad = None
        try:
            loss = self.criterion(model.module(batch.inputs), batch.targets)
            _refuse_nan(loss, batch)
            torch.autograd.backward(loss)
        finally:
            model.settle()
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters]
        if model.has_buffers:
            parts.append(torch.zeros_like(vector[model.num_parameters :]))
        return torch.cat([part.reshape(-1) for part in parts])

    def _evaluate(self, vector: Tensor, batch: Batch) -> tuple[float, float]:
        outputs = self.outputs(vector, batch)
        loss = self.criterion(outputs, batch.targets)
        _refuse_nan(loss, batch)
        return float(loss), _accuracy(outputs, batch.targets, self.criterion)

    def outputs(self, vector: Tensor, batch: Batch) -> Tree:
        """Return what the module makes of the inputs of `batch` at `vector`, in evaluation mode."""
        self.model.bind(self._guarded(vector))
        self._mode(training=False)
        try:
            with torch.inference_mode(), seeded(0, vector.device):
                return self.model.module(batch.inputs)
        finally:
            self.model.settle()

    def _guarded(self, vector: Tensor) -> Tensor:
        """Return what a module may write its buffers into in evaluation, so that `vector` stays as it is."""
        return vector.clone() if self.model.has_buffers else vector

    def _mode(self, *, training: bool) -> None:
        if self.model.module.training is not training:
            self.model.module.train(training)


def _refuse_nan(loss: Tensor, batch: Batch) -> None:
    """Refuse examples that make the loss NaN because they hold NaN themselves."""
    if loss.isnan().any() and any(bool(leaf.isnan().any()) for leaf in leaves((batch.inputs, batch.targets))):
        raise ConfigError("the agent's data holds NaN, which makes its loss NaN: remove or replace such examples")


def _accuracy(outputs: Tree, targets: Tree, loss: Loss) -> float:
    """Return the share of correct classes; NaN unless targets are classes, one for each row of outputs.

    One output stands for classes 0 and 1: as a probability if the loss is indifferent at 0.5, or else as a logit.
    """
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
        return nan
    if targets.is_floating_point() or outputs.shape[:-1] != targets.shape:
        return nan
    if outputs.shape[-1] > 1:
        return float((outputs.argmax(-1) == targets).float().mean())
    if ((targets != 0) & (targets != 1)).any():
        return nan
    half, zeros = torch.full_like(outputs, 0.5), torch.zeros_like(targets)
    threshold = 0.5 if torch.isclose(loss(half, zeros), loss(half, zeros + 1)) else 0.0
    return float(((outputs[..., 0] > threshold) == targets.bool()).float().mean())


def _cat(*parts: Tensor) -> Tensor:
    return torch.cat(parts)
