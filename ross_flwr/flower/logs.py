"""What the ServerApp logs, in the words that users of Flower know."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from logging import INFO, getLogger
from math import prod
from types import SimpleNamespace
from typing import Any, TypeAlias, cast

import torch
from flwr.app import ArrayRecord, MetricRecord
from flwr.serverapp.strategy import Result

from ross_flwr.algorithms import Algorithm
from ross_flwr.config import Config
from ross_flwr.flower.options import FlowerOptions
from ross_flwr.flower.run import Run
from ross_flwr.graph.options import GraphOptions
from ross_flwr.graph.topology import Topology
from ross_flwr.learning.agent import Agent
from ross_flwr.runs.options import RunOptions
from ross_flwr.tasks.options import DataOptions

__all__ = ["Evaluate", "bytes_per_pass", "evaluate", "in_units", "log_end", "log_plan", "log_rounds", "log_start"]

Evaluate: TypeAlias = Callable[[int, ArrayRecord], MetricRecord | None]
"""Tests the consensus model at the ServerApp: from the round and the model to numbers."""

logger = getLogger("flwr")


def log_start(
    strategy: object,
    num_rounds: int,
    arrays: ArrayRecord,
    configs: Iterable[Mapping[str, Any]],
) -> None:
    """Log what a strategy is started with."""
    logger.log(INFO, "Starting %s strategy:", type(strategy).__name__)
    logger.log(INFO, "\t├── Number of rounds: %d", num_rounds)
    logger.log(INFO, "\t├── ArrayRecord (%.2f MB)", sum(len(array.data) for array in arrays.values()) / 1024**2)
    for name, config in zip(("train", "evaluate"), configs, strict=True):
        given = {key: value for key, value in config.items() if key != "server-round"}
        logger.log(INFO, "\t├── ConfigRecord (%s): %s", name, given or "(empty!)")


def log_plan(run: Run, config: Config, initial: ArrayRecord) -> None:
    """Log what is about to run."""
    options, graph, assembly = config.part(RunOptions), config.part(GraphOptions), run.assembly
    batches, rate = config.part(DataOptions).batch_size, assembly.algorithm.learning_rate
    traffic = bytes_per_pass(assembly.algorithm, assembly.topology, initial)
    log = partial(logger.log, INFO)
    own = ", or as the app's own training has it" if assembly.algorithm.takes_own_steps else ""
    log("\t├──> algorithm: %s, learning rate %g%s", options.algorithm, rate, own)
    loader = ", or of the size that the app's own DataLoader has" * (batches == DataOptions().batch_size)
    log("\t├──> passes per round: %d, on batches of %d%s", options.batches_per_round, batches, loader)
    if traffic is not None:
        log("\t├──> bytes per round, from all agents: up to %s", in_units(traffic * options.batches_per_round))
    gap = assembly.topology.spectral_gap
    log("\t├──> topology: %s of %d agents, spectral gap %.4f", graph.topology, options.num_agents, gap)
    if config.part(FlowerOptions).state_dir:
        log("\t├──> run: %s; if it is interrupted, resume='%s' continues it", run.name, run.name)
    log("\t└──> agents by node: %s", [len(block) for block in run.placement.blocks.values()])


def log_rounds(first: int, last: int, num_rounds: int) -> None:
    """Log that rounds begin."""
    logger.log(INFO, "")
    logger.log(INFO, f"[ROUND {last}/%d]" if first == last else f"[ROUNDS {first}–{last}/%d]", num_rounds)


def log_end(result: Result, seconds: float, summary: Mapping[str, Any]) -> None:
    """Log the result of a run that took this many seconds, and what its summary says of privacy."""
    logger.log(INFO, "")
    logger.log(INFO, "Strategy execution finished in %.2fs", seconds)
    logger.log(INFO, "")
    logger.log(INFO, "Final results:")
    logger.log(INFO, "")
    for line in str(result).splitlines():
        logger.log(INFO, "\t%s", line)
    logger.log(INFO, "")
    if "privacy" in summary:
        logger.log(INFO, "Privacy: %s", summary["privacy"]["statement"])


def evaluate(evaluate_fn: Evaluate | None, number: int, result: Result) -> None:
    """Test the consensus model after round `number`, or the initial one before the first; log and keep the numbers."""
    if evaluate_fn is None:
        return
    metrics = evaluate_fn(number, result.arrays)
    if number:
        logger.log(INFO, "Global evaluation")
        logger.log(INFO, "\t└──> MetricRecord: %s", metrics)
    else:
        logger.log(INFO, "Initial global evaluation results: %s", metrics)
    if metrics is not None:
        result.evaluate_metrics_serverapp[number] = metrics


def bytes_per_pass(algorithm: Algorithm, topology: Topology, initial: ArrayRecord) -> int | None:
    """Return the most bytes that all agents send in a pass, if everything in the initial model is trained.

    None stands for a method whose messages depend on more than the size of the model.
    """
    size = sum(prod(array.shape) for array in initial.values() if array.dtype.startswith("float"))
    agent = cast(Agent, _Stranger(size))
    try:
        forms = [algorithm.forms(step, agent) for step in algorithm.steps[:-1]]
        numbers = [(prod(cast(tuple[int, ...], form.shape)), form.dtype) for each in forms for form in each.values()]
    except (AttributeError, TypeError):
        return None
    edges = sum(len(topology.receivers(i)) for i in range(topology.num_agents))
    return edges * sum(count * dtype.itemsize for count, dtype in numbers)


def in_units(count: int) -> str:
    """Return a number of bytes as people write it.

    Examples
    --------
    >>> in_units(980), in_units(98_700_000)
    ('980 B', '98.7 MB')
    """
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


class _Stranger:
    """As much of an agent as the forms of most messages depend on."""

    def __init__(self, size: int) -> None:
        self.objective = SimpleNamespace(size=size)

    def __getitem__(self, name: str) -> torch.Tensor:
        return torch.empty(0)
