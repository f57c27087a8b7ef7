"""The folder of a run: ``config.toml``, ``history.jsonl``, ``summary.json``, ``model.safetensors``, a checkpoint."""

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ross_flwr.config import Config, ConfigError, resolve, to_toml
from ross_flwr.runs.history import finite

__all__ = ["RunFolder"]


class RunFolder:
    """Where a run leaves its results. A file is complete or absent: each is written elsewhere and moved into place.

    Parameters
    ----------
    path : Path
        Created when something is first written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def config(self) -> Path:
        """The file with every key; a folder that has it holds a run."""
        return self.path / "config.toml"

    @property
    def history(self) -> Path:
        """The file with a line per round."""
        return self.path / "history.jsonl"

    def beside(self) -> list["RunFolder"]:
        """Return the subfolders that hold runs: those of the methods that ran beside the one here."""
        inside = [RunFolder(path) for path in sorted(self.path.iterdir())] if self.path.is_dir() else []
        return [each for each in inside if each.config.is_file()]

    def begin(self, config: Config | None = None) -> None:
        """Write the configuration, if there is one, and an empty history; delete what an earlier run left here."""
        if config:
            self.write_config(config)
        for name in ("summary.json", "model.safetensors", "checkpoint.safetensors"):
            (self.path / name).unlink(missing_ok=True)
        with self._replacing("history.jsonl") as part:
            part.write_text("")

    def write_config(self, config: Config) -> None:
        """Write every key as resolved, with its meaning."""
        with self._replacing("config.toml") as part:
            part.write_text(to_toml(config), encoding="utf-8")

    def read_config(self) -> Config:
        """Return the configuration of the run here.

        Raises
        ------
        ConfigError
            When there is none, or it is no longer valid.
        """
        if not self.config.is_file():
            raise ConfigError(f"{self.path} holds no run: there is no config.toml in it")
        try:
            return resolve(tomllib.loads(self.config.read_text(encoding="utf-8")))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{self.config} is not TOML: {error}") from None

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write the result of the run; numbers that are not finite become null."""
        with self._replacing("summary.json") as part:
            part.write_text(json.dumps(finite(dict(summary)), indent=2, allow_nan=False) + "\n")

    def read_summary(self) -> dict[str, Any] | None:
        """Return the result of the run, or None when it has not ended."""
        file = self.path / "summary.json"
        return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None

    def read_history(self) -> list[dict[str, Any]]:
        """Return the lines of the history."""
        return [json.loads(line) for line in self.history.read_text(encoding="utf-8").splitlines()]

    def write_model(self, named: Mapping[str, Tensor]) -> None:
        """Write the consensus model under the model's own parameter names."""
        self._save("model.safetensors", named, {})

    def read_model(self) -> dict[str, Tensor]:
        """Return the consensus model under the model's own parameter names.

        Raises
        ------
        ConfigError
            When there is none, because the run has not ended.
        """
        try:
            return load_file(self.path / "model.safetensors")
        except (OSError, SafetensorError) as error:
            raise ConfigError(f"{self.path} holds no model.safetensors that can be read: {error}") from None

    def forget_models(self) -> None:
        """Remove the models and the checkpoint of a run that nobody resumes; its summary and history stay."""
        for name in ("model.safetensors", "checkpoint.safetensors"):
            (self.path / name).unlink(missing_ok=True)

    def write_checkpoint(self, round: int, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> None:
        """Write what a host's `snapshot` returned after `round`."""
        self._save("checkpoint.safetensors", tensors, {"round": str(round), "rest": json.dumps(rest)})

    def read_checkpoint(self) -> tuple[int, dict[str, Tensor], dict[str, Any]] | None:
        """Return round, tensors and rest of the checkpoint, or None when there is none.

        Raises
        ------
        ConfigError
            When the file is not what `write_checkpoint` wrote.
        """
        file = self.path / "checkpoint.safetensors"
        if not file.is_file():
            return None
        try:
            with safe_open(file, framework="pt") as opened:
                metadata = opened.metadata()
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
            return int(metadata["round"]), tensors, json.loads(metadata["rest"])
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{file} is not a checkpoint of a run: {error}") from None

    def _save(self, name: str, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
        with self._replacing(name) as part:
            save_file({key: _alone(tensor) for key, tensor in tensors.items()}, part, metadata)

    @contextmanager
    def _replacing(self, name: str) -> Iterator[Path]:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            part = self.path / f"{name}.part"
            yield part
            os.replace(part, self.path / name)
        except OSError as error:
            raise ConfigError(f"{self.path} cannot take {name}: {error.strerror or error}") from None


def _alone(tensor: Tensor) -> Tensor:
    """Return `tensor`, or a copy if it is part of a larger tensor, which safetensors refuses."""
    whole = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes
    return tensor if whole else tensor.clone(memory_format=torch.contiguous_format)
