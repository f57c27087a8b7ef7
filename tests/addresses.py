"""Addresses on this machine where nobody serves."""

import socket

_held: list[socket.socket] = []


def free_addresses(number: int) -> list[str]:
    """Return addresses that only those who are told of them use.

    A socket stays bound to each, so the system gives the port to nobody who asks for any port. A server can bind it
    beside that socket, for both allow it (SO_REUSEADDR) and only one listens.
    """
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        each.bind(("127.0.0.1", 0))
    _held.extend(sockets)
    return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]


def free_port() -> int:
    return int(free_addresses(1)[0].rpartition(":")[2])
