"""Files and folders that others may touch: one process works in a folder, and nothing is written through a link."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from ross_flwr.config import ConfigError

if sys.platform != "win32":
    import fcntl

__all__ = ["fresh", "held", "home", "inside", "new_folder", "replacing"]


@contextmanager
def held(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Make `folder` if there is none, and keep other processes that ask for it out of it.

    The system lets go of it when this process dies, however it does. On a file system without locks nobody is kept out.

    Raises
    ------
    ConfigError
        When another process holds it, unless this one waits; or when it cannot be a folder.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        opened = os.open(folder, os.O_RDONLY) if sys.platform != "win32" else -1
    except OSError as error:
        raise ConfigError(f"{folder} cannot take results: {error.strerror or error}") from None
    try:
        _lock(opened, folder, wait)
        yield
    finally:
        if opened >= 0:
            os.close(opened)


@contextmanager
def new_folder(root: Path, name: str) -> Iterator[Path]:
    """Make a folder in `root` that no other process has made, and remove it again if nothing is left in it.

    It is called `name`; where there is one, it is called so with -2, -3, … behind it. `root` goes too if it is new.

    Raises
    ------
    ConfigError
        When it cannot be made.
    """
    new = not root.exists()
    try:
        root.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            folder = root / (name if number == 1 else f"{name}-{number}")
            with suppress(FileExistsError):
                folder.mkdir()
                break
    except OSError as error:
        raise ConfigError(f"{root / name} cannot take results: {error.strerror or error}") from None
    try:
        yield folder
    finally:
        with suppress(OSError):  # there are results in it
            folder.rmdir()
            if new:
                root.rmdir()


def _lock(opened: int, folder: Path, wait: bool) -> None:
    if sys.platform == "win32":
        return
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise ConfigError(f"{folder} is in use: another process runs in it; wait until it ends, or stop it") from None
    except OSError:
        pass  # a network file system, say, that has no locks on folders


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """Let the caller write a new file beside `file`, and then put it in its place: readers see all of it or nothing.

    Both `file` and the new one may be links that somebody left there. They are replaced, never followed.
    """
    part = fresh(file.with_name(f"{file.name}.part"))
    try:
        os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        yield part
        os.replace(part, file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def home(path: str) -> Path:
    """Return a path as a user writes it; ``~`` at its begin is the home folder, if there is one.

    Examples
    --------
    >>> home("results/first").as_posix()
    'results/first'
    """
    return Path(os.path.expanduser(path))


def fresh(file: Path) -> Path:
    """Remove `file`, which may be a link, so that writing to it makes a new one; return it."""
    file.unlink(missing_ok=True)
    return file


def inside(root: Path, *names: str) -> Path:
    """Return the folder below `root` that these names lead to.

    Raises
    ------
    ConfigError
        When one is not the name of a folder, or is that of a link, which may lead out of `root`.

    Examples
    --------
    >>> inside(Path("results"), "dpsgd", "ring").as_posix()
    'results/dpsgd/ring'
    """
    path = root
    for name in names:
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            raise ConfigError(f"{name!r} cannot name a folder in {root}: use letters, digits, dots and hyphens")
        path = path / name
        if path.is_symlink():
            raise ConfigError(f"{path} is a link: results are not written through links, so put a folder there")
    return path
