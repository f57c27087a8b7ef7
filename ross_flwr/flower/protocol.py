"""What the ServerApp and the nodes tell each other, as typed records on Flower's wire.

Records come from outside, so readers check them; `MalformedError` is the only error that this raises.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeVar

from flwr.app import ConfigRecord, RecordDict

from ross_flwr.config import Scalar
from ross_flwr.engine.events import AgentReport
from ross_flwr.graph.topology import Place
from ross_flwr.typed_json import MalformedError, reader_of

__all__ = [
    "Answer",
    "Call",
    "MalformedError",
    "Record",
    "Report",
    "RoundReport",
    "Segment",
    "Setup",
    "model_key",
]

R = TypeVar("R", bound="Record")


class Record:
    """A frozen dataclass that travels as the `ConfigRecord` called `key`."""

    key: ClassVar[str]

    def to_text(self) -> str:
        """Return the record as JSON."""
        return json.dumps(_fields(self), default=_fields)

    def to_record(self) -> ConfigRecord:
        """Return the record as Flower carries it."""
        return ConfigRecord({"json": self.to_text()})

    @classmethod
    def from_text(cls: type[R], text: str) -> R:
        """Return what `to_text` wrote.

        Raises
        ------
        MalformedError
            When a field is missing, unknown or of another type.
        """
        try:
            value: R = reader_of(cls)(json.loads(text))  # type: ignore[arg-type]
        except MalformedError as error:
            raise MalformedError(f"record '{cls.key}': {error}") from None
        except (ValueError, OverflowError, RecursionError) as error:
            raise MalformedError(f"record '{cls.key}' is not JSON: {error}") from None
        return value

    @classmethod
    def from_record(cls: type[R], record: ConfigRecord) -> R:
        """Return what `to_record` packed; raise `MalformedError` as `from_text` does."""
        text = record.get("json")
        if not isinstance(text, str):
            raise MalformedError(f"record '{cls.key}' has no text 'json'")
        return cls.from_text(text)

    @classmethod
    def of(cls: type[R], content: RecordDict) -> R:
        """Return the record of this kind in the content of a message.

        Raises
        ------
        MalformedError
            When there is none, or it is malformed.
        """
        record = content.get(cls.key)
        if not isinstance(record, ConfigRecord):
            raise MalformedError(f"there is no record '{cls.key}'")
        return cls.from_record(record)


@dataclass(frozen=True)
class Setup(Record):
    """What a node must know to host its agents.

    Attributes
    ----------
    run : str
        The run's name.
    options : mapping of str to bool, int, float or str
        The part of the configuration that the run's method needs.
    places : mapping of int to (mapping, mapping)
        Row and column of W of every agent on the node.
    """

    key: ClassVar[str] = "setup"
    run: str
    options: Mapping[str, Scalar]
    places: Mapping[int, Place]


@dataclass(frozen=True)
class Call(Record):
    """The step that a node's agents run next, on the messages beside this record.

    Attributes
    ----------
    pass_number, step : int
        Both counted from 0.
    end : int
        The pass before which relayed passes end. In an earlier pass the node runs the next pass's first step along with
        the last step of this one.
    """

    key: ClassVar[str] = "call"
    pass_number: int
    step: int
    end: int


@dataclass(frozen=True)
class Segment(Record):
    """The rounds that a node runs with its neighbours, without the ServerApp.

    Attributes
    ----------
    first, last : int
        Rounds, counted from 1, both included.
    topology : str
        Digest of the topology, by which neighbours check that they agree.
    places : mapping of int to list of (mapping, mapping)
        Row and column of W of every agent on the node, for each pass of the segment; one pair where the graph stays
        the same.
    neighbors : list of (str, str, list of int)
        Name, ``host:port`` and agents of every node that hosts neighbours of the agents here.
    behind_by : float (default: 0)
        How many seconds earlier the other nodes were told of the segment.
    """

    key: ClassVar[str] = "segment"
    first: int
    last: int
    topology: str
    places: Mapping[int, Sequence[Place]]
    neighbors: Sequence[tuple[str, str, Sequence[int]]]
    behind_by: float = 0.0


@dataclass(frozen=True)
class RoundReport:
    """What the agents of a node did in a round.

    `seconds` is how long the round took the node; None if the ServerApp carries the messages and keeps the time.
    """

    number: int
    seconds: float | None
    agents: Sequence[AgentReport]


@dataclass(frozen=True)
class Report(Record):
    """What happened on a node since its last report: rounds, and messages that it refused, by reason."""

    key: ClassVar[str] = "report"
    rounds: Sequence[RoundReport]
    dropped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer(Record):
    """What a node answers before a run.

    Attributes
    ----------
    partition : int, optional
        The number of the part of the data on the node, if Flower numbers the parts.
    name, address : str
        The node's name among its neighbours, and the ``host:port`` that they call, if nodes talk directly.
    authority : str
        Digest of the authority's certificate, by which the node judges others, if nodes talk directly.
    problem : str
        Why it cannot take part; empty when it can.
    held : mapping of int to int
        If the run goes on: the rounds that the agents whose state is on the node have finished, by the first of them.
    """

    key: ClassVar[str] = "answer"
    partition: int | None = None
    name: str = ""
    address: str = ""
    problem: str = ""
    authority: str = ""
    held: Mapping[int, int] = field(default_factory=dict)


def _fields(value: Any) -> dict[str, Any]:
    """Return the fields of a dataclass; `asdict` would copy all their values."""
    return {each.name: getattr(value, each.name) for each in fields(value)}


def model_key(agent: int) -> str:
    """Return the name of the `ArrayRecord` that holds the model of `agent`."""
    return f"agent.{agent}"
