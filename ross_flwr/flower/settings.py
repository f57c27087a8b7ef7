"""From a strategy's arguments, objects or names, to the configuration that its nodes receive."""

import networkx as nx

from ross_flwr.algorithms import ALGORITHMS, Algorithm
from ross_flwr.config import Config, ConfigError, Scalar, resolve, values_of
from ross_flwr.graph.options import GraphOptions
from ross_flwr.graph.schedule import Graphs
from ross_flwr.graph.topology import of_graph
from ross_flwr.learning.rules import NNM, PRE_AGGREGATIONS, RULES, Bucketing, Rule
from ross_flwr.runs.options import RunOptions

__all__ = ["config_of", "described", "graphs_of"]

GIVEN = "graph"
"""The name of a topology that is given as a graph. Nodes need no more, since they are told their agents' places."""


def described(given: object) -> str:
    """Return what an argument is, for a sentence.

    Examples
    --------
    >>> described("adam"), described(dict), described([]), described(3)
    ("'adam'", 'the class dict', 'a list', 'an int')
    """
    if isinstance(given, str):
        return f"'{given}'"
    if isinstance(given, type):
        return f"the class {given.__name__}"
    name = type(given).__name__
    return f"an {name}" if name[0] in "aeiouAEIOU" else f"a {name}"


def config_of(
    transport: str, algorithm: str | Algorithm, topology: str | nx.Graph, options: dict[str, Scalar]
) -> Config:
    """Return the configuration of a run in which nobody attacks unless `attackers` says so.

    An algorithm object stands for its name and options; nodes make a new one from them.

    Raises
    ------
    ConfigError
        When an option is not known, not possible, or given twice.
    """
    if not isinstance(algorithm, str | Algorithm):
        raise ConfigError(f"algorithm is {described(algorithm)}: give its name, 'ross', or an object of it, ROSS()")
    if not isinstance(topology, str | nx.Graph):
        raise ConfigError(f"topology is {described(topology)}: give its name, 'ring', or a networkx graph")
    given = {name.replace("_", "-"): value for name, value in options.items()}
    if shares := [name for name in options if name.startswith("fraction_")]:
        raise ConfigError(f"{shares[0]} is an argument of FedAvg: leave it out, as all agents take part in every round")
    if given.setdefault("transport", transport) != transport:
        raise ConfigError(
            f"transport = '{given['transport']}' is another strategy: use PeerRelay for relay, PeerDirect for direct, "
            "PeerHybrid for hybrid"
        )
    own = {} if isinstance(algorithm, str) else _options_of(algorithm)
    if twice := own.keys() & given.keys():
        raise ConfigError(f"{min(twice)} is an option of the algorithm object: give it there alone")
    own["algorithm"] = algorithm if isinstance(algorithm, str) else algorithm.name
    own["topology"] = topology if isinstance(topology, str) else GIVEN
    if not isinstance(topology, str) and given.setdefault("num-agents", len(topology)) != len(topology):
        raise ConfigError(f"num-agents = {given['num-agents']} and a graph of {len(topology)} agents: leave one out")
    config = resolve({**own, **given})
    if transport == "hybrid" and not config.part(GraphOptions).average_every:
        raise ConfigError(
            "PeerHybrid relays the rounds of average-every, and average-every = 0 has none: use average_every=10, "
            "say, or PeerDirect"
        )
    return config


def graphs_of(graph: nx.Graph, config: Config) -> Graphs:
    """Return the graphs of a run on a given graph.

    Raises
    ------
    ConfigError
        When its nodes are not the agents 0 … N−1, it does not connect them, or it does not fit the mixing rule.
    """
    options = config.part(GraphOptions)
    mixing, average_every = options.mixing, options.average_every
    if graph.is_directed() and mixing != "push":
        raise ConfigError(f"mixing = '{mixing}' takes an undirected graph, and this one is directed: use mixing='push'")
    connected = nx.is_strongly_connected(graph) if graph.is_directed() else nx.is_connected(graph)
    if not connected and not average_every:
        raise ConfigError("the graph does not connect all agents: add edges, or use average_every=10, say")
    drawn, passes = of_graph(graph, mixing), config.part(RunOptions).batches_per_round
    return Graphs(lambda _epoch: drawn, len(graph), average_every=average_every, passes=passes, name=GIVEN)


def _options_of(algorithm: Algorithm) -> dict[str, Scalar]:
    cls = type(algorithm)
    if ALGORITHMS.get(getattr(cls, "name", "")) is not cls:
        raise ConfigError(f"{cls.__name__} is not registered: decorate it with @register(name), here and on the nodes")
    rule, usual = algorithm.rule, cls().rule
    if usual and type(rule) is not type(usual):
        raise ConfigError(f"{algorithm.name} mixes by {type(usual).__name__}: use dpsgd, say, for another rule")
    return values_of(algorithm) | (_options_of_rule(rule) if rule and not usual else {})


def _options_of_rule(rule: Rule) -> dict[str, Scalar]:
    """Return the keys that make nodes mix by `rule`."""
    around = next((name for name, cls in PRE_AGGREGATIONS.items() if cls is type(rule)), "none")
    inner = rule.rule if isinstance(rule, Bucketing | NNM) else rule
    if RULES.get(inner.name) is not type(inner):
        name = type(inner).__name__
        raise ConfigError(f"{name} is not registered: decorate it with @register_rule(name), here and on the nodes")
    return values_of(rule) | values_of(inner) | {"aggregator": inner.name, "pre-aggregation": around}
