"""The folder of a run: ``config.toml``, ``history.jsonl``, ``summary.json``, ``model.safetensors``, a checkpoint."""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from ross_flwr.config import Config, ConfigError, Scalar, from_toml, resolve, shown, to_toml
from ross_flwr.files import held, inside, replacing
from ross_flwr.runs.history import finite, read_lines, read_summary
from ross_flwr.runs.side_by_side import BESIDE
from ross_flwr.typed_json import loads, reader_of

__all__ = ["RunFolder", "reading", "refuse_changes"]

MAY_CHANGE = {"num-rounds", "evaluate-every", "evaluate-at", "checkpoint-every", "device", "engine"}
"""The keys that may differ when a run is resumed, because they do not change the numbers of a round."""


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
        """Return the subfolders that hold runs: those of the methods that ran beside the one here, in their order.

        Raises
        ------
        ConfigError
            When one is a link.
        """
        names = sorted(each.name for each in self.path.iterdir()) if self.path.is_dir() else []
        order = str(self._read_raw().get(BESIDE.name, "")).split(",") if self.config.is_file() else []
        names.sort(key=lambda name: order.index(name) if name in order else len(order))
        return [RunFolder(inside(self.path, name)) for name in names if (self.path / name / "config.toml").is_file()]

    def held(self) -> AbstractContextManager[None]:
        """Keep other processes from running in the folder; see `held`."""
        return held(self.path)

    def require_empty(self) -> None:
        """Refuse a folder that holds a run, or the results of one.

        Raises
        ------
        ConfigError
            When it does.
        """
        if self.config.exists() or (self.path / "summary.json").exists():
            raise ConfigError(
                f"{self.path} holds a run already: resume it if it stopped, and take another folder for a new run"
            )

    def begin(self, config: Config | None = None, beside: Iterable[str] = ()) -> None:
        """Write the configuration, if there is one, and an empty history; delete what an earlier run left here."""
        if config:
            self.write_config(config, beside)
        self._remove("summary.json", "model.safetensors", "checkpoint.safetensors")
        with self._replacing("history.jsonl") as part:
            part.write_text("")

    def write_config(self, config: Config, beside: Iterable[str] = ()) -> None:
        """Write every key as resolved, with its meaning, and which methods run beside this one."""
        names = ",".join(beside)
        with self._replacing("config.toml") as part:
            part.write_text(to_toml(config, [(BESIDE, names)] if names else []), encoding="utf-8")

    def read_config(self) -> Config:
        """Return the configuration of the run here.

        Raises
        ------
        ConfigError
            When there is none, or it is no longer valid.
        """
        if not self.config.is_file():
            raise ConfigError(f"{self.path} holds no run: there is no config.toml in it")
        raw = self._read_raw()
        with reading(self.config):
            return resolve({key: value for key, value in raw.items() if key != BESIDE.name})

    def _read_raw(self) -> dict[str, Any]:
        with reading(self.config):
            return from_toml(self.config, str(self.config))

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write the result of the run; numbers that are not finite become null."""
        with self._replacing("summary.json") as part:
            part.write_text(json.dumps(finite(dict(summary)), indent=2, allow_nan=False) + "\n")

    def read_summary(self) -> dict[str, Any] | None:
        """Return the result of the run, or None when it has not ended.

        Raises
        ------
        ConfigError
            When the file is not what a run writes.
        """
        file = self.path / "summary.json"
        if not file.exists():
            return None
        with reading(file):
            return read_summary(file.read_text(encoding="utf-8"))

    def read_history(self) -> list[dict[str, Any]]:
        """Return the lines of the history.

        Raises
        ------
        ConfigError
            When the file is not what a run writes, or there is none.
        """
        with reading(self.history):
            return read_lines(self.history.read_text(encoding="utf-8").splitlines())

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
        file = self.path / "model.safetensors"
        if not file.is_file():
            raise ConfigError(f"{self.path} holds no model.safetensors that can be read: has the run ended?")
        try:
            return load_file(file)
        except (OSError, ValueError, SafetensorError) as error:
            raise ConfigError(f"{self.path} holds no model.safetensors that can be read: {error}") from None

    def forget_models(self) -> None:
        """Remove the models and the checkpoint of a run that nobody resumes; its summary and history stay."""
        self._remove("model.safetensors", "checkpoint.safetensors")

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
            rest = reader_of(dict[str, dict[str, Any]])(loads(metadata["rest"]))
            return int(metadata["round"]), tensors, rest
        except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
            raise ConfigError(f"{file} is not a checkpoint of a run: {error}") from None

    def _remove(self, *names: str) -> None:
        for name in names:
            try:
                (self.path / name).unlink(missing_ok=True)
            except OSError as error:
                raise ConfigError(f"{self.path / name} cannot be removed: {error.strerror or error}") from None

    def _save(self, name: str, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
        with self._replacing(name) as part:
            save_file({key: _alone(tensor) for key, tensor in tensors.items()}, part, metadata)

    @contextmanager
    def _replacing(self, name: str) -> Iterator[Path]:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with replacing(self.path / name) as part:
                yield part
        except (OSError, SafetensorError) as error:
            raise ConfigError(f"{self.path} cannot take {name}: {getattr(error, 'strerror', '') or error}") from None


def refuse_changes(
    path: Path, before: Mapping[str, Any], now: Mapping[str, Scalar], others: Collection[str] = ()
) -> None:
    """Refuse to go on from the checkpoint in `path` under another configuration; `others` are keys that may change too.

    Raises
    ------
    ConfigError
        Naming a key that has changed, and both its values.
    """
    for key, value in now.items():
        if key not in MAY_CHANGE and key not in others and before.get(key, value) != value:
            raise ConfigError(
                f"{path} cannot be resumed with {key} = {shown(value)}, and its checkpoint was made with {key} = "
                f"{shown(before[key])}: change it back, or start a new run"
            )


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """Turn what is wrong with a file of results into one sentence about it. A pipe would keep its reader for ever."""
    try:
        if file.exists() and not file.is_file():
            raise ValueError("it is not a file")
        yield
    except ConfigError:
        raise
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, not JSON, not the types that it should have
        raise ConfigError(f"{file} is damaged, or not from a run: {getattr(error, 'strerror', '') or error}") from None


def _alone(tensor: Tensor) -> Tensor:
    """Return `tensor`, or a copy if it is part of a larger tensor, which safetensors refuses."""
    whole = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes
    return tensor if whole else tensor.clone(memory_format=torch.contiguous_format)
