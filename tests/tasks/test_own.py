"""Apps' own modules, data, losses, training and tests, in the shapes in which apps have them."""

import math
from collections import OrderedDict
from functools import partial

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from ross_flwr import DPSGD, ROSS, ConfigError, graph, simulate
from ross_flwr.algorithms.local_dsgd import LocalDSGD
from ross_flwr.learning.batches import Batches
from ross_flwr.learning.flat import FlatModel
from ross_flwr.tasks.own import Own


def points(count=40, seed=0):
    """Two classes of points, apart along the first axis."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 2
    return torch.randn(count, 3, generator=generator) + 3 * labels[:, None], labels


class Rows(torch.utils.data.Dataset):
    """Examples in dictionaries, beside columns that are no tensors."""

    def __init__(self, names=("img", "label"), count=40):
        self.names, (self.inputs, self.labels) = names, points(count)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        name, label = self.names
        row = {name: self.inputs[index], label: int(self.labels[index]), "file": f"{index}.png"}
        return row | ({"attention_mask": torch.ones(3)} if name == "input_ids" else {})


class Outputs(OrderedDict):
    """What Hugging Face's models return: a dictionary whose entries are attributes too."""

    def __getattr__(self, name):
        return self.get(name)


class Masked(nn.Module):
    """A model that takes its inputs by keyword and returns such outputs, with what has no batch dimension in them."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)

    def forward(self, input_ids, attention_mask=None, labels=None):
        logits = self.head(input_ids * attention_mask)
        outputs = Outputs(logits=logits, past=(torch.zeros(1),))
        if labels is not None:
            outputs["loss"] = nn.functional.cross_entropy(logits, labels)
        return outputs


class Twice(nn.Sequential):
    """A model that returns a tuple: logits, and what an auxiliary head says."""

    def forward(self, inputs):
        logits = super().forward(inputs)
        return logits, 2 * logits


def own(data, module=None, **options):
    torch.manual_seed(0)
    return Own(module or nn.Linear(3, 2), lambda agent: data, lambda agent: data, **options)


def loss_by_hand(task, vector):
    weight, bias = task.model.named(vector).values()
    inputs, labels = points()
    logits = inputs @ weight.T + bias
    right = (logits.argmax(1) == labels).float().mean()
    return float(nn.functional.cross_entropy(logits, labels)), float(right)


@pytest.mark.parametrize("names", [("img", "label"), ("features", "labels"), ("x", "y"), ("image", "fine_label")])
def test_dictionaries_with_one_label_are_pairs(names):
    task = own(DataLoader(Rows(names), batch_size=8))
    loss, accuracy = loss_by_hand(task, task.model.initial)
    assert task.objective(0).test(task.model.initial) == pytest.approx({"loss": loss, "accuracy": accuracy})


def with_labels(batch):
    inputs = {name: entry for name, entry in batch.items() if isinstance(entry, torch.Tensor)}
    return inputs, batch["labels"]


@pytest.mark.parametrize(
    ("module", "options"),
    [
        (Masked, {}),
        (Masked, {"loss": nn.CrossEntropyLoss()}),
        (
            Masked,
            {"loss": lambda outputs, labels: outputs.loss, "pair": with_labels},
        ),
    ],
    ids=["default", "module", "the model's own"],
)
def test_inputs_in_a_dictionary_go_in_by_keyword_and_logits_are_taken_out(module, options):
    metrics = {"classes": lambda outputs, labels: outputs.shape[-1]}
    task = own(Rows(("input_ids", "labels")), module(), batch_size=7, metrics=metrics, **options)
    loss, accuracy = loss_by_hand(task, task.model.initial)
    expected = {"loss": loss, "accuracy": accuracy, "classes": 2}
    assert task.objective(0).test(task.model.initial) == pytest.approx(expected)


@pytest.mark.parametrize(
    "loss", [nn.CrossEntropyLoss(), lambda outputs, labels: nn.functional.cross_entropy(outputs[0], labels)]
)
def test_outputs_may_be_a_tuple(loss):
    task = own(TensorDataset(*points()), Twice(nn.Linear(3, 2)), loss=loss)
    expected = loss_by_hand(task, task.model.initial)
    tested = task.objective(0).test(task.model.initial)
    assert (tested["loss"], tested["accuracy"]) == pytest.approx(expected)


def test_a_loss_may_see_the_model():
    def with_decay(outputs, labels, model):
        return nn.functional.cross_entropy(outputs, labels) + 0.1 * model.weight.square().sum()

    task = own(TensorDataset(*points()), loss=with_decay)
    plain = own(TensorDataset(*points()))
    vector, batch = task.model.initial, task.objective(0).batch(torch.arange(8))
    difference = task.objective(0).gradient(vector, batch) - plain.objective(0).gradient(vector, batch)
    torch.testing.assert_close(difference, torch.cat([0.2 * vector[:6], torch.zeros(2)]))


def test_without_validation_data_a_fifth_at_most_is_held_out_alike_on_every_node_and_not_trained_on():
    examples = TensorDataset(torch.arange(40.0)[:, None].expand(40, 3), torch.arange(40) % 2)

    def held(**options):
        objective = own(examples, **options).objective(1)
        return [
            sorted(batch.inputs[:, 0].tolist())
            for batch in (objective.validation, objective.batch(torch.arange(objective.num_examples)))
        ]

    validation, training = held(hold_out=100, seed=3)
    assert (len(validation), len(training)) == (8, 32)
    assert sorted(validation + training) == list(range(40))
    assert held(hold_out=100, seed=3) == [validation, training]
    assert held(hold_out=100, seed=4)[0] != validation
    assert len(held(hold_out=3)[0]) == 3


def test_an_example_that_a_sampler_draws_again_is_in_q_i_once_or_trained_on_and_not_both():
    examples = TensorDataset(torch.arange(40.0)[:, None].expand(40, 3), torch.arange(40) % 2)
    torch.manual_seed(0)
    drawn = DataLoader(examples, batch_size=8, sampler=RandomSampler(examples, replacement=True, num_samples=80))
    objective = own(drawn, hold_out=100).objective(0)
    held = objective.validation.inputs[:, 0].tolist()
    trained = objective.batch(torch.arange(objective.num_examples)).inputs[:, 0].tolist()
    assert len({*held}) == len(held) > 4
    assert len({*trained}) < len(trained)
    assert not {*held} & {*trained}


class Sized(nn.Linear):
    """A module that notes how many examples it gets at once."""

    def forward(self, inputs):
        self.most = max(getattr(self, "most", 0), len(inputs))
        return super().forward(inputs)


@pytest.mark.parametrize("size", [None, 16])
def test_no_more_examples_are_computed_on_at_once_than_are_in_the_apps_own_batches(size):
    data = TensorDataset(*points())
    tested = DataLoader(data, batch_size=size) if size else data
    module = Sized(3, 2)
    task = Own(module, lambda agent: data, lambda agent: tested, lambda agent: data, batch_size=4)
    objective, vector = task.objective(0), task.model.initial
    whole = own(data, batch_size=40, hold_out=0).objective(0)
    tests = objective.test(vector)
    assert tests == pytest.approx(whole.test(vector))
    assert objective.utility(vector, "loss", objective.validation) == pytest.approx(-tests["loss"])
    gradient = objective.gradient(vector, objective.validation, training=False)
    torch.testing.assert_close(gradient, whole.gradient(vector, whole.batch(torch.arange(40)), training=False))
    assert module.most == (size or 4)


def by_hand(vector, batches, make, state=None):
    """Train a linear module as an app does, and return its parameters; `state` goes on from call to call."""
    module = nn.Linear(3, 2)
    nn.utils.vector_to_parameters(vector.clone(), module.parameters())
    optimizer = make(module.parameters())
    if state:
        optimizer.load_state_dict(state)
    inputs, labels = points()
    for indices in batches:
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(inputs[indices]), labels[indices]).backward()
        optimizer.step()
    if state is not None:
        state.update(optimizer.state_dict())
    return nn.utils.parameters_to_vector(module.parameters()).detach()


def loop(module, loader):
    """The loop of an app; it also counts on what a DataLoader has beside its batches."""
    assert (len(loader), len(loader.dataset)) == (5, 40)
    optimizer = torch.optim.AdamW(module.parameters(), lr=0.05)
    module.train()
    for batch in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(batch["img"]), batch["label"]).backward()
        optimizer.step()


ADAMW = partial(torch.optim.AdamW, lr=0.05)


@pytest.mark.parametrize("training", [{"optimizer": ADAMW}, {"train": loop}], ids=["optimizer", "train"])
@pytest.mark.parametrize("method", [LocalDSGD(local_steps=5), DPSGD(local_steps=5)], ids=lambda method: method.name)
def test_the_apps_own_training_is_the_step_of_a_method_with_local_steps(method, training):
    task = own(DataLoader(Rows(), batch_size=6), **training)
    result = simulate(method, graph.complete(3), task, rounds=2)
    agents = list(range(3))
    models = dict.fromkeys(agents, task.model.initial)
    states = {agent: {} if "optimizer" in training else None for agent in agents}
    for number in range(2):
        order = {agent: batches_of(agent, number) for agent in agents}
        trained = {agent: by_hand(models[agent], order[agent], ADAMW, states[agent]) for agent in agents}
        mean, before = (torch.stack([each[agent] for agent in agents]).mean(0) for each in (trained, models))
        models = {
            agent: mean if method.name == "local-dsgd" else before + trained[agent] - models[agent] for agent in agents
        }
    for agent in agents:
        torch.testing.assert_close(result.models[agent], models[agent], atol=1e-5, rtol=1e-4)
    assert [line["gradients"] for line in result.history] == [15, 15]
    assert result.history[-1]["work"] == 3 * 5 * 6


def batches_of(agent, number):

    examples = own(Rows()).objective(0)
    batches = Batches(examples, agent, 0, 6)
    return [batches.indices(5 * number + s) for s in range(5)]


def test_the_apps_own_test_is_the_test():
    def test(module, loader):
        assert not module.training
        assert [len(batch["label"]) for batch in loader] == [16, 16, 8]
        return 0.25, 0.75

    task = own(DataLoader(Rows(), batch_size=16), test=test)
    assert task.objective(0).test(task.model.initial) == {"loss": 0.25, "accuracy": 0.75}
    several = own(Rows(), test=lambda module, loader: {"loss": 0.5, "f1": torch.tensor(0.25)})
    tested = several.objective(0).test(several.model.initial)
    assert math.isnan(tested.pop("accuracy"))
    assert tested == {"loss": 0.5, "f1": 0.25}


@pytest.mark.parametrize(
    ("returned", "sentence"),
    [
        ((0.3, 87.5), "own test returns accuracy = 87.5: expected a share from 0 to 1, and the loss before it"),
        ({"eval_loss": 0.3, "accuracy": 0.9}, "'accuracy': 0.9}: expected .loss, accuracy., or a mapping with 'loss'"),
        (0.3, "the app's own test returns 0.3: expected .loss, accuracy., or a mapping with 'loss'"),
    ],
)
def test_what_an_own_test_returns_otherwise_is_told_in_a_sentence(returned, sentence):
    task = own(Rows(), test=lambda module, loader: returned)
    with pytest.raises(ConfigError, match=sentence):
        task.objective(0).test(task.model.initial)


def test_nan_in_the_data_is_told_before_the_apps_optimizer_spreads_it():
    inputs, labels = points()
    inputs[3, 1] = math.nan
    with pytest.raises(ConfigError, match="the agent's data holds NaN"):
        simulate(DPSGD(), graph.ring(3), own(TensorDataset(inputs, labels), optimizer=ADAMW), rounds=2)


def test_gradients_of_before_are_no_part_of_the_apps_own_training():
    def train(module, loader):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        for batch in loader:
            nn.functional.cross_entropy(module(batch["img"]), batch["label"]).backward()
            optimizer.step()
            optimizer.zero_grad()

    objective = own(Rows(), train=train).objective(0)
    model, batches = objective.model.initial, [torch.arange(6), torch.arange(6, 12)]
    alone = objective.trained(model, batches)
    objective.gradient(model, objective.batch(torch.arange(12, 40)), training=False)
    assert torch.equal(objective.trained(model, batches), alone)


def with_a_frozen_base():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 100), nn.Tanh(), nn.Linear(100, 2))
    return module.requires_grad_(False), module[2].requires_grad_(True)


def test_frozen_parameters_are_no_part_of_the_vector_and_equal_ones_share_memory():
    (module, head), (other, _) = with_a_frozen_base(), with_a_frozen_base()
    flat, again = FlatModel(module), FlatModel(other)
    assert flat.size == sum(parameter.numel() for parameter in head.parameters())
    assert module[0].weight.data_ptr() == other[0].weight.data_ptr()
    assert module[2].weight.data_ptr() != other[2].weight.data_ptr()
    assert list(flat.named(flat.initial)) == ["2.weight", "2.bias"]
    assert flat.named(flat.initial, frozen=True).keys() == module.state_dict().keys()
    again.freeze({"0.bias": torch.ones(100)})
    assert torch.equal(other[0].bias, torch.ones(100))
    assert not torch.equal(module[0].bias, torch.ones(100))
    assert list(again.freeze(other.state_dict())) == ["0.bias"], "each node of a process needs what was not there"
    with torch.no_grad():
        module[0].weight.zero_()
    (late, _), (same, _) = with_a_frozen_base(), with_a_frozen_base()
    FlatModel(late)
    assert torch.equal(late[0].weight, same[0].weight), "whoever writes into a module writes into no later one"


def test_a_model_whose_parameters_are_all_frozen_is_refused():
    with pytest.raises(ValueError, match="all parameters of the model are frozen: agents have nothing to learn"):
        FlatModel(nn.Linear(3, 2).requires_grad_(False))


def test_the_result_of_a_simulation_holds_frozen_parameters_too():
    module, _ = with_a_frozen_base()
    base = module[0].weight.clone()
    result = simulate(DPSGD(), graph.ring(3), own(TensorDataset(*points()), module), rounds=2)
    fresh = nn.Sequential(nn.Linear(3, 100), nn.Tanh(), nn.Linear(100, 2))
    fresh.load_state_dict(result.state_dict())
    assert torch.equal(fresh[0].weight, base)


def test_a_cross_gradient_is_what_the_apps_own_training_makes_of_a_neighbours_model():
    """With equal weights and no momentum, ROSS steps to the mean of the models that all train from one's own."""
    task = own(DataLoader(Rows(), batch_size=6), optimizer=ADAMW, hold_out=5)
    method = ROSS(local_steps=5, momentum=0.0, weighting="uniform")
    result = simulate(method, graph.complete(3), task, rounds=1)
    examples = own(Rows(), hold_out=5)
    trained = []
    for agent in range(3):
        objective = examples.objective(agent)
        batches = Batches(objective, agent, 0, 6)
        places = [examples._data(agent)[0]._numbers[place] for s in range(5) for place in batches.indices(s).tolist()]
        trained.append(by_hand(task.model.initial, torch.tensor(places).split(6), ADAMW))
    for model in result.models.values():
        torch.testing.assert_close(model, torch.stack(trained).mean(0), atol=1e-5, rtol=1e-4)
    assert result.history[0]["gradients"] == 3 * 3 * 5
