"""Checks of a node of a deployment, before a run."""

import socket
import ssl
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from errno import EADDRINUSE
from io import BufferedRWPair
from ipaddress import ip_address
from pathlib import Path
from threading import BoundedSemaphore, Thread
from typing import Any, TypeAlias

from cryptography import x509

from ross_flwr.config import ConfigError, host_and_port
from ross_flwr.direct.certificates import DOMAIN, Credentials
from ross_flwr.doctor.finding import Finding
from ross_flwr.doctor.installation import installation

__all__ = ["examine", "serve"]

PATIENCE = 5.0
"""Seconds that a connection, and each answer on it, may take."""
SOON = timedelta(days=30)
"""A certificate that expires within this time counts as a problem."""
SKEW = 5.0
"""Seconds by which clocks may differ. Flower rejects nodes whose clock is farther ahead of the SuperLink's."""
LARGEST = 1 << 26
"""The most bytes sent at once to measure a bandwidth; fewer if they would take much longer than half a second."""
LINE = 32
"""The most bytes of a line that doctors tell each other."""
PIECE = 1 << 16
"""Bytes written at a time."""
CALLERS = 16
"""How many callers are answered at a time."""
PAUSE = 60.0
"""Seconds between two lines on the same node, or on strangers refused for the same reason."""
ISSUE = "issue the node a new certificate: `ross-flwr certs issue`"
PROTOCOL = "ross-flwr-doctor"
"""The protocol name by which two doctors recognise each other in the TLS handshake (ALPN)."""

Address: TypeAlias = tuple[str, int]


def examine(
    address: str = "", certs: Path | None = None, superlink: str = "", peers: Sequence[str] = ()
) -> Iterator[Finding]:
    """Yield findings on this installation and on everything named, each as soon as it is known.

    Parameters
    ----------
    address : str, optional
        The node's ``host:port`` among its neighbours.
    certs : Path, optional
        The folder that ``ross-flwr certs issue`` made for the node.
    superlink : str, optional
        The SuperLink's ``host:port``, as the node calls it.
    peers : sequence of str, optional
        Neighbours, as ``name@host:port``; bandwidth and clock are measured where a doctor serves.

    Raises
    ------
    ConfigError
        When an address is malformed, or certificates are needed and not given.

    Examples
    --------
    >>> next(examine()).what
    'python'
    """
    here = host_and_port(address, f"--address {address}") if address else None
    link = host_and_port(superlink, f"--superlink {superlink}") if superlink else None
    named = [peer.partition("@")[::2] for peer in peers]
    called = [(name, host_and_port(where, f"--peer NAME@{where}")) for name, where in named]
    if (called or link) and certs is None:
        raise ConfigError("--peer and --superlink need --certs FOLDER: nodes prove who they are")
    yield from installation()
    usable = certs if certs and (yield from _certificates(certs)) else None
    if here:
        yield _port(here, usable)
    if usable is None:
        return
    if link:
        yield _superlink(link, usable)
    for name, at in called:
        yield from _neighbour(name, at, usable)


def _certificates(folder: Path) -> Generator[Finding, None, bool]:
    """Yield the state of a node's files; return whether they can be used."""
    try:
        credentials = Credentials.read(folder)
    except ConfigError as error:
        yield Finding("certificate", "cannot be used", str(error))
        return False
    for what, whose, certificate, again in (
        ("authority", "the deployment's", credentials.authority, "make a new one, and new certificates for all nodes"),
        ("certificate", credentials.name, credentials.certificate, ISSUE),
    ):
        ends = x509.load_pem_x509_certificate(certificate).not_valid_after_utc
        soon = ends < datetime.now(UTC) + SOON
        yield Finding(what, f"{whose}, valid until {ends:%Y-%m-%d}", again if soon else "")
    yield Finding("key", "fits the certificate, and only its owner can read it")
    return True


def _port(address: Address, certs: Path | None) -> Finding:
    """Yield whether the node can serve here."""
    host, port = address
    with suppress(ValueError):
        if ip_address(host).is_unspecified:
            return Finding("port", f"{host} is every address of this machine", "name the one that neighbours call")
    try:
        _listen(address).close()
    except OSError as error:
        if error.errno != EADDRINUSE:
            remedy = "use a port above 1023 at an address of this machine"
            return Finding("port", f"{host}:{port} cannot be served: {error.strerror}", remedy)
    else:
        return Finding("port", f"{host}:{port} is free")
    if certs:
        name = Credentials.read(certs).name
        try:
            _call(address, certs, f"{name}.{DOMAIN}").close()
        except ssl.SSLCertVerificationError as error:
            remedy = "stop it, or use another port; a node that was given new certificates has to be started again"
            return Finding("port", f"{host}:{port} is served under another certificate: {error.verify_message}", remedy)
        except OSError:
            pass  # it speaks no TLS, or does not take our certificate
        else:
            return Finding("port", f"{host}:{port} is served by {name} itself")
    return Finding("port", f"{host}:{port} is taken by another program", "stop that program, or use another port")


def _listen(address: Address) -> socket.socket:
    (family, _, _, _, where), *_ = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
    return socket.create_server(where[:2], family=family)


# Others.


def _context(certs: Path, protocol: int) -> ssl.SSLContext:
    """Return the TLS context of either side: both present and require certificates of the deployment's authority."""
    context = ssl.SSLContext(protocol)
    context.load_verify_locations(certs / "ca.pem")
    context.load_cert_chain(certs / "node.pem", certs / "node.key")
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def _call(address: Address, certs: Path, name: str) -> ssl.SSLSocket:
    """Connect to the holder of a certificate of this name: a doctor, or the gRPC server of a working node."""
    context = _context(certs, ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols([PROTOCOL, "h2", "http/1.1"])
    return context.wrap_socket(socket.create_connection(address, PATIENCE), server_hostname=name)


def _superlink(address: Address, certs: Path) -> Finding:
    host, port = address
    try:
        _call(address, certs, host).close()
    except OSError as error:
        return _failure("superlink", address, error, f"issue its certificate with --host {host}")
    return Finding("superlink", f"{host}:{port} answers, and its certificate names {host}")


def _neighbour(name: str, address: Address, certs: Path) -> Iterator[Finding]:
    """Yield whether the neighbour answers, with round trip and bandwidth; then what its clock says."""
    what, (host, port) = f"neighbour {name}", address
    try:
        with _call(address, certs, f"{name}.{DOMAIN}") as link, link.makefile("rwb") as stream:
            if link.selected_alpn_protocol() != PROTOCOL:
                if not link.recv(1):  # a gRPC server speaks first, once it has accepted our certificate
                    raise ConnectionResetError
                began = time.perf_counter()
                socket.create_connection(address, PATIENCE).close()
                delay = time.perf_counter() - began
                more = "run `ross-flwr doctor --serve` there to measure bandwidth and clock too"
                yield Finding(what, f"{host}:{port} is at work: round trip {1e3 * delay:.2g} ms; {more}")
                return
            delay, skew = min(_clock(stream) for _ in range(10))
            there, back = _bandwidth(stream, "take"), _bandwidth(stream, "give")
    except OSError as error:
        yield _failure(what, address, error, "compare names and addresses: another node of the deployment is there")
        return
    except ValueError:
        yield Finding(what, f"{host}:{port} answers nonsense", "stop what serves there: it is no doctor")
        return
    speeds = f"{there / 1e6:.3g} MB/s there, {back / 1e6:.3g} MB/s back"
    yield Finding(what, f"{host}:{port} answers: round trip {1e3 * delay:.2g} ms, {speeds}")
    off = abs(skew) - delay / 2 > SKEW
    text = f"{abs(skew):.2g} s {'ahead of' if skew > 0 else 'behind'} the one here, ± {delay / 2:.2g} s"
    yield Finding(f"clock of {name}", text, "set both by NTP: `timedatectl set-ntp true`" if off else "")


def _failure(what: str, address: Address, error: OSError, other_name: str) -> Finding:
    """Return why no trusted node answers; `other_name` is what to do if another node does."""
    host, port = address
    at = f"{host}:{port}"
    if isinstance(error, ssl.SSLCertVerificationError):
        remedies = {
            9: "set the clocks of both machines",
            10: ISSUE,
            62: other_name,
            64: other_name,
        }
        otherwise = "both need certificates of the same authority"
        return Finding(what, f"{at}: {error.verify_message}", remedies.get(error.verify_code, otherwise))
    if isinstance(error, ssl.SSLError | ConnectionResetError | BrokenPipeError):
        reason = getattr(error, "reason", None) or "it hangs up"
        return Finding(what, f"{at} does not talk to us: {reason}", "run `ross-flwr doctor --certs` there")
    reason = "no answer" if isinstance(error, TimeoutError) else error.strerror or str(error)
    return Finding(what, f"{at} cannot be reached: {reason}", "start it, and open its port in firewalls")


def _ask(stream: BufferedRWPair, request: bytes, size: int = 0) -> int:
    """Send a request; return the number in the answer, or read past `size` bytes."""
    stream.write(request)
    stream.flush()
    if size:
        _skip(stream, size)
        return size
    if not (answer := stream.readline(LINE)):
        raise ConnectionResetError
    return int(answer)


def _skip(stream: BufferedRWPair, size: int) -> None:
    """Read past so many bytes without keeping them, in four times `PATIENCE` at most."""
    end = time.monotonic() + 4 * PATIENCE
    while size > 0 and time.monotonic() < end and (piece := stream.read1(size)):
        size -= len(piece)
    if size > 0:
        raise ConnectionResetError


def _fill(stream: BufferedRWPair, size: int) -> None:
    """Write so many bytes."""
    for begin in range(0, size, PIECE):
        stream.write(bytes(min(PIECE, size - begin)))


def _clock(stream: BufferedRWPair) -> tuple[float, float]:
    """Return the seconds of a round trip, and by how many seconds the other clock is ahead."""
    began, wall = time.perf_counter(), time.time()
    there = _ask(stream, b"time\n")
    delay = time.perf_counter() - began
    return delay, there / 1e9 - wall - delay / 2


def _bandwidth(stream: BufferedRWPair, verb: str) -> float:
    """Return bytes per second, measured on ever more bytes until they take half a second."""
    size = 1 << 14
    while True:
        began = time.perf_counter()
        if verb == "take":
            stream.write(b"take %d\n" % size)
            _fill(stream, size)
            _ask(stream, b"")
        else:
            _ask(stream, b"give %d\n" % size, size)
        took = time.perf_counter() - began
        if took > 0.5 or size == LARGEST:
            return size / took
        size *= 2


def serve(address: str, certs: Path, tell: Callable[[Finding], None]) -> None:
    """Answer the doctors of other nodes at this node's address until interrupted, and report callers.

    Each node is reported once in `PAUSE` seconds, and so is each reason for which strangers are refused.

    Raises
    ------
    ConfigError
        When the address is malformed or cannot be served, or the certificates cannot be used.

    Examples
    --------
    >>> serve("pi:9700", Path("none"), print)
    Traceback (most recent call last):
        ...
    ross_flwr.config.keys.ConfigError: --address pi:9700 cannot be served with --certs none: No such file or directory
    """
    try:
        context = _context(certs, ssl.PROTOCOL_TLS_SERVER)
        listening = _listen(host_and_port(address, f"--address {address}"))
    except OSError as error:
        reason = error.strerror or error
        raise ConfigError(f"--address {address} cannot be served with --certs {certs}: {reason}") from None
    context.set_alpn_protocols([PROTOCOL])
    room = BoundedSemaphore(CALLERS)
    quiet_until: dict[str, float] = {}

    def report(subject: str, finding: Finding) -> None:
        now = time.monotonic()
        if now >= quiet_until.get(subject, now):
            quiet_until[subject] = now + PAUSE
            tell(finding)

    def answer(connection: socket.socket, host: str) -> None:
        try:
            _answer(connection, host, context, report)
        finally:
            room.release()

    with listening:
        while True:
            room.acquire()
            connection, (host, *_) = listening.accept()
            Thread(target=answer, args=(connection, host), daemon=True).start()


def _answer(
    connection: socket.socket, host: str, context: ssl.SSLContext, report: Callable[[str, Finding], None]
) -> None:
    connection.settimeout(PATIENCE)
    try:
        with context.wrap_socket(connection, server_side=True) as link, link.makefile("rwb") as stream:
            certificate: Any = link.getpeercert()
            names = [name for _, name in certificate["subjectAltName"] if name.endswith(f".{DOMAIN}")]
            report(names[0], Finding("caller", f"{names[0].removesuffix(f'.{DOMAIN}')}, from {host}"))
            while words := stream.readline(LINE).split():
                verb, size = words[0], min(int(words[-1]), LARGEST) if len(words) > 1 else 0
                if verb == b"give":
                    _fill(stream, size)
                else:
                    _skip(stream, size)
                    stream.write(b"%d\n" % time.time_ns())
                stream.flush()
    except (OSError, ValueError) as error:
        remedy = "run `ross-flwr doctor --certs FOLDER` there"
        reason = getattr(error, "reason", None) or type(error).__name__
        report(reason, Finding("caller", f"{host} was refused: {error}", remedy))
