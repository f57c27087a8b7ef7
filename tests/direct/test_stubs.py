"""The generated stubs: as old as the protocol's file, and no newer than the protobuf and grpcio that are declared."""

import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROTO = ROOT / "proto/ross_flwr/peer/v1/peer.proto"
STUBS = ROOT / "ross_flwr/peer/v1"


def test_the_documented_command_makes_the_stubs_that_are_committed(tmp_path):
    pytest.importorskip("grpc_tools")
    (line,) = re.findall(r"^//   python (-m grpc_tools\.protoc .*)$", PROTO.read_text(), re.MULTILINE)
    command = line.replace("_out=.", f"_out={tmp_path}")
    subprocess.run([sys.executable, *shlex.split(command)], cwd=ROOT, check=True)
    made = sorted((tmp_path / "ross_flwr/peer/v1").iterdir())
    assert [file.name for file in made] == ["peer_pb2.py", "peer_pb2.pyi", "peer_pb2_grpc.py"]
    for file in made:
        assert file.read_text() == (STUBS / file.name).read_text(), f"{file.name} is stale: run python {line}"


def test_the_declared_protobuf_and_grpcio_accept_the_stubs():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    form = r"([\w-]+)(?:\[.*\])?>=([\d.]+)(?:,<[\d.]+)?"
    least = dict(re.fullmatch(form, each).groups() for each in project["dependencies"])
    (made_for,) = re.findall(r"^# Protobuf Python Version: (.*)$", (STUBS / "peer_pb2.py").read_text(), re.MULTILINE)
    (called_by,) = re.findall(r"^GRPC_GENERATED_VERSION = '(.*)'$", (STUBS / "peer_pb2_grpc.py").read_text(), re.M)
    for declared, needed in ((least["protobuf"], made_for), (least["grpcio"], called_by)):
        assert [int(n) for n in (declared + ".0").split(".")[:3]] >= [int(n) for n in needed.split(".")]


def test_every_message_and_field_of_the_protocol_is_explained():
    lines = [line.strip() for line in PROTO.read_text().splitlines()]
    declared = [k for k, line in enumerate(lines) if re.match(r"(message|service|enum|rpc)\b|.* = \d+;$", line)]
    assert len(declared) > 30
    for k in declared:
        assert lines[k - 1].startswith("//"), f"line {k + 1} of peer.proto: {lines[k]} has no comment"
