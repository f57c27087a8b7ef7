"""From a configuration to the parts of a run."""

import os
from dataclasses import replace

import torch

from ross_flwr.algorithms import ALGORITHMS
from ross_flwr.compression.options import CompressionOptions
from ross_flwr.config import Config, ConfigError, options_of, require, shown
from ross_flwr.engine.rounds import Schedule
from ross_flwr.graph.options import GraphOptions
from ross_flwr.graph.schedule import Graphs, read_graphs
from ross_flwr.graph.topology import MIXING_RULES, require_topology
from ross_flwr.learning.options import RobustOptions
from ross_flwr.learning.rules import PRE_AGGREGATIONS, RULES, Rule
from ross_flwr.privacy.options import PrivacyOptions
from ross_flwr.runs.assembly import Assembly
from ross_flwr.runs.options import MachineOptions, RunOptions
from ross_flwr.tasks.arithmetic import Arithmetic
from ross_flwr.tasks.corruptions import draw_corrupted
from ross_flwr.tasks.dealt import Dealt
from ross_flwr.tasks.options import CorruptionOptions, DataOptions
from ross_flwr.tasks.own import Own
from ross_flwr.tasks.registry import TASKS
from ross_flwr.tasks.task import Task
from ross_flwr.threats.options import AttackOptions, FaultOptions
from ross_flwr.threats.threats import draw_attackers, read_threats

__all__ = ["assemble", "choose_device", "limit_threads", "read_aggregator", "read_task", "refuse_impossible"]


def assemble(config: Config, task: Task | None = None) -> Assembly:
    """Return the parts that a configuration stands for.

    Parameters
    ----------
    config : Config
        The configuration.
    task : Task, optional
        What is learned, where it is not the one that the configuration names.

    Raises
    ------
    ConfigError
        When the configuration asks for something impossible.
    """
    run = config.part(RunOptions)
    require("algorithm", run.algorithm, ALGORITHMS)
    algorithm = config.part(ALGORITHMS[run.algorithm])
    aggregator = read_aggregator(config)
    schedule = Schedule(run.num_rounds, run.batches_per_round, run.evaluate_every, run.tested)
    graphs = _read_graphs(config)
    corrupted: frozenset[int] = frozenset()
    if not task and config.part(DataOptions).task == Arithmetic.name:
        task = Arithmetic(run.num_agents, run.seed)
    if task:
        _refuse_unused(config, task)
    else:
        task = dealt = read_task(config)
        corrupted = dealt.corrupted
    threats = read_threats(
        config.part(AttackOptions),
        config.part(FaultOptions),
        algorithm,
        aggregator,
        _read_attackers(config),
        corrupted,
        num_agents=run.num_agents,
        num_rounds=run.num_rounds,
        passes=run.batches_per_round,
        seed=run.seed,
    )
    return Assembly(
        algorithm=algorithm,
        graphs=graphs,
        task=task,
        schedule=schedule,
        seed=run.seed,
        threats=threats,
        compression=config.part(CompressionOptions).link(algorithm),
        privacy=config.part(PrivacyOptions).read(algorithm),
        aggregator=aggregator,
    )


def refuse_impossible(config: Config) -> None:
    """Refuse what is possible with no number of agents, where that is not known yet.

    Raises
    ------
    ConfigError
        When a name is not known, keys contradict each other, or compression or privacy do not fit the method.
    """
    run, graph = config.part(RunOptions), config.part(GraphOptions)
    require("algorithm", run.algorithm, ALGORITHMS)
    require_topology(graph.topology)
    require("mixing", graph.mixing, MIXING_RULES)
    _read_graphs(config)
    algorithm = config.part(ALGORITHMS[run.algorithm])
    read_aggregator(config)
    config.part(AttackOptions).chosen()
    config.part(CompressionOptions).link(algorithm)
    config.part(PrivacyOptions).read(algorithm)


def read_task(config: Config) -> Dealt:
    """Return the task that a configuration names, whose data is dealt to the agents.

    Raises
    ------
    ConfigError
        When it deals no data, the data cannot be corrupted as the configuration asks, or the device is missing.
    """
    run, bad, options = config.part(RunOptions), config.part(CorruptionOptions), config.part(DataOptions)
    if options.task not in TASKS:
        raise ConfigError(f"task = '{options.task}' deals no data, and this is about data: use {', '.join(TASKS)}")
    return TASKS[options.task](
        options,
        num_agents=run.num_agents,
        seed=run.seed,
        device=choose_device(config.part(MachineOptions).device),
        corruption=bad,
        corrupted=draw_corrupted(bad, _read_attackers(config), num_agents=run.num_agents, seed=run.seed),
    )


def choose_device(wanted: str) -> torch.device:
    """Return the device that the key `device` asks for."""
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device = 'cuda' is not available: use device = 'cpu', or 'auto' for the best available")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def limit_threads() -> None:
    """Let PyTorch compute each operation with one thread, the fastest for small models, unless OMP_NUM_THREADS is set.

    An engine may spread agents over several threads (`engine.threads`) or processes.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


def read_aggregator(config: Config) -> Rule:
    """Return the rule that a configuration names, after the pre-aggregation that it names."""
    robust = config.part(RobustOptions)
    require("aggregator", robust.aggregator, RULES)
    rule = config.part(RULES[robust.aggregator])
    around = PRE_AGGREGATIONS[robust.pre_aggregation]
    return replace(config.part(around), rule=rule) if around else rule


def _read_graphs(config: Config) -> Graphs:
    run = config.part(RunOptions)
    return read_graphs(
        config.part(GraphOptions), num_agents=run.num_agents, seed=run.seed, passes=run.batches_per_round
    )


def _read_attackers(config: Config) -> frozenset[int]:
    run, graphs = config.part(RunOptions), _read_graphs(config)
    return draw_attackers(
        config.part(AttackOptions),
        lambda agent: graphs.first.neighbors(agent),
        num_agents=run.num_agents,
        seed=run.seed,
    )


def _refuse_unused(config: Config, task: Task) -> None:
    """Refuse keys about data and a model that the configuration names, where a task has its own."""
    used = {"batch-size", "validation-size"} if isinstance(task, Own) else set()
    owner, else_where = "this app", ", and see to it where the app makes them"
    if isinstance(task, Arithmetic):
        used, owner, else_where = {"task"}, "task = 'arithmetic'", ""
    for key in (*options_of(DataOptions), *options_of(CorruptionOptions)):
        if key.name not in used and config.values[key.name] != key.default:
            raise ConfigError(
                f"{key.name} = {shown(config.values[key.name])} is about data or a model that the configuration names, "
                f"and {owner} has its own: leave the key out{else_where}"
            )
