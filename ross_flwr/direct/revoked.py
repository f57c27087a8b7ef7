"""Expelled nodes.

A certificate cannot be taken back, so a node whose key was stolen is expelled by its name: every other node finds the
name in the file ``revoked`` beside its own certificate, and neither calls it nor takes its calls. Nobody gets the name
again.
"""

import re
from collections.abc import Container
from logging import WARNING, getLogger
from pathlib import Path
from time import monotonic

from ross_flwr.engine.refusals import Sparing

__all__ = ["NAME", "REVOKED", "Revoked", "names_in"]

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""A node's name."""

REVOKED = "revoked"
"""The file in a node's folder that lists the names of expelled nodes, one on each line."""

LOOK_AGAIN = 1.0
"""Seconds after which a node looks whether the file has changed."""


class Revoked(Container[str]):
    """The names of expelled nodes, from the file in a node's folder.

    The file is read again when it changes, also during a run. What was read stays in force until the process ends.

    Parameters
    ----------
    folder : Path
        The node's folder. A missing file revokes nobody.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / REVOKED
        self._names: frozenset[str] = frozenset()
        self._read: tuple[int, int, int] | None = None
        self._log = Sparing(getLogger("ross_flwr"))
        self._look_at = -LOOK_AGAIN

    def __contains__(self, name: object) -> bool:
        now = monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_AGAIN
            self._look()
        return str(name).lower() in self._names  # as TLS compares names

    def _look(self) -> None:
        try:
            status = self._file.stat()
            version = status.st_mtime_ns, status.st_size, status.st_ino
            if version != self._read:
                self._names |= names_in(self._file)
                self._read = version
                if strange := [name for name in sorted(self._names) if not NAME.fullmatch(name)]:
                    self._log.log(WARNING, "strange", f"{self._file} revokes {strange[0]!r}, which is no node's name")
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:
            self._log.log(
                WARNING, "unreadable", f"{self._file} cannot be read, so nobody knows whom it revokes: {error}"
            )


def names_in(file: Path) -> frozenset[str]:
    """Return the names that a file lists.

    Raises
    ------
    OSError, ValueError
        When it cannot be read, or is not text.
    """
    return frozenset(file.read_text(encoding="utf-8-sig").lower().replace(",", " ").split())
