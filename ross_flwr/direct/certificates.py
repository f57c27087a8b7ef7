"""The certificates by which nodes recognise each other: a deployment's own authority, and one certificate per node.

A certificate holds the name of its node as the DNS name ``NAME.ross-flwr``, which no host has. A caller expects a
certificate with that name, whatever the node's address. A node that is called looks for its neighbours' names in the
caller's certificate.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ross_flwr.config import ConfigError

__all__ = ["DOMAIN", "Credentials", "init", "issue"]

DOMAIN = "ross-flwr"
"""The top-level domain of all nodes' names. It does not exist in the public DNS."""

DAYS = 825
"""Days for which a node's certificate is valid; most TLS libraries accept no more. The authority's: ten times that."""

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_OLDER = timedelta(hours=1)  # clocks differ: a Raspberry Pi's stops while it is off


@dataclass(frozen=True)
class Credentials:
    """What a node needs to prove its name and to check the names of others, as PEM."""

    name: str
    authority: bytes
    certificate: bytes
    key: bytes

    @classmethod
    def read(cls, folder: Path) -> "Credentials":
        """Return what `issue` wrote into a node's folder.

        Raises
        ------
        ConfigError
            When a file is missing, or has the wrong content.
        """
        try:
            authority, certificate, key = ((folder / file).read_bytes() for file in ("ca.pem", "node.pem", "node.key"))
        except OSError as error:
            raise ConfigError(
                f"peer-certs = '{folder}' cannot be read ({error.strerror}: {error.filename}): make it with "
                "`ross-flwr certs issue`, which writes ca.pem, node.pem and node.key"
            ) from None
        try:
            names = x509.load_pem_x509_certificate(certificate).extensions.get_extension_for_class(
                x509.SubjectAlternativeName
            )
        except (ValueError, x509.ExtensionNotFound):
            raise ConfigError(f"{folder / 'node.pem'} is not a certificate from `ross-flwr certs issue`") from None
        ours = [name for name in names.value.get_values_for_type(x509.DNSName) if name.endswith(f".{DOMAIN}")]
        if len(ours) != 1:
            raise ConfigError(f"{folder / 'node.pem'} does not name one node: make it with `ross-flwr certs issue`")
        return cls(ours[0].removesuffix(f".{DOMAIN}"), authority, certificate, key)


def init(folder: Path) -> Path:
    """Make a deployment's certificate authority in `folder` and return its certificate's path.

    Raises
    ------
    ConfigError
        When there is one already, because a new one would invalidate all nodes' certificates.
    """
    if (folder / "ca.key").exists():
        raise ConfigError(f"{folder} holds a certificate authority already: issue from it, or choose another folder")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ross_flwr deployment")])
    certificate = (
        _begin(name, name, key.public_key(), 10 * DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    _write(folder, "ca", key, certificate)
    return folder / "ca.pem"


def issue(folder: Path, name: str, hosts: Iterable[str] = ()) -> Path:
    """Make a key and a certificate for the node `name`, signed by the authority in `folder`; return the node's folder.

    The folder also gets ``auth.key`` and ``auth.pub``, by which a SuperLink recognises a registered SuperNode.

    Parameters
    ----------
    folder : Path
        Where `init` made the authority.
    name : str
        The node's name: lower-case letters, digits and hyphens.
    hosts : iterable of str
        Other host names and addresses for which the certificate is valid, for servers that others than agents call too.

    Raises
    ------
    ConfigError
        When there is no authority, or the name is malformed or taken.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"NAME = '{name}' cannot be a node's name: use lower-case letters, digits and hyphens")
    try:
        authority = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
        signer = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), None)
        if not isinstance(signer, ec.EllipticCurvePrivateKey):
            raise ValueError("not a key from `init`")
    except (OSError, ValueError, TypeError):  # TypeError: the key is encrypted
        raise ConfigError(
            f"{folder} holds no certificate authority: make one with `ross-flwr certs init {folder}`"
        ) from None
    if (folder / name).exists():
        raise ConfigError(f"{folder / name} exists already: a node is issued one certificate; remove the folder first")
    key = ec.generate_private_key(ec.SECP256R1())
    alternatives = [x509.DNSName(f"{name}.{DOMAIN}"), *map(_host, hosts)]
    certificate = _sign(name, alternatives, key.public_key(), authority, signer)
    _write(folder / name, "node", key, certificate)
    (folder / name / "ca.pem").write_bytes((folder / "ca.pem").read_bytes())
    login = ec.generate_private_key(ec.SECP384R1())
    _write_secret(folder / name / "auth.key", login, serialization.PrivateFormat.OpenSSH)
    public = login.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    (folder / name / "auth.pub").write_bytes(public + b"\n")
    return folder / name


def _sign(
    name: str,
    alternatives: list[x509.GeneralName],
    key: ec.EllipticCurvePublicKey,
    authority: x509.Certificate,
    signer: ec.EllipticCurvePrivateKey,
) -> x509.Certificate:
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    return (
        _begin(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), authority.subject, key, DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )


def _begin(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _OLDER)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        pass
    if host.endswith(f".{DOMAIN}") or not host.isascii() or not host or " " in host:
        raise ConfigError(f"--host {host} is not a host: use an address, or a name that does not end with .{DOMAIN}")
    return x509.DNSName(host)


def _write(folder: Path, stem: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_secret(folder / f"{stem}.key", key, serialization.PrivateFormat.PKCS8)
        (folder / f"{stem}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    except OSError as error:
        raise ConfigError(f"{folder} cannot take {stem}.key and {stem}.pem: {error.strerror or error}") from None


def _write_secret(path: Path, key: ec.EllipticCurvePrivateKey, form: serialization.PrivateFormat) -> None:
    """Write a key that only the owner can read. Never overwrite a file."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(file, "wb") as out:
        out.write(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
