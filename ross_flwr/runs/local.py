"""Runs in this process, from a configuration to a folder of results."""

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ross_flwr.config import Config, ConfigError
from ross_flwr.engine.rounds import rounds
from ross_flwr.runs.assemble import assemble, limit_threads, read_images
from ross_flwr.runs.folder import RunFolder
from ross_flwr.runs.history import History
from ross_flwr.runs.options import MachineOptions, RunOptions
from ross_flwr.runs.simulate import consensus

__all__ = ["LocalRun", "holdings", "resume", "start"]


def start(configs: Sequence[Config], path: Path | None = None) -> list["LocalRun"]:
    """Return a run of each configuration. The first has its results in `path`, the others in subfolders of it.

    A subfolder has the name of its method. Nothing is written before all runs are known to be possible.

    Raises
    ------
    ConfigError
        When one of them is not possible.
    """
    first, *others = configs
    paths = (path / other.part(RunOptions).algorithm if path else None for other in others)
    runs = [LocalRun(first, path), *map(LocalRun, others, paths)]
    for run in runs:
        run.begin()
    return runs


def resume(path: Path) -> list["LocalRun"]:
    """Return the run in folder `path` and those in its subfolders, each as it was at its last checkpoint.

    Raises
    ------
    ConfigError
        When the folder holds no run, or its files do not fit each other.
    """
    folder = RunFolder(path)
    runs = [LocalRun(each.read_config(), each.path) for each in (folder, *folder.beside())]
    for run in runs:
        run.restore()
    return runs


def holdings(config: Config) -> Tensor:
    """Return how many examples of each class every agent holds, shape [N, C].

    Raises
    ------
    ConfigError
        When the data cannot be read or dealt.
    """
    images = read_images(config)
    labels, num_classes = images.source.train.labels, images.source.num_classes
    return torch.stack([labels[part].bincount(minlength=num_classes) for part in images.shares.parts])


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
    run : RunOptions
        Its method and length.
    assembly : Assembly
        The parts that the configuration stands for.
    host : Host
        Hosts all agents.
    history : History
        A line per round so far.
    """

    def __init__(self, config: Config, path: Path | None = None) -> None:
        self.run, self.machine = config.part(RunOptions), config.part(MachineOptions)
        limit_threads()
        self.config = config
        self.assembly = assemble(config)
        self.assembly.check()
        self.host = self.assembly.host(self.run.algorithm)
        self.folder = RunFolder(path) if path else None
        file, threats = self.folder.history if self.folder else None, self.assembly.threats
        self.history = History(self.run.num_agents, threats.attackers, file, threats.corrupted)

    def begin(self) -> None:
        """Write the configuration and an empty history into the folder, if there is one."""
        if self.folder:
            self.folder.begin(self.config)

    def restore(self) -> None:
        """Go back to the last checkpoint in the folder; without one, to the beginning.

        Raises
        ------
        ConfigError
            When checkpoint, history and configuration do not fit each other.
        """
        checkpoint = self.folder.read_checkpoint() if self.folder else None
        if self.folder is None or checkpoint is None:
            return
        last, tensors, rest = checkpoint
        try:
            self.host.restore(
                {key: tensor.to(self.assembly.task.model.device) for key, tensor in tensors.items()}, rest
            )
            self.history.restore(last)
            shape = self.assembly.task.model.initial.shape
            fits = (
                len(self.history.lines) == last
                and len(rest["state"]) == len(self.host.agents)
                and all(agent["model"].shape == shape for agent in self.host.agents.values())
            )
        except (KeyError, ValueError, OSError):
            fits = False
        if not fits:
            raise ConfigError(
                f"{self.folder.path} cannot be resumed: config.toml, history.jsonl and checkpoint.safetensors "
                "in it are not of the same run"
            )

    def rounds(self) -> Generator[dict[str, Any], None, None]:
        """Run the rounds that are left, yielding the history's line of each; then write the results.

        However this ends, the folder holds a checkpoint of the last finished round.
        """
        run, every, folder = self.run, self.machine.checkpoint_every, self.folder
        done = saved = len(self.history.lines)
        if not done:
            self.begin()
        snapshot = self.host.snapshot()
        try:
            for finished in rounds(self.host, self.assembly.schedule, done + 1, run.num_rounds):
                line = self.history.add(finished)
                done, snapshot = finished.number, self.host.snapshot()
                if folder and every and done % every == 0:
                    folder.write_checkpoint(done, *snapshot)
                    saved = done
                yield line
        finally:
            if folder and done > saved:
                folder.write_checkpoint(done, *snapshot)
        if folder:
            folder.write_summary(self.summary())
            folder.write_model(self.assembly.task.model.named(consensus(self.host, self.history)))

    def summary(self) -> dict[str, Any]:
        """Return what ``summary.json`` holds."""
        return {**self.assembly.describe(), **self.history.summary(), "dropped": dict(self.host.dropped)}
