"""Apps that are not ours: their own model, data, loss and metrics, in the place of FedAvg and beside it."""

import difflib
import random
import re
from copy import deepcopy
from functools import partial
from pathlib import Path

import pytest
import torch
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.clientapp.mod import LocalDpMod, arrays_size_mod, fixedclipping_mod
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.task_identity import TaskIdentity
from nodes import NodeError, Nodes, app_of, context_of, keys_beside
from quickstart.fedavg import server_app as with_fedavg
from quickstart.ross import server_app as with_ross
from quickstart.ross.client_app import app as quickstart
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ross_flwr import PeerRelay, peer_app, resolve
from ross_flwr.config import ConfigError
from ross_flwr.flower.hosting import HOSTS
from ross_flwr.flower.records import tensors_of
from ross_flwr.runs.local import LocalRun
from ross_flwr.runs.options import RunOptions

ROOT = Path(__file__).parents[2]
PICTURES = ROOT / "tests" / "apps" / "pictures"
CONFIG = {"batch-size": 16, "local-epochs": 1, "lr": 0.1, "num-server-rounds": 6, "label-flippers": 3}
NODES = 10


class Configured(ClientApp):
    """The quick start's app, with the run configuration that Flower's simulation would read from its pyproject.toml."""

    def __call__(self, message, context):
        node = context.run_id, context.node_id, context.node_config, context.state
        return quickstart(message, Context(*node, run_config=CONFIG))


def relay_on_a_ring(**options):
    return PeerRelay(algorithm="ross", topology="ring", **options)


@pytest.fixture(scope="module")
def played():
    """FedAvg, ROSS, ROSS from where FedAvg ended, and FedAvg from where that ended, over the same nodes."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    random.seed(0)  # FedAvg draws the order of the nodes, and they share torch's generator
    grid = Nodes(Configured(), range(NODES))
    results = {"fedavg": with_fedavg.main(grid, context_of(CONFIG)), "ross": with_ross.main(grid, context_of(CONFIG))}
    results["on with ross"] = relay_on_a_ring(learning_rate=0.01).start(
        grid, results["fedavg"].arrays, num_rounds=2, evaluate_fn=with_ross.global_evaluate
    )
    results["on with fedavg"] = FedAvg().start(
        grid,
        results["on with ross"].arrays,
        num_rounds=1,
        train_config=ConfigRecord({"lr": 0.01}),
        evaluate_fn=with_ross.global_evaluate,
    )
    return results


def test_agents_are_numbered_as_their_data_is_whatever_numbers_flower_draws_for_nodes():
    relay, _ = start(peer_app(**REGRESSION), numbers=(7, 3, 9, 5), algorithm="dpsgd")
    assert relay.placement.blocks == {7: (0,), 3: (1,), 9: (2,), 5: (3,)}


def test_an_app_with_its_own_data_may_be_told_by_its_node_where_that_lies():
    relay, _ = start(
        peer_app(**REGRESSION), numbers=range(2), node_config=lambda k: {"data-path": f"here/{k}"}, algorithm="dpsgd"
    )
    assert relay.history.lines[0]["absent"] == []


def test_an_app_may_give_every_node_the_module_that_it_keeps():
    kept = REGRESSION["model"](None)
    before = deepcopy(kept.state_dict())
    models = [
        start(peer_app(**REGRESSION | {"model": model}), 2, algorithm="ross")[0].models
        for model in (lambda context: kept, lambda context: deepcopy(kept))
    ]
    for i, model in models[0].items():
        torch.testing.assert_close(tensors_of(model), tensors_of(models[1][i]), rtol=0, atol=0)
    torch.testing.assert_close(kept.state_dict(), before, rtol=0, atol=0)


def accuracy_of(result):
    return [metrics["accuracy"] for metrics in result.evaluate_metrics_serverapp.values()]


def test_with_three_label_flippers_of_ten_ross_is_more_accurate_than_fedavg(played):
    fedavg, ross = accuracy_of(played["fedavg"])[-1], accuracy_of(played["ross"])[-1]
    print(f"accuracy of the global model: FedAvg {fedavg:.3f}, ROSS {ross:.3f}")
    assert ross > fedavg > 0.6


def test_the_result_has_the_rounds_and_the_arrays_that_fedavgs_has(played):
    for field in ("train_metrics_clientapp", "evaluate_metrics_clientapp", "evaluate_metrics_serverapp"):
        assert list(getattr(played["ross"], field)) == list(getattr(played["fedavg"], field))
    fedavg, ross = played["fedavg"].arrays, played["ross"].arrays
    assert [(name, a.shape, a.dtype) for name, a in ross.items()] == [
        (name, a.shape, a.dtype) for name, a in fedavg.items()
    ]


def test_a_model_that_fedavg_trained_goes_on_under_ross_and_back(played):
    for before, after in (("fedavg", "on with ross"), ("on with ross", "on with fedavg")):
        end, start = accuracy_of(played[before])[-1], accuracy_of(played[after])
        assert start[0] == end
        assert min(start) > end - 0.1
        names = [name for name in played[before].arrays if "bias" in name]
        assert any((played[before].arrays[n].numpy() != played[after].arrays[n].numpy()).any() for n in names)


def changes():
    """The diff from the app with FedAvg to the app with ROSS, without lines of context."""
    lines = []
    for name in ("client_app.py", "server_app.py"):
        before, after = ((PICTURES / app / name).read_text().splitlines() for app in ("fedavg", "ross"))
        found = list(difflib.unified_diff(before, after, lineterm="", n=0))[2:]
        lines += [f"# {name}", *(line for line in found if not line.startswith("@@") and line not in ("+", "-"))]
    return lines


def test_the_readme_shows_the_at_most_fifteen_lines_that_change():
    lines = changes()
    assert len([line for line in lines if line[0] in "+-"]) <= 15
    (shown,) = re.findall(r"```diff\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.S)
    assert shown.splitlines() == lines


def line_data(context, count=40, part=0):
    """Points of y = 3 x₀ − 2 x₁ + 1, in the double precision that NumPy leaves."""
    generator = torch.Generator().manual_seed(10 * context.node_config["partition-id"] + part)
    inputs = torch.randn(count, 2, generator=generator, dtype=torch.float64)
    return TensorDataset(inputs, inputs @ torch.tensor([[3.0], [-2.0]], dtype=torch.float64) + 1)


def r2(outputs, targets):
    return 1 - (targets - outputs).square().sum() / (targets - targets.mean()).square().sum()


REGRESSION = {
    "model": lambda context: nn.Linear(2, 1),
    "train_data": line_data,
    "validation_data": lambda context: line_data(context, 16, 1),
    "test_data": lambda context: line_data(context, 2500, 2),
    "loss": nn.MSELoss(),
    "metrics": {"r2": r2},
    "utility": r2,
}


def start(app, num_rounds=1, numbers=range(4), model=None, node_config=lambda k: {}, **options):
    """Run a relay over nodes of the app that have these `numbers`."""
    torch.manual_seed(0)
    initial = ArrayRecord((model or nn.Linear(2, 1)).state_dict())
    relay = PeerRelay(**{"topology": "ring", **options})
    return relay, relay.start(Nodes(app, numbers, node_config), initial, num_rounds)


@pytest.mark.parametrize("utility", ["loss", "own"])
def test_a_regression_with_its_own_loss_metric_and_utility_is_learnt(utility):
    relay, result = start(peer_app(**REGRESSION), 20, algorithm="ross", utility=utility, momentum=0.5)
    last = result.evaluate_metrics_clientapp[20]
    assert last["r2-min"] > 0.99
    assert last["loss-max"] < 0.1
    assert not [name for name in last if name.startswith("accuracy")]
    weight = result.arrays["weight"].numpy()
    assert weight == pytest.approx(torch.tensor([[3.0, -2.0]]).numpy(), abs=0.2)
    assert relay.history.lines[-1]["utilities"] > 0


def test_there_is_an_agent_for_each_node_and_nobody_attacks():
    relay, _ = start(peer_app(**REGRESSION), numbers=range(5), algorithm="dpsgd")
    assert [len(block) for block in relay.placement.blocks.values()] == [1] * 5
    assert (relay.config.part(RunOptions).num_agents, relay.history.attackers) == (5, [])


def test_an_app_that_loads_the_configurations_data_itself_gives_the_same_models():
    options = {"num-agents": 4, "topology": "ring", "attackers": 1, "num-rounds": 2, "validation-size": 20}
    config = resolve(options)
    expected = LocalRun(config)
    model = expected.assembly.task.model
    relay = PeerRelay(**keys_beside(options))
    relay.start(Nodes(app_of(config)), ArrayRecord(model.named(model.initial)), 2)
    lines = list(expected.rounds())
    for index, agent in expected.host.agents.items():
        torch.testing.assert_close(model.flatten(tensors_of(relay.models[index])), agent["model"], rtol=0, atol=1e-6)
    assert relay.history.lines[-1]["accuracy"] == pytest.approx(lines[-1]["accuracy"], abs=1e-6)


class NextToken(nn.Module):
    """A recurrent model whose output layer is its embedding; a part of it is frozen, another has no use."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(6, 8)
        self.lstm = nn.LSTM(8, 8, batch_first=True)
        self.head = nn.Linear(8, 6)
        self.head.weight = self.embedding.weight
        self.head.bias.requires_grad_(False)
        self.unused = nn.Linear(2, 2)

    def forward(self, tokens):
        return self.head(self.lstm(self.embedding(tokens))[0])


class Sentences(torch.utils.data.Dataset):
    """Counting sentences of different lengths, in dictionaries, as the data sets of Hugging Face give them."""

    def __init__(self, context):
        self.first = context.node_config["partition-id"]

    def __len__(self):
        return 24

    def __getitem__(self, index):
        return {"tokens": (self.first + index + torch.arange(3 + index % 3)) % 5}


def padded(examples):
    return {"tokens": nn.utils.rnn.pad_sequence([e["tokens"] for e in examples], batch_first=True, padding_value=5)}


def token_loss(outputs, targets):
    return nn.functional.cross_entropy(outputs.flatten(0, 1), targets.flatten(), ignore_index=5)


def test_a_sequence_model_with_tied_frozen_and_unused_parameters_is_learnt():
    loader = partial(DataLoader, batch_size=6, collate_fn=padded)
    app = peer_app(
        model=lambda context: NextToken(),
        train_data=lambda context: loader(Sentences(context)),
        test_data=lambda context: loader(Sentences(context)),
        loss=token_loss,
        pair=lambda batch: (batch["tokens"][:, :-1], batch["tokens"][:, 1:]),
    )
    torch.manual_seed(1)
    model = NextToken()
    initial = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    _, result = start(app, 12, model=model, algorithm="dpsgd", learning_rate=0.5, batches_per_round=4)
    losses = [metrics["loss-mean"] for metrics in result.evaluate_metrics_clientapp.values()]
    assert losses[-1] < losses[0] / 2
    final = result.arrays.to_torch_state_dict()
    assert list(final) == list(initial)
    assert torch.equal(final["head.weight"], final["embedding.weight"])
    kept = [name for name in initial if torch.allclose(final[name], initial[name])]
    assert kept == ["head.bias", "unused.weight", "unused.bias"]


def test_mods_wrap_the_steps_and_see_what_the_relay_was_told(caplog):
    seen = []

    def note(message, context, call_next):
        config = message.content["config"]
        seen.append((message.metadata.message_type, config["server-round"], config["key"]))
        return call_next(message, context)

    app = peer_app([arrays_size_mod, note], **REGRESSION)
    relay = PeerRelay(algorithm="dpsgd", topology="ring")
    records = {"train_config": ConfigRecord({"key": 1}), "evaluate_config": ConfigRecord({"key": 2})}
    with caplog.at_level("INFO", logger="flwr"):
        relay.start(Nodes(app), ArrayRecord(nn.Linear(2, 1).state_dict()), 2, **records)
    assert sorted(set(seen)) == [
        ("query.models", 2, 2),
        ("query.who", 0, 1),
        ("train.mix", 1, 1),
        ("train.mix", 2, 1),
        ("train.share", 1, 1),
    ]
    sizes = [record.message for record in caplog.records if "array elements sent" in record.message]
    assert len(sizes) == len(seen)


@pytest.mark.parametrize("mod", [fixedclipping_mod, LocalDpMod(1.0, 1.0, 1.0, 0.1)])
def test_a_mod_that_expects_a_model_update_is_refused(mod):
    with pytest.raises(ConfigError, match="agents send each other models and gradients instead"):
        peer_app([mod])


def test_steps_beside_an_apps_own_functions_leave_them_and_their_state_alone():
    app = ClientApp()

    @app.train()
    def train(message, context):
        context.state["mine"] = ConfigRecord({"calls": 1})
        return Message(RecordDict(), reply_to=message)

    assert peer_app(app=app, **REGRESSION) is app
    nodes = Nodes(app)
    nodes.push_messages([Message(RecordDict(), node, "train") for node in nodes.get_node_ids()])
    PeerRelay(algorithm="dpsgd", topology="ring").start(nodes, ArrayRecord(nn.Linear(2, 1).state_dict()), 1)
    assert all(context.state["mine"]["calls"] == 1 for context in nodes.contexts.values())


def test_data_is_loaded_once_by_a_node_and_its_loaders_batch_size_counts():
    loads = []

    def train_data(context):
        loads.append(context.node_config["partition-id"])
        return DataLoader(line_data(context), batch_size=7)

    app = peer_app(**REGRESSION | {"train_data": train_data})
    start(app, 3, algorithm="ross")
    assert sorted(loads) == [0, 1, 2, 3]
    assert {agent.batches.size for held in list(HOSTS.held.values())[-4:] for agent in held.host.agents.values()} == {7}


@pytest.mark.parametrize(
    ("changed", "options", "sentence"),
    [
        ({}, {"num_agents": 8}, "num-agents puts 2 agents on a node, and this app has the data of one"),
        (
            {},
            {"corruption": "label-flip", "corrupted": 1},
            "corruption = 'label-flip' is about data or a model that the configuration names",
        ),
        ({}, {"algorithm": "centralized"}, "algorithm = 'centralized' pools the data of all agents"),
        ({}, {"validation_size": 50}, "validation-size = 50 has no effect, since this app has validation_data"),
        ({}, {"hidden": 8}, "hidden = 8 is about data or a model that the configuration names, and this app has"),
        (
            {"train_data": lambda context: DataLoader(line_data(context), batch_size=7)},
            {"batch_size": 8},
            "batch-size = 8 has no effect, since the DataLoader of this app has batches of 7: leave the key out",
        ),
        (
            {"train": lambda module, loader, context: None},
            {"algorithm": "ross-plus"},
            "algorithm = 'ross-plus' has no local steps that this app's own train could make: leave train out, or use",
        ),
        (
            {"optimizer": torch.optim.AdamW},
            {"algorithm": "dsgt"},
            "algorithm = 'dsgt' has no local steps that this app's own optimizer could make",
        ),
        (
            {"optimizer": torch.optim.AdamW},
            {"algorithm": "local-dsgd", "optimizer": "adam"},
            "optimizer = 'adam' has no effect, since this app has its own optimizer: leave the key out",
        ),
        (
            {"optimizer": torch.optim.AdamW},
            {"algorithm": "local-dsgd", "learning_rate": 0.5},
            r"node \d+ cannot take part: learning-rate = 0.5 has no effect, since this app trains its model itself",
        ),
        (
            {"train": lambda module, loader, context: None},
            {"algorithm": "local-dsgd", "use_validation": True},
            "this app trains its model itself, and not on Q_i: use use-validation = false",
        ),
        ({"model": lambda context: nn.Linear}, {}, "model returned the class Linear: expected the nn.Module"),
        ({"utility": None}, {"utility": "own"}, "utility = 'own' is the app's own function, and it has none"),
    ],
)
def test_what_does_not_fit_an_app_of_its_own_is_told_in_a_sentence(changed, options, sentence):
    with pytest.raises((ConfigError, NodeError), match=sentence):
        start(peer_app(**REGRESSION | changed), **{"algorithm": "ross"} | options)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"model": REGRESSION["model"]}, "an app of its own needs train_data, test_data too: give peer_app all of"),
        ({"loss": nn.MSELoss()}, "an app of its own needs model, train_data, test_data too"),
        (
            {"task": lambda context: None, "loss": nn.MSELoss()},
            "peer_app takes a task, or functions for a model",
        ),
        (
            REGRESSION | {"train": lambda module, loader, context: None, "optimizer": torch.optim.AdamW},
            "peer_app takes train, or an optimizer for the local steps: give it",
        ),
        (
            REGRESSION | {"model": nn.Linear(3, 1)},
            "model is a Linear: give peer_app a function, model=lambda",
        ),
        (REGRESSION | {"test_data": [1]}, "test_data is a list: give peer_app a function"),
        (
            REGRESSION | {"model": lambda: nn.Linear(2, 1)},
            r"model cannot be called with \(context\), too many .*: give peer_app a function, model=lambda context: …",
        ),
        (
            REGRESSION | {"train": lambda net, loader: None},
            r"train cannot be called with .*: give peer_app a function, train=lambda module, loader, context: …",
        ),
        (REGRESSION | {"loss": "cross_entropy"}, "loss is 'cross_entropy': .* loss=nn.functional.cross_entropy"),
        (REGRESSION | {"loss": nn.MSELoss}, r"loss is the class MSELoss: .* an object of it, loss=MSELoss\(\)"),
        (REGRESSION | {"optimizer": "adam"}, r"optimizer is 'adam': .* optimizer=partial\(torch.optim.Adam, lr=1e-3\)"),
        (REGRESSION | {"metrics": [r2]}, r"metrics is a list: give peer_app functions of \(outputs, targets\) by name"),
        (REGRESSION | {"metrics": {"r2": 0.5}}, "the metric 'r2' is a float: give peer_app a function"),
        ({"mods": ClientApp()}, r"mods is a ClientApp, not a list: give an app by name, peer_app\(app=app, …\)"),
        (REGRESSION | {"metrics": {"loss": r2}}, "metrics have the name 'loss', which every test reports"),
    ],
)
def test_half_an_app_is_refused(given, sentence):
    with pytest.raises(ConfigError, match=sentence):
        peer_app(**given)


def test_one_node_is_no_graph():
    with pytest.raises(ConfigError, match="num-agents = 1 is not allowed"):
        start(peer_app(**REGRESSION), numbers=range(1), algorithm="dpsgd")
