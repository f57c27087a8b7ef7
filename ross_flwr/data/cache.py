"""A cache of decoded images, outside the repository: the next process need not decode them again."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from logging import WARNING, getLogger
from pathlib import Path
from tempfile import NamedTemporaryFile

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

__all__ = ["cached", "stamps"]

logger = getLogger("ross_flwr")

Tensors = dict[str, Tensor]


def stamps(files: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Return name, size and modification time of every file. If one changes, images decoded from them are stale."""
    return [(str(file.resolve()), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in sorted(files)]


def cached(key: object, decode: Callable[[], Tensors]) -> Tensors:
    """Return what `decode` last returned under `key` (JSON), in this process or another.

    The result is a safetensors file in ``$XDG_CACHE_HOME/ross-flwr``, by default ``~/.cache/ross-flwr``. It can be
    deleted at any time. A file is written under another name and then renamed, so a reader sees all of it or nothing.
    """
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ross-flwr"
    file = folder / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]}.safetensors"
    try:
        return load_file(file)
    except (OSError, SafetensorError):  # missing or incomplete
        tensors = decode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=folder, suffix=".part", delete=False) as part:
            pass
        try:
            save_file(tensors, part.name)
            os.replace(part.name, file)
        finally:
            Path(part.name).unlink(missing_ok=True)
    except (OSError, SafetensorError) as error:
        logger.log(WARNING, "cannot keep decoded images in %s: %s", folder, error)
    return tensors
