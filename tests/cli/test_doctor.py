"""What a doctor finds: in versions, certificates and ports, and where others serve."""

import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from threading import Thread
from types import SimpleNamespace

import grpc
import pytest
from addresses import free_port
from click.testing import CliRunner
from deployed import until

from ross_flwr import ConfigError, doctor
from ross_flwr.cli import cli
from ross_flwr.direct import certificates
from ross_flwr.direct.certificates import Credentials
from ross_flwr.doctor import installation, node


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certs")
    certificates.init(folder)
    for name in ("kitchen", "cellar"):
        certificates.issue(folder, name, ["127.0.0.1"])
    return folder


@pytest.fixture
def strangers(tmp_path):
    """The folder of a node of another deployment."""
    certificates.init(tmp_path)
    return certificates.issue(tmp_path, "cellar", ["127.0.0.1"])


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(node, "LARGEST", 1 << 16)


@pytest.fixture(autouse=True)
def no_idle_packages(monkeypatch):
    """This machine may have packages for CUDA and no GPU."""
    monkeypatch.setattr(installation, "distributions", list)


def issue_at(authority, folder, age, days, monkeypatch):
    """Issue a certificate as if it had been so many days ago, for so many days."""
    monkeypatch.setattr(certificates, "_OLDER", timedelta(days=age))
    monkeypatch.setattr(certificates, "DAYS", days - age)
    for file in ("ca.pem", "ca.key"):
        shutil.copy(authority / file, folder / file)
    return certificates.issue(folder, "kitchen")


def serving(folder):
    """Let a doctor answer for the node of this folder; return its address and what it tells."""
    address, told = f"127.0.0.1:{free_port()}", []
    Thread(target=doctor.serve, args=(address, folder, told.append), daemon=True).start()
    until(lambda: connects(address), "no doctor serves", 30)
    last(told)  # of this connection, which was none
    told.clear()
    return address, told


def connects(address):
    host, port = address.split(":")
    with suppress(OSError):
        socket.create_connection((host, int(port))).close()
        return True


def last(told):
    """What a serving doctor told last; it may still be about to."""
    return until(lambda: told, "the doctor tells of nobody", 30)[-1]


def found(**arguments):
    """What is said of other things than the installation, by what it is about."""
    installed = len(list(doctor.examine()))
    return {finding.what: finding for finding in list(doctor.examine(**arguments))[installed:]}


def test_this_installation_is_sound():
    findings = {finding.what: finding for finding in doctor.examine()}
    assert findings.keys() >= {"python", "flwr", "torch", "torchvision", "protobuf", "grpcio", "ray"}
    assert [finding for finding in findings.values() if not finding.ok] == []
    assert findings["flwr"].text == version("flwr")


@pytest.mark.parametrize(
    ("package", "installed", "text", "remedy"),
    [
        ("flwr", "1.38.0", "1.38.0 does not fit ross-flwr", 'pip install "flwr'),
        ("torch", "2.12.0", "2.12.0 does not fit torchvision", 'pip install "torch=='),
        ("protobuf", "4.25.0", "4.25.0 does not fit ross-flwr and flwr", 'pip install "protobuf'),
        ("ray", "2.0.0", "2.0.0 does not fit flwr", 'pip install "ray=='),
        ("grpcio", None, "not installed", 'pip install "grpcio'),
    ],
)
def test_what_does_not_fit_is_told_with_what_does(monkeypatch, package, installed, text, remedy):
    def pretended(name):
        if name == package and installed is None:
            raise PackageNotFoundError(name)
        return installed if name == package else version(name)

    monkeypatch.setattr(installation, "version", pretended)
    (problem,) = (finding for finding in doctor.examine() if not finding.ok)
    assert (problem.what, problem.text) == (package, text)
    assert problem.remedy.startswith(remedy)


def test_packages_for_a_gpu_that_is_not_there_and_a_32_bit_system_are_problems(monkeypatch):
    idle = [SimpleNamespace(name=f"nvidia-{each}", files=[SimpleNamespace(size=600_000_000)]) for each in ("b", "a")]
    monkeypatch.setattr(installation, "distributions", lambda: [SimpleNamespace(name="torch", files=None), *idle])
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(installation.sys, "maxsize", (1 << 31) - 1)
    system, cuda = (finding for finding in installation.installation() if not finding.ok)
    assert "64-bit" in system.remedy
    assert cuda.text == "2 packages of 1.2 GB, and torch finds no GPU on this machine"
    assert cuda.remedy.endswith("pip uninstall nvidia-a nvidia-b")


def test_the_doctor_comes_without_torch_which_a_32_bit_system_has_not():
    blocked = "import sys; sys.modules['torch'] = None; import ross_flwr.doctor"
    subprocess.run([sys.executable, "-c", blocked], check=True)


def test_a_node_needs_neither_ray_nor_torchvision(monkeypatch):
    monkeypatch.setattr(installation, "_wanted", lambda package, extra="": {})
    monkeypatch.setattr(installation, "version", lambda name: (_ for _ in ()).throw(PackageNotFoundError(name)))
    assert [(finding.what, finding.ok) for finding in doctor.examine()] == [
        ("python", True),
        ("torchvision", True),
        ("ray", True),
    ]


def test_an_old_python_and_a_torchvision_that_does_not_import_are_problems(monkeypatch):
    def broken():
        raise ImportError("libtorch.so is missing")

    monkeypatch.setattr(installation.platform, "python_version", lambda: "3.10.4")
    monkeypatch.setattr(installation, "import_torchvision", broken)
    problems = {finding.what: finding.text for finding in doctor.examine() if not finding.ok}
    assert problems["python"] == "3.10.4"
    assert "libtorch.so is missing" in problems["torchvision"]


def test_a_sound_node_has_no_problem(authority):
    findings = found(certs=authority / "kitchen", address=f"127.0.0.1:{free_port()}")
    assert list(findings) == ["authority", "certificate", "key", "port"]
    assert all(finding.ok for finding in findings.values())
    assert "kitchen, valid until 20" in findings["certificate"].text


@pytest.mark.parametrize(
    ("age", "days", "text"), [(40, 30, "expired on"), (-2, 30, "valid from"), (20, 30, "valid until")]
)
def test_a_certificate_that_is_not_valid_for_long_is_a_problem(authority, tmp_path, monkeypatch, age, days, text):
    findings = found(certs=issue_at(authority, tmp_path, age, days, monkeypatch))
    assert [what for what, finding in findings.items() if not finding.ok] == ["certificate"]
    said = f"{findings['certificate'].text}: {findings['certificate'].remedy}"
    assert text in said
    assert ("clock" if age < 0 else "ross-flwr certs") in said


def test_files_that_a_node_could_not_use_are_told(authority, tmp_path):
    (problem,) = (finding for finding in found(certs=tmp_path / "none").values() if not finding.ok)
    assert (problem.what, problem.text) == ("certificate", "cannot be used")
    assert "ross-flwr certs issue" in problem.remedy


def test_a_port_is_free_or_served_by_the_node_or_taken_or_not_here(authority):
    address, _ = serving(authority / "kitchen")
    texts = {}
    for certs, at in (
        ("kitchen", address),
        ("cellar", address),
        ("kitchen", "192.0.2.1:9700"),
        ("kitchen", "0.0.0.0:9700"),
        ("kitchen", "no-such-host.invalid:9700"),
    ):
        finding = found(certs=authority / certs, address=at)["port"]
        texts[certs, at] = finding.ok, finding.text
    assert texts["kitchen", address] == (True, f"{address} is served by kitchen itself")
    assert texts["cellar", address][1].startswith(f"{address} is served under another certificate: Hostname mismatch")
    assert [ok for ok, _ in texts.values()] == [True, False, False, False, False]


def test_a_neighbour_where_a_doctor_serves_is_measured_both_ways(authority):
    address, told = serving(authority / "kitchen")
    findings = found(certs=authority / "cellar", peers=(f"kitchen@{address}",))
    assert findings["neighbour kitchen"].ok
    assert "round trip" in findings["neighbour kitchen"].text
    assert "MB/s there" in findings["neighbour kitchen"].text
    assert findings["clock of kitchen"].ok
    assert f"{last(told).what} {last(told).text}" == "caller cellar, from 127.0.0.1"


def test_bandwidths_are_of_bytes_that_travel(authority, monkeypatch):
    address, _ = serving(authority / "kitchen")
    host, port = address.split(":")
    with (
        node._call((host, int(port)), authority / "cellar", "kitchen.ross-flwr") as link,
        link.makefile("rwb") as stream,
    ):
        began = time.perf_counter()
        speeds = [node._bandwidth(stream, verb) for verb in ("take", "give")]
        seconds = time.perf_counter() - began
    assert min(speeds) > node.LARGEST / seconds
    assert max(speeds) < 1e11


@pytest.mark.parametrize(("seconds", "ok"), [(60, False), (-60, False), (2, True)])
def test_clocks_that_differ_are_a_problem_where_flower_minds(authority, monkeypatch, seconds, ok):
    now = time.time_ns
    monkeypatch.setattr(node.time, "time_ns", lambda: now() + seconds * 10**9)
    address, _ = serving(authority / "kitchen")
    clock = found(certs=authority / "cellar", peers=(f"kitchen@{address}",))["clock of kitchen"]
    assert clock.ok == ok
    assert clock.text.startswith(f"{abs(seconds)} s {'ahead of' if seconds > 0 else 'behind'} the one here")


def problem_with(folder, peer):
    findings = found(certs=folder, peers=(peer,))
    (problem,) = (finding for finding in findings.values() if finding.what.startswith("neighbour"))
    assert not problem.ok
    return problem.text, problem.remedy


def test_a_neighbour_that_is_another_one_is_told(authority):
    address, told = serving(authority / "kitchen")
    text, remedy = problem_with(authority / "cellar", f"attic@{address}")
    assert "attic.ross-flwr" in text
    assert remedy == "compare names and addresses: another node of the deployment is there"
    assert not last(told).ok


def test_a_neighbour_with_an_expired_certificate_is_told(authority, tmp_path, monkeypatch):
    address, _ = serving(issue_at(authority, tmp_path, 40, 30, monkeypatch))
    text, remedy = problem_with(authority / "cellar", f"kitchen@{address}")
    assert "has expired" in text
    assert "ross-flwr certs issue" in remedy


def test_another_authority_is_told_on_both_sides(authority, strangers):
    address, told = serving(strangers)
    _, remedy = problem_with(authority / "kitchen", f"cellar@{address}")
    assert remedy == "both need certificates of the same authority"
    assert "was refused" in last(told).text


def test_who_calls_again_and_again_is_told_once_a_minute(authority, strangers):
    address, told = serving(authority / "kitchen")
    for folder, peers in [(authority / "cellar", f"kitchen@{address}"), (strangers, f"cellar@{address}")] * 3:
        found(certs=folder, peers=(peers,))
    until(lambda: len(told) > 1, "the doctor tells of one caller only", 30)
    assert sorted(finding.ok for finding in told) == [False, True]


def test_what_cannot_be_served_is_told_in_a_sentence(authority, tmp_path):
    with pytest.raises(ConfigError, match=r"cannot be served with --certs .*: No such file"):
        doctor.serve(f"127.0.0.1:{free_port()}", tmp_path, print)
    address, _ = serving(authority / "kitchen")
    with pytest.raises(ConfigError, match=r"cannot be served with --certs .*: Address already in use"):
        doctor.serve(address, authority / "kitchen", print)


def test_nobody_and_somebody_who_says_nothing_are_told(authority, monkeypatch):
    text, remedy = problem_with(authority / "cellar", f"kitchen@127.0.0.1:{free_port()}")
    assert "cannot be reached: Connection refused" in text
    assert "firewall" in remedy
    monkeypatch.setattr(node, "PATIENCE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        text, _ = problem_with(authority / "cellar", f"kitchen@127.0.0.1:{silent.getsockname()[1]}")
    assert "no answer" in text


def test_a_node_at_work_answers_and_is_not_disturbed(authority):
    node = Credentials.read(authority / "kitchen")
    server = grpc.server(ThreadPoolExecutor(1))
    identity = grpc.ssl_server_credentials([(node.key, node.certificate)], node.authority, require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", identity)
    server.start()
    try:
        finding = found(certs=authority / "cellar", peers=(f"kitchen@127.0.0.1:{port}",))["neighbour kitchen"]
    finally:
        server.stop(None).wait()
    assert finding.ok
    assert "is at work: round trip" in finding.text
    assert "ross-flwr doctor --serve" in finding.text


def test_a_superlinks_certificate_has_to_name_the_host_that_nodes_call(authority):
    address, _ = serving(authority / "kitchen")
    link = found(certs=authority / "cellar", superlink=address)["superlink"]
    assert link.ok
    assert link.text == f"{address} answers, and its certificate names 127.0.0.1"
    link = found(certs=authority / "cellar", superlink=address.replace("127.0.0.1", "localhost"))["superlink"]
    assert "Hostname mismatch" in link.text
    assert "--host" in link.remedy


def test_the_command_says_a_line_for_each_finding_and_ends_with_1_if_there_is_a_problem(authority):
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        at = f"127.0.0.1:{taken.getsockname()[1]}"
        bad = CliRunner().invoke(cli, ["doctor", "--address", at])
    good = CliRunner().invoke(cli, ["doctor", "--certs", str(authority / "kitchen")])
    assert (good.exit_code, bad.exit_code) == (0, 1)
    assert f"port               problem  {at} is taken by another program: stop that" in bad.output
    assert "key                ok       fits the certificate, and only" in good.output
    assert len(good.output.splitlines()) == len(list(doctor.examine())) + 3


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--peer", "kitchen@127.0.0.1:1"], "need --certs FOLDER"),
        (["--superlink", "127.0.0.1:1"], "need --certs FOLDER"),
        (["--peer", "127.0.0.1:1"], "--peer NAME@ is not an address: use host:port"),
        (["--address", "127.0.0.1"], "--address 127.0.0.1 is not an address: use host:port"),
        (["--address", "127.0.0.1:²"], "--address 127.0.0.1:² is not an address: use host:port"),
        (["--address", "::1:9701"], r"address: an IPv6 address takes brackets, as in \[::1\]:9701"),
        (["--address", "http://127.0.0.1:1"], "is not an address: leave out the scheme and use host:port"),
        (["--address", ".local:9700"], ".local:9700 is not a host: use an IP address, or a name"),
        (["--address", "*:9700"], "is not a host: name the one address or host that others call"),
        (["--serve"], "--serve needs --certs and --address"),
    ],
)
def test_what_cannot_be_looked_at_is_told_in_a_sentence(options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        CliRunner().invoke(cli, ["doctor", *options], catch_exceptions=False)


def test_a_neighbour_that_answers_nonsense_or_without_end_is_told_in_a_sentence(authority):
    context = node._context(authority / "kitchen", node.ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols([node.PROTOCOL])
    answers = {b"soon\n": "answers nonsense", b"x" * 10**6: "answers nonsense", b"": "hangs up"}

    def lie(listening):
        for answer in answers:
            with context.wrap_socket(listening.accept()[0], server_side=True) as link, suppress(OSError):
                link.recv(64)
                link.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        Thread(target=lie, args=(listening,), daemon=True).start()
        for expected in answers.values():
            text, _ = problem_with(authority / "cellar", f"kitchen@127.0.0.1:{listening.getsockname()[1]}")
            assert expected in text


def test_a_caller_cannot_make_a_serving_doctor_read_without_end(authority):
    address, _ = serving(authority / "kitchen")
    host, port = address.split(":")
    with node._call((host, int(port)), authority / "cellar", "kitchen.ross-flwr") as link:
        link.sendall(b"take -1\n")
        assert int(link.recv(32)) > 0, "nothing is to be read, so the answer comes at once"
