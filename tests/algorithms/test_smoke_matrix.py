"""Every method on the sparsest graph; those meant to survive, also on the densest, with three of ten poisoned."""

import math

import pytest

from ross_flwr.algorithms import ALGORITHMS
from ross_flwr.config import ConfigError, resolve
from ross_flwr.runs.local import LocalRun

CHANCE = 0.1
MEANT_TO_SURVIVE = {
    "balance",
    "bristle",
    "clipped-gossip",
    "flag",
    "ios",
    "monna",
    "pfedgame",
    "resilient-p2p",
    "ross-plus",
    "ubar",
}
"""Not ``ross``: it weighs gradients, and attackers' models reach what it mixes."""
OPTIONS = {"deca": {"blocks": 2, "block-passes": 5}, "diloco": {"local-steps": 2, "learning-rate": 0.01}}
REFUSED = {
    "ring": {
        "bridge": "= 4 vectors and has 3",
        "cgsv-server": "use topology = 'star'",
        "d2": "lazy-metropolis",
        "flag": "= 4 vectors and has 3",
        "single-merge": "34 leave 1%",
    },
    "complete": {"cgsv-server": "use topology = 'star'"},
}
NAMES = [name for name, cls in ALGORITHMS.items() if cls.__module__.startswith("ross_flwr")]


def config_of(name, graph, attackers=0):
    options = {"algorithm": name, "topology": graph, "attackers": attackers, "permutations": 2, **OPTIONS.get(name, {})}
    options |= {"num-rounds": 30, "evaluate-every": 30, "byzantine": 1 if graph == "ring" else 3}
    return resolve({**options, "validation-size": 50})


def last_line(config):
    *_, line = LocalRun(config).rounds()
    return line


@pytest.mark.parametrize("name", sorted({*NAMES} - {"cgsv-server"}))
def test_a_method_learns_on_a_ring_or_where_that_is_too_sparse_on_the_complete_graph(name: str) -> None:
    line = last_line(config_of(name, "complete" if name in REFUSED["ring"] else "ring"))
    assert all(map(math.isfinite, line["loss"].values()))
    assert line["accuracy"]["mean"] > CHANCE + 0.2


@pytest.mark.parametrize(
    ("graph", "name"), [(graph, name) for graph in REFUSED for name in sorted(MEANT_TO_SURVIVE - {*REFUSED[graph]})]
)
def test_a_method_survives_where_it_is_meant_to(graph: str, name: str) -> None:
    assert last_line(config_of(name, graph, attackers=3))["accuracy"]["mean"] > CHANCE + 0.2


@pytest.mark.parametrize(("graph", "name"), [(graph, name) for graph, names in REFUSED.items() for name in names])
def test_a_method_is_refused_where_it_cannot_run(graph: str, name: str) -> None:
    with pytest.raises(ConfigError, match=REFUSED[graph][name]):
        LocalRun(config_of(name, graph))
