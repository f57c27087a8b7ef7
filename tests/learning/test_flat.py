"""A module as one flat vector: nothing is copied, nothing is lost."""

from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ross_flwr.config import ConfigError
from ross_flwr.learning.flat import FlatModel


def mlp():
    return nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))


def convolution_with_batch_norm():
    norm = nn.BatchNorm2d(4)
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), norm, nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))


class Scaled(nn.Module):
    """A parameter that is not laid out row by row, a scalar, and buffers of three types."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 2)
        self.weight = nn.Parameter(torch.randn(3, 6).t())
        self.gain = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("offset", torch.randn(3).double())
        self.register_buffer("calls", torch.tensor(5))
        self.register_buffer("mask", torch.tensor([True, False, True]))

    def forward(self, inputs):
        return self.inner((inputs.flatten(1) @ self.weight * self.gain + self.offset) * self.mask)


MODULES = {
    "mlp": (mlp, (4, 6)),
    "convolution with batch norm": (convolution_with_batch_norm, (4, 1, 4, 4)),
    "odd layout": (Scaled, (4, 6)),
}
SIZES = {"mlp": 5 * 7 + 3 * 6, "convolution with batch norm": 40 + 8 + 3 * 65 + 8, "odd layout": 8 + 18 + 1 + 3}
modules = pytest.mark.parametrize("name", MODULES)


def made(name, seed=0):
    torch.manual_seed(seed)
    factory, shape = MODULES[name]
    return factory(), torch.randn(shape)


def like(flat, seed):
    """A vector for `flat` that differs from the initial one; variances stay positive."""
    return flat.initial * (1 + 0.3 * torch.rand(flat.size, generator=torch.Generator().manual_seed(seed)))


@modules
@given(seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=10)
def test_flatten_undoes_named(name, seed):
    flat = FlatModel(made(name)[0])
    vector = torch.randn(flat.size, generator=torch.Generator().manual_seed(seed))
    assert torch.equal(flat.flatten(flat.named(vector)), vector)


@modules
def test_named_tensors_are_those_of_the_state_dict(name):
    module, _ = made(name)
    expected = {key: value.float() for key, value in module.state_dict().items() if value.is_floating_point()}
    flat = FlatModel(module)
    named = flat.named(flat.initial)
    assert named.keys() == expected.keys()
    assert all(torch.equal(named[key], value) for key, value in expected.items())
    assert torch.equal(flat.flatten(module.state_dict()), flat.initial)


@modules
def test_named_tensors_are_views_of_the_vector(name):
    flat = FlatModel(made(name)[0])
    vector = flat.initial.clone()
    for tensor in flat.named(vector).values():
        tensor.fill_(3.0)
    assert torch.equal(vector, torch.full((flat.size,), 3.0))


def test_flatten_copies():
    flat = FlatModel(mlp())
    named = flat.named(flat.initial.clone())
    vector = flat.flatten(named)
    named["0.bias"].fill_(9.0)
    assert torch.equal(vector, flat.initial)


@modules
def test_the_vector_holds_parameters_then_float_buffers_and_no_others(name):
    module, _ = made(name)
    parameters = nn.utils.parameters_to_vector(p.reshape(-1) for p in module.parameters())
    buffers = [b.float().reshape(-1) for b in module.buffers() if b.dtype in (torch.float32, torch.float64)]
    flat = FlatModel(module)
    assert flat.size == len(flat.initial) == SIZES[name]
    assert flat.num_parameters == len(parameters)
    assert torch.equal(flat.initial, torch.cat([parameters, *buffers]))
    assert flat.initial.dtype == torch.float32
    assert flat.has_buffers == bool(buffers)
    assert not {"1.num_batches_tracked", "calls", "mask"} & flat.shapes.keys()


class Masked(nn.Module):
    """Buffers that cannot be mixed: a causal mask, and a table that `state_dict` does not hold."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 3)
        self.register_buffer("mask", torch.full((3, 3), -torch.inf).triu(1))
        self.register_buffer("table", torch.ones(3), persistent=False)
        self.register_buffer("mean", torch.zeros(3))

    def forward(self, inputs):
        return (self.inner(inputs * self.table - self.mean) + self.mask).softmax(-1)


def test_buffers_with_infinities_and_those_outside_the_state_dict_stay_in_the_module():
    module = Masked()
    flat = FlatModel(module)
    assert list(flat.shapes) == ["inner.weight", "inner.bias", "mean"]
    assert torch.equal(flat.flatten(module.state_dict()), flat.initial)
    flat.bind(torch.zeros(flat.size))
    torch.testing.assert_close(module(torch.ones(3, 3))[0], torch.tensor([1.0, 0.0, 0.0]))


@modules
def test_a_bound_module_computes_what_a_copy_filled_from_named_computes(name):
    module, inputs = made(name)
    twin = deepcopy(module).float().eval()
    flat = FlatModel(module.eval())
    vector = like(flat, 1)
    flat.bind(vector)
    outcome = twin.load_state_dict(flat.named(vector), strict=False)
    assert not outcome.unexpected_keys
    assert set(outcome.missing_keys) <= {"1.num_batches_tracked", "calls", "mask"}
    assert torch.equal(module(inputs), twin(inputs))
    assert not torch.equal(module(inputs), made(name)[0].float().eval()(inputs))


@modules
def test_a_bound_module_lives_in_the_vectors_memory(name):
    module, inputs = made(name)
    flat = FlatModel(module.eval())
    vector = flat.initial.clone()
    flat.bind(vector)
    for tensor in [*module.parameters(), *(b for b in module.buffers() if b.is_floating_point())]:
        assert vector.data_ptr() <= tensor.data_ptr() < vector.data_ptr() + vector.nbytes
    before = module(inputs)
    vector[: flat.num_parameters] = 0.0
    assert before.abs().max() > 0
    assert torch.equal(module(inputs), torch.zeros_like(before))


@modules
def test_a_vector_may_be_a_row_of_a_matrix(name):
    module, inputs = made(name)
    flat = FlatModel(module.eval())
    matrix = torch.stack([like(flat, seed) for seed in range(3)])
    for row in (1, 2, 0):
        flat.bind(matrix[row])
        assert torch.equal(flat.flatten(module.state_dict()), matrix[row])
        in_the_matrix = module(inputs)
        flat.bind(matrix[row].clone())
        assert torch.equal(module(inputs), in_the_matrix)


def test_the_vector_bound_last_is_the_one_that_counts():
    module, inputs = made("mlp")
    flat = FlatModel(module)
    vectors = [like(flat, seed) for seed in range(2)]
    outputs = []
    for turn in (0, 1, 0, 1):
        flat.bind(vectors[turn])
        outputs.append(module(inputs))
    assert torch.equal(outputs[0], outputs[2])
    assert torch.equal(outputs[1], outputs[3])
    assert not torch.equal(outputs[0], outputs[1])


def test_training_moves_the_buffers_in_the_vector():
    module, inputs = made("convolution with batch norm")
    twin = deepcopy(module).train()
    flat = FlatModel(module.train())
    vector = flat.initial.clone()
    flat.bind(vector)
    module(inputs)
    twin(inputs)
    expected = torch.cat([twin[1].running_mean, twin[1].running_var])
    assert torch.equal(vector[flat.num_parameters :], expected)
    assert torch.equal(vector[: flat.num_parameters], flat.initial[: flat.num_parameters])


@modules
def test_a_refusal_names_the_tensor(name):
    flat = FlatModel(made(name)[0])
    named = flat.named(flat.initial)
    for key, tensor in named.items():
        without = {other: value for other, value in named.items() if other != key}
        with pytest.raises(ConfigError, match=f"tensor '{key}' is missing"):
            flat.flatten(without)
        with pytest.raises(ConfigError, match=f"tensor '{key}' has shape"):
            flat.flatten({**named, key: tensor.new_zeros(*tensor.shape, 2)})


@modules
def test_the_output_layer_is_the_last_weight_and_bias_before_the_buffers(name):
    module, _ = made(name)
    last = [part for part in module.modules() if isinstance(part, nn.Linear)][-1]
    flat = FlatModel(module)
    expected = torch.cat([last.weight.detach().reshape(-1), last.bias.detach()])
    assert torch.equal(flat.initial[flat.output_layer], expected)


@pytest.mark.parametrize(
    "module",
    [
        nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 4, bias=False)),
        nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2)),
        nn.Linear(3, 2, bias=False),
    ],
    ids=str,
)
def test_a_module_that_ends_in_something_else_has_no_output_layer(module):
    with pytest.raises(ConfigError, match="expected those of an output layer"):
        _ = FlatModel(module).output_layer


def test_the_digest_tells_layouts_apart_and_not_values():
    layouts = {
        "a": nn.Sequential(nn.Linear(6, 4)),
        "transposed": nn.Sequential(nn.Linear(4, 6)),
        "no bias": nn.Sequential(nn.Linear(6, 4, bias=False)),
        "another place": nn.Sequential(nn.ReLU(), nn.Linear(6, 4)),
        "a norm without buffers": nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4, track_running_stats=False)),
        "a norm with buffers": nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)),
    }
    digests = [FlatModel(module).digest for module in layouts.values()]
    assert len(set(digests)) == len(layouts)
    assert FlatModel(nn.Sequential(nn.Linear(6, 4))).digest == digests[0]


def test_names_that_peft_has_shortened_are_told():
    model = FlatModel(nn.ModuleDict({"lora": nn.ModuleDict({"default": nn.Linear(2, 1)})}))
    named = {name.replace(".default", ""): part for name, part in model.named(model.initial).items()}
    with pytest.raises(ConfigError, match=r"'lora\.default\.weight'.*PEFT's own functions leave '\.default' out"):
        model.flatten(named)
