"""Every method, clean and with three of ten agents poisoned, on the sparsest and the densest graph."""

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
OPTIONS = {"diloco": {"local-steps": 2, "learning-rate": 0.01}}
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


CASES = [
    (name, graph, attackers)
    for name, cls in ALGORITHMS.items()
    if cls.__module__.startswith("ross_flwr")
    for graph in ("ring", "complete")
    for attackers in (0, 3)
    if not cls.private or (graph, attackers) == ("ring", 0)  # gradients of single examples take long
]


@pytest.mark.parametrize(("name", "graph", "attackers"), CASES)
def test_a_method_learns_and_survives_where_it_is_meant_to(name: str, graph: str, attackers: int) -> None:
    options = {"algorithm": name, "topology": graph, "attackers": attackers, "permutations": 2, **OPTIONS.get(name, {})}
    config = resolve(options | {"num-rounds": 30, "evaluate-every": 30, "byzantine": 1 if graph == "ring" else 3})
    if name in REFUSED[graph]:
        with pytest.raises(ConfigError, match=REFUSED[graph][name]):
            LocalRun(config)
        return
    *_, line = LocalRun(config).rounds()
    if not attackers:
        assert all(map(math.isfinite, line["loss"].values()))
    if not attackers or name in MEANT_TO_SURVIVE:
        assert line["accuracy"]["mean"] > CHANCE + 0.2
