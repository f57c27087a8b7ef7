"""The strategies that replace FedAvg: PeerRelay, PeerDirect and PeerHybrid."""

from collections.abc import Iterator

from ross_flwr.flower.direct import Segments
from ross_flwr.flower.options import FlowerOptions
from ross_flwr.flower.relay import Relay
from ross_flwr.flower.strategy import PeerStrategy, Way
from ross_flwr.graph.options import GraphOptions

__all__ = ["STRATEGIES", "PeerDirect", "PeerHybrid", "PeerRelay"]


class PeerRelay(PeerStrategy):
    """Peer-to-peer rounds whose messages the ServerApp carries, along the edges of the topology and nowhere else.

    A round is one activation of every node per exchange of the algorithm.

    Parameters
    ----------
    algorithm : str or Algorithm (default: "ross")
        The method, by name or as an object. An object stands for its name and options. Nodes need the same class, so
        their client app must import the module that registers it.
    topology : str or networkx.Graph (default: "random-regular")
        Who talks to whom, by name or as a graph on the agents 0 … N−1, which sets `num_agents`.
    log : str
        Trackers that hear of every round, with commas between them: tensorboard, mlflow, wandb. It needs `results`.
    **options : bool, int, float or str
        Configuration keys (``ross-flwr config`` lists them), written with ``-`` or ``_``. Without `num_agents`, each
        node that is connected at the start hosts one agent; without `attackers`, nobody attacks. The folder `results`
        gets what ``ross-flwr run`` leaves, and the report.

    Attributes
    ----------
    history : History
        A line per round of the last run.
    models : dict[int, ArrayRecord]
        Every agent's last fetched model, under the model's own parameter names.
    dropped : Counter
        Messages and replies that were refused or lost, by reason.
    on_round : callable
        Called with each line of the history.
    outcome : dict
        The summary of the last run.

    Raises
    ------
    ConfigError
        When an option is not known or not possible.

    Examples
    --------
    >>> from ross_flwr import ROSS
    >>> strategy = PeerRelay(algorithm=ROSS(learning_rate=0.1), topology="ring", batches_per_round=6)

    A ServerApp starts it as it would start FedAvg::

        result = strategy.start(grid, ArrayRecord(Net().state_dict()), num_rounds=20)
    """

    transport = "relay"

    def _stretches(self, num_rounds: int) -> Iterator[tuple[int, int, Way]]:
        relay = Relay(self._run)
        for number in range(self._run.first, num_rounds + 1):
            yield number, number, relay


class PeerDirect(PeerStrategy):
    """Peer-to-peer rounds in which nodes talk to each other directly.

    The ServerApp sends each node one message per segment of `segment-rounds` rounds: its agents' mixing rows, and the
    names and addresses of the nodes that host their neighbours. It gets back what happened in each round, but no models
    unless ``return_model="final"`` asks for the last ones. Each SuperNode needs `peer-address` and `peer-certs` in its
    ``--node-config``. Parameters and attributes are those of `PeerRelay`.

    Examples
    --------
    >>> strategy = PeerDirect(algorithm="dpsgd", topology="ring", segment_rounds=50, return_model="final")

    A ServerApp starts it as it would start FedAvg::

        result = strategy.start(grid, ArrayRecord(Net().state_dict()), num_rounds=200)
    """

    transport = "direct"

    def _stretches(self, num_rounds: int) -> Iterator[tuple[int, int, Way]]:
        segments, length = Segments(self._run), self.config.part(FlowerOptions).segment_rounds
        for first in range(self._run.first, num_rounds + 1, length):
            yield first, min(first + length - 1, num_rounds), segments


class PeerHybrid(PeerStrategy):
    """Rounds of gossip from node to node, and rounds of averaging over all agents through the ServerApp.

    A node must be reachable only for the nodes with which it gossips: with ``topology="islands"``, those of its own
    cluster. A round of `average-every` starts from the state that gossip left. Parameters and attributes are those of
    `PeerRelay`.

    Examples
    --------
    >>> strategy = PeerHybrid(algorithm="dpsgd", topology="islands", average_every=10)

    A ServerApp starts it as it would start FedAvg::

        result = strategy.start(grid, ArrayRecord(Net().state_dict()), num_rounds=100)
    """

    transport = "hybrid"

    def _stretches(self, num_rounds: int) -> Iterator[tuple[int, int, Way]]:
        every, length = self.config.part(GraphOptions).average_every, self.config.part(FlowerOptions).segment_rounds
        segments, relay = Segments(self._run), Relay(self._run, alone=True)
        first = self._run.first
        while first <= num_rounds:
            if self.assembly.graphs.averages(first):
                relay.ready |= segments.ready
                yield first, first, relay
                first += 1
            else:
                last = min(first + length - 1, first // every * every + every - 1, num_rounds)
                yield first, last, segments
                first = last + 1


STRATEGIES: dict[str, type[PeerStrategy]] = {each.transport: each for each in (PeerRelay, PeerDirect, PeerHybrid)}
"""The strategy of each transport."""
