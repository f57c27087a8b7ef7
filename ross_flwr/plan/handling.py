"""What nodes spend on a message that they exchange directly: its way through gRPC and TLS, and all checks."""

import socket
from collections.abc import Sequence
from multiprocessing import get_context
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from time import process_time

import torch

from ross_flwr.direct import certificates
from ross_flwr.direct.agreement import Agreement
from ross_flwr.direct.certificates import Credentials
from ross_flwr.direct.channels import Neighbor
from ross_flwr.direct.peer import Peer
from ross_flwr.engine.envelope import Envelope
from ross_flwr.plan.caches import empty_caches

__all__ = ["RUN", "handling", "one_of_two"]

RUN = "plan"
"""The name of the run that two nodes play."""

LARGEST = 16_000_000
"""Bytes of the longest message that is sent; longer ones cost in proportion."""

WARM_UP, COUNTED = 30, 50
"""How many messages do not count, and how many do; of those above a megabyte a tenth is enough."""


def handling(sizes: Sequence[float], *, crowded: bool) -> list[float]:
    """Return the processor seconds that sender and receiver together spend on a message of each size, in bytes.

    This process and another one send each other such messages, with TLS. Each sends one and receives one. Where nodes
    are `crowded`, each finds nothing of its own in the processor's caches.
    """
    with TemporaryDirectory() as name:
        folder, addresses = Path(name), _free_addresses()
        certificates.init(folder)
        for k in range(2):
            certificates.issue(folder, f"n{k}")
        other = get_context("spawn").Process(target=_exchange, args=(1, addresses, folder, sizes, crowded), daemon=True)
        other.start()
        seconds = _exchange(0, addresses, folder, sizes, crowded)
        other.join()
    return seconds


def one_of_two(k: int, addresses: Sequence[str], limit: int, credentials: Credentials | None = None) -> Peer:
    """Return node `k` of two, whose agents k exchange messages of `limit` bytes in a step ``"share"`` without end."""
    return Peer(
        Agreement(RUN, "topology", "layout", ("share",)),
        addresses[k],
        [Neighbor(f"n{1 - k}", addresses[1 - k], (1 - k,))],
        [(1 - k, k)],
        [0],
        passes=10**6,
        patience=60,
        limit=limit,
        credentials=credentials,
    )


def _exchange(k: int, addresses: Sequence[str], folder: Path, sizes: Sequence[float], crowded: bool) -> list[float]:
    """Be node `k` of two; return the processor seconds of an exchange by size."""
    tensors = [torch.randn(max(1, min(int(size), LARGEST) // 4)) for size in sizes]
    peer = one_of_two(k, addresses, max(tensor.nbytes for tensor in tensors), Credentials.read(folder / f"n{k}"))
    found, exchange = [], 0
    for tensor, size in zip(tensors, sizes, strict=True):
        few = 10 if tensor.nbytes > 1_000_000 else 1
        spent = []
        for _ in range((WARM_UP + COUNTED) // few):
            if crowded:
                empty_caches()
            since = process_time()
            peer.send(exchange, [Envelope(RUN, exchange, "share", k, 1 - k, {"model": tensor})])
            peer.collect(exchange, [(1 - k, k)])
            spent.append(process_time() - since)
            exchange += 1
        found.append(fmean(spent[WARM_UP // few :]) * max(1.0, size / LARGEST))
    peer.close()
    return found


def _free_addresses() -> list[str]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return addresses
