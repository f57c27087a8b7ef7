"""What a run will take: it is rehearsed on a few nodes, and then simulated on all of them or on a sample."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import inf
from statistics import fmean

from ross_flwr.config import Config, ConfigError
from ross_flwr.cores import given_cores
from ross_flwr.plan.gossip import Gossip
from ross_flwr.plan.network import Load, Pace, Sack
from ross_flwr.plan.places import DEPLOYMENT, MEMORY, SERVER, SIMULATION, Link, Relay, Server, read_link
from ross_flwr.plan.rehearsal import Rehearsal
from ross_flwr.plan.relayed import Relayed
from ross_flwr.plan.sample import Sample
from ross_flwr.runs.options import RunOptions

__all__ = ["REMEDIES", "Forecast", "forecast"]

FLOWER = "Flower's polling, and the start of the ClientApp for each message"
WAITING, MATRIX = "waiting for what is on the way", "the ServerApp's memory"
"""Bottlenecks that are no processor and no link."""

LESS = "send less: compress = 'int8', a smaller topology-degree, or more local-steps between messages"
DIRECT = "Let nodes talk to each other (transport = 'direct')"
BLOCKS = "Use transport = 'direct' with longer segments (segment-rounds), or host several agents on a node (num-nodes)"
REMEDIES = {
    "this machine's processor": "Use more machines, or a method that takes fewer gradients",
    "each node's processor": "Use faster devices, or a method that takes fewer gradients",
    "each node's link up": f"Nodes should {LESS}",
    "each node's link down": f"Nodes should {LESS}",
    "the server's link up": f"{DIRECT}, or {LESS}",
    "the server's link down": f"{DIRECT}, or {LESS}",
    "the SuperLink": BLOCKS,
    "the ServerApp": BLOCKS,
    FLOWER: BLOCKS,
    WAITING: "More work between messages (local-steps) hides it",
    MATRIX: "The mixing matrix of all agents is in it, and all that it relays: use fewer agents",
}
"""What helps against each bottleneck."""

REPORT = 600
"""Bytes that an agent reports to the ServerApp for each round of a segment."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a run will take, in seconds and bytes; of a round, where nothing else is said.

    Attributes
    ----------
    nodes, simulated : int
        Nodes of the run, and those that were simulated in their place.
    parameters, gradient : int, float
        Numbers in the model, and seconds of a gradient.
    seconds, computing, handling, transfer : float
        The time of a round, and of it what a node computes, spends on messages, and needs its link for.
    between, segment : float, int
        What Flower takes between two segments, and the rounds of a segment; 0 if it relays.
    sent, messages : float
        Bytes and messages that a node sends to others.
    up, down : float
        Bytes that leave the server and that reach it.
    memory : dict
        Bytes of memory by process.
    busy : dict
        The share of the time in which each kind of processor and link works, the fullest first.
    """

    nodes: int
    simulated: int
    parameters: int
    gradient: float
    seconds: float
    computing: float
    handling: float
    transfer: float
    between: float
    segment: int
    sent: float
    messages: float
    up: float
    down: float
    memory: dict[str, float]
    busy: dict[str, float]

    @property
    def waiting(self) -> float:
        """The rest of a round, for which a node waits: for others, for the server, or for a shared processor."""
        return max(0.0, self.seconds - self.computing - self.handling - self.transfer)

    @property
    def bottleneck(self) -> str:
        """What the run meets first."""
        return MATRIX if self.memory["ServerApp"] > SERVER.memory else next(iter(self.busy))


def forecast(config: Config, link: str = "loopback", device: float | None = None) -> Forecast:
    """Return what the run with this configuration will take.

    Parameters
    ----------
    config : Config
        The run; `transport`, `num-nodes` and `segment-rounds` count.
    link : str
        How nodes reach each other, as `read_link` takes it.
    device : float, optional
        Seconds of a gradient on a node, to which all that nodes compute is scaled; without, it is as on this machine.

    Raises
    ------
    ConfigError
        When the run is not possible, or too large to simulate.
    """
    way, transport = read_link(link), config.values["transport"]
    if transport == "hybrid":
        raise ConfigError("transport = 'hybrid' is relay in some rounds and direct in the others: plan each of them")
    if transport == "direct" and link == "simulation":
        raise ConfigError("--link simulation relays through Flower: use -c transport=relay, or another link")
    sample = Sample.of(config)
    rehearsal = sample.rehearse(crowded=_is_crowded(sample, way))
    return Planner(config, sample, rehearsal, way, link, device / rehearsal.gradient if device else 1.0).told()


class Planner:
    """Simulates a run, and puts together what is to be told.

    Each simulated node stands for several where there are more: at the server, it takes as long as they do.
    """

    def __init__(
        self, config: Config, sample: Sample, rehearsal: Rehearsal, way: Link, link: str, scale: float
    ) -> None:
        self.sample, self.rehearsal, self.way, self.scale = sample, rehearsal, way, scale
        self.load = sample.load(rehearsal.load, scale)
        self.passes, self.cores = config.part(RunOptions).batches_per_round, given_cores()
        self.direct = config.values["transport"] == "direct"
        self.segment = int(config.values["segment-rounds"]) if self.direct else 0
        self.stands_for = sample.nodes / sample.simulated
        self.relay = self._relay(SIMULATION if link == "simulation" else DEPLOYMENT)
        self.agents = config.part(RunOptions).num_agents

    def told(self) -> Forecast:
        """Return what is told."""
        steps = range(len(self.load.seconds))
        crowded = _is_crowded(self.sample, self.way)
        cost = _cost(self.load, self.scale, crowded=crowded) if self.direct else lambda _: 0.0
        pace = Gossip(self.load, self.way, cost, self.cores).pace() if self.direct else self._relayed(self.load)
        flower = self._relayed(self._of_segment()) if self.direct else Pace(0.0, {})
        seconds = self.passes * pace.seconds
        links = [pace.busy["each node's link up"], pace.busy["each node's link down"]]
        sacks = [sack for each in self.load.sacks for sack in each.values()]
        nodes = self.load.num_nodes
        handling = sum(map(cost, sacks)) / nodes if self.direct else max(1, len(steps) - 1) * self.relay.start
        up, down = self._through_server()
        return Forecast(
            nodes=self.sample.nodes,
            simulated=nodes,
            parameters=self.rehearsal.parameters,
            gradient=self.rehearsal.gradient * self.scale,
            seconds=seconds,
            computing=self.passes * sum(fmean(self.load.seconds[step]) for step in steps),
            handling=self.passes * handling,
            transfer=self.passes * (max(links) if self.direct else sum(links)),
            between=flower.seconds,
            segment=self.segment,
            sent=self.passes * sum(sack.size for sack in sacks) / nodes,
            messages=self.passes * sum(sack.count for sack in sacks) / nodes,
            up=up,
            down=down,
            memory=self._memory(),
            busy=self._busy(pace, flower),
        )

    def _relayed(self, load: Load) -> Pace:
        many = inf if self.way.shared else 1 / self.stands_for
        server = Server(SERVER.up * many, SERVER.down * many)
        return Relayed(load, self.way, server, self.relay, self.cores, 1 if self.direct else self.passes).pace()

    def _relay(self, relay: Relay) -> Relay:
        """Return what Flower takes where devices are slower, and messages of a simulated node stand for many."""
        many = {name: getattr(relay, name) * self.stands_for for name in ("app", "link", "app_byte", "link_byte")}
        return replace(relay, start=relay.start * self.scale, node_byte=relay.node_byte * self.scale, **many)

    def _of_segment(self) -> Load:
        """Return what Flower carries for a segment: the first model to each node, and a report back."""
        nodes, report = range(self.load.num_nodes), float(REPORT * self.segment * self.sample.per_node)
        told = {(node, node): Sack(1, 4 * self.rehearsal.parameters) for node in nodes}
        return Load([[0.0 for _ in nodes]] * 2, [told, {}], [[report for _ in nodes]] * 2)

    def _through_server(self) -> tuple[float, float]:
        """Return the bytes that leave the server in a round, and those that reach it."""
        load, times = (self._of_segment(), 1 / self.segment) if self.direct else (self.load, self.passes)
        up = sum(sack.size for sacks in load.sacks for sack in sacks.values())
        return up * times * self.stands_for, sum(
            map(sum, load.distinct[: len(load.sacks) - 1 or 1])
        ) * times * self.stands_for

    def _busy(self, pace: Pace, flower: Pace) -> dict[str, float]:
        """Return the share of the time in which each kind works, and those in which none does, the largest first."""
        rounds = self.segment * self.passes or 1
        total = pace.seconds + flower.seconds / rounds
        server = {kind: seconds / rounds / total for kind, seconds in flower.busy.items() if "node" not in kind}
        shares = {kind: seconds / total + server.get(kind, 0.0) for kind, seconds in pace.busy.items()}
        shares.pop("each node's link down" if self.direct else "", None)  # it works while that up does
        polling = flower.seconds / rounds / total - max(server.values(), default=0.0)
        rest = 1.0 - sum(seconds for kind, seconds in pace.busy.items() if kind in shares) / total
        if self.direct:
            shares |= {FLOWER: polling, WAITING: max(0.0, rest - flower.seconds / rounds / total)}
        else:
            processor = next(kind for kind in shares if kind.endswith("processor"))
            starts = max(1, len(self.load.seconds) - 1) * self.relay.start / pace.seconds
            starts *= self.load.num_nodes / self.cores if self.way.shared else 1.0
            shares |= {processor: max(0.0, shares[processor] - starts), FLOWER: max(0.0, rest) + starts}
        return dict(sorted(shares.items(), key=lambda each: -each[1]))

    def _memory(self) -> dict[str, float]:
        """Return bytes by process."""
        coming = max(map(fmean, self.load.coming))
        leaving = max(fmean(row) for row in self.load.distinct)
        model, relayed = 4 * self.rehearsal.parameters, 0.0 if self.direct else leaving * self.sample.nodes
        return {
            "node": MEMORY.node + self.rehearsal.state + coming + leaving + MEMORY.models * model,
            "SuperLink": MEMORY.superlink + MEMORY.copies * relayed,
            "ServerApp": MEMORY.server_app + MEMORY.copies * relayed + 8.0 * self.agents**2,
        }


def _is_crowded(sample: Sample, way: Link) -> bool:
    """Return whether nodes take turns on the processors of one machine."""
    return way.shared and sample.nodes > given_cores()


def _cost(load: Load, scale: float, *, crowded: bool) -> Callable[[Sack], float]:
    """Return what sender and receiver together spend on a sack, as measured with a short and the longest message."""
    from ross_flwr.plan.handling import handling  # gRPC is there only where nodes talk to each other

    sizes = [sack.size / sack.count for sacks in load.sacks for sack in sacks.values() if sack.count]
    short, longest = 1000.0, max([2000.0, *sizes])
    fixed, most = handling([short, longest], crowded=crowded)
    slope = max(0.0, most - fixed) / (longest - short)
    return lambda sack: scale * (sack.count * fixed + slope * max(0.0, sack.size - sack.count * short))
