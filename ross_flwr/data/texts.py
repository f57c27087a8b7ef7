"""Texts, by the name that the key `dataset` takes with task = 'language-model'.

| dataset | data-path |
|---|---|
| ``python`` | nothing: every Python has its standard library |
| ``folder`` | a folder of text files; each subfolder is a source, or, where there is none, each file |
| ``huggingface`` | a folder as the hub stores it, or, with ``download = true``, a name on the hub |

Tokens are bytes, or, as in ``python(vocabulary=1024)``, learned by byte-level BPE.
"""

import sysconfig
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ross_flwr.config import ConfigError, Specs, option
from ross_flwr.data.bpe import BYTES, bpe
from ross_flwr.data.examples import Place
from ross_flwr.data.huggingface import splits
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
    vocabulary: int = option(
        BYTES,
        "how many tokens there are: 256 for bytes, or more, learned from the training text by byte-level BPE (extra "
        "`text`)",
        unit="tokens",
        minimum=BYTES,
        maximum=2**15,
    )

    @abstractmethod
    def sources(self, place: Place) -> Mapping[str, tuple[bytes, bytes]]:
        """Return the text of each source, by its name: what is to train on, and what is to test on."""

    def read(self, place: Place, context: int) -> Records:
        """Return windows of `context` + 1 tokens, each of one source, which owns them. Neighbours share a token.

        Raises
        ------
        ConfigError
            When there is no text, or too little of a source.
        """
        sources = {
            name: (train[: 1024 * self.kib], test[: 1024 * self.test_kib])
            for name, (train, test) in self.sources(place).items()
        }
        trained = bpe(self.vocabulary, [train for train, _ in sources.values()]) if self.vocabulary > BYTES else None
        rows: tuple[list[Tensor], list[Tensor]] = ([], [])
        for name, parts in sources.items():
            for found, part in zip(rows, parts, strict=True):
                windows = _windows(trained.encode(part) if trained else _bytes(part), context)
                if not len(windows):
                    raise ConfigError(
                        f"source '{name}' has {sum(map(len, parts))} bytes, which are too few to train and test on "
                        f"windows of {context + 1}: put more text into it, or lower context of the model"
                    )
                found.append(windows)
        train, test = (_rows(found) for found in rows)
        names = trained.tokens if trained else ()
        return Records(train, test, tuple(sources), inputs=names, owners=train.labels)


@lru_cache(maxsize=4)
def read_text(name: str, place: Place, context: int) -> Records:
    """Return the windows of a text that a name stands for, perhaps with options, as in ``python(kib=512)``.

    Later calls in the same process return the same object.
    """
    return Specs("dataset", name, "a text", "'python', or like 'python(kib=512)'").one(TEXTS).read(place, context)


class PythonLibrary(Text):
    """Code of Python's standard library, whatever version runs: eleven packages and the single modules."""

    def sources(self, place: Place) -> dict[str, tuple[bytes, bytes]]:
        """Return the text of each package."""
        root = Path(sysconfig.get_paths()["stdlib"])
        found = {name: sorted((root / name).rglob("*.py")) for name in PACKAGES}
        found["modules"] = sorted(root.glob("*.py"))
        if lost := [name for name, files in found.items() if not files]:
            raise ConfigError(f"dataset = 'python' is not there: {root} has no source files of {lost[0]}; use a folder")
        return {name: _split(files) for name, files in found.items()}


class Folder(Text):
    """A folder of text files: each subfolder is a source, or, where there is none, each file."""

    def sources(self, place: Place) -> dict[str, tuple[bytes, bytes]]:
        """Return the text below each subfolder, or of each file."""
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
        return {name: _split(files) for name, files in found.items()}


class HuggingFace(Text):
    """Texts of a Hugging Face data set: data-path is its folder or, with download = true, its name on the hub.

    Its text stands in the column ``text``, or the only one with words. The words or numbers in owner-column are its
    sources; without one, all of it is one source.
    """

    def sources(self, place: Place) -> dict[str, tuple[bytes, bytes]]:
        """Return the text of each source: its rows, and those of the test data, each with a line's end."""
        train, *test = splits(place)
        words = [name for name, kind in train.features.items() if getattr(kind, "dtype", "") in _WORDS]
        words = [name for name in words if name != place.owner_column]
        column = "text" if "text" in words else words[0] if len(words) == 1 else ""
        owner = place.owner_column
        where, columns = f"data-path = '{place.path}'", ", ".join(train.features)
        if not column:
            raise ConfigError(f"{where} has the columns {columns}: call the one with the text text")
        if owner and owner not in train.features:
            raise ConfigError(f"owner-column = '{owner}' is not a column of {where}: {columns} are")
        parts = [_by_source(each, column, owner) for each in (train, *test)]
        if len(parts) > 1:
            return {name: (text, parts[1].get(name, b"")) for name, text in parts[0].items()}
        cuts = {name: len(text) - len(text) // HELD_OUT for name, text in parts[0].items()}
        return {name: (text[: cuts[name]], text[cuts[name] :]) for name, text in parts[0].items()}


_WORDS = ("string", "large_string")

TEXTS: dict[str, type[Text]] = {"python": PythonLibrary, "folder": Folder, "huggingface": HuggingFace}
"""Texts by name."""


def _by_source(rows: Any, column: str, owner: str) -> dict[str, bytes]:
    """Return the text in a column, by what stands in the column `owner`."""
    texts = rows[column][:]
    names = map(str, rows[owner][:]) if owner else ["text"] * len(texts)
    found: dict[str, list[str]] = {}
    for name, text in zip(names, texts, strict=True):
        found.setdefault(name, []).append(text or "")
    return {name: "".join(f"{text}\n" for text in found[name]).encode() for name in sorted(found)}


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


def _bytes(text: bytes) -> Tensor:
    return torch.frombuffer(bytearray(text), dtype=torch.uint8) if text else torch.zeros(0, dtype=torch.uint8)


def _windows(tokens: Tensor, context: int) -> Tensor:
    """Return windows, shape [n, context + 1], of tokens of shape [m]; the last of a window is the first of the next."""
    count = max((len(tokens) - 1) // context, 0)
    return tokens[: count * context + 1].unfold(0, context + 1, context) if count else tokens.new_zeros(0, context + 1)


def _rows(windows: Sequence[Tensor]) -> Rows:
    together = torch.cat(list(windows))
    labels = torch.cat([torch.full((len(each),), i) for i, each in enumerate(windows)])
    return Rows(together[:, :-1], together[:, 1:], labels)
