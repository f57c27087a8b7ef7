"""Certificates of a deployment: who issues, what they say, and who may read the keys."""

import re
import shutil
import stat
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from ross_flwr import ConfigError
from ross_flwr.cli import cli
from ross_flwr.direct import certificates, revoked
from ross_flwr.direct.certificates import Credentials


def verified(credentials, name, authority):
    """What a TLS client that asks for `name` makes of a certificate."""
    store = Store([x509.load_pem_x509_certificate(authority)])
    verifier = PolicyBuilder().store(store).build_server_verifier(x509.DNSName(f"{name}.ross-flwr"))
    return verifier.verify(x509.load_pem_x509_certificate(credentials.certificate), [])


def test_a_node_is_who_its_certificate_says_and_nobody_else(tmp_path):
    certificates.init(tmp_path / "ours")
    certificates.init(tmp_path / "theirs")
    node = Credentials.read(certificates.issue(tmp_path / "ours", "kitchen", ["10.0.0.7", "kitchen.local"]))
    stranger = Credentials.read(certificates.issue(tmp_path / "theirs", "kitchen"))
    assert node.name == stranger.name == "kitchen"
    assert verified(node, "kitchen", node.authority)
    for credentials, name, authority in (
        (node, "cellar", node.authority),
        (stranger, "kitchen", node.authority),
        (node, "kitchen", stranger.authority),
    ):
        with pytest.raises(VerificationError):
            verified(credentials, name, authority)
    key = load_pem_private_key(node.key, None)
    assert key.public_key() == x509.load_pem_x509_certificate(node.certificate).public_key()


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_keys_are_for_their_owner_alone(tmp_path):
    certificates.init(tmp_path)
    folder = certificates.issue(tmp_path, "kitchen")
    keys = [tmp_path / "ca.key", folder / "node.key", folder / "auth.key"]
    assert [stat.S_IMODE(key.stat().st_mode) for key in keys] == [0o600] * 3
    assert sorted(file.name for file in folder.iterdir()) == ["auth.key", "auth.pub", "ca.pem", "node.key", "node.pem"]


@pytest.mark.parametrize("name", ["", "Kitchen", "a b", "a.b", "../up", "-a", "a" * 64, "küche"])
def test_what_cannot_be_a_name_is_refused(tmp_path, name):
    certificates.init(tmp_path)
    with pytest.raises(ConfigError, match="cannot be a node's name"):
        certificates.issue(tmp_path, name)


@pytest.mark.parametrize(
    "host",
    [
        *(
            "cellar.ross-flwr",
            "CELLAR.Ross-Flwr",
            "cellar.ross-flwr.",
            "cellar.ROSS-FLWR..",
            "ross-flwr",
            "*.ross-flwr",
        ),
        *("*", "cellar.ross-flwr\0.org", "a..b", "a b", "", ".", "küche.org", f"{'a' * 64}.org"),
    ],
)
def test_no_host_can_be_taken_for_a_node(tmp_path, host):
    certificates.init(tmp_path)
    with pytest.raises(ConfigError, match=r"is not a host"):
        certificates.issue(tmp_path, "kitchen", [host])


@pytest.mark.parametrize(
    ("host", "fault"),
    [
        ("192.168.1.20:9700", "leave out the port 9700"),
        ("kitchen.local:9700", "leave out the port 9700"),
        ("https://kitchen.local", "leave out the scheme https://"),
        ("192.168.1.300", "an IPv4 address has four numbers from 0 to 255"),
        ("1.2.3", "an IPv4 address has four numbers from 0 to 255"),
        ("kitchen,cellar", "it names several; give each its own"),
        ("[fd00::1]", "an IPv6 address takes no brackets here: fd00::1"),
    ],
)
def test_a_host_with_too_much_in_it_is_told_what_to_leave_out(tmp_path, host, fault):
    certificates.init(tmp_path)
    with pytest.raises(ConfigError, match=re.escape(f"--host {host} is not a host: {fault}")):
        certificates.issue(tmp_path, "kitchen", [host])
    assert not (tmp_path / "kitchen").exists()


def test_what_exists_is_never_overwritten(tmp_path):
    certificates.init(tmp_path)
    certificates.issue(tmp_path, "kitchen")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.*") if file.is_file()}
    with pytest.raises(ConfigError, match="holds a certificate authority already"):
        certificates.init(tmp_path)
    with pytest.raises(ConfigError, match="exists already"):
        certificates.issue(tmp_path, "kitchen")
    assert {file: file.read_bytes() for file in before} == before


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """A sound node's folder; beside it, that of a node of another deployment."""
    folder = tmp_path_factory.mktemp("certs")
    for deployment in ("ours", "theirs"):
        certificates.init(folder / deployment)
        certificates.issue(folder / deployment, "kitchen")
    return folder / "ours" / "kitchen"


def theirs(file):
    return lambda folder, node: shutil.copy(node.parents[1] / "theirs" / "kitchen" / file, folder / file)


def filled(file, content):
    return lambda folder, node: (folder / file).write_bytes(content)


def written(file, key, *secret):
    form = serialization.BestAvailableEncryption(*secret) if secret else serialization.NoEncryption()
    return filled(file, key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, form))


RSA = rsa.generate_private_key(65537, 2048)
SPOILT = {
    "no authority": (lambda folder, node: (folder / "ca.pem").unlink(), r"cannot be read \(No such file.*certs issue"),
    "no certificate": (filled("node.pem", b"none"), "is not a certificate"),
    "bytes for an authority": (filled("ca.pem", b"\xff\0"), "is not a certificate"),
    "bytes for a key": (filled("node.key", b"\xff\0"), "is not a private key"),
    "another's key": (theirs("node.key"), "is not the key of node.pem"),
    "another's authority": (theirs("ca.pem"), "was issued by another authority"),
    "a key of RSA": (written("node.key", RSA), "is not an elliptic-curve key"),
    "a key that is encrypted": (written("node.key", RSA, b"secret"), "is encrypted: decrypt it"),
    "a key that all may read": (lambda folder, node: (folder / "node.key").chmod(0o644), "read by others.*chmod 600"),
    "a login that a group may read": (lambda folder, node: (folder / "auth.key").chmod(0o640), "read by others"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_files_that_prove_nothing_are_refused_in_a_sentence(node, tmp_path, what):
    folder = shutil.copytree(node, tmp_path / "kitchen")
    spoil, sentence = SPOILT[what]
    spoil(folder, node)
    with pytest.raises(ConfigError, match=sentence):
        Credentials.read(folder)


@pytest.mark.parametrize(("days", "sentence"), [(2, "node.pem expired on"), (-2, "node.pem is valid from .* clock")])
def test_a_certificate_that_is_not_valid_today_is_refused(node, tmp_path, monkeypatch, days, sentence):
    folder = tmp_path / "certs"
    shutil.copytree(node.parent, folder)
    monkeypatch.setattr(certificates, "_OLDER", timedelta(days=days))
    monkeypatch.setattr(certificates, "DAYS", -1 if days > 0 else 3)
    with pytest.raises(ConfigError, match=sentence):
        Credentials.read(certificates.issue(folder, "hall"))


def test_a_path_that_no_file_can_have_is_refused_in_a_sentence():
    with pytest.raises(ConfigError, match="cannot be read"):
        Credentials.read(Path("certs\0"))


AUTHORITY = {
    "of RSA": (written("ca.key", RSA), "is not an elliptic-curve key"),
    "Ed25519": (written("ca.key", ed25519.Ed25519PrivateKey.generate()), "is not an elliptic-curve key"),
    "encrypted": (written("ca.key", ec.generate_private_key(ec.SECP256R1()), b"secret"), "is encrypted"),
    "another's": (
        lambda folder, node: shutil.copy(node.parents[1] / "theirs" / "ca.key", folder / "ca.key"),
        "is not the",
    ),
    "for all to read": (lambda folder, node: (folder / "ca.key").chmod(0o644), "can be read by others"),
    "missing": (lambda folder, node: (folder / "ca.key").unlink(), "certs init --in"),
}


@pytest.mark.parametrize("what", AUTHORITY)
def test_an_authority_that_cannot_sign_is_told_in_a_sentence(node, tmp_path, what):
    folder = tmp_path / "certs"
    shutil.copytree(node.parent, folder)
    spoil, sentence = AUTHORITY[what]
    spoil(folder, node)
    with pytest.raises(ConfigError, match=sentence):
        certificates.issue(folder, "hall")


def test_a_node_is_expelled_by_a_list_that_the_others_read_again(tmp_path, monkeypatch):
    monkeypatch.setattr(revoked, "LOOK_AGAIN", 0.0)
    certificates.init(tmp_path)
    kitchen, cellar = (Credentials.read(certificates.issue(tmp_path, name)) for name in ("kitchen", "cellar"))
    assert "cellar" not in kitchen.revoked
    done = CliRunner().invoke(cli, ["certs", "revoke", "cellar", "--in", str(tmp_path)])
    assert done.output.splitlines()[:2] == [
        f"cellar: revoked. Copy {tmp_path / 'revoked'} into the certificates' folder of every other node",
        f"The list is also in {tmp_path / 'kitchen' / 'revoked'}",
    ]
    assert "cellar" in kitchen.revoked
    assert "Cellar" in kitchen.revoked, "which is the same name to TLS"
    assert "cellar" not in cellar.revoked, "it is not told"
    certificates.revoke(tmp_path, ["attic"])
    assert {"cellar", "attic"} <= {name for name in ("cellar", "attic", "kitchen") if name in kitchen.revoked}
    (tmp_path / "kitchen" / "revoked").unlink()
    assert "cellar" in kitchen.revoked, "a running node forgets nobody"
    assert "attic" in Credentials.read(certificates.issue(tmp_path, "hall")).revoked, "a new node knows them"
    shutil.rmtree(tmp_path / "cellar")
    with pytest.raises(ConfigError, match="'cellar' is revoked"):
        certificates.issue(tmp_path, "cellar")


def test_what_cannot_be_written_is_told_in_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written: Not a directory"):
        certificates.init(tmp_path / "file" / "certs")
    certificates.init(tmp_path)
    (tmp_path / "revoked").mkdir()
    with pytest.raises(ConfigError, match="cannot be written: Is a directory"):
        certificates.issue(tmp_path, "kitchen")
    with pytest.raises(ConfigError, match="is not a list of names"):
        certificates.revoke(tmp_path, ["cellar"])


def test_a_list_that_cannot_be_read_is_told(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(revoked, "LOOK_AGAIN", 0.0)
    (tmp_path / "revoked").write_bytes(b"cellar\n\xff")
    names = revoked.Revoked(tmp_path)
    assert "cellar" not in names
    assert "cellar" not in names
    assert len(caplog.messages) == 1
    (tmp_path / "revoked").write_text("\ufeffattic, hall\r\ncellar.ross-flwr\n", encoding="utf-8")
    assert "attic" in names, "an editor has put a mark before it"
    assert "hall" in names
    assert caplog.messages[1].endswith("revokes 'cellar.ross-flwr', which is no node's name")


def test_the_command_makes_what_a_node_needs(tmp_path):
    runner = CliRunner()
    assert runner.invoke(cli, ["certs", "init", "--in", str(tmp_path)]).exit_code == 0
    done = runner.invoke(cli, ["certs", "issue", "hall", "kitchen", "--host", "::1", "--in", str(tmp_path)])
    assert done.output.splitlines() == [f"The certificate of {n} is in {tmp_path / n}" for n in ("hall", "kitchen")]
    certificate = x509.load_pem_x509_certificate(Credentials.read(tmp_path / "kitchen").certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["kitchen.ross-flwr"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["::1"]
