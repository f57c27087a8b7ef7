"""Private gradients: what they are, what they add up to, and that they combine with everything else."""

import sys
from collections import Counter
from dataclasses import replace
from functools import partial
from math import inf, nan

import dp_accounting
import pytest
import torch
from dp_accounting.pld import PLDAccountant
from quadratics import Table, normal, team
from torch import nn
from torch.utils.data import TensorDataset

from ross_flwr import DPSGD, ROSS, Privacy, graph, resolve, simulate, tasks
from ross_flwr.algorithms import ALGORITHMS
from ross_flwr.algorithms.dpdl import DPDL
from ross_flwr.algorithms.messages import Inbox
from ross_flwr.algorithms.pdsl import PDSL
from ross_flwr.config import ConfigError
from ross_flwr.graph import topology
from ross_flwr.graph.schedule import Graphs
from ross_flwr.learning import clipping
from ross_flwr.learning.clipping import clipped_mean
from ross_flwr.learning.examples import Batch
from ross_flwr.learning.flat import FlatModel
from ross_flwr.learning.objective import ModuleObjective
from ross_flwr.learning.requests import Gradient
from ross_flwr.learning.streams import stream
from ross_flwr.privacy.accounting import epsilon_of, precision_of
from ross_flwr.privacy.link import QUERIES, SPENT, Blurred
from ross_flwr.privacy.privacy import planned_queries
from ross_flwr.runs.local import LocalRun, resume
from ross_flwr.tasks.own import Own

SMALL = {
    "num-agents": 6,
    "num-rounds": 4,
    "topology-degree": 3,
    "attackers": 0,
    "validation-size": 20,
    "test-size": 50,
    "hidden": 8,
}
OF_METHOD = {
    "cgsv-server": {"topology": "star"},
    "d2": {"mixing": "lazy-metropolis"},
    "sgp": {"mixing": "push"},
    "single-merge": {"topology": "complete", "merge-passes": 1, "gossip-every": 2},
    "ubar": {"use-validation": True},
    "resilient-p2p": {"use-validation": True},
}
METHODS = [name for name, cls in ALGORITHMS.items() if cls.__module__.startswith("ross_flwr") and name != "centralized"]
PLAIN = {
    "pdsl": {"algorithm": "ross"},
    "decor": {"algorithm": "local-dsgd"},
    "corn-dsgd": {"algorithm": "local-dsgd"},
    "dpdl": {"dp_clip": 1e3, "dp_noise": 1e-11},
}
"""What private methods are without privacy; dpdl has no other name."""
FEWER = {"cgsv-server", "ross-plus", "single-merge"}
"""Methods with agents that take fewer gradients than noise is fitted to: few neighbours ask, or agents only mix."""

TASK = tasks.images("digits", hidden=8)


def run_of(path=None, **options):
    config = resolve(SMALL | {name.replace("_", "-"): value for name, value in options.items()})
    return LocalRun(config, path)


def finished(**options):
    run = run_of(**options)
    run.lines = list(run.rounds())
    return run


def models(run):
    return torch.stack([run.host.agents[i]["model"] for i in sorted(run.host.agents)])


class Branching(nn.Module):
    """Branches on values, which vmap cannot run."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, inputs):
        found = self.layer(inputs)
        return found if found.sum().item() > 0 else 2 * found


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.out = nn.Linear(4, 7, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, inputs):
        return self.out(self.embedding(inputs).mean(1))


def convolutions():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)
    )


MODELS = {
    "convolutions": (convolutions, lambda g: torch.randn(6, 1, 8, 8, generator=g), 3),
    "tied weights": (Tied, lambda g: torch.randint(7, (6, 5), generator=g), 7),
    "linear": (
        lambda: nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3)),
        lambda g: torch.randn(6, 5, generator=g),
        3,
    ),
    "branching": (Branching, lambda g: torch.randn(6, 5, generator=g), 3),
}


def request_of(name, seed=0):
    make, draw, classes = MODELS[name]
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    inputs, targets = draw(generator), torch.randint(classes, (6,), generator=generator)
    model = FlatModel(make())
    data = Table(inputs, targets)
    objective = ModuleObjective(model, data, None, data)
    return Gradient(objective, model.initial.clone(), data.batch(torch.arange(6)), partial(stream, 5), 0)


def parts_of(request):
    return request.objective, request.vector, request.batch


@pytest.mark.parametrize("entries", [1, 2 * 200, 2**24], ids=["one", "two", "all"])
@pytest.mark.parametrize("name", MODELS)
def test_the_clipped_mean_is_that_of_a_loop_over_examples(name, entries):
    request = request_of(name)
    alone = [request.objective.gradient(request.vector, part) for part in request.batch.parts(1)]
    clip = float(torch.stack([each.norm() for each in alone]).median())
    expected = sum(each * min(1.0, clip / float(each.norm())) for each in alone) / 6
    found = clipped_mean(*parts_of(request), clip, noise=request.seed, entries=entries)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    module = request.objective.model.module
    assert (module in clipping._one_by_one) == (name == "branching")
    assert (clipping._ghosts.get(module) is not None) == (name == "linear")


@pytest.mark.parametrize("name", ["convolutions", "linear"])
def test_an_example_whose_gradient_is_not_finite_moves_nothing(name):
    request = request_of(name)
    inputs = request.batch.inputs.clone()
    inputs[2] = torch.inf
    spoiled = replace(request, batch=Batch(inputs, request.batch.targets), clip=0.5)
    others = torch.tensor([0, 1, 3, 4, 5])
    expected = replace(request, batch=request.batch.take(others), clip=0.5).answer()[0] * 5 / 6
    torch.testing.assert_close(spoiled.answer()[0], expected)


def test_what_a_model_draws_differs_by_example_and_not_by_call():
    model = FlatModel(nn.Sequential(nn.Dropout(0.5), nn.Linear(40, 2)))
    data = Table(torch.ones(4, 40), torch.zeros(4, dtype=torch.int64))
    objective = ModuleObjective(model, data, None, data)
    batch = data.batch(torch.arange(4))
    found = next(clipping._gradients(objective, model.initial, batch, 7, 4))
    assert len(found.unique(dim=0)) == 4
    assert torch.equal(found, next(clipping._gradients(objective, model.initial, batch, 7, 4)))


@pytest.mark.parametrize("method", METHODS)
def test_without_noise_and_clipping_a_method_is_the_plain_one_and_asks_for_no_more_gradients_than_noise_is_fitted_to(
    method,
):
    options = {"algorithm": method, "num_rounds": 3, "batch_size": 64} | OF_METHOD.get(method, {})
    if "local_steps" in ALGORITHMS[method].__dataclass_fields__:
        options["local_steps"] = 2
    plain = finished(**(options | PLAIN.get(method, {})))
    private = finished(**options, dp_clip=1e4, dp_noise=1e-12)
    off = (models(private) - models(plain)).abs() > 1e-5 + 1e-4 * models(plain).abs()
    assert off.float().mean() <= (0.02 if method.startswith("cgsv-") else 0)  # these keep the largest of many entries
    for i, agent in private.host.agents.items():
        counts = agent[SPENT] * 1e-24
        degrees = [len(private.assembly.graphs.at(t).receivers(i)) for t in range(3)]
        planned = planned_queries(private.assembly.algorithm, agent, degrees)
        if method in FEWER:
            assert counts.max() <= planned
        else:
            assert float(counts.max()) == pytest.approx(planned)


def test_only_the_gradients_of_single_examples_are_computed(monkeypatch):
    def computed(*_, **__):
        raise AssertionError("the gradient of a batch was computed, to be thrown away")

    monkeypatch.setattr(ModuleObjective, "gradient", computed)
    finished(algorithm="pdsl", num_rounds=1, dp_noise=1.0)


@pytest.mark.parametrize("algorithm", [DPSGD(), ROSS(), PDSL()], ids=lambda each: each.name)
def test_an_infinite_bound_without_noise_changes_no_bit(algorithm):
    plain = ROSS() if algorithm == PDSL() else algorithm
    made = [simulate(plain, graph.ring(4), TASK, rounds=2)]
    made.append(simulate(algorithm, graph.ring(4), TASK, rounds=2, privacy=Privacy(clip=inf)))
    assert all(torch.equal(made[0].models[i], made[1].models[i]) for i in range(4))
    assert made[1].summary["privacy"]["epsilon"] == inf
    assert "Nothing is protected" in made[1].summary["privacy"]["statement"]


@pytest.mark.parametrize("options", [{"algorithm": "dfedsam", "local_steps": 3}, {"algorithm": "pdsl"}], ids=str)
def test_epsilon_is_that_of_the_accountant_for_the_gradients_that_were_released(options):
    run = run_of(**options, num_rounds=9, dp_clip=1.0, dp_noise=6.0)
    agent, released = run.host.agents[2], Counter()

    def note(gradient, agent, request):
        released.update(agent.batches.indices(request.number).tolist())
        return gradient

    agent.gradient_chain = [*agent.gradient_chain, note]
    list(run.rounds())
    most = max(released.values())
    found = run.summary()["privacy"]["epsilon-of-agents"]["2"]
    assert most > 9
    assert found == pytest.approx(dp_accounting.get_epsilon_gaussian(6.0 / most**0.5, 1e-5), abs=1e-6)
    relation = (
        dp_accounting.NeighboringRelation.REPLACE_ONE
    )  # whose multiplier is of C, half of what one exchange moves
    events = dp_accounting.SelfComposedDpEvent(dp_accounting.GaussianDpEvent(2 * 6.0), most)
    assert found == pytest.approx(PLDAccountant(relation).compose(events).get_epsilon(1e-5), rel=1e-3)


def test_queries_with_different_noise_add_up_as_the_accountant_composes_them():
    events = [dp_accounting.GaussianDpEvent(z) for z in (4.0, 7.0, 5.0)]
    composed = PLDAccountant().compose(dp_accounting.ComposedDpEvent(events)).get_epsilon(1e-5)
    assert epsilon_of(4.0**-2 + 7.0**-2 + 5.0**-2, 1e-5) == pytest.approx(composed, rel=1e-3)
    assert epsilon_of(precision_of(0.7, 1e-6), 1e-6) == pytest.approx(0.7, abs=1e-9)


def test_noise_is_fitted_to_the_target_for_every_agent_and_spent_by_the_end_of_the_run():
    run = finished(algorithm="ross", dp_clip=1.0, dp_epsilon=3.0, dp_delta=1e-4, num_rounds=6, partition_alpha=0.3)
    promise = run.summary()["privacy"]
    assert promise["epsilon"] <= 3.0 + 1e-6
    assert promise["epsilon-of-agents"] == pytest.approx(dict.fromkeys(map(str, range(6)), 3.0), abs=1e-6)
    assert promise["statement"].startswith("ε = 3 at δ = 0.0001, where one training example of one agent is exchanged")
    for words in ("Q_i", "metrics", "weights", "whoever knows it can take the noise away"):
        assert words in promise["statement"]
    agent = run.host.agents[0]
    before = agent[SPENT]
    with pytest.raises(ConfigError, match="agent 0 has spent dp-epsilon on an example and releases no more gradients"):
        [agent.gradient(agent["model"], number) for number in range(100)]
    assert agent[SPENT].max() <= before.max() * (1 + 1e-9)


@pytest.mark.parametrize("average_every", [0, 2])
def test_noise_is_fitted_alike_on_nodes_that_know_their_agents_places_and_not_the_graph(average_every):
    run = run_of(algorithm="pdsl", dp_epsilon=3.0, average_every=average_every)
    here, known = run.host.agents[2], run.assembly.topology

    def unknown(epoch):
        raise ConfigError("nodes do not have this file")

    graphs = Graphs(unknown, 6, average_every=average_every)
    (there,) = replace(run.assembly, graphs=graphs).agents({2: known.place(2)})
    assert there.gradient_chain == here.gradient_chain


@pytest.mark.parametrize("exact", [False, True])
def test_dpdl_calibrates_cross_gradients_as_its_listing_says(exact):
    method = DPDL(exact_own_gradient=exact)
    agent = team(topology.build("star", 5), method)[0]
    agent.num_agents, agent["momentum"] = 5, normal(1, 6)
    gradients = {j: normal(10 + j, 6) for j in (0, 1, 3, 4)}
    own = gradients[0]
    if exact:
        own = agent["own"] = normal(2, 6)
    sent = method.descend(agent, Inbox({j: {"gradient": gradient} for j, gradient in gradients.items()})).message
    mixing = {j: agent.mixing_row[j] for j in (1, 3, 4)}
    mixing[0] = 1 - sum(mixing.values())
    total = torch.zeros(6)
    for j, gradient in gradients.items():
        similarity = gradient @ own / gradient.norm() / own.norm()
        total += gradient / (mixing[j] ** 0.5 * 5) + mixing[j] / (1 + similarity.exp()) * own
    torch.testing.assert_close(sent["momentum"], 0.9 * normal(1, 6) + total)
    torch.testing.assert_close(sent["model"], agent["model"] - 0.1 * sent["momentum"])


@pytest.mark.parametrize("exact", [False, True])
def test_dpdl_lets_a_gradient_out_without_noise_only_by_its_switch(exact):
    run = run_of(algorithm="dpdl", exact_own_gradient=exact, dp_noise=5.0, num_rounds=1)
    agent, computed, released = run.host.agents[2], [], []
    agent.gradient_chain = [lambda g, *_: computed.append(g) or g, *agent.gradient_chain]
    agent.gradient_chain.append(lambda g, *_: released.append(g) or g)
    list(run.rounds())
    assert sum(map(torch.equal, computed, released)) == exact
    promise = run.summary()["privacy"]
    assert ("exact-own-gradient = true lets gradients out without noise" in promise["statement"]) == exact
    assert (promise["epsilon"] == inf) == exact


def drawn(link, queries, *, index=0, seed=0, after=0):
    """Return the noise of an agent's queries, by pass and by order."""
    agent = LINKED.agents({index: LINKED.topology.place(index)})[0]
    agent.seed = seed
    link.begin(agent)
    agent[QUERIES] = torch.tensor([after])
    found = []
    for pass_number, of in queries:
        agent.pass_number = pass_number
        batch = agent.batches.take(pass_number)
        request = Gradient(agent.objective, agent["model"], batch, partial(stream, 0), pass_number, of)
        found.append(link(torch.zeros_like(agent["model"]), agent, request))
    return torch.stack(found)


LINKED = run_of(algorithm="dpsgd", hidden=32).assembly
QUERIED = [(0, "own"), (0, "cross"), (0, "cross"), (1, "own")]


@pytest.mark.parametrize("secret", [False, True])
def test_noise_has_the_stated_deviation_and_is_independent_of_all_other_noise(secret):
    link = Blurred(0.5, 3.0, secret=secret)
    noise = [drawn(link, QUERIED), drawn(link, QUERIED, index=1), drawn(link, QUERIED, seed=1)]
    noise = torch.cat([*noise, drawn(link, QUERIED, after=4)])
    deviation = 3.0 * 2 * 0.5 / LINKED.task.batch_size(0)
    count, size = noise.shape
    spread = 5 / size**0.5
    torch.testing.assert_close(noise.std(1), torch.full((count,), deviation), rtol=spread, atol=0)
    assert noise.mean(1).abs().max() < spread * deviation
    assert (noise.corrcoef() - torch.eye(count)).abs().max() < spread
    tails = (noise.abs() > 2 * deviation).float().mean()
    assert float(tails) == pytest.approx(0.0455, abs=0.005)


def test_noise_follows_from_the_seed_in_one_process_and_is_never_the_same_on_nodes():
    by_seed, secret = Blurred(0.5, 3.0), Blurred(0.5, 3.0, secret=True)
    assert torch.equal(drawn(by_seed, QUERIED), drawn(by_seed, QUERIED))
    assert not torch.isclose(drawn(secret, QUERIED), drawn(secret, QUERIED)).all(dim=1).any()


COMBINED = {
    "attacked, lossy, compressed": {
        "algorithm": "pdsl",
        "attackers": 1,
        "attack": "sign-flip",
        "message_loss": 0.1,
        "dropout": 0.1,
        "compress": "gradient: topk(0.1), momentum: int8",
    },
    "poisoned": {"algorithm": "ross-plus", "attackers": 2, "attack": "gradient-scaling"},
    "local steps": {"algorithm": "dmsgd", "local_steps": 2, "aggregator": "median"},
    "Q_i in training": {"algorithm": "dsgt", "use_validation": True},
}


@pytest.mark.parametrize("name", COMBINED)
def test_a_private_run_that_stopped_goes_on_with_its_noise_and_its_account(name, tmp_path):
    options = COMBINED[name] | {"num_rounds": 6, "dp_clip": 1.0, "dp_epsilon": 4.0, "checkpoint_every": 1}
    whole = run_of(**options)
    list(whole.rounds())
    run = run_of(tmp_path / "run", **options)
    run.begin()
    rounds = run.rounds()
    for _ in range(3):
        next(rounds)
    rounds.close()
    (resumed,) = resume(tmp_path / "run")
    list(resumed.rounds())
    torch.testing.assert_close(models(resumed), models(whole), rtol=1e-5, atol=1e-5)
    assert resumed.summary()["privacy"] == whole.summary()["privacy"]
    honest = whole.history.honest
    assert whole.summary()["privacy"]["epsilon-of-agents"].keys() == {str(i) for i in honest}
    assert 0 < whole.summary()["privacy"]["epsilon"] <= 4.0 + 1e-6


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dp_noise": 1.0}, "use dp-clip = 1.0"),
        ({"dp_clip": 1.0, "dp_noise": 1.0, "dp_epsilon": 1.0}, "both say how much noise there is: use one"),
        ({"dp_clip": 1.0, "dp_noise": 1.0, "dp_delta": 0.0}, "dp-delta = 0 is no probability"),
        ({"dp_clip": 1.0, "algorithm": "centralized"}, "pools the data of all agents"),
        ({"dp_clip": 1.0, "algorithm": "ubar"}, "use-validation = true"),
        ({"algorithm": "dpdl", "exact_own_gradient": True}, "exact-own-gradient = true lets gradients out .* dp-noise"),
        ({"dp_clip": 1.0, "aggregator": "ubar", "pre_aggregation": "bucketing"}, "losses on training examples"),
    ],
    ids=str,
)
def test_what_cannot_be_private_is_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        run_of(**options)


@pytest.mark.parametrize("wrong", [{"noise": -1.0}, {"epsilon": -1.0}, {"epsilon": inf}, {"noise": nan}], ids=str)
def test_noise_and_epsilon_are_numbers_from_0_up(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ConfigError, match=f"dp-{name} = {value:g} is not allowed: use a number above 0"):
        Privacy(**wrong)


def test_float_buffers_stay_as_they_are():
    data = TensorDataset(torch.randn(40, 6), torch.randint(3, (40,)))
    norm = nn.InstanceNorm1d(2, track_running_stats=True)
    module = nn.Sequential(nn.Unflatten(1, (2, 3)), norm, nn.Flatten(), nn.Linear(6, 3))
    own = Own(module, lambda _: data, lambda _: data)
    made = simulate(DPSGD(), graph.ring(3), own, rounds=3, privacy=Privacy(clip=1.0, noise=50.0))
    torch.testing.assert_close(made.models[0][-4:], torch.tensor([0.0, 0.0, 1.0, 1.0]))


def test_batch_norm_and_an_apps_own_training_are_refused():
    data = TensorDataset(torch.randn(40, 6), torch.randint(3, (40,)))
    private = {"rounds": 1, "privacy": Privacy(clip=1.0)}
    module = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    with pytest.raises(ConfigError, match="layer '1' is a BatchNorm, which mixes the examples of a batch"):
        simulate(DPSGD(), graph.ring(3), Own(module, lambda _: data, lambda _: data), **private)
    own = Own(nn.Linear(6, 3), lambda _: data, lambda _: data, train=lambda module, loader: None)
    with pytest.raises(ConfigError, match="this app trains its model itself"):
        simulate(DPSGD(), graph.ring(3), own, **private)


def test_without_the_accountant_a_private_run_names_the_line_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(ConfigError, match=r"the package dp_accounting is not installed: pip install"):
        run_of(dp_clip=1.0, dp_noise=1.0)
