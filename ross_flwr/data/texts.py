"""Texts, by the name that the key `dataset` takes with task = 'language-model'. Tokens are bytes.

| dataset | data-path |
|---|---|
| ``python`` | nothing: every Python has its standard library |
| ``folder`` | a folder of text files; each subfolder is a source, or, where there is none, each file |
"""

import sysconfig
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ross_flwr.config import ConfigError, Specs, option
from ross_flwr.data.examples import Place
from ross_flwr.data.records import Records, Rows

__all__ = ["TEXTS", "Text", "read_text"]

HELD_OUT = 5
"""Every fifth file of a source is test data; of a source with fewer files, the last fifth of its text."""

PACKAGES = (
    *("asyncio", "email", "encodings", "http", "importlib", "logging"),
    *("multiprocessing", "pydoc_data", "unittest", "urllib", "xml"),
)
"""The largest packages of Python's standard library that all versions have."""


@dataclass(frozen=True)
class Text(ABC):
    """A text of several sources, cut into windows."""

    kib: int = option(64, "how much of each source is to train on at most", unit="KiB", minimum=1)
    test_kib: int = option(1, "how much of each source is to test on at most", unit="KiB", minimum=1)

    @abstractmethod
    def sources(self, place: Place) -> Mapping[str, Sequence[Path]]:
        """Return the files of each source by its name."""

    def read(self, place: Place, context: int) -> Records:
        """Return windows of `context` + 1 bytes, each of one source, which owns them. Neighbours share a byte.

        Raises
        ------
        ConfigError
            When there is no text, or too little of a source.
        """
        rows: tuple[list[Tensor], list[Tensor]] = ([], [])
        sources = self.sources(place)
        for name, files in sources.items():
            parts = _split(files)
            for found, part, most in zip(rows, parts, (self.kib, self.test_kib), strict=True):
                windows = _windows(part[: 1024 * most], context)
                if not len(windows):
                    raise ConfigError(
                        f"source '{name}' has {sum(map(len, parts))} bytes, which are too few to train and test on "
                        f"windows of {context + 1}: put more text into it, or lower context of the model"
                    )
                found.append(windows)
        train, test = (_rows(found) for found in rows)
        return Records(train, test, tuple(sources), owners=train.labels)


@lru_cache(maxsize=4)
def read_text(name: str, place: Place, context: int) -> Records:
    """Return the windows of a text that a name stands for, perhaps with options, as in ``python(kib=512)``.

    Later calls in the same process return the same object.
    """
    return Specs("dataset", name, "a text", "'python', or like 'python(kib=512)'").one(TEXTS).read(place, context)


class PythonLibrary(Text):
    """Code of Python's standard library, whatever version runs: eleven packages and the single modules."""

    def sources(self, place: Place) -> dict[str, list[Path]]:
        """Return the files of each package."""
        root = Path(sysconfig.get_paths()["stdlib"])
        found = {name: sorted((root / name).rglob("*.py")) for name in PACKAGES}
        found["modules"] = sorted(root.glob("*.py"))
        if lost := [name for name, files in found.items() if not files]:
            raise ConfigError(f"dataset = 'python' is not there: {root} has no source files of {lost[0]}; use a folder")
        return found


class Folder(Text):
    """A folder of text files: each subfolder is a source, or, where there is none, each file."""

    def sources(self, place: Place) -> dict[str, list[Path]]:
        """Return the files below each subfolder, or each file."""
        root = place.located
        if not place.path or not root.is_dir():
            raise ConfigError(f"data-path = '{place.path}' is not a folder: dataset = 'folder' takes one of text files")
        inside = sorted(each for each in root.iterdir() if not each.name.startswith("."))
        folders = [each for each in inside if each.is_dir()]
        found = {each.name: _texts(each.rglob("*")) for each in folders} or {
            each.name: _texts([each]) for each in inside
        }
        found = {name: files for name, files in found.items() if files}
        if not found:
            raise ConfigError(f"data-path = '{place.path}' holds no text file: it takes some, perhaps in subfolders")
        return found


TEXTS: dict[str, type[Text]] = {"python": PythonLibrary, "folder": Folder}
"""Texts by name."""


def _texts(files: Iterable[Path]) -> list[Path]:
    """Return the files that hold text: no byte is zero at their beginning."""
    found = []
    for file in sorted(files):
        if file.is_file() and not file.name.startswith("."):
            beginning = _read([file], 4096)
            if beginning and b"\0" not in beginning:
                found.append(file)
    return found


def _split(files: Sequence[Path]) -> tuple[bytes, bytes]:
    """Return the text of a source to train on, and that to test on."""
    shuffled = [files[i] for i in np.random.default_rng(1998).permutation(len(files))]  # the same for every run
    if len(files) >= HELD_OUT:
        return _read(each for i, each in enumerate(shuffled) if i % HELD_OUT), _read(shuffled[::HELD_OUT])
    whole = _read(shuffled)
    cut = len(whole) - len(whole) // HELD_OUT
    return whole[:cut], whole[cut:]


def _read(files: Iterable[Path], most: int = -1) -> bytes:
    """Return what the files hold, of each at most so many bytes; -1 for all."""
    parts = []
    for file in files:
        try:
            with file.open("rb") as opened:
                parts.append(opened.read(most))
        except OSError as error:
            raise ConfigError(f"text file {file} cannot be read: {error.strerror}") from None
    return b"".join(parts)


def _windows(text: bytes, context: int) -> Tensor:
    """Return uint8 of shape [n, context + 1]; the last byte of a window is the first of the next."""
    count = max((len(text) - 1) // context, 0)
    flat = torch.frombuffer(bytearray(text), dtype=torch.uint8) if text else torch.zeros(0, dtype=torch.uint8)
    return flat[: count * context + 1].unfold(0, context + 1, context) if count else torch.zeros(0, context + 1)


def _rows(windows: Sequence[Tensor]) -> Rows:
    together = torch.cat(list(windows))
    labels = torch.cat([torch.full((len(each),), i) for i, each in enumerate(windows)])
    return Rows(together[:, :-1], together[:, 1:], labels)
