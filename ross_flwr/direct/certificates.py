"""The certificates by which nodes recognise each other: a deployment's own authority, and one certificate per node.

A certificate holds the name of its node as the DNS name ``NAME.ross-flwr``, which no host has. A caller expects a
certificate with that name, whatever the node's address. A node that is called looks for its neighbours' names in the
caller's certificate.
"""

import os
from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from ross_flwr.config import ConfigError, require_host
from ross_flwr.direct.revoked import NAME, REVOKED, Revoked, names_in

__all__ = ["DOMAIN", "Credentials", "init", "issue", "revoke"]

DOMAIN = "ross-flwr"
"""The top-level domain of all nodes' names. It does not exist in the public DNS."""

DAYS = 825
"""Days for which a node's certificate is valid; most TLS libraries accept no more. The authority's: ten times that."""

_OLDER = timedelta(hours=1)  # clocks differ: a Raspberry Pi's stops while it is off


@dataclass(frozen=True)
class Credentials:
    """What a node needs to prove its name and to check the names of others: PEM, and the names that are revoked."""

    name: str
    authority: bytes
    certificate: bytes
    key: bytes
    revoked: Container[str] = ()

    @classmethod
    def read(cls, folder: Path) -> "Credentials":
        """Return what `issue` wrote into a node's folder.

        Raises
        ------
        ConfigError
            When a file is missing, has the wrong content, or is a key that others than its owner may read; when the
            files do not belong together; when a certificate is not valid today.
        """
        try:
            authority, certificate, key = ((folder / file).read_bytes() for file in ("ca.pem", "node.pem", "node.key"))
        except (OSError, ValueError) as error:
            reason = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) else error
            raise ConfigError(
                f"peer-certs = '{folder}' cannot be read ({reason}): make it with `ross-flwr certs issue`, which "
                "writes ca.pem, node.pem and node.key"
            ) from None
        for file in ("node.key", "auth.key"):
            _require_private(folder / file)
        issuer, subject = (_certificate(folder / file) for file in ("ca.pem", "node.pem"))
        if _private_key(folder / "node.key").public_key() != subject.public_key():
            raise ConfigError(f"{folder / 'node.key'} is not the key of node.pem beside it: copy both from one folder")
        try:
            subject.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature):
            raise ConfigError(
                f"{folder / 'node.pem'} was issued by another authority than ca.pem beside it: copy both from one "
                "folder"
            ) from None
        _require_valid(folder / "ca.pem", issuer)
        _require_valid(folder / "node.pem", subject)
        return cls(_name_in(folder / "node.pem", subject), authority, certificate, key, Revoked(folder))


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        raise ConfigError(f"{path} is not a certificate from `ross-flwr certs`") from None


def _private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), None)
    except TypeError:
        raise ConfigError(f"{path} is encrypted: decrypt it with `openssl pkey`") from None
    except (OSError, ValueError, UnsupportedAlgorithm):
        raise ConfigError(f"{path} is not a private key from `ross-flwr certs`") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ConfigError(f"{path} is not an elliptic-curve key, which `ross-flwr certs` makes and uses")
    return key


def _require_private(path: Path) -> None:
    """Refuse a key that others than its owner may read. A file that is not there is not read by anybody."""
    if os.name == "posix" and path.exists() and path.stat().st_mode & 0o077:
        raise ConfigError(f"{path} can be read by others than its owner: `chmod 600 {path}`")


def _require_valid(path: Path, certificate: x509.Certificate) -> None:
    now, begins, ends = datetime.now(UTC), certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if now < begins:
        raise ConfigError(f"{path} is valid from {begins:%Y-%m-%d %H:%M} UTC on: set this machine's clock")
    if now > ends:
        raise ConfigError(f"{path} expired on {ends:%Y-%m-%d}: issue a new one with `ross-flwr certs`")


def _name_in(path: Path, certificate: x509.Certificate) -> str:
    """Return the node's name in its certificate."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        raise ConfigError(f"{path} is not a certificate from `ross-flwr certs issue`") from None
    ours = [name for name in names.get_values_for_type(x509.DNSName) if _is_ours(name)]
    if len(ours) != 1 or not NAME.fullmatch(ours[0].removesuffix(f".{DOMAIN}")):
        raise ConfigError(f"{path} does not name one node: make it with `ross-flwr certs issue`")
    return ours[0].removesuffix(f".{DOMAIN}")


def _is_ours(host: str) -> bool:
    """Return whether TLS may take a host's name for a node's: it ignores case and a trailing dot."""
    return f".{host.lower().rstrip('.')}".endswith(f".{DOMAIN}")


def init(folder: Path) -> Path:
    """Make a deployment's certificate authority in `folder` and return its certificate's path.

    Raises
    ------
    ConfigError
        When there is one already, because a new one would invalidate all nodes' certificates, or it cannot be written.
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
    with _writing(folder):
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
        When there is no authority, the name is malformed, taken or revoked, a host is malformed, or the folder cannot
        be written.
    """
    if not NAME.fullmatch(name):
        raise ConfigError(f"NAME = '{name}' cannot be a node's name: use lower-case letters, digits and hyphens")
    authority, signer = _authority(folder)
    if (folder / name).exists():
        raise ConfigError(f"{folder / name} exists already: a node is issued one certificate; remove the folder first")
    if name in Revoked(folder):
        raise ConfigError(f"NAME = '{name}' is revoked, and nodes refuse it for ever: give the node another name")
    key = ec.generate_private_key(ec.SECP256R1())
    alternatives = [x509.DNSName(f"{name}.{DOMAIN}"), *map(_host, hosts)]
    certificate = _sign(name, alternatives, key.public_key(), authority, signer)
    login = ec.generate_private_key(ec.SECP384R1())
    public = login.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    with _writing(folder / name):
        _write(folder / name, "node", key, certificate)
        for file in ("ca.pem", REVOKED):
            if (folder / file).exists():
                (folder / name / file).write_bytes((folder / file).read_bytes())
        _write_secret(folder / name / "auth.key", login, serialization.PrivateFormat.OpenSSH)
        (folder / name / "auth.pub").write_bytes(public + b"\n")
    return folder / name


def revoke(folder: Path, names: Sequence[str]) -> list[Path]:
    """Add nodes to the list of those whom no other node believes any more, and return the lists that were written.

    They are the one beside the authority, and those in the nodes' folders there, as far as they have not been moved.

    Raises
    ------
    ConfigError
        When there is no authority, a name is malformed, or a list cannot be read or written.
    """
    _authority(folder)
    for name in names:
        if not NAME.fullmatch(name):
            raise ConfigError(f"NAME = '{name}' cannot be a node's name: use lower-case letters, digits and hyphens")
    nodes = sorted(path.parent for path in folder.glob("*/node.pem") if path.parent.name not in names)
    written = [place / REVOKED for place in (folder, *nodes)]
    try:
        before = names_in(written[0]) if written[0].exists() else frozenset()
    except (OSError, ValueError):
        raise ConfigError(f"{written[0]} is not a list of names: restore it, or every name on it is believed") from None
    with _writing(folder):
        for path in written:
            path.write_text("".join(f"{name}\n" for name in sorted(before | {*names})), encoding="utf-8")
    return written


def _authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Return the certificate and the key of the authority that `init` made."""
    if not ((folder / "ca.pem").exists() and (folder / "ca.key").exists()):
        raise ConfigError(
            f"{folder} holds no certificate authority: make one with `ross-flwr certs init --in {folder}`"
        )
    _require_private(folder / "ca.key")
    authority, signer = _certificate(folder / "ca.pem"), _private_key(folder / "ca.key")
    if signer.public_key() != authority.public_key():
        raise ConfigError(f"{folder / 'ca.key'} is not the key of ca.pem beside it")
    _require_valid(folder / "ca.pem", authority)
    return authority, signer


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
    require_host(host, f"--host {host}")
    try:
        return x509.IPAddress(ip_address(host))
    except ValueError:
        name = host.lower().removesuffix(".")
    if _is_ours(name):
        raise ConfigError(f"--host {host} is not a host: the names of nodes end with .{DOMAIN}, and hosts' do not")
    return x509.DNSName(name)


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Tell an error of the file system in a sentence."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error.strerror or error}") from None


def _write(folder: Path, stem: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _write_secret(folder / f"{stem}.key", key, serialization.PrivateFormat.PKCS8)
    (folder / f"{stem}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _write_secret(path: Path, key: ec.EllipticCurvePrivateKey, form: serialization.PrivateFormat) -> None:
    """Write a key that only the owner can read. Never overwrite a file."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(file, "wb") as out:
        out.write(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
