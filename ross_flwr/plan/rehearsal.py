"""A rehearsal: one process plays some nodes of a run, and tells what each step costs and sends."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean, median
from time import process_time

from torch import Tensor

from ross_flwr.config import Config
from ross_flwr.engine.envelope import Envelope
from ross_flwr.graph.blocks import blocks
from ross_flwr.learning.agent import Agent
from ross_flwr.plan.caches import empty_caches
from ross_flwr.plan.network import Load, Sack
from ross_flwr.runs.assemble import assemble, limit_threads
from ross_flwr.runs.options import MachineOptions

__all__ = ["Rehearsal", "rehearse"]

ENOUGH, PASSES = 2.0, 10
"""Seconds after which no further pass is rehearsed, and the most passes. The first of at least two does not count."""


@dataclass(frozen=True)
class Rehearsal:
    """What nodes do in a pass over the method's steps.

    Attributes
    ----------
    load : Load
        What each node computes and sends.
    parameters : int
        Numbers in the model.
    gradient : float
        Processor seconds of one gradient.
    state : float
        Bytes that a node keeps from pass to pass, the mean over nodes.
    """

    load: Load
    parameters: int
    gradient: float
    state: float


def rehearse(config: Config, num_nodes: int, *, crowded: bool) -> Rehearsal:
    """Play the nodes of a run in turn, each with the agents that it would host, and measure what they do.

    Where nodes are `crowded`, each finds nothing of its own in the processor's caches.

    Raises
    ------
    ConfigError
        When the run is not possible.
    """
    limit_threads()
    assembly = assemble(config)
    assembly.check()
    topology, steps = assembly.topology, range(len(assembly.algorithm.steps))
    home = {agent: node for node, block in enumerate(blocks(topology, num_nodes)) for agent in block}
    places = [{i: topology.place(i) for i in sorted(home) if home[i] == node} for node in range(num_nodes)]
    hosts = [assembly.host("plan", each, config.part(MachineOptions).engine) for each in places]
    taken: list[list[list[float]]] = [[[] for _ in hosts] for _ in steps]
    sacks: list[dict[tuple[int, int], Sack]] = [{} for _ in steps]
    distinct = [[0.0 for _ in hosts] for _ in steps]
    began = process_time()
    for pass_number in range(PASSES):
        if pass_number > 1 and process_time() - began > ENOUGH:
            break
        mail: dict[int, list[Envelope]] = {}
        for step in steps:
            leaving: list[Envelope] = []
            for node, host in enumerate(hosts):
                if crowded:
                    empty_caches()
                since = process_time()
                sent = host.activate(pass_number, step, mail.get(node, ()))
                taken[step][node].append(process_time() - since)
                distinct[step][node] = _nbytes(tensor for each in sent for tensor in each.tensors.values())
                leaving += sent
            mail, sacks[step] = _sorted(leaving, home)
        for host in hosts:
            host.end_pass()
    load = Load([[median(each[1:]) for each in row] for row in taken], sacks, distinct)
    states = [sum(_nbytes(agent.state.values()) for agent in host.agents.values()) for host in hosts]
    return Rehearsal(load, assembly.task.model.size, _gradient(hosts[0].agents[min(places[0])]), fmean(states))


def _sorted(
    leaving: Iterable[Envelope], home: dict[int, int]
) -> tuple[dict[int, list[Envelope]], dict[tuple[int, int], Sack]]:
    """Return envelopes by the node that gets them, and what they are together for each pair of nodes."""
    mail: dict[int, list[Envelope]] = defaultdict(list)
    sacks: dict[tuple[int, int], Sack] = {}
    for envelope in leaving:
        edge = home[envelope.source], home[envelope.destination]
        before = sacks.get(edge, Sack(0, 0))
        sacks[edge] = Sack(before.count + 1, before.size + _nbytes(envelope.tensors.values()))
        mail[edge[1]].append(envelope)
    return mail, sacks


def _nbytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of different tensors."""
    return sum({tensor.data_ptr(): tensor.nbytes for tensor in tensors}.values())


def _gradient(agent: Agent) -> float:
    """Return the processor seconds of one gradient of a mini-batch."""
    model, times = agent["model"], []
    for number in range(5):
        batch, since = agent.batches.take(number), process_time()
        agent.objective.gradient(model, batch)
        times.append(process_time() - since)
    return median(times)
