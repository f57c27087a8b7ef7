"""Runs from Python: parts in, history and models out."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx as nx
import torch
from torch import Tensor

from ross_flwr.algorithms import Algorithm
from ross_flwr.compression.options import CompressionOptions
from ross_flwr.config import ConfigError
from ross_flwr.engine import rounds as engine_rounds
from ross_flwr.engine.engines import Engine
from ross_flwr.engine.host import Host
from ross_flwr.engine.rounds import Schedule
from ross_flwr.graph.schedule import Graphs
from ross_flwr.graph.topology import Topology, of_graph
from ross_flwr.learning.flat import FlatModel
from ross_flwr.privacy import Privacy
from ross_flwr.runs.assemble import limit_threads
from ross_flwr.runs.assembly import Assembly
from ross_flwr.runs.folder import RunFolder
from ross_flwr.runs.history import History
from ross_flwr.tasks.task import Task
from ross_flwr.threats.threats import Threats

__all__ = ["Result", "consensus", "simulate"]


@dataclass(frozen=True)
class Result:
    """The result of a run.

    Attributes
    ----------
    history : list of dict
        A line per round: accuracy, loss, bytes and more, as in ``history.jsonl``.
    summary : dict
        Totals and the last test, as in ``summary.json``.
    models : dict of int to Tensor
        The final model of each agent, shape [P].
    consensus : Tensor
        The mean of the honest agents' models, shape [P].

    Examples
    --------
    >>> from ross_flwr import DPSGD, graph, simulate, tasks
    >>> result = simulate(DPSGD(), graph.ring(3), tasks.images("digits", hidden=8), rounds=1)
    >>> result.consensus.shape, sorted(result.state_dict())
    (torch.Size([610]), ['1.bias', '1.weight', '3.bias', '3.weight'])
    """

    history: list[dict[str, Any]]
    summary: dict[str, Any]
    models: Mapping[int, Tensor]
    consensus: Tensor
    _model: FlatModel

    def state_dict(self, agent: int | None = None) -> dict[str, Tensor]:
        """Return the consensus model, or the model of `agent`, under the module's own parameter names."""
        return self._model.named(self.consensus if agent is None else self.models[agent], frozen=True)


def simulate(
    algorithm: Algorithm,
    topology: nx.Graph | Topology | Graphs,
    task: Task | Callable[[int, int], Task],
    *,
    rounds: int = 60,
    passes: int = 1,
    evaluate_every: int = 1,
    seed: int = 0,
    threats: Threats | None = None,
    compress: str = "none",
    privacy: Privacy | None = None,
    engine: Engine | str = "auto",
    folder: Path | None = None,
    on_round: Callable[[dict[str, Any]], None] = lambda _line: None,
) -> Result:
    """Run a method with all agents in this process.

    Parameters
    ----------
    algorithm : Algorithm
        The method with its hyper-parameters and, optionally, the rule by which it mixes: ``DPSGD(rule=Median())``.
    topology : networkx graph, Topology or Graphs
        Who talks to whom. A networkx graph on 0 … N−1 is mixed by the Metropolis-Hastings rule.
    task : Task or callable
        What agents learn, or a function that makes it from N and the seed, such as ``tasks.images("digits")``.
    rounds : int (default: 60)
        How many rounds to run.
    passes : int (default: 1)
        Passes over the algorithm's steps in one round, one mini-batch each.
    evaluate_every : int (default: 1)
        Rounds between two tests of the agents; the last round always tests them.
    seed : int (default: 0)
        Everything random follows from it.
    threats : Threats, optional
        Who attacks and how, who is absent, and which messages get lost; by default none of these.
    compress : str (default: "none")
        How what agents send is compressed, as in the key of this name: ``"int8"``, ``"gradient: topk(0.01)"``.
    privacy : Privacy, optional
        How training examples are protected: ``Privacy(clip=1.0, epsilon=4.0)``.
    engine : Engine or str (default: "auto")
        What runs a step for all agents, as in the key of this name: ``"loop"``, ``"batched"``.
    folder : Path, optional
        Where to write ``history.jsonl``, ``summary.json`` and ``model.safetensors``; without it, nothing is written.
    on_round : callable, optional
        Called with the history's line of each round.

    Raises
    ------
    ConfigError
        When a part is a name and not an object, the parts do not fit each other, the folder holds a run already, or
        another process runs in it.

    Examples
    --------
    >>> from ross_flwr import ROSS, graph, simulate, tasks
    >>> result = simulate(ROSS(learning_rate=0.1), graph.ring(4), tasks.images("digits"), rounds=2)
    >>> [line["round"] for line in result.history], sorted(result.models)
    ([1, 2], [0, 1, 2, 3])
    """
    _require_objects(algorithm, topology, task)
    graphs = _graphs(topology, passes)
    assembly = Assembly(
        algorithm=algorithm,
        graphs=graphs,
        task=task(graphs.num_agents, seed) if callable(task) else task,
        schedule=Schedule(rounds, passes, evaluate_every),
        seed=seed,
        threats=threats or Threats(),
        compression=CompressionOptions(compress=compress).link(algorithm),
        privacy=privacy,
    )
    assembly.check()
    host = assembly.host(algorithm.name, engine=engine, forking=True)
    results = RunFolder(folder) if folder else None
    hostile, bad = assembly.threats.attackers, assembly.threats.corrupted
    history = History(graphs.num_agents, hostile, results.history if results else None, bad)
    threads = torch.get_num_threads()
    limit_threads()
    with results.held() if results else nullcontext():
        if results:
            results.require_empty()
            results.begin()
        try:
            for finished in engine_rounds.rounds(host, assembly.schedule, 1, rounds):
                on_round(history.add(finished))
        finally:
            torch.set_num_threads(threads)
            if isinstance(engine, str):
                host.engine.close()
        mean = consensus(host, history)
        summary = assembly.summary(history, host)
        if results:
            results.write_summary(summary)
            results.write_model(assembly.task.model.named(mean, frozen=True))
    return Result(history.lines, summary, {i: a["model"] for i, a in host.agents.items()}, mean, assembly.task.model)


def consensus(host: Host, history: History) -> Tensor:
    """Return the mean of the honest agents' models, shape [P]."""
    return torch.stack([host.agents[i]["model"] for i in history.honest]).mean(0)


def _require_objects(algorithm: object, topology: object, task: object) -> None:
    for name, part, fits, example in (
        ("algorithm", algorithm, isinstance(algorithm, Algorithm), "ROSS(learning_rate=0.1)"),
        ("topology", topology, isinstance(topology, nx.Graph | Topology | Graphs), "graph.ring(10)"),
        ("task", task, callable(task) or hasattr(task, "objective"), 'tasks.images("digits")'),
    ):
        if not fits:
            raise ConfigError(f"{name} = {part!r} is not an object that simulate takes: use {example}, say")


def _graphs(topology: nx.Graph | Topology | Graphs, passes: int) -> Graphs:
    if isinstance(topology, Graphs):
        return topology
    fixed = topology if isinstance(topology, Topology) else of_graph(topology)
    return Graphs(lambda _epoch: fixed, fixed.num_agents, passes=passes)
