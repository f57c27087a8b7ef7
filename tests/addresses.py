"""Addresses on this machine where nobody serves."""

import socket


def free_addresses(number: int) -> list[str]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return addresses


def free_port() -> int:
    return int(free_addresses(1)[0].rpartition(":")[2])
