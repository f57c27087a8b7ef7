"""What a run leaves at the ServerApp: the folder that `ross-flwr run` leaves, and what trackers hear."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from logging import INFO, WARNING, getLogger
from pathlib import Path
from typing import Any

from torch import Tensor

from ross_flwr.config import Config, ConfigError
from ross_flwr.files import home
from ross_flwr.flower.settings import described
from ross_flwr.report.report import write_report
from ross_flwr.report.trackers import numbers, trackers
from ross_flwr.runs.folder import RunFolder

__all__ = ["Results"]

logger = getLogger("flwr")


class Results:
    """The results of a run, if a folder is given for them.

    Parameters
    ----------
    path : str
        The folder; empty for none.
    log : str
        The trackers, with commas between them.

    Raises
    ------
    ConfigError
        When a tracker is not known or not installed, or there is no folder for them.
    """

    def __init__(self, path: str, log: str) -> None:
        if not isinstance(log, str):
            raise ConfigError(f"log is {described(log)}: give names in one text, log='tensorboard,mlflow'")
        if log and not path:
            raise ConfigError(f"log = '{log}' needs a folder of results: give results='results/first', say, too")
        self.folder = RunFolder(home(path)) if path else None
        self._trackers = trackers(log)
        self._tell: list[Callable[[dict[str, float], int], Any]] = []
        self._open = ExitStack()

    @property
    def history(self) -> Path | None:
        """The file with a line per round."""
        return self.folder.history if self.folder else None

    @contextmanager
    def held(self, *, resume: bool) -> Iterator[None]:
        """Keep other runs out of the folder, which holds none yet unless it is one that goes on."""
        with ExitStack() as self._open:
            if self.folder:
                self._open.enter_context(self.folder.held())
                if not resume:
                    self.folder.require_empty()
            yield

    def begin(self, config: Config, *, resume: bool) -> None:
        """Write the configuration and an empty history, or keep the one of a run that goes on; open the trackers."""
        folder = self.folder
        if folder is None:
            return
        if resume:
            folder.write_config(config)
        else:
            folder.begin(config)
        self._tell = [self._open.enter_context(opener(folder.path, config)) for opener in self._trackers]

    def add(self, line: Mapping[str, Any]) -> None:
        """Tell the trackers of a line of the history."""
        for tell in self._tell:
            tell(numbers(line), line["round"])

    def finish(self, summary: Mapping[str, Any], model: Mapping[str, Tensor] | None) -> None:
        """Write the summary, the consensus model if there is one, and the report if what it needs is installed."""
        folder = self.folder
        if folder is None:
            return
        folder.write_summary(summary)
        if model:
            folder.write_model(model)
        logger.log(INFO, "Results are in %s", folder.path.resolve())
        try:
            logger.log(INFO, "The report is %s", write_report(folder.path).resolve())
        except ConfigError as error:
            logger.log(WARNING, "There is no report yet: %s", error)
