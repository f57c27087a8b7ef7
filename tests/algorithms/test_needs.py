"""What the list of methods says of each is true."""

import re

import networkx as nx
import numpy as np
import pytest
from quadratics import Quadratic, run_round, started

from ross_flwr.algorithms import ALGORITHMS
from ross_flwr.cli.lists import about, traits
from ross_flwr.config import ConfigError
from ross_flwr.graph import topology
from ross_flwr.graph.topology import Topology

METHODS = {name: cls for name, cls in ALGORITHMS.items() if cls.__module__.startswith("ross_flwr")}
FAMILIES = {
    "decentralized optimisation",
    "cross-gradients",
    "Byzantine-robust",
    "fairness",
    "personal",
    "reference",
}
ROWS_ONLY = np.full((6, 6), 0.1) + 0.4 * np.eye(6) + 0.05 * (np.eye(6, k=1) - np.eye(6, k=2))
ROWS_ONLY /= ROWS_ONLY.sum(axis=1, keepdims=True)
ROTATION = np.full((6, 6), 0.1) + 0.3 * np.eye(6) + 0.1 * np.roll(np.eye(6), 1, axis=1)

REFUSED = {
    "a star": topology.build("complete", 6, mixing="lazy-metropolis").mixing,
    "a symmetric W": ROTATION,
    "λ_min(W) > −1/3": topology.build("complete-bipartite", 8).mixing,
    "columns of W that sum to 1": ROWS_ONLY,
}
"""For each need a mixing matrix that does not meet it, and meets all others but for a star or a symmetric W."""


def graph_for(name):
    return topology.build("star" if "a star" in METHODS[name].needs else "complete", 6, mixing="lazy-metropolis")


def test_a_method_has_a_family_and_a_paper():
    for name, method in METHODS.items():
        assert method.family in FAMILIES, name
        assert method.needs == tuple(dict.fromkeys(method.needs)), name
        assert set(method.needs) <= set(REFUSED), name
        if method.family != "reference" and name != "cross-gradient":
            named = re.search(r"\(.*(arXiv:\d{4}\.\d{5}|20\d\d).*\)", about(method))
            assert named, f"{name}: the first sentence names the paper"


@pytest.mark.parametrize("need", REFUSED)
def test_a_method_refuses_what_does_not_meet_its_needs_and_nothing_else(need):
    mixing = REFUSED[need]
    unmet = {need} | ({"a symmetric W"} if not np.allclose(mixing, mixing.T) else set()) | {"a star"}
    for method in METHODS.values():
        if unmet & set(method.needs):
            with pytest.raises(ConfigError):
                method().check(mixing, 60)
        else:
            method().check(mixing, 60)


def test_a_method_judges_by_the_validation_set_if_it_says_so(monkeypatch):
    asked = []

    def noted(answer):
        return lambda *arguments: asked.append(arguments) or answer(*arguments)

    for question in ("utility", "outputs"):
        monkeypatch.setattr(Quadratic, question, noted(getattr(Quadratic, question)))
    monkeypatch.setattr(Quadratic, "validation", property(noted(Quadratic.validation.fget)))
    for name, cls in METHODS.items():
        method = cls()
        host, _ = started(graph_for(name), method)
        asked.clear()
        run_round(host, 0)
        assert bool(asked) == method.needs_validation, name
        trains_on_it = "validation" in method.trains_on
        assert ("a validation set" in traits(cls)) == (method.needs_validation or trains_on_it), name


def test_every_step_of_ones_own_can_be_several():
    """So that methods can be compared at as many gradients."""
    several = {name for name, cls in METHODS.items() if "local_steps" in cls.__dataclass_fields__}
    begin_with_an_exchange = {"cross-gradient", "cga", "ngc", "cgsv", "fltrust", "dpdl"}
    mix_every_step = {"dsgt", "deca"}  # with local steps DSGT is NET-FLEET; DECA's moments learn of every mixing
    assert set(METHODS) - several == begin_with_an_exchange | mix_every_step
    for name in sorted(several - {"ross-plus"}):
        counts = []
        for steps in (1, 4):
            host, _ = started(graph_for(name), METHODS[name](local_steps=steps, learning_rate=0.01))
            counts.append(max(report.gradients for report in run_round(host, 0)))
        assert counts[1] == 4 * counts[0], name


def test_a_round_has_as_many_exchanges_as_the_list_says():
    for name, cls in METHODS.items():
        hosts = [started(graph_for(name), cls(), members=members)[0] for members in ((0, 1, 2), (3, 4, 5))]
        exchanges, mail = 0, ([], [])
        for number in range(len(hosts[0].algorithm.steps)):
            there, here = (host.activate(0, number, mail[side]) for side, host in enumerate(hosts))
            mail = here, there
            exchanges += bool(here and there)
        assert f"; {exchanges} exchange{'s' * (exchanges != 1)}" in traits(cls), name


def test_f_is_among_the_needs_of_methods_that_take_it():
    assert "needs f (byzantine)" in traits(METHODS["monna"])
    assert "byzantine" not in traits(METHODS["dpsgd"])
    assert "needs" not in traits(METHODS["dpsgd"])


def test_every_matrix_is_one_that_only_its_need_refuses():
    for need, mixing in REFUSED.items():
        np.testing.assert_allclose(mixing.sum(axis=1), 1)
        assert np.allclose(mixing.sum(axis=0), 1) == (need != "columns of W that sum to 1")
        assert (np.linalg.eigvalsh(mixing)[0] > -1 / 3) == (need != "λ_min(W) > −1/3")
        assert nx.is_connected(Topology(nx.from_numpy_array(mixing), mixing).graph)
