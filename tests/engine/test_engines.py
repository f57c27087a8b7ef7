"""Engines: whichever runs a step, the numbers are the same."""

from threading import Barrier, get_ident

import pytest
import torch
from torch import nn
from twins import COUNTED, SMALL, alike

from ross_flwr.algorithms import ALGORITHMS
from ross_flwr.config import ConfigError, resolve
from ross_flwr.engine import batched
from ross_flwr.engine.batched import Batched, choose
from ross_flwr.engine.threads import cores
from ross_flwr.learning.flat import FlatModel
from ross_flwr.learning.stacked import Stack
from ross_flwr.runs.local import LocalRun

SETTING = SMALL | {
    "num-agents": 6,
    "num-rounds": 2,
    "topology": "random-regular",
    "too-few": "top-up",
    "evaluate-every": 2,
}
OF_METHOD = {
    "cgsv-server": {"topology": "star"},
    "d2": {"mixing": "lazy-metropolis"},
    "sgp": {"mixing": "push"},
    "single-merge": {"topology": "complete", "merge-passes": 1, "gossip-every": 1},
}
TIES = ("cgsv-reward", "cgsv-server")
"""Methods that leave out the smallest entries of gradients. Pixels that are always blank have equal ones."""
METHODS = [name for name, cls in ALGORITHMS.items() if cls.__module__.startswith("ross_flwr")]


@pytest.mark.parametrize("method", METHODS)
def test_the_batched_engine_gives_the_numbers_of_the_loop(method, monkeypatch):
    sizes = []
    together = batched._gradients
    monkeypatch.setattr(batched, "_gradients", lambda requests: sizes.append(len(requests)) or together(requests))
    loop, grouped = (
        LocalRun(resolve(SETTING | OF_METHOD.get(method, {}) | {"algorithm": method, "engine": engine}))
        for engine in ("loop", "batched")
    )
    for run in (loop, grouped):
        assert [line["round"] for line in run.rounds()] == [1, 2]
    assert max(sizes, default=0) >= 5 or ALGORITHMS[method].private  # clipped gradients are computed by example
    models = [torch.stack([agent["model"] for agent in run.host.agents.values()]) for run in (loop, grouped)]
    close = torch.isclose(models[1], models[0], rtol=1e-5, atol=1e-5)
    assert close.float().mean() > 0.99 if method in TIES else close.all()
    works = [[line[kind] for line in run.history.lines for kind in COUNTED] for run in (loop, grouped)]
    assert works[0] == works[1]
    assert [run.summary()["engine"] for run in (loop, grouped)] == ["loop", "batched"]


ALONGSIDE = {
    "cnn": {"model": "cnn"},
    "compressed and private": {"compress": "int8", "dp-clip": 1.0, "dp-noise": 0.1},
    "poisoned, with faults": {"attack": "flipped-labels", "attackers": 2, "dropout": 0.3, "message-loss": 0.2},
}


@pytest.mark.parametrize("more", ALONGSIDE.values(), ids=ALONGSIDE)
def test_whatever_else_a_run_does_the_engines_agree(more):
    options = SETTING | {"algorithm": "ross", "attackers": 0, "validation-size": 30, "num-rounds": 3} | more
    models = []
    for engine in ("loop", "batched"):
        run = LocalRun(resolve(options | {"engine": engine}))
        list(run.rounds())
        models.append(torch.stack([agent["model"] for agent in run.host.agents.values()]))
    torch.testing.assert_close(models[1], models[0], rtol=1e-5, atol=1e-5)


def on_threads(method, loss=nn.functional.cross_entropy):
    """Return a run of the CNN with two threads, which wait for each other at their first loss."""
    run = LocalRun(resolve(SETTING | {"algorithm": method, "model": "cnn"}))
    together, threads = Barrier(2, timeout=30), set()

    def met(*pair):
        if get_ident() not in threads:
            threads.add(get_ident())
            together.wait()
        return loss(*pair)

    for agent in run.host.agents.values():
        agent.objective.criterion = met
    run.host.engine = Batched(2, stacking=False)
    return run


@pytest.mark.parametrize("method", ["dpsgd", "ross-plus"])
def test_threads_give_the_numbers_of_the_loop_to_the_last_bit(method):
    loop, threads = (
        LocalRun(resolve(SETTING | {"algorithm": method, "model": "cnn", "engine": "loop"})),
        on_threads(method),
    )
    for run in (loop, threads):
        list(run.rounds())
    assert alike(loop, threads)
    assert [run.summary()["engine"] for run in (loop, threads)] == ["loop", "loop, 2 threads"]


def test_what_fails_in_a_thread_is_told_as_by_the_loop():
    def failing(outputs, targets):
        raise ConfigError(f"no loss of {len(targets)} examples")

    with pytest.raises(ConfigError, match="no loss of 16 examples"):
        list(on_threads("dpsgd", failing).rounds())


@pytest.mark.parametrize(
    ("given", "cores_given", "used"), [("", 4, 4), ("2", 4, 2), ("8,2", 4, 4), ("0", 4, 4), ("many", 4, 4)]
)
def test_a_run_uses_the_cores_that_it_is_given(given, cores_given, used, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", given)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores_given)), raising=False)
    assert cores() == used
    cnn = FlatModel(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2)))
    assert choose("auto", cnn, 10).name == f"loop, {used} threads"
    assert choose("auto", cnn, 1).name == choose("loop", cnn, 10).name == "loop"


@pytest.mark.parametrize(
    ("module", "wanted", "name"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)), "auto", "batched"),
        (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 2)), "auto", "loop"),
        (nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5), nn.Linear(3, 2)), "batched", "loop, since the model draws"),
        (nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), "batched", "loop, since the model is no chain"),
    ],
    ids=["mlp", "cnn", "dropout", "batch-norm"],
)
def test_models_that_stack_are_batched_where_it_pays(module, wanted, name):
    assert choose(wanted, FlatModel(module), 10).name.startswith(name)


def test_a_layer_that_occurs_twice_is_computed_twice():
    tanh = nn.Tanh()
    model = FlatModel(nn.Sequential(nn.Linear(4, 3), tanh, nn.Linear(3, 3), tanh))
    stack, inputs = Stack.of(model), torch.randn(2, 5, 4)
    outputs = stack.outputs(stack.named(model.initial.repeat(2, 1)), inputs)
    torch.testing.assert_close(outputs[1], model.module(inputs[1]))
    linear = nn.Linear(3, 3)
    assert Stack.of(FlatModel(nn.Sequential(linear, tanh, linear))) is None
