"""The folder of a run: ``config.toml``, ``history.jsonl``, ``summary.json``, ``model.safetensors``, a checkpoint."""

import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from ross_flwr.config import Config, ConfigError, keys, resolve

__all__ = ["RunFolder"]


class RunFolder:
    """Where a run leaves its results. A file is complete or absent: each is written beside and moved into place.

    Parameters
    ----------
    path : Path
        Made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    @property
    def history(self) -> Path:
        """The file with a line per round."""
        return self.path / "history.jsonl"

    def write_config(self, config: Config) -> None:
        """Write every key as resolved, with its meaning."""
        lines = []
        for key in keys():
            lines.append(f"# {key.meaning}{f' [{key.unit}]' if key.unit else ''}")
            lines.append(f"{key.name} = {json.dumps(config.options[key.name])}")  # JSON's scalars are TOML's
        self._replace("config.toml", "\n".join([*lines, ""]).encode())

    def read_config(self) -> Config:
        """Return the configuration of the run here.

        Raises
        ------
        ConfigError
            When there is none.
        """
        file = self.path / "config.toml"
        if not file.is_file():
            raise ConfigError(f"{self.path} holds no run: there is no config.toml in it")
        return resolve(tomllib.loads(file.read_text()))

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write the result of the run."""
        self._replace("summary.json", (json.dumps(summary, indent=2) + "\n").encode())

    def write_model(self, named: Mapping[str, Tensor]) -> None:
        """Write the consensus model under the model's own parameter names."""
        self._save("model.safetensors", named, {})

    def write_checkpoint(self, round: int, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> None:
        """Write what a host's `snapshot` returned after `round`."""
        self._save("checkpoint.safetensors", tensors, {"round": str(round), "rest": json.dumps(rest)})

    def read_checkpoint(self) -> tuple[int, dict[str, Tensor], dict[str, Any]]:
        """Return round, tensors and rest of the checkpoint.

        Raises
        ------
        ConfigError
            When there is none.
        """
        file = self.path / "checkpoint.safetensors"
        if not file.is_file():
            raise ConfigError(f"{self.path} holds no checkpoint: the run ended before round checkpoint-every")
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata()
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (no mapping)
        return int(metadata["round"]), tensors, json.loads(metadata["rest"])

    def _save(self, name: str, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
        part = self.path / f"{name}.part"
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, part, metadata)
        os.replace(part, self.path / name)

    def _replace(self, name: str, content: bytes) -> None:
        part = self.path / f"{name}.part"
        part.write_bytes(content)
        os.replace(part, self.path / name)
