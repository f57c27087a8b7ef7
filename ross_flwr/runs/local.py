"""Runs in this process, from a configuration to a folder of results."""

from collections.abc import Generator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ross_flwr.config import Config, ConfigError
from ross_flwr.engine.rounds import rounds
from ross_flwr.engine.snapshots import Snapshot
from ross_flwr.files import inside
from ross_flwr.runs.assemble import assemble, limit_threads, read_task
from ross_flwr.runs.folder import RunFolder, refuse_changes
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
        When one of them is not possible, or a folder holds a run already.
    """
    first, *others = configs
    beside = [other.part(RunOptions).algorithm for other in others]
    paths = (inside(path, name) if path else None for name in beside)
    runs = [LocalRun(first, path, beside), *map(LocalRun, others, paths)]
    for run in runs:
        run.begin()
    return runs


def resume(path: Path) -> list["LocalRun"]:
    """Return the run in folder `path` and those in its subfolders, each as it was at its last checkpoint.

    Raises
    ------
    ConfigError
        When the folder holds no run, its files do not fit each other, or another process runs in it.
    """
    folder = RunFolder(path)
    beside = folder.beside()
    first = LocalRun(folder.read_config(), path, [each.path.name for each in beside])
    runs = [first, *(LocalRun(each.read_config(), each.path) for each in beside)]
    for run in runs:
        run.restore()
    return runs


def holdings(config: Config) -> Tensor:
    """Return how many examples of each class or group every agent holds, shape [N, C].

    Raises
    ------
    ConfigError
        When the data cannot be read or dealt.
    """
    task = read_task(config)
    labels, num_classes = task.source.train.labels, task.source.num_classes
    return torch.stack([labels[part].bincount(minlength=num_classes) for part in task.shares.parts])


class LocalRun:
    """A run with all agents in this process.

    Parameters
    ----------
    config : Config
        What to run.
    path : Path, optional
        Folder for the results; without one nothing is written.
    beside : sequence of str
        The methods that run beside it, in subfolders.

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

    def __init__(self, config: Config, path: Path | None = None, beside: Sequence[str] = ()) -> None:
        self.run, self.machine = config.part(RunOptions), config.part(MachineOptions)
        limit_threads()
        self.config, self.beside = config, beside
        self.assembly = assemble(config)
        self.assembly.check()
        self.host = self.assembly.host(self.run.algorithm, engine=self.machine.engine, forking=True)
        self.folder = RunFolder(path) if path else None
        file, threats = self.folder.history if self.folder else None, self.assembly.threats
        self.history = History(self.run.num_agents, threats.attackers, file, threats.corrupted)

    def begin(self) -> None:
        """Claim the folder, if there is one: write the configuration and an empty history.

        Raises
        ------
        ConfigError
            When the folder holds a run already, or another process runs in it.
        """
        with self._held():
            if self.folder:
                self.folder.require_empty()
            self._begin()

    def restore(self) -> None:
        """Go back to the last checkpoint in the folder; without one, to the beginning. Nothing is written.

        Raises
        ------
        ConfigError
            When checkpoint, history and configuration do not fit each other, or another process runs in the folder.
        """
        with self._held():
            checkpoint = self.folder.read_checkpoint() if self.folder else None
            if self.folder is None or checkpoint is None:
                return
            last, tensors, rest = checkpoint
            refuse_changes(self.folder.path, rest.get("config", {}), self.config.values)
            if not self._restored(last, tensors, rest):
                raise ConfigError(
                    f"{self.folder.path} cannot be resumed: config.toml, history.jsonl and checkpoint.safetensors "
                    "in it are not of the same run"
                )

    def rounds(self) -> Generator[dict[str, Any], None, None]:
        """Run the rounds that are left, yielding the history's line of each; then write the results.

        However this ends, the folder holds a checkpoint of the last finished round. No other process can run in it
        meanwhile.
        """
        with self._held():
            yield from self._rounds()

    def _rounds(self) -> Generator[dict[str, Any], None, None]:
        run, every, folder = self.run, self.machine.checkpoint_every, self.folder
        done = saved = len(self.history.lines)
        if done:
            self.history.rewrite()
        else:
            self._begin()
        snapshot: Snapshot = self.host.snapshot() if folder else ({}, {})
        try:
            for finished in rounds(self.host, self.assembly.schedule, done + 1, run.num_rounds):
                line = self.history.add(finished)
                done = finished.number
                if folder:
                    snapshot = self.host.snapshot()
                if every and done % every == 0:
                    self._save(done, snapshot)
                    saved = done
                yield line
        finally:
            try:
                if done > saved:
                    self._save(done, snapshot)
            finally:
                self.host.engine.close()
        if folder:
            folder.write_summary(self.summary())
            folder.write_model(self.assembly.task.model.named(consensus(self.host, self.history), frozen=True))

    def _held(self) -> AbstractContextManager[None]:
        return self.folder.held() if self.folder else nullcontext()

    def _begin(self) -> None:
        if self.folder:
            self.folder.begin(self.config, self.beside)

    def _save(self, done: int, snapshot: Snapshot) -> None:
        if self.folder:
            tensors, rest = snapshot
            self.folder.write_checkpoint(done, tensors, {**rest, "config": dict(self.config.values)})

    def _restored(self, last: int, tensors: dict[str, Tensor], rest: dict[str, Any]) -> bool:
        """Take over what a checkpoint holds; return whether it fits the history and the agents of this run."""
        on_device = {key: tensor.to(self.assembly.task.model.device) for key, tensor in tensors.items()}
        try:
            self.host.resume(on_device, rest)
            self.history.restore(last)
        except (ValueError, OSError):
            return False
        return len(self.history.lines) == last

    def summary(self) -> dict[str, Any]:
        """Return what ``summary.json`` holds."""
        return self.assembly.summary(self.history, self.host)
