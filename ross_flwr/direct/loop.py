"""Agent to agent over gRPC: each node runs the steps of its agents, and waits for its neighbours alone."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ross_flwr.direct.certificates import Credentials
from ross_flwr.direct.mail import Edge, Mail
from ross_flwr.direct.peer import Neighbor, Peer, Place, in_loop, most
from ross_flwr.engine.envelope import Envelope
from ross_flwr.engine.events import Round
from ross_flwr.engine.host import Host
from ross_flwr.engine.rounds import Schedule, rounds

__all__ = ["Session"]

MODELS = 8
"""An envelope may be as large as so many models."""


class Session:
    """The agents of one node among their neighbours, for some rounds. A context manager.

    Parameters
    ----------
    host : Host
        Hosts the agents of this node.
    neighbors : sequence of Neighbor
        The nodes that host their neighbours.
    address : str
        The ``host:port`` to serve at.
    topology, layout : str
        Digests of the topology and the model, by which peers see that they agree.
    patience : float
        Seconds after which a neighbour is missing for a step.
    edges : collection of (int, int), optional
        Whence something may come here, source first, where the graph changes; the neighbours of now without.
    credentials : Credentials, optional
        Without, nobody proves who it is.
    """

    def __init__(
        self,
        host: Host,
        neighbors: Sequence[Neighbor],
        *,
        address: str,
        topology: str,
        layout: str,
        patience: float,
        edges: Collection[Edge] | None = None,
        credentials: Credentials | None = None,
    ) -> None:
        self.host = host
        self.mail = Mail(patience)
        self.exchanges = max(1, len(host.algorithm.steps) - 1)
        model = next(iter(host.agents.values()))["model"]
        self._device = model.device
        if edges is None:
            edges = [(j, i) for i, agent in host.agents.items() for j in agent.neighbors if j not in host.agents]
        self.peer = Peer(
            Place(host.run, topology, layout, host.algorithm.steps[: self.exchanges]),
            address,
            neighbors,
            edges,
            self.mail,
            host.agents,
            MODELS * model.nbytes,
            credentials,
        )

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *error: object) -> None:
        self.peer.close()
        self.host.dropped.update(self.mail.dropped)

    def rounds(self, schedule: Schedule, first: int, last: int) -> Iterator[Round]:
        """Run rounds `first` … `last` (counted from 1, both included), yielding each as it ends.

        Rounds in which this node was left behind are missing among them.
        """
        self.mail.skip_to((first - 1) * schedule.passes * self.exchanges)
        yield from rounds(self.host, schedule, first, last, self)

    def collect(self, pass_number: int, number: int) -> list[Envelope] | None:
        """Return what arrives for step `number` of a pass; None when the neighbours turn out to be far ahead."""
        host, peer = self.host, self.peer
        arrived: list[Envelope] = []
        if number:
            # Also for agents that are away by configuration: who does not wait runs ahead of its neighbours.
            edges = [(j, i) for i, agent in host.agents.items() for j in agent.neighbors if j in peer.homes]
            silence = host.algorithm.optional(host.algorithm.steps[number - 1])
            came = peer.collect(pass_number * self.exchanges + number - 1, edges)
            arrived = self._here([each for each in came if each.tensors or silence])
        return None if peer.behind else arrived

    def send(self, pass_number: int, number: int, leaving: Sequence[Envelope]) -> None:
        """Send what leaves the node after step `number` of a pass."""
        letters = [*leaving, *self._nothing(leaving, pass_number, number)]
        self.peer.send(pass_number * self.exchanges + number, [(each, number) for each in letters])

    def _here(self, envelopes: list[Envelope]) -> list[Envelope]:
        """Return the envelopes with their tensors on the agents' device."""
        if self._device.type == "cpu":
            return envelopes
        return [
            replace(each, tensors={name: tensor.to(self._device) for name, tensor in each.tensors.items()})
            for each in envelopes
        ]

    def _nothing(self, leaving: Sequence[Envelope], pass_number: int, step: int) -> list[Envelope]:
        """Return empty envelopes for those who would wait for one in vain."""
        served = {(each.source, each.destination) for each in leaving}
        name = self.host.algorithm.steps[step]
        return [
            Envelope(self.host.run, pass_number, name, i, j, {})
            for i, agent in self.host.agents.items()
            for j in agent.receivers
            if j in self.peer.homes and (i, j) not in served
        ]

    def catch_up(self, pass_number: int, end: int) -> int:
        """Take the neighbours' model, and return the pass in which to go on: one that they have not begun.

        An agent's own model is the average of its neighbours', by their mixing weights; all else that it carries
        starts afresh.
        """
        host, links = self.host, self.peer.links
        before = self._newest(pass_number)
        models: dict[int, Tensor] = {}
        for link in links:
            for index in link.neighbor.agents:
                model = in_loop(link.fetch(index)) if link.reachable else None
                if model is not None:
                    models[index] = model.to(self._device)
        after = self._newest(pass_number)
        for agent in host.agents.values():
            row = {j: weight for j, weight in agent.mixing_row.items() if j in models} or dict.fromkeys(models, 1.0)
            own = agent["model"].shape, agent["model"].dtype
            fitting = {j: weight for j, weight in row.items() if (models[j].shape, models[j].dtype) == own}
            if fitting:
                weights = torch.tensor(list(fitting.values()), device=self._device)
                stacked = torch.stack([models[j] for j in fitting])
                agent.state = {"model": (weights / weights.sum()) @ stacked}
                host.algorithm.start(agent)
        target = min(end, after + (after - before) + 2) if after > pass_number else pass_number
        self.mail.skip_to(target * self.exchanges)
        self.peer.forgive()
        return target

    def _newest(self, pass_number: int) -> int:
        """Return the pass that most neighbours have reached, this one at least."""
        answers = [in_loop(link.position()) for link in self.peer.links if link.reachable]
        positions = [position // self.exchanges for position in answers if position is not None]
        return max(pass_number, most(positions)) if positions else pass_number
