"""What reads input from others: every target takes any bytes, and raises nothing but the refusal that it documents.

`test_hostile_input.py` tries mutations of the seeds in seconds; `fuzz.py` follows coverage for as long as you let it.
"""

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import torch
from flwr.app import Array, ArrayRecord, ConfigRecord

from ross_flwr.algorithms.messages import Refused
from ross_flwr.cli import keys as cli_keys
from ross_flwr.compression import CODECS
from ross_flwr.compression.codec import Leg
from ross_flwr.compression.options import read_codecs
from ross_flwr.config import ConfigError, from_toml, to_toml
from ross_flwr.direct import certificates
from ross_flwr.direct.wire import Incoming, Memory, chunks, layouts, parse
from ross_flwr.engine.events import AgentReport
from ross_flwr.flower.protocol import Answer, Call, MalformedError, Report, RoundReport, Segment, Setup
from ross_flwr.flower.records import record_of, route_of, routes, tensors_of
from ross_flwr.graph.undirected import edge_list
from ross_flwr.peer.v1.peer_pb2 import Header
from ross_flwr.report import tables
from ross_flwr.runs.compare import experiments, read_plan
from ross_flwr.runs.finished import find_runs
from ross_flwr.runs.folder import RunFolder
from ross_flwr.runs.history import read_lines, read_summary
from ross_flwr.runs.local import resume, start
from ross_flwr.runs.side_by_side import side_by_side

LIMIT = 1 << 16
"""The most bytes of tensors in an envelope here."""

SMALL = {"algorithm": "ross", "beside": "dpsgd", "num-agents": 3, "num-rounds": 2, "topology": "ring", "attackers": 1}
SMALL |= {"validation-size": 20, "test-size": 50, "hidden": 2}

CODERS = [
    read_codecs(name)[""] for name in (*sorted(CODECS.keys() - {"choco", "zlib"}), "choco(int8)", "zlib(choco(int8))")
]

RECORDS = (Setup, Call, Segment, Report, Answer)


@cache
def scratch() -> Path:
    """A folder of this process."""
    return Path(mkdtemp())


def written(data: bytes) -> Path:
    file = scratch() / "input.txt"
    file.write_bytes(data)
    return file


def envelope(data: bytes) -> None:
    """A message on a stream between two nodes."""
    header, body = parse(data)
    if header is None:
        return
    incoming = Incoming(header.tensors, LIMIT, Memory())
    incoming.add(body)
    tensors = incoming.finish()
    assert sum(tensor.nbytes for tensor in tensors.values()) == len(body) <= LIMIT


def encoded(data: bytes) -> None:
    """A compressed vector: the first byte says by which codec."""
    codec = CODERS[data[0] % len(CODERS) if data else 0]
    leg = Leg(0, "gradient", "share", 0, 0, 0, 1)
    vector = codec.receive(
        torch.frombuffer(bytearray(data[1:] or b"0"), dtype=torch.uint8), 64, {}, {}, leg, mixed=True
    )
    assert vector.shape == (64,)


def record(data: bytes) -> None:
    """An array in a message of Flower: a line of JSON with type and shape, then the bytes."""
    head, _, body = data.partition(b"\n")
    try:
        dtype, shape = json.loads(head)
        array = Array(str(dtype), tuple(map(int, shape)), "numpy.ndarray", body)
        tensors_of(ArrayRecord({"model": array}))
    except (ValueError, TypeError, OverflowError, RecursionError):
        pass


def reply(data: bytes) -> None:
    """A typed record of a node or of the ServerApp: the first byte says which."""
    kind = RECORDS[data[0] % len(RECORDS)] if data else Report
    text = data[1:].decode("utf-8", "surrogateescape")
    value = kind.from_record(ConfigRecord({"json": text}))
    assert kind.from_text(value.to_text()) == value


def route(data: bytes) -> None:
    """The routes of envelopes that are relayed."""
    try:
        found = json.loads(data)
        content = ConfigRecord(found) if isinstance(found, dict) else ConfigRecord()
    except (ValueError, TypeError, RecursionError):
        return
    routes(content)


def topology(data: bytes) -> None:
    """A file of edges."""
    graph = edge_list(4, str(written(data)))
    assert sorted(graph) == [0, 1, 2, 3]


def configuration(data: bytes) -> None:
    """A configuration file, and the same text as -c has it."""
    text = data.decode("utf-8", "replace")
    if "=" in text:
        cli_keys.read([text])
    configs = side_by_side(from_toml(written(data), "the file"))
    again = from_toml(written(to_toml(configs[0]).encode()), "the file")
    assert again == configs[0].values


def experiment(data: bytes) -> None:
    """The file of a comparison."""
    plan = read_plan(str(written(data)), {})
    for cell in plan.cells()[:4]:
        cell.folder(scratch() / "comparison")
        cell.config  # noqa: B018 (it is resolved here)


@cache
def authority() -> Path:
    folder = scratch() / "certs"
    certificates.init(folder)
    certificates.issue(folder, "kitchen", ["127.0.0.1"])
    return folder


CERTIFICATES = ("ca.pem", "node.pem", "node.key")


def certificate(data: bytes) -> None:
    """The files of a node: the first byte says which of them is replaced."""
    name, node = CERTIFICATES[data[0] % 3 if data else 0], authority() / "kitchen"
    kept = (node / name).read_bytes()
    (node / name).write_bytes(data[1:])
    try:
        certificates.Credentials.read(node)
    finally:
        (node / name).write_bytes(kept)


@cache
def results() -> Path:
    """A finished run with another one beside it."""
    torch.set_num_threads(1)
    folder = scratch() / "results"
    for run in start(side_by_side(SMALL), folder):
        list(run.rounds())
    return folder


FILES = ("config.toml", "history.jsonl", "summary.json", "checkpoint.safetensors", "model.safetensors")


def result(data: bytes) -> None:
    """A folder of results, as a report and a resumed run read it: the first byte says which file is replaced."""
    folder = results()
    name = FILES[data[0] % len(FILES) if data else 0]
    kept = (folder / name).read_bytes()
    (folder / name).write_bytes(data[1:])
    try:
        if name == "checkpoint.safetensors":
            resume(folder)
        elif name == "model.safetensors":
            RunFolder(folder).read_model()
        else:
            runs = find_runs(folder)
            for table in (tables.progress, tables.agents, tables.weights, tables.edges, tables.times):
                table(runs)
    finally:
        (folder / name).write_bytes(kept)


def lines(data: bytes) -> None:
    """A history, line by line."""
    read_lines(data.decode("utf-8", "replace").splitlines())


def summary(data: bytes) -> None:
    """A summary."""
    read_summary(data.decode("utf-8", "replace"))


TARGETS: dict[str, tuple[Callable[[bytes], None], tuple[type[Exception], ...]]] = {
    "envelope": (envelope, (Refused,)),
    "encoded": (encoded, (Refused,)),
    "record": (record, ()),
    "reply": (reply, (MalformedError,)),
    "route": (route, (ValueError,)),
    "topology": (topology, (ConfigError,)),
    "configuration": (configuration, (ConfigError,)),
    "experiment": (experiment, (ConfigError,)),
    "certificate": (certificate, (ConfigError,)),
    "result": (result, (ConfigError,)),
    "lines": (lines, (MalformedError,)),
    "summary": (summary, (MalformedError,)),
}
"""What is fed, and what it may raise."""


@cache
def seeds(name: str) -> list[bytes]:
    """Sound input of a target, from which mutations start."""
    model = {"model": torch.arange(6.0).view(2, 3), "count": torch.tensor([1, 2])}
    match name:
        case "envelope":
            header = Header(run="run", pass_number=1, step=0, source=1, destination=2, tensors=layouts(model))
            return [*chunks(header, model.values()), b"\x12\x03abc"]
        case "encoded":
            vector, leg = torch.arange(64.0), Leg(0, "gradient", "share", 0, 0, 0, 1)
            return [bytes([k, *codec.send(vector, None, {}, {}, leg)]) for k, codec in enumerate(CODERS)]
        case "record":
            arrays = record_of(model).values()
            return [json.dumps([each.dtype, each.shape]).encode() + b"\n" + each.data for each in arrays]
        case "reply":
            agent = AgentReport(1, loss=0.5, accuracy=0.1, sent={2: {"model": 8}}, missing=[0], weights={1: 0.5})
            rounds = [RoundReport(1, 0.5, [agent])]
            place = ({0: 0.5, 1: 0.5}, {0: 0.5, 1: 0.5})
            sent = [
                Report(rounds, {"malformed": 1}),
                Call(1, 2, 3),
                Answer(1),
                Setup("run", {"seed": 1, "topology": "ring"}, {0: place}),
                Segment(1, 5, "0123456789abcdef", {0: [place]}, [("kitchen", "127.0.0.1:9700", [1])]),
            ]
            return [bytes([RECORDS.index(type(each))]) + each.to_text().encode() for each in sent]
        case "route":
            head = {"run": "run", "pass": 1, "step": "share"}
            return [json.dumps(dict(route_of([(0, 1, "message.0")], head))).encode()]
        case "topology":
            return [b"0 1\n1 2 # a comment\n\n2 3\n"]
        case "configuration":
            return [b'seed = 3\nbeside = "dpsgd"\nlearning-rate = 0.1\n', b"num-rounds=5 topology='ring' download=true"]
        case "experiment":
            return [path.read_bytes() for path in list(experiments().values())[:4]]
        case "certificate":
            node = authority() / "kitchen"
            return [bytes([k]) + (node / file).read_bytes() for k, file in enumerate(CERTIFICATES)]
        case "result":
            return [bytes([k]) + (results() / file).read_bytes() for k, file in enumerate(FILES)]
        case "lines":
            return [(results() / "history.jsonl").read_bytes()]
        case _:
            return [(results() / "summary.json").read_bytes()]


def feed(name: str, data: bytes) -> bool:
    """Give a target some bytes; return whether it took them. Any other exception than its refusal leaves."""
    target, refusals = TARGETS[name]
    try:
        target(data)
    except refusals:
        return False
    return True


def clean() -> None:
    """Remove what this process wrote."""
    shutil.rmtree(scratch(), ignore_errors=True)
