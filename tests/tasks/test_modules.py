"""Modules as people write them: what of their state travels, and which can be trained."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from ross_flwr.config import ConfigError
from ross_flwr.tasks.own import Own

DATA = TensorDataset(torch.randn(12, 3, generator=torch.Generator().manual_seed(0)), torch.arange(12) % 2)


def own(module, data=DATA):
    return Own(module, lambda agent: data, lambda agent: data, batch_size=6)


def begun(module, data=DATA):
    """Return a task, the objective of an agent, and a batch."""
    task = own(module, data)
    objective = task.objective(0)
    return task, objective, objective.batch(torch.arange(6))


class Masked(nn.Module):
    """A mask and a table that stay; a mean that is assigned anew, a count that grows, and statistics."""

    def __init__(self, since=0):
        super().__init__()
        self.layer, self.norm = nn.Linear(3, 2), nn.BatchNorm1d(3)
        for name, value in {"mask": -1e9, "mean": 0.0, "count": 0.0, "table": 2.0, "late": 1.0}.items():
            self.register_buffer(name, torch.full((3,), value))
        self.since, self.passes = since, 0

    def forward(self, inputs):
        if self.training:
            self.mean = 0.5 * self.mean + inputs.detach().mean(0)
            self.count += 1
            self.passes += 1
            if self.since and self.passes > self.since:
                self.late *= 2
        return self.layer(self.norm(inputs) * self.table - self.mean + 0 * self.mask + 0 * self.late)


def test_buffers_that_a_forward_pass_leaves_as_they_are_do_not_travel():
    task, objective, batch = begun(Masked())
    assert task.model.buffers == {"mean", "count", "norm.running_mean", "norm.running_var"}
    vector = 1000 * torch.ones(task.model.size)
    objective.gradient(vector, batch)
    objective.test(vector)
    assert task.model.module.mask.tolist() == 3 * [-1e9]
    saved = task.model.named(vector, frozen=True)
    assert saved.keys() == Masked().state_dict().keys() - {"norm.num_batches_tracked"}
    assert (saved["mask"].tolist(), saved["table"].tolist()) == (3 * [-1e9], 3 * [2.0])


def test_they_have_the_values_of_the_initial_model():
    module = Masked()
    pretrained = copy.deepcopy(module)
    pretrained.table.fill_(5.0)
    (task, objective, batch), (_, expected, _) = begun(module), begun(pretrained)
    vector = task.model.initial
    assert objective.loss(vector, batch) != expected.loss(vector, batch)
    taken = task.model.freeze({"table": torch.full((3,), 5.0), "mask": torch.full((3,), -1e9)})
    assert list(taken) == ["table"]
    assert objective.loss(vector, batch) == expected.loss(vector, batch)


def test_finding_them_leaves_the_module_as_it_is():
    module = Masked()
    state = copy.deepcopy(module.state_dict())
    begun(module)
    assert module.passes == 0
    assert all(torch.equal(module.state_dict()[name], tensor) for name, tensor in state.items())


def test_a_buffer_that_changes_in_a_later_pass_only_is_refused():
    task, objective, batch = begun(Masked(since=1))
    objective.gradient(task.model.initial, batch)
    with pytest.raises(ConfigError, match="buffer 'late' changed in a forward pass, and in the first one it did not"):
        objective.gradient(task.model.initial, batch)


def test_a_module_that_cannot_be_tried_keeps_all_its_buffers():
    class Once(Masked):
        def __deepcopy__(self, memo):
            raise RuntimeError("only once")

    assert begun(Once())[0].model.buffers > {"mask", "table", "mean"}


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*is deprecated:DeprecationWarning")
def test_torchscript_learns_as_the_module_that_it_was_made_from():
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    (task, plain, batch), (_, script, _) = begun(module), begun(torch.jit.script(copy.deepcopy(module)))
    generator = torch.Generator().manual_seed(0)
    for _ in range(3):
        vector = task.model.initial + 0.1 * torch.rand(task.model.size, generator=generator)
        torch.testing.assert_close(script.gradient(vector, batch), plain.gradient(vector, batch))
        torch.testing.assert_close(script.buffer_shift(), plain.buffer_shift())
        assert script.test(vector) == pytest.approx(plain.test(vector))


class Words(nn.Module):
    def __init__(self, sparse):
        super().__init__()
        torch.manual_seed(0)
        self.table, self.layer = nn.Embedding(5, 4, sparse=sparse), nn.Linear(4, 2)

    def forward(self, words):
        return self.layer(self.table(words).sum(1))


def test_sparse_embeddings_have_the_gradient_of_dense_ones():
    words = TensorDataset(torch.arange(36).view(12, 3) % 5, torch.arange(12) % 2)
    (task, sparse, batch), (_, dense, _) = (begun(Words(kind), words) for kind in (True, False))
    torch.testing.assert_close(*(each.gradient(task.model.initial, batch) for each in (sparse, dense)))


class Scaled(nn.Module):
    def __init__(self, **parameters):
        super().__init__()
        self.layer = nn.Linear(3, 2)
        for name, (value, trained) in parameters.items():
            self.register_parameter(name, nn.Parameter(value, requires_grad=trained))

    def forward(self, inputs):
        return self.layer(inputs) * self.by.real


def test_whole_numbers_as_parameters_stay_and_complex_ones_are_refused_if_they_are_trained():
    whole, complex_ = torch.tensor([1, 2]), torch.tensor([1j, 2j])
    for value in (whole, complex_):
        task, objective, batch = begun(Scaled(by=(value, False)))
        assert task.model.size == 8
        assert objective.gradient(task.model.initial, batch).isfinite().all()
        assert task.model.module.by.dtype == value.dtype
    with pytest.raises(ConfigError, match=r"parameter 'by' holds complex numbers, .* one real tensor"):
        begun(Scaled(by=(complex_, True)))


class Slope(nn.Module):
    """Gives its outputs and their slope, which takes a gradient."""

    def __init__(self, enables):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.enables = nn.Linear(3, 2), enables

    def forward(self, inputs):
        with torch.set_grad_enabled(self.enables or torch.is_grad_enabled()):
            inputs = inputs.detach().clone().requires_grad_()
            outputs = self.layer(inputs).tanh()
            (slope,) = torch.autograd.grad(outputs.sum(), inputs, create_graph=True)
            return outputs + slope.sum(1, keepdim=True)


@pytest.mark.parametrize("enables", [True, False])
def test_a_forward_pass_may_take_gradients(enables):
    task, objective, batch = begun(Slope(enables))
    vector = task.model.initial
    expected = Slope(enables)(DATA.tensors[0])
    tested = objective.test(vector)
    assert tested["loss"] == pytest.approx(float(nn.functional.cross_entropy(expected.detach(), DATA.tensors[1])))
    assert objective.gradient(vector, batch).norm() > 0
    assert not objective.outputs(vector, batch).requires_grad
