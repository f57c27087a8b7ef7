"""Hosts and addresses as users give them."""

import re
from contextlib import suppress
from ipaddress import ip_address

from ross_flwr.config.keys import ConfigError

__all__ = ["host_and_port", "require_host"]

_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"(?=.{{1,253}}\Z)({_LABEL}\.)*{_LABEL}\.?", re.IGNORECASE)


def require_host(host: str, said: str) -> None:
    """Refuse what is neither an IP address nor a host's name; `said` is how the user gave it.

    Examples
    --------
    >>> require_host("fd00::1", "--host fd00::1")
    >>> require_host("300.1.1.1", "--host 300.1.1.1")
    Traceback (most recent call last):
        ...
    ross_flwr.config.keys.ConfigError: --host 300.1.1.1 is not a host: an IPv4 address has four numbers from 0 to 255
    """
    if fault := _fault(host):
        raise ConfigError(f"{said} is not a host: {fault}")


def host_and_port(address: str, said: str) -> tuple[str, int]:
    """Return host and port of ``host:port``, an IPv6 host without brackets; `said` is how the user gave the address.

    Examples
    --------
    >>> host_and_port("[fd00::1]:9700", "peer-address = '[fd00::1]:9700'")
    ('fd00::1', 9700)
    """
    host, _, port = address.rpartition(":")
    plain = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if "://" in address:
        fault = "leave out the scheme and use host:port, such as 192.168.1.20:9700"
    elif not host or not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 2**16:
        fault = "use host:port, such as 192.168.1.20:9700"
    elif ":" in host and plain == host:
        fault = f"an IPv6 address takes brackets, as in [{host}]:{port}"
    else:
        require_host(plain, said)
        return plain, int(port)
    raise ConfigError(f"{said} is not an address: {fault}")


def _fault(host: str) -> str:
    """Return what is wrong with a host; nothing if it can be one."""
    with suppress(ValueError):
        ip_address(host)
        return ""
    name, colon, port = host.rpartition(":")
    if "://" in host:
        return f"leave out the scheme {host.partition('://')[0]}://"
    if "," in host:
        return "it names several; give each its own"
    if host.startswith("[") and host.endswith("]"):
        return f"an IPv6 address takes no brackets here: {host[1:-1]}"
    if colon and port.isdecimal() and not _fault(name):
        return f"leave out the port {port}"
    if host == "*":
        return "name the one address or host that others call"
    if re.fullmatch(r"[0-9.]+", host) and re.search("[0-9]", host):
        return "an IPv4 address has four numbers from 0 to 255"
    return "" if _HOST.fullmatch(host) else "use an IP address, or a name of letters, digits, dots and hyphens"
