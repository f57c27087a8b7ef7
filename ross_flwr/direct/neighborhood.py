"""One node's agents among its neighbours': the transport of the round loop that talks to other nodes."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import inf, isfinite, sqrt
from statistics import median_low

from torch import Tensor

from ross_flwr.algorithms.messages import Refused
from ross_flwr.direct.agreement import Agreement
from ross_flwr.direct.certificates import Credentials
from ross_flwr.direct.channels import Neighbor
from ross_flwr.direct.pace import SLOWEST
from ross_flwr.direct.peer import Peer
from ross_flwr.direct.progress import Edge
from ross_flwr.engine.envelope import Envelope
from ross_flwr.engine.events import Round
from ross_flwr.engine.host import Host
from ross_flwr.engine.rounds import Schedule, rounds

__all__ = ["Neighborhood"]

MODELS = 8
"""An envelope may be as large as this many models."""

LONGER = 10
"""A fetched message may be this many times as long as is usual among those fetched and the own models."""


class Neighborhood:
    """The agents of one node among their neighbours. A context manager.

    Parameters
    ----------
    host : Host
        Hosts the agents of this node.
    neighbors : sequence of Neighbor
        The nodes that host their neighbours.
    address : str
        The ``host:port`` on which to serve.
    topology, layout : str
        Digests of the topology and of the model. Nodes with different digests are refused.
    passes : int
        The passes of the run. A neighbour that claims to be beyond them is not believed.
    patience : float
        Seconds after which a neighbour's message counts as missing.
    edges : collection of (int, int), optional
        The edges, source first, on which messages may arrive in these rounds; by default, the current ones.
    credentials : Credentials, optional
        Without them, nodes do not prove who they are.
    behind_by : float (default: 0)
        How many seconds earlier the other nodes may have started these rounds. A restarted node accepts that its
        neighbours are as far ahead as that allows.
    slowest : float
        How many times as long as this node a neighbour may work for an exchange, always, and still be waited for.

    Raises
    ------
    ConfigError
        When the address cannot be served.

    Examples
    --------
    >>> with Neighborhood(host, neighbors, address="10.0.0.1:9700", ...) as neighborhood:  # doctest: +SKIP
    ...     for round in neighborhood.rounds(Schedule(num_rounds=100), 1, 100):
    ...         print(round.number)
    """

    def __init__(
        self,
        host: Host,
        neighbors: Sequence[Neighbor],
        *,
        address: str,
        topology: str,
        layout: str,
        passes: int,
        patience: float,
        edges: Collection[Edge] | None = None,
        credentials: Credentials | None = None,
        behind_by: float = 0.0,
        slowest: float = SLOWEST,
    ) -> None:
        self.host = host
        self.exchanges = max(1, len(host.algorithm.steps) - 1)
        agent = next(iter(host.agents.values()))
        model, steps = agent["model"], host.algorithm.steps[: self.exchanges]
        self._device = model.device
        self._fetched: list[Envelope] = []
        if edges is None:
            edges = [(j, i) for i, agent in host.agents.items() for j in agent.neighbors if j not in host.agents]
        self.peer = Peer(
            Agreement(host.run, topology, layout, steps),
            address,
            neighbors,
            edges,
            [k for k, step in enumerate(steps) if "model" in host.algorithm.forms(step, agent)],
            passes=passes,
            patience=patience,
            limit=MODELS * model.nbytes,
            credentials=credentials,
            behind_by=behind_by,
            slowest=slowest,
            left=host.patience,
        )

    def __enter__(self) -> "Neighborhood":
        return self

    def __exit__(self, *error: object) -> None:
        self.peer.close()
        self.host.patience.update(self.peer.left)
        self.host.dropped.update(self.peer.mail.dropped)

    def rounds(self, schedule: Schedule, first: int, last: int) -> Iterator[Round]:
        """Run rounds `first` … `last` (counted from 1, both included), yielding each as it ends.

        Rounds in which the neighbours left this node behind are left out.
        """
        self.peer.begin((first - 1) * schedule.passes * self.exchanges)
        yield from rounds(self.host, schedule, first, last, self)

    def send(self, pass_number: int, number: int, leaving: Sequence[Envelope]) -> None:
        """Send what leaves the node after step `number` of a pass."""
        self.peer.send(pass_number * self.exchanges + number, [*leaving, *self._silences(leaving, pass_number, number)])

    def collect(self, pass_number: int, number: int) -> list[Envelope] | None:
        """Return what arrives for step `number` of a pass; None when the neighbours have gone on without this node."""
        if number == 0:
            return []
        steps = self.host.algorithm.steps
        if self._fetched and pass_number == self._fetched[0].pass_number:
            return [each for each in self._fetched if each.step == steps[number - 1]]
        self._fetched = []
        # Agents that are away by configuration wait too; otherwise their node would run ahead of its neighbours.
        agents, homes = self.host.agents, self.peer.homes
        edges = [(j, i) for i, agent in agents.items() for j in agent.neighbors if j in homes]
        came = self.peer.collect(pass_number * self.exchanges + number - 1, edges)
        silence = self.host.algorithm.optional(steps[number - 1])
        return None if came is None else [self._here(each) for each in came if each.tensors or silence]

    def catch_up(self, pass_number: int, end: int) -> int:
        """Rejoin the neighbours a little ahead of them, and return the pass to go on with.

        The node goes through one pass with what its neighbours sent last, which it fetches, instead of what they send
        in that pass. So their models enter only as the method itself takes in models, and all that the agents carry
        stays theirs. Without sound models from two nodes, or from the only one, there is no such pass.
        """
        fetched, target = self.peer.follow(end)
        self._fetched = self._sound([self._here(replace(each, pass_number=target - 1)) for each in fetched])
        return target - 1 if self._fetched and target - 1 > pass_number else target

    def _sound(self, fetched: Collection[Envelope]) -> list[Envelope]:
        """Return the envelopes that are no longer than is likely, if they come from enough nodes to compare."""
        models = [agent["model"] for agent in self.host.agents.values()]
        lengths: list[tuple[Envelope, float]] = []
        for envelope in fetched:
            try:
                lengths.append((envelope, _length(self.host.preview(envelope).values())))
            except Refused as error:
                self.host.mailroom.drop(error.reason, envelope.source, envelope.destination)
        bound = LONGER * median_low([*(_length([model]) for model in models), *(length for _, length in lengths)])
        sound = []
        for envelope, length in lengths:
            if length <= bound:
                sound.append(envelope)
            else:
                self.host.mailroom.drop("too-long", envelope.source, envelope.destination)
        nodes = {self.peer.homes[envelope.source] for envelope in sound}
        return sound if len(nodes) >= min(2, len(self.peer.links)) else []

    def _here(self, envelope: Envelope) -> Envelope:
        """Return an envelope with its tensors on the agents' device."""
        if self._device.type == "cpu":
            return envelope
        tensors: Mapping[str, Tensor] = envelope.tensors
        return replace(envelope, tensors={name: tensor.to(self._device) for name, tensor in tensors.items()})

    def _silences(self, leaving: Sequence[Envelope], pass_number: int, number: int) -> list[Envelope]:
        """Return empty envelopes for every receiver that would otherwise wait in vain."""
        served = {(each.source, each.destination) for each in leaving}
        step = self.host.algorithm.steps[number]
        return [
            Envelope(self.host.run, pass_number, step, i, j, {})
            for i, agent in self.host.agents.items()
            for j in agent.receivers
            if j in self.peer.homes and (i, j) not in served
        ]


def _length(tensors: Iterable[Tensor]) -> float:
    """Return the Euclidean norm of tensors together; infinity if some number is not finite."""
    square = sum(float(tensor.double().square().sum()) for tensor in tensors)
    return sqrt(square) if isfinite(square) else inf
