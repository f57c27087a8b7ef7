"""Certificates of a deployment: who issues, what they say, and who may read the keys."""

import stat
import sys

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from ross_flwr import ConfigError
from ross_flwr.cli import cli
from ross_flwr.direct import certificates
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


def test_no_host_can_be_taken_for_a_node(tmp_path):
    certificates.init(tmp_path)
    with pytest.raises(ConfigError, match=r"is not a host"):
        certificates.issue(tmp_path, "kitchen", ["cellar.ross-flwr"])


def test_what_exists_is_never_overwritten(tmp_path):
    certificates.init(tmp_path)
    certificates.issue(tmp_path, "kitchen")
    before = {file: file.read_bytes() for file in tmp_path.rglob("*.*") if file.is_file()}
    with pytest.raises(ConfigError, match="holds a certificate authority already"):
        certificates.init(tmp_path)
    with pytest.raises(ConfigError, match="exists already"):
        certificates.issue(tmp_path, "kitchen")
    assert {file: file.read_bytes() for file in before} == before


def test_missing_or_foreign_files_are_told(tmp_path):
    with pytest.raises(ConfigError, match="ross-flwr certs init"):
        certificates.issue(tmp_path, "kitchen")
    with pytest.raises(ConfigError, match="ross-flwr certs issue"):
        Credentials.read(tmp_path)
    for file in ("ca.pem", "node.pem", "node.key"):
        (tmp_path / file).write_text("no certificate")
    with pytest.raises(ConfigError, match="is not a certificate"):
        Credentials.read(tmp_path)


def test_the_command_makes_what_a_node_needs(tmp_path):
    runner = CliRunner()
    assert runner.invoke(cli, ["certs", "init", "--in", str(tmp_path)]).exit_code == 0
    done = runner.invoke(cli, ["certs", "issue", "hall", "kitchen", "--host", "::1", "--in", str(tmp_path)])
    assert done.output.splitlines() == [f"The certificate of {n} is in {tmp_path / n}" for n in ("hall", "kitchen")]
    certificate = x509.load_pem_x509_certificate(Credentials.read(tmp_path / "kitchen").certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["kitchen.ross-flwr"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["::1"]
