"""One run in this process, from its configuration to its folder of results."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ross_flwr.config import Config, resolve
from ross_flwr.experiment import Experiment
from ross_flwr.report.folder import RunFolder
from ross_flwr.report.history import History
from ross_flwr.transport import local
from ross_flwr.transport.host import Host

__all__ = ["LocalRun", "beside"]


def beside(config: Config) -> list[Config]:
    """Return the configurations a run consists of: its method's, and that of the method beside it if there is one."""
    alone = resolve({**config.options, "beside": ""})
    if not config.beside:
        return [alone]
    return [alone, resolve({**config.options, "algorithm": config.beside, "beside": ""})]


class LocalRun:
    """A run with all agents in this process.

    Parameters
    ----------
    config : Config
        What to run.
    path : Path, optional
        Folder for the results; without one nothing is written.

    Attributes
    ----------
    experiment : Experiment
        What the configuration stands for.
    host : Host
        Hosts all agents.
    history : History
        A line per round so far.
    """

    def __init__(self, config: Config, path: Path | None = None) -> None:
        if config.threads:
            torch.set_num_threads(config.threads)
        self.config = config
        self.experiment = Experiment(config)
        self.host = Host(config.algorithm, self.experiment.algorithm, self.experiment.agents())
        self.folder = RunFolder(path) if path else None
        file = self.folder.history if self.folder else None
        self.history = History(config.num_agents, self.experiment.attackers, file)
        if self.folder:
            self.folder.write_config(config)
            self.folder.history.touch()

    @classmethod
    def resume(cls, path: Path) -> "LocalRun":
        """Return the run in folder `path` as it was at its last checkpoint.

        Raises
        ------
        ConfigError
            When the folder holds no run or no checkpoint.
        """
        folder = RunFolder(path)
        run = cls(folder.read_config(), path)
        last, tensors, rest = folder.read_checkpoint()
        run.host.restore({key: tensor.to(run.experiment.device) for key, tensor in tensors.items()}, rest)
        run.history.restore(last)
        return run

    def rounds(self) -> Iterator[dict[str, Any]]:
        """Run the rounds that are left, yielding the history's line of each; then write the results.

        However it ends, the folder holds a checkpoint of the last round that was finished.
        """
        config, folder = self.config, self.folder
        done = len(self.history.lines)
        snapshot = self.host.snapshot()
        saved = done
        try:
            for finished in local.rounds(
                self.host,
                done + 1,
                config.num_rounds,
                passes=config.batches_per_round,
                evaluate_every=config.evaluate_every,
            ):
                line = self.history.add(finished)
                done, snapshot = finished.number, self.host.snapshot()
                if folder and config.checkpoint_every and done % config.checkpoint_every == 0:
                    folder.write_checkpoint(done, *snapshot)
                    saved = done
                yield line
        finally:
            if folder and done > saved:
                folder.write_checkpoint(done, *snapshot)
        if folder:
            folder.write_summary(self.summary())
            mean = torch.stack([self.host.agents[i]["model"] for i in self.history.honest]).mean(0)
            folder.write_model(self.experiment.model.named(mean))

    def summary(self) -> dict[str, Any]:
        """Return what ``summary.json`` holds."""
        return {**self.experiment.describe(), **self.history.summary(), "dropped": dict(self.host.dropped)}
