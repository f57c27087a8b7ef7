"""A cache of decoded images, outside the repository: the next process need not decode them again."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from logging import WARNING, getLogger
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ross_flwr.config import ConfigError
from ross_flwr.files import held, replacing

__all__ = ["cached", "stamps"]

logger = getLogger("ross_flwr")

FORMAT = 2
"""Counts how images were decoded over time: what an older version kept is not read."""

Tensors = dict[str, Tensor]


def stamps(files: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Return name, size and modification time of every file. If one changes, images decoded from them are stale."""
    return [(str(file.resolve()), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in sorted(files)]


def cached(key: object, decode: Callable[[], Tensors]) -> Tensors:
    """Return what `decode` last returned under `key` (JSON), in this process or another.

    The result is a safetensors file in ``$XDG_CACHE_HOME/ross-flwr``, by default ``~/.cache/ross-flwr``. It can be
    deleted at any time. A reader sees all of a file or nothing. One process writes at a time, so a file with the suffix
    ``.part`` is what a process left that died while it wrote, and the next one removes it.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "ross-flwr"
    if not folder.is_absolute():  # nobody's home
        return decode()
    file = folder / f"{hashlib.sha256(json.dumps([FORMAT, key]).encode()).hexdigest()[:32]}.safetensors"
    try:
        return load_file(file)
    except (OSError, SafetensorError):  # missing or incomplete
        tensors = decode()
    try:
        with held(folder, wait=True):
            for left in folder.glob("*.part"):
                left.unlink()
            with replacing(file) as part:
                save_file(tensors, part)
    except (ConfigError, OSError, SafetensorError) as error:
        logger.log(WARNING, "cannot keep decoded images in %s: %s", folder, error)
    return tensors
