"""D-PSGD beside other frameworks on the same work: an MLP, one batch of 32 a round, one thread.

Ten agents are on a ring, a hundred on a graph of degree four.
A framework takes part if it is installed or its repository (makgyver/gossipy, Cloudslab/murmura, the src of
sacs-epfl/decentralizepy) stands on PYTHONPATH. The gossipy of the package index has no D-PSGD.
"""

from collections.abc import Callable
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import networkx as nx
import pytest
import torch
from decentralized import decentralizepy
from processes import Nodes, direct
from pytest_benchmark.fixture import BenchmarkFixture
from side_by_side import ratio
from torch import nn
from torch.utils.data import TensorDataset

from ross_flwr import resolve
from ross_flwr.runs.local import LocalRun
from ross_flwr.vision import import_torchvision

MNIST = Path(__file__).parents[3] / "shared/data"
BATCH = 32


def data() -> tuple[torch.Tensor, torch.Tensor]:
    """One agent's only batch; how fast a framework is does not depend on what is in it."""
    return torch.rand(BATCH, 784), torch.randint(10, (BATCH,))


def keys(agents: int, degree: int) -> dict[str, Any]:
    return {
        "algorithm": "dpsgd",
        "dataset": "mnist",
        "data-path": str(MNIST),
        "topology": "ring" if degree == 2 else "random-regular",
        "topology-degree": degree,
        "num-agents": agents,
        "batch-size": BATCH,
        "hidden": 100,
        "attackers": 0,
        "num-rounds": 10**6,
        "evaluate-every": 10**6,
    }


def found(name: str) -> ModuleType:
    import_torchvision()
    try:
        return import_module(name)
    except ImportError as error:
        pytest.skip(f"{name} is not at hand: {error}")


def murmura(agents: int, degree: int, rounds: int) -> Callable[[], object]:
    """Rounds of murmura: local training, models to both neighbours, a plain average."""
    package = found("murmura")
    nodes = [
        package.Node(
            node_id=i,
            model=nn.Sequential(nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 10)),
            train_loader=torch.utils.data.DataLoader(TensorDataset(*data()), batch_size=BATCH, shuffle=True),
            aggregator=package.FedAvgAggregator(),
        )
        for i in range(agents)
    ]
    network = package.Network(nodes, package.create_topology("k-regular", num_nodes=agents, k=degree))
    return lambda: network.train(rounds=rounds, local_epochs=1, lr=0.1, eval_every=rounds + 1)


def gossipy(agents: int, degree: int, rounds: int) -> Callable[[], object]:
    """Rounds of gossipy: each node pushes its model to both neighbours, averages those that it has, and trains."""
    package = found("gossipy")
    core, simul = found("gossipy.core"), found("gossipy.simul")
    handler, node, mlp = found("gossipy.model.handler"), found("gossipy.node"), found("gossipy.model.nn")
    if not hasattr(node, "All2AllGossipNode"):
        pytest.skip("this gossipy has no D-PSGD: take that of its repository")
    package.LOG.setLevel("ERROR")
    regular = nx.to_numpy_array(nx.circulant_graph(agents, range(1, degree // 2 + 1)))
    network = core.StaticP2PNetwork(agents, regular)

    def training() -> object:
        return handler.WeightedTMH(
            mlp.TorchMLP(784, 10, hidden_dims=(100,)),
            torch.optim.SGD,
            {"lr": 0.1},
            nn.functional.cross_entropy,
            local_epochs=0,
            batch_size=BATCH,
            create_model_mode=core.CreateModelMode.MERGE_UPDATE,
        )

    class NoTest:
        def has_test(self) -> bool:
            return False

    nodes = {i: node.All2AllGossipNode(i, (data(), None), 1, training(), network) for i in range(agents)}
    simulator = simul.All2AllGossipSimulator(nodes, NoTest(), 1, core.AntiEntropyProtocol.PUSH)
    simulator.init_nodes()
    mixing = core.UniformMixing(network)

    def play() -> None:
        with redirect_stdout(StringIO()):  # a progress bar
            simulator.start(mixing, rounds)

    return play


@pytest.mark.skipif(not (MNIST / "MNIST").is_dir(), reason="needs MNIST in shared/data beside the checkout")
@pytest.mark.parametrize(("agents", "degree", "number"), [(10, 2, 50), (100, 4, 5)], ids=["ten agents", "a hundred"])
@pytest.mark.parametrize(("peer", "least"), [(murmura, 2.0), (gossipy, 4.0)], ids=["murmura", "gossipy"])
def test_rounds_take_a_fraction_of_a_peers_time(
    peer: Callable[[int, int, int], Callable[[], object]],
    least: float,
    agents: int,
    degree: int,
    number: int,
    benchmark: BenchmarkFixture,
) -> None:
    theirs = peer(agents, degree, number)
    rounds = LocalRun(resolve(keys(agents, degree))).rounds()

    def ours() -> None:
        assert len(list(islice(rounds, number))) == number

    assert ratio(benchmark, ours, theirs, repeats=9) >= least


@pytest.mark.skipif(not (MNIST / "MNIST").is_dir(), reason="needs MNIST in shared/data beside the checkout")
def test_ten_processes_beside_those_of_decentralizepy(benchmark: BenchmarkFixture) -> None:
    found("decentralizepy.node.DPSGDNode")
    with Nodes(direct, keys(10, 2)) as ours, Nodes(decentralizepy, keys(10, 2)) as theirs:
        assert ratio(benchmark, lambda: ours.run(30), lambda: theirs.run(30), repeats=9) >= 0.8
