"""What an agent minimises: the loss on its own data, at any flat vector."""

from collections.abc import Iterable, Mapping, Sequence
from math import exp, isnan
from typing import Protocol

import torch
from torch import Tensor, nn

from ross_flwr.config import ConfigError
from ross_flwr.learning.examples import Batch, Drawn, Split
from ross_flwr.learning.flat import FlatModel
from ross_flwr.learning.module_loss import ModuleLoss
from ross_flwr.learning.optimizers import Factory
from ross_flwr.learning.outputs import Loss, Metric, Test, Trainer, accuracies, mean_of, refuse_nan
from ross_flwr.learning.probes import Probes
from ross_flwr.learning.stacked import Stack, losses
from ross_flwr.learning.tensors import Tree, map_tensors

__all__ = ["ModuleObjective", "Objective", "Performance"]


MOST = 2**24
"""Numbers in the model and the directions of probes that are computed on at once: 64 MB."""


class Performance(dict[str, float]):
    """Mean loss and accuracy on some data, as ``{"loss": nats, "accuracy": fraction}``, perhaps ``"attack-success"``.

    Accuracy is NaN unless targets are classes, one for each row of outputs. The user's own metrics are added.
    """


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

    def gradient(self, vector: Tensor, batch: Batch, *, training: bool = True, part: slice | None = None) -> Tensor:
        """Return the gradient of the mean loss on `batch` at `vector`, a new tensor of shape [P].

        Without `training`, the module computes as in `loss`: without dropout, and with the model's own statistics. Of a
        gradient of which `part` is wanted, that alone may be returned.
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


class ModuleObjective(ModuleLoss):
    """The loss of an `nn.Module` on one agent's data.

    Parameters
    ----------
    model : FlatModel
        The module. Agents in one process share it, since every call binds a vector to it.
    train, validation, test : Split
        The agent's data, its validation set Q (None for methods that need none), and the examples on which accuracy is
        reported.
    loss : callable
        Mean loss of (outputs, targets); see `outputs.criterion`.
    chunk : int
        Examples of test and validation data that are computed on at once.
    triggered : Split, optional
        Test examples with a backdoor's trigger, labelled with its target.
    metrics : mapping of str to callable, optional
        Numbers of (outputs, targets), both of the whole test set, that `test` adds to loss and accuracy.
    own_utility : callable, optional
        The utility of kind ``"own"``: a number of (outputs, targets), both of Q; more is better.
    trainer, own_test : callable, optional
        How the app itself trains and tests a module, for `trained` and `test`.
    own_optimizer : callable, optional
        Makes the app's own optimizer for local steps.
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
        trainer: Trainer | None = None,
        own_test: Test | None = None,
        own_optimizer: Factory | None = None,
    ) -> None:
        super().__init__(model, loss, chunk)
        self.train_data = train
        self.test_data = test
        self.triggered = triggered
        self.metrics = dict(metrics or {})
        self.own_utility = own_utility
        self.trainer = trainer
        self.own_test = own_test
        self.own_optimizer = own_optimizer
        self._validation = None if validation is None else validation.batch(torch.arange(len(validation)))

    @property
    def size(self) -> int:
        """P, the length of a flat vector."""
        return self.model.size

    @property
    def data(self) -> list[Split | Batch]:
        """All that it has of data."""
        found = (self.train_data, self.test_data, self.triggered, self._validation)
        return [each for each in found if each is not None]

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
        return Drawn(self.train_data, indices)

    def trained(self, vector: Tensor, batches: Sequence[Tensor]) -> Tensor:
        """Return what the app's own training on mini-batches, int64 of shape [B] each, makes of `vector`, shape [P]."""
        if self.trainer is None:
            raise ConfigError("the agent has no training of its own: it follows gradients")
        self.model.bind(vector.clone())
        self._mode(training=True)
        self._forget_gradients()
        try:
            self.trainer(self.model.module, batches)
        finally:
            self.model.settle()
        return self.model.read()

    def loss(self, vector: Tensor, batch: Batch) -> float:
        """Return the mean loss on `batch` at `vector`, without dropout and with the model's own statistics."""
        return self.evaluate(vector, batch)[0]

    def utility(self, vector: Tensor, kind: str, batch: Batch) -> float:
        """Return a number for `vector` on `batch`, examples of the validation set Q.

        It is the accuracy (``"accuracy"``), minus the mean loss (``"loss"``) or the app's function (``"own"``). With
        ``"accuracy-then-loss"``, the likelihood exp(−loss) adds less to the accuracy than one example does, so the loss
        decides between models that are right equally often; where targets are not classes, it decides alone.
        """
        if kind == "own":
            if self.own_utility is None:
                raise ConfigError("utility = 'own' is the app's own function, and it has none: use utility = 'loss'")
            return float(self.own_utility(self.outputs(vector, batch), batch.targets))
        return _utility(kind, *self.evaluate(vector, batch), len(batch))

    def utilities(self, models: Iterable[Tensor], kind: str, batch: Batch) -> list[float]:
        """Return the `utility` of each of the models, of many probes in one computation."""
        whole = len(batch) <= self.chunk and isinstance(batch.inputs, Tensor) and isinstance(batch.targets, Tensor)
        if not (self.stack and isinstance(models, Probes) and whole and models.entries <= MOST) or kind == "own":
            return [self.utility(model, kind, batch) for model in models]
        try:
            return self._utilities(self.stack, models, kind, batch)
        except OverflowError:
            return [self.utility(model, kind, batch) for model in models]

    @torch.inference_mode()
    def _utilities(self, stack: Stack, probes: Probes, kind: str, batch: Batch) -> list[float]:
        found: list[float] = []
        for outputs in stack.probed(probes, batch.inputs):
            lost = losses(outputs, batch.targets.expand(len(outputs), *batch.targets.shape), self.loss_function)
            refuse_nan(lost, batch.inputs, batch.targets)
            right = accuracies(outputs, batch.targets, self.criterion)
            found += [_utility(kind, *pair, len(batch)) for pair in zip(lost.tolist(), right, strict=True)]
        return found

    def test(self, vector: Tensor) -> Performance:
        """Return loss, accuracy and own metrics on the test set, and how often a trigger succeeds if there is one."""
        if self.own_test:
            performance = Performance(self.evaluating(vector, self.own_test))
        else:
            loss, correct = self._test(vector, self.test_data)
            performance = Performance(loss=loss, accuracy=correct)
        if self.triggered is not None:
            performance["attack-success"] = self._test(vector, self.triggered)[1]
        if self.metrics:
            batches = [self.test_data.batch(indices) for indices in self._chunks(self.test_data)]
            outputs = map_tensors(_cat, *(self.outputs(vector, batch) for batch in batches))
            targets = map_tensors(_cat, *(batch.targets for batch in batches))
            performance |= {name: float(metric(outputs, targets)) for name, metric in self.metrics.items()}
        return performance

    def _test(self, vector: Tensor, split: Split) -> tuple[float, float]:
        return mean_of((len(indices), self.evaluate(vector, split.batch(indices))) for indices in self._chunks(split))

    def _chunks(self, split: Split) -> Sequence[Tensor]:
        return torch.split(torch.arange(len(split)), self.chunk)


def _utility(kind: str, loss: float, correct: float, size: int) -> float:
    if isnan(correct) and kind == "accuracy":
        raise ConfigError("utility = 'accuracy' needs targets that are classes, and these are not: use 'loss'")
    if kind == "accuracy-then-loss" and not isnan(correct):
        return correct + exp(-loss) / size
    return correct if kind == "accuracy" else -loss


def _cat(*parts: Tensor) -> Tensor:
    return torch.cat(parts)
