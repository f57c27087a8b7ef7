"""What the doctor finds."""

from dataclasses import dataclass

__all__ = ["Finding"]


@dataclass(frozen=True)
class Finding:
    """What was checked, what was found, and what to do if it is a problem.

    Examples
    --------
    >>> Finding("port", "127.0.0.1:9700 is taken by another program", "stop that program, or use another port").ok
    False
    """

    what: str
    text: str
    remedy: str = ""

    @property
    def ok(self) -> bool:
        """Whether all is well."""
        return not self.remedy
