"""Trackers for the lines of a history: TensorBoard, MLflow, Weights & Biases.

Each gets the numbers in every line of ``history.jsonl`` from the first on, also when a run is resumed.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from ross_flwr.config import Config, ConfigError, relevant, require, to_toml
from ross_flwr.extras import import_extra
from ross_flwr.files import inside
from ross_flwr.runs.history import finite
from ross_flwr.runs.options import RunOptions

__all__ = ["TRACKERS", "Opener", "numbers", "trackers"]

Tell: TypeAlias = Callable[[dict[str, float], int], Any]
"""Takes the numbers of a round, and the round."""

Opener: TypeAlias = Callable[[Path, Config], AbstractContextManager[Tell]]
"""From the folder of all results and a method's configuration to where that method's lines go."""

PROJECT = "ross-flwr"


@contextmanager
def tensorboard(module: ModuleType, folder: Path, config: Config) -> Iterator[Tell]:
    """Write event files in tensorboard/<method> below the folder; a resumed run rewrites them."""
    place = inside(folder, "tensorboard", config.part(RunOptions).algorithm)
    for old in place.glob("events.out.tfevents.*"):
        old.unlink()
    with module.SummaryWriter(place) as writer:
        writer.add_text("config", f"```toml\n{to_toml(config)}```")

        def tell(values: dict[str, float], step: int) -> None:
            for name, value in values.items():
                writer.add_scalar(name, value, step)

        yield tell


@contextmanager
def mlflow(module: ModuleType, folder: Path, config: Config) -> Iterator[Tell]:
    """Open a run of the experiment ross-flwr where MLFLOW_TRACKING_URI says."""
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # which is only for --json
    module.set_experiment(PROJECT)
    name = config.part(RunOptions).algorithm
    with module.start_run(run_name=f"{folder.name}/{name}"):
        module.log_params(relevant(config, name))
        yield module.log_metrics


@contextmanager
def wandb(module: ModuleType, folder: Path, config: Config) -> Iterator[Tell]:
    """Open a run of the project ross-flwr; WANDB_MODE=offline keeps it on this machine."""
    name = config.part(RunOptions).algorithm
    options = relevant(config, name)
    with module.init(project=PROJECT, name=f"{folder.name}/{name}", config=options) as run:
        yield run.log


TRACKERS: dict[str, tuple[str, Callable[..., AbstractContextManager[Tell]]]] = {
    "tensorboard": ("torch.utils.tensorboard", tensorboard),
    "mlflow": ("mlflow", mlflow),
    "wandb": ("wandb", wandb),
}
"""The module to import and what opens it, by the name that is also the extra's."""


def trackers(names: str) -> list[Opener]:
    """Return an opener for each tracker in a comma-separated list.

    Raises
    ------
    ConfigError
        When one is not known or not installed, and later when it fails to take a line.
    """
    found: list[Opener] = []
    for name in filter(None, (each.strip() for each in names.split(","))):
        require("--log", name, TRACKERS)
        module, opener = TRACKERS[name]
        found.append(partial(_guarded, name, opener, import_extra(module, name)))
    return found


@contextmanager
def _guarded(name: str, opener: Callable[..., AbstractContextManager[Tell]], *arguments: Any) -> Iterator[Tell]:
    with ExitStack() as stack:
        with _blaming(name):
            tell = stack.enter_context(opener(*arguments))

        def told(values: dict[str, float], step: int) -> None:
            with _blaming(name):
                tell(values, step)

        yield told


@contextmanager
def _blaming(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # any error of their service, network or disk
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise ConfigError(f"--log {name} failed: {said}") from error


def numbers(line: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a line that make curves, and the lengths of its lists; not the entries per edge."""
    found: dict[str, float] = {}
    for name, value in finite(dict(line)).items():
        if isinstance(value, list):
            found[name] = len(value)
        elif isinstance(value, dict) and name not in ("sent", "weights"):
            found |= {f"{name}/{part}": number for part, number in numbers(value).items()}
        elif isinstance(value, int | float) and name != "round":
            found[name] = value
    return found
