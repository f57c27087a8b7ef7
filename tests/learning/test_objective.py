"""Loss, gradient and accuracy of a flat vector, against autograd and numpy on their own."""

import math
from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from quadratics import Table
from torch import nn

from ross_flwr.config import ConfigError
from ross_flwr.learning.classes import by_class, f1_scores
from ross_flwr.learning.flat import FlatModel
from ross_flwr.learning.objective import ModuleObjective
from ross_flwr.learning.probes import after_steps


def mlp():
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))


def convolution_with_batch_norm():
    norm = nn.BatchNorm2d(4)
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), norm, nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))


MODULES = {"mlp": (mlp, (6,)), "convolution with batch norm": (convolution_with_batch_norm, (1, 4, 4))}
modules = pytest.mark.parametrize("name", MODULES)


def examples(shape, count, seed):
    generator = torch.Generator().manual_seed(seed)
    return Table(torch.randn(count, *shape, generator=generator), torch.randint(3, (count,), generator=generator))


def made(name, *, seed=0, chunk=1000):
    """An objective, and a copy of its module that shares nothing with it."""
    torch.manual_seed(seed)
    factory, shape = MODULES[name]
    module = factory()
    splits = [examples(shape, count, seed + count) for count in (40, 15, 23)]
    return ModuleObjective(FlatModel(deepcopy(module)), *splits, chunk=chunk), module


def point(objective, seed):
    generator = torch.Generator().manual_seed(seed)
    return objective.model.initial * (1 + 0.5 * torch.rand(objective.size, generator=generator))


def filled(module, objective, vector):
    copy = deepcopy(module)
    copy.load_state_dict({k: v.clone() for k, v in objective.model.named(vector).items()}, strict=False)
    return copy


def class_gradients(objective, vector):
    return torch.stack([objective.gradient(vector, part, training=False) for part in by_class(objective.validation)])


def buffers_of(module):
    values = [b.reshape(-1) for b in module.buffers() if b.is_floating_point()]
    return torch.cat(values) if values else torch.empty(0)


@modules
@given(seed=st.integers(0, 1000), size=st.integers(2, 40))
@settings(deadline=None, max_examples=10)
def test_the_gradient_is_that_of_autograd_on_a_copy_and_zero_for_buffers(name, seed, size):
    objective, module = made(name)
    vector, batch = point(objective, seed), objective.batch(torch.randperm(40)[:size])
    copy = filled(module, objective, vector).train()
    nn.functional.cross_entropy(copy(batch.inputs), batch.targets).backward()
    expected = torch.cat([p.grad.reshape(-1) for p in copy.parameters()])
    gradient = objective.gradient(vector, batch)
    assert gradient.shape == vector.shape
    torch.testing.assert_close(gradient[: len(expected)], expected, atol=1e-6, rtol=1e-5)
    assert expected.abs().max() > 1e-4
    assert torch.equal(gradient[len(expected) :], torch.zeros(len(buffers_of(module))))


@modules
def test_asking_leaves_the_vector_as_it_was(name):
    objective, _ = made(name)
    vector = point(objective, 0)
    before = vector.clone()
    objective.gradient(vector, objective.batch(torch.arange(8)))
    objective.utility(vector, "loss", objective.validation)
    objective.test(vector)
    assert torch.equal(vector, before)


@modules
def test_the_answers_do_not_depend_on_what_was_asked_before(name):
    def ask(objective, vector):
        gradient = objective.gradient(vector, objective.batch(torch.arange(8)))
        return [
            *gradient.tolist(),
            objective.utility(vector, "loss", objective.validation),
            objective.test(vector)["loss"],
        ]

    objective, _ = made(name)
    vector, other = point(objective, 0), point(objective, 1)
    beside = ModuleObjective(objective.model, *[examples(MODULES[name][1], 9, seed) for seed in range(3)])
    first = ask(objective, vector)
    ask(objective, other)
    ask(beside, other)
    objective.test(other)
    assert ask(objective, vector) == first
    assert ask(made(name)[0], vector) == first
    assert ask(objective, other) != first


def test_the_buffer_shift_is_what_batch_norm_itself_did():
    objective, module = made("convolution with batch norm")
    for seed in range(3):
        vector, batch = point(objective, seed), objective.batch(torch.randperm(40)[:8])
        copy = filled(module, objective, vector).train()
        before = buffers_of(copy).clone()
        copy(batch.inputs)
        objective.gradient(vector, batch)
        assert torch.equal(objective.buffer_shift(), buffers_of(copy) - before)
        assert objective.buffer_shift().abs().min() > 0


class Centred(nn.Module):
    """A running mean that `forward` assigns anew, even in evaluation."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(6, 3)
        self.register_buffer("mean", torch.zeros(6))

    def forward(self, inputs):
        self.mean = 0.5 * self.mean + 0.5 * inputs.mean(0)
        return self.inner(inputs - self.mean)


def test_a_buffer_that_forward_assigns_anew_moves_with_the_agents_vector_and_is_shared_with_nobody():
    module = Centred()
    objective = ModuleObjective(FlatModel(module), *[examples((6,), 12, seed) for seed in range(3)])
    vector, batch = torch.ones(objective.size), objective.batch(torch.arange(8))
    for _ in range(2):
        objective.gradient(vector, batch)
        torch.testing.assert_close(objective.buffer_shift(), 0.5 * batch.inputs.mean(0) - 0.5)
        assert objective.loss(vector, batch) == objective.loss(vector, batch)
        objective.gradient(vector, batch, training=False)
    assert torch.equal(vector, torch.ones(objective.size))
    with_zeros = torch.cat([vector[:-6], torch.zeros(6)])
    torch.testing.assert_close(objective.outputs(with_zeros, batch), objective.outputs(with_zeros.clone(), batch))
    objective.gradient(with_zeros, batch)
    torch.testing.assert_close(objective.buffer_shift(), 0.5 * batch.inputs.mean(0))


def test_without_buffers_there_is_no_shift():
    objective, _ = made("mlp")
    objective.gradient(point(objective, 0), objective.batch(torch.arange(8)))
    assert objective.buffer_shift() is None


def numpy_performance(logits, targets):
    logits = logits.detach().double().numpy()
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    loss = -np.log([row[target] for row, target in zip(chances, targets.tolist(), strict=True)]).mean()
    return loss, np.mean([row.argmax() == target for row, target in zip(chances, targets.tolist(), strict=True)])


@modules
def test_loss_and_accuracy_are_those_of_the_module_in_evaluation(name):
    objective, module = made(name)
    vector = point(objective, 5)
    copy = filled(module, objective, vector).eval()
    test, validation = (examples(MODULES[name][1], count, count) for count in (23, 15))
    loss, accuracy = numpy_performance(copy(test.inputs), test.targets)
    assert objective.test(vector) == pytest.approx({"loss": loss, "accuracy": accuracy}, abs=1e-6)
    loss, accuracy = numpy_performance(copy(validation.inputs), validation.targets)
    assert objective.utility(vector, "loss", objective.validation) == pytest.approx(-loss, abs=1e-6)
    assert objective.utility(vector, "accuracy", objective.validation) == pytest.approx(accuracy, abs=1e-6)
    assert objective.num_examples == 40


@modules
@pytest.mark.parametrize("lacking", [None, 1])
def test_f1_is_that_of_precision_and_recall_class_by_class_on_the_validation_set(name, lacking):
    objective, module = made(name)
    validation = objective.validation
    if lacking is not None:
        validation.targets[validation.targets == lacking] = 0
    seen = set()
    for seed in range(5):
        vector = point(objective, seed)
        with torch.no_grad():
            predicted = filled(module, objective, vector).eval()(validation.inputs).argmax(1)
        for c, f1 in enumerate(f1_scores(objective.outputs(vector, validation), validation.targets).tolist()):
            right = int(((predicted == c) & (validation.targets == c)).sum())
            answered, there = int((predicted == c).sum()), int((validation.targets == c).sum())
            if not there:
                assert c == lacking
                assert math.isnan(f1)
                continue
            precision, recall = right / max(1, answered), right / there
            expected = 2 * precision * recall / (precision + recall) if right else 0.0
            assert f1 == pytest.approx(expected, abs=1e-6)
            seen.add(f1)
    assert len(seen) > 3


@modules
@pytest.mark.parametrize("chunk", [1, 5, 22, 23])
def test_a_test_in_chunks_is_the_test_in_one_pass(name, chunk):
    whole, _ = made(name)
    vector = point(whole, 2)
    in_chunks = made(name, chunk=chunk)[0].test(vector)
    assert in_chunks == pytest.approx(whole.test(vector), abs=1e-6)


@modules
def test_the_gradient_of_each_class_of_the_validation_set_is_that_of_its_examples_in_evaluation(name):
    objective, module = made(name)
    vector = point(objective, 1)
    copy = filled(module, objective, vector).eval()
    inputs, targets = objective.validation.inputs, objective.validation.targets
    rows = []
    for each in sorted(set(targets.tolist())):
        loss = nn.functional.cross_entropy(copy(inputs[targets == each]), targets[targets == each])
        parts = torch.autograd.grad(loss, list(copy.parameters()))
        rows.append(torch.cat([*(part.reshape(-1) for part in parts), torch.zeros_like(buffers_of(copy))]))
    torch.testing.assert_close(class_gradients(objective, vector), torch.stack(rows), atol=1e-6, rtol=1e-5)


def test_targets_that_are_not_classes_count_as_of_one_class():
    torch.manual_seed(0)
    rows = Table(torch.randn(8, 6), torch.randn(8, 3))
    objective = ModuleObjective(FlatModel(mlp()), rows, rows, rows, loss=nn.functional.mse_loss)
    vector = point(objective, 1)
    expected = objective.gradient(vector, objective.batch(torch.arange(8)))
    torch.testing.assert_close(class_gradients(objective, vector), expected[None])


def test_any_mean_loss_will_do():
    inputs, targets = torch.randn(12, 4), torch.randn(12, 3)
    table = Table(inputs, targets)
    objective = ModuleObjective(FlatModel(nn.Linear(4, 3)), table, table, table, nn.functional.mse_loss, chunk=5)
    vector = objective.model.initial
    weight, bias = (tensor.double() for tensor in objective.model.named(vector).values())
    error = inputs.double() @ weight.T + bias - targets
    expected = torch.cat([(error.T @ inputs.double()).reshape(-1), error.sum(0)]) * 2 / error.numel()
    gradient = objective.gradient(vector, objective.batch(torch.arange(12)))
    torch.testing.assert_close(gradient.double(), expected, atol=1e-6, rtol=1e-5)
    loss = float(error.square().mean())
    performance = objective.test(vector)
    assert performance["loss"] == pytest.approx(loss, abs=1e-6)
    assert math.isnan(performance["accuracy"])  # no classes, no accuracy
    assert objective.utility(vector, "loss", objective.validation) == pytest.approx(-loss, abs=1e-6)


def largest_error(outputs, targets):
    return (outputs - targets).abs().max()


def test_own_metrics_see_the_whole_test_set_and_the_own_utility_the_validation_set():
    torch.manual_seed(0)
    module = nn.Linear(3, 1)
    splits = [Table(torch.randn(count, 3), torch.randn(count, 1)) for count in (10, 15, 23)]
    metrics = {"largest-error": largest_error}
    objective = ModuleObjective(
        FlatModel(module), *splits, nn.MSELoss(), chunk=4, metrics=metrics, own_utility=largest_error
    )
    vector = point(objective, 1)
    copy = filled(module, objective, vector)
    validation, test = (largest_error(copy(split.inputs), split.targets) for split in splits[1:])
    assert objective.test(vector)["largest-error"] == pytest.approx(float(test))
    assert objective.utility(vector, "own", objective.validation) == pytest.approx(float(validation))


def on_logits(outputs, targets):
    return nn.functional.binary_cross_entropy_with_logits(outputs[:, 0], targets.float())


def on_probabilities(outputs, targets):
    return nn.functional.binary_cross_entropy(outputs[:, 0], targets.float())


@pytest.mark.parametrize(
    ("loss", "last"), [(on_logits, nn.Identity()), (on_probabilities, nn.Sigmoid())], ids=["logits", "probabilities"]
)
def test_one_output_is_a_choice_between_two_classes(loss, last):
    module = nn.Sequential(nn.Linear(1, 1), last)
    split = Table(torch.tensor([[-2.0], [-1.0], [0.2], [3.0]]), torch.tensor([0, 1, 1, 1]))
    objective = ModuleObjective(FlatModel(module), split, split, split, loss)
    assert objective.test(torch.tensor([1.0, 0.0]))["accuracy"] == 0.75
    counts = Table(split.inputs, torch.tensor([0, 1, 2, 3]))
    squares = ModuleObjective(FlatModel(module), counts, counts, counts, lambda o, t: (o[:, 0] - t).square().mean())
    assert math.isnan(squares.test(torch.tensor([1.0, 0.0]))["accuracy"])


def test_examples_that_make_the_loss_nan_are_refused():
    split = examples((6,), 12, 0)
    split.inputs[3, 2] = math.nan
    objective = ModuleObjective(FlatModel(mlp()), split, split, split)
    for ask in (objective.gradient, objective.loss):
        with pytest.raises(ConfigError, match="the agent's data holds NaN"):
            ask(objective.model.initial, split.batch(torch.arange(4)))
        ask(objective.model.initial, split.batch(torch.arange(3)))
    assert math.isnan(objective.loss(torch.full((objective.size,), math.nan), split.batch(torch.arange(3))))


@pytest.mark.parametrize(
    ("loss", "found"),
    [(nn.CrossEntropyLoss(reduction="none"), r"a tensor of shape \(4,\)"), (lambda outputs, targets: 1.0, "a float")],
)
def test_a_loss_that_is_not_one_number_is_refused(loss, found):
    split = examples((6,), 12, 0)
    objective = ModuleObjective(FlatModel(mlp()), split, split, split, loss=loss)
    for ask in (objective.gradient, objective.loss):
        with pytest.raises(ConfigError, match=f"the loss returned {found}: expected a tensor of one number, the mean"):
            ask(objective.model.initial, split.batch(torch.arange(4)))


def test_targets_that_are_not_a_class_for_each_row_of_outputs_have_no_accuracy():
    split = Table(torch.randn(6, 4), torch.randint(3, (6, 4)))  # an output for each class and place, classes first
    module = nn.Sequential(nn.Linear(4, 12), nn.Unflatten(1, (3, 4)))
    performance = ModuleObjective(FlatModel(module), split, split, split).test(FlatModel(module).initial)
    assert math.isfinite(performance["loss"])
    assert math.isnan(performance["accuracy"])


def test_a_parameter_that_the_loss_does_not_depend_on_has_no_gradient_and_a_frozen_one_is_not_asked_for():
    module = mlp()
    module[0].weight.requires_grad_(False)
    module.register_parameter("unused", nn.Parameter(torch.ones(2)))
    objective = ModuleObjective(FlatModel(module), *[examples((6,), 12, seed) for seed in range(3)])
    vector = objective.model.initial
    gradient = objective.model.named(objective.gradient(vector, objective.batch(torch.arange(12))))
    assert [name for name, part in gradient.items() if not part.any()] == ["unused"]
    assert list(gradient) == ["unused", "0.bias", "2.weight", "2.bias"]
    assert objective.size == 2 + 5 + 3 * 5 + 3


def test_where_targets_are_no_classes_the_loss_alone_is_the_utility():
    rows = Table(torch.randn(8, 6), torch.randn(8, 3))
    objective = ModuleObjective(FlatModel(mlp()), rows, rows, rows, loss=nn.functional.mse_loss)
    vector, validation = point(objective, 1), objective.validation
    assert objective.utility(vector, "accuracy-then-loss", validation) == -objective.loss(vector, validation)
    with pytest.raises(ConfigError, match="utility = 'accuracy' needs targets that are classes"):
        objective.utility(vector, "accuracy", validation)


@modules
def test_a_part_of_a_gradient_is_that_of_the_whole_and_no_other_is_computed(name):
    objective, _ = made(name)
    vector, batch = point(objective, 1), objective.batch(torch.arange(8))
    whole, shift = objective.gradient(vector, batch), objective.buffer_shift()
    parameters, size, learning = objective.model.parameters, objective.model.num_parameters, []
    loss = objective.criterion
    objective.criterion = lambda *pair: (learning.append([p.requires_grad for p in parameters]), loss(*pair))[1]
    for part in (slice(0, 3), slice(7, size - 1), slice(size - 2, size), slice(0, size)):
        torch.testing.assert_close(objective.gradient(vector, batch, part=part), whole[part])
        assert shift is None or torch.equal(objective.buffer_shift(), shift)
        assert all(p.requires_grad and p.grad is None for p in parameters)
    first, last = [True] + [False] * (len(parameters) - 1), [False] * (len(parameters) - 1) + [True]
    assert (learning[0], learning[2], learning[3]) == (first, last, [True] * len(parameters))


CONVOLUTIONS = [nn.Conv2d(1, 4, 2), nn.MaxPool2d((1, 2)), nn.Conv2d(4, 2, 1), nn.Flatten(), nn.Linear(2, 3)]
CHAINS = {
    "linear": ([nn.Linear(6, 3)], (6,)),
    "mlp": ([nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3, bias=False)], (6,)),
    "cnn": (CONVOLUTIONS, (1, 2, 3)),
}


@pytest.mark.parametrize("name", CHAINS)
@pytest.mark.parametrize("size", [8, 30])
def test_utilities_of_a_game_are_those_of_its_models_one_by_one(name, size):
    layers, shape = CHAINS[name]
    model, data, draw = FlatModel(nn.Sequential(*layers)), examples(shape, size, 0), torch.Generator().manual_seed(0)
    objective = ModuleObjective(model, data, data, data)
    assert objective.stack
    gradients = list(torch.randn(3, model.size, generator=draw))
    huge = 1e38 * gradients[0]  # overflows, and does not spoil coalitions without it
    for players in (gradients, [*gradients, huge]):
        coalitions = [tuple(j for j in range(len(players)) if mask >> j & 1) for mask in range(1 << len(players))]
        probes = after_steps(model.initial, players, 1.0, coalitions)
        for kind in ("loss", "accuracy", "accuracy-then-loss"):
            alone = [objective.utility(probe, kind, objective.validation) for probe in probes]
            assert objective.utilities(probes, kind, objective.validation) == pytest.approx(
                alone, abs=1e-5, nan_ok=True
            )
