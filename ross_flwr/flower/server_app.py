"""The Flower ServerApp: from the run configuration to a strategy and its results."""

from contextlib import nullcontext
from io import StringIO
from logging import INFO, getLogger
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from rich.console import Console

from ross_flwr.config import Config, ConfigError
from ross_flwr.files import inside
from ross_flwr.flower.options import FlowerOptions
from ross_flwr.flower.records import record_of, tensors_of
from ross_flwr.flower.strategies import STRATEGIES
from ross_flwr.report.table import result_table
from ross_flwr.runs.folder import RunFolder
from ross_flwr.runs.history import consensus_distance
from ross_flwr.runs.options import RunOptions
from ross_flwr.runs.side_by_side import side_by_side

__all__ = ["app"]

logger = getLogger("flwr")

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the configured method, and those beside it, through Flower; log the results, and keep them if asked to.

    Raises
    ------
    ConfigError
        When the run configuration is not possible, or a folder of results holds a run already and `resume` is not set.
    """
    summaries = {}
    configs = side_by_side(context.run_config)
    if len(configs) > 1 and configs[0].part(FlowerOptions).resume:
        raise ConfigError("resume continues the run of one method: name it with algorithm, and give beside=''")
    for config in configs:
        flower, name = config.part(FlowerOptions), config.part(RunOptions).algorithm
        folder = RunFolder(inside(Path(flower.results), name)) if flower.results else None
        with folder.held() if folder else nullcontext():
            summaries[name] = _run(grid, config, folder)
    text = StringIO()
    Console(file=text, width=80).print(result_table(summaries))
    for row in text.getvalue().splitlines():
        logger.log(INFO, "%s", row)


def _run(grid: Grid, config: Config, folder: RunFolder | None) -> dict[str, Any]:
    """Run a method, keep its results in the folder if there is one, and return its summary."""
    run, flower = config.part(RunOptions), config.part(FlowerOptions)
    values: dict[str, Any] = dict(config.values)
    strategy = STRATEGIES[flower.transport](**values)
    model = strategy.assembly.task.model
    if folder:
        if not flower.resume:
            folder.require_empty()
            folder.history.unlink(missing_ok=True)
        folder.write_config(config)
        strategy.history_file = folder.history
    initial = record_of(model.named(model.initial))
    result = strategy.start(grid, initial, run.num_rounds, flower.phase_timeout)
    summary = {**strategy.assembly.describe(), **strategy.history.summary(), "dropped": dict(strategy.dropped)}
    honest = [model.flatten(tensors_of(strategy.models[i])) for i in strategy.history.honest if i in strategy.models]
    summary["consensus-distance"] = consensus_distance(honest) if honest else None
    if folder:
        folder.write_summary(summary)
        if honest:
            folder.write_model(tensors_of(result.arrays))
        logger.log(INFO, "Results are in %s", folder.path.resolve())
    return summary
