"""The Flower ServerApp: from the run configuration to a strategy and its results."""

from collections.abc import Mapping
from io import StringIO
from logging import INFO, getLogger
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp
from rich.console import Console

from ross_flwr.config import Config, ConfigError
from ross_flwr.files import home, inside
from ross_flwr.flower.options import FlowerOptions
from ross_flwr.flower.records import record_of
from ross_flwr.flower.strategies import STRATEGIES
from ross_flwr.report.table import result_table
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
        summaries[config.part(RunOptions).algorithm] = _run(grid, config)
    text = StringIO()
    Console(file=text, width=80).print(result_table(summaries))
    for row in text.getvalue().splitlines():
        logger.log(INFO, "%s", row)


def _run(grid: Grid, config: Config) -> Mapping[str, Any]:
    """Run a method, keep its results in a folder of its name if there is one for all, and return its summary."""
    run, flower = config.part(RunOptions), config.part(FlowerOptions)
    values: dict[str, Any] = dict(config.values)
    if flower.results:
        values["results"] = str(inside(home(flower.results), run.algorithm))
    strategy = STRATEGIES[flower.transport](**values)
    task = strategy.assembly.task
    strategy.about = task.describe()
    strategy.start(grid, record_of(task.model.named(task.model.initial)), run.num_rounds, flower.phase_timeout)
    return strategy.outcome
