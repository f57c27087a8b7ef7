"""Channels between nodes: how gRPC and TLS are set up on both sides."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import grpc
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]

from ross_flwr.config import ConfigError
from ross_flwr.direct.certificates import DOMAIN, Credentials
from ross_flwr.direct.standings import GREETING
from ross_flwr.direct.wire import CHUNK, parse
from ross_flwr.peer.v1.peer_pb2 import Hello, Refusal, Request

__all__ = ["OPTIONS", "SERVICE", "Channel", "Context", "Neighbor", "is_node", "listen", "read"]

SERVICE = "ross_flwr.peer.v1.PeerExchange"

OPTIONS = [
    ("grpc.max_receive_message_length", 2 * CHUNK),
    ("grpc.so_reuseport", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", int(1000 * GREETING)),  # the time for one attempt to connect
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.keepalive_time_ms", 10_000),  # how often to ask the other end whether it is still there
    ("grpc.http2.max_pings_without_data", 0),  # even if there is nothing to send
    ("grpc.http2.max_ping_strikes", 0),  # and accept such questions at any rate
    ("grpc.absolute_max_metadata_size", 1 << 13),  # ours is far smaller
    ("grpc.enable_http_proxy", 0),  # neighbours are called at their own addresses, whatever http_proxy says
]
"""Options of every channel and server."""

CONNECTIONS = 256
"""How many connections a node holds, besides two for each of its neighbours."""

DOOR = [
    ("grpc.max_concurrent_streams", 8),  # calls on one connection; a neighbour makes three at most
    ("grpc.server_handshake_timeout_ms", 10_000),
    ("grpc.max_connection_idle_ms", 30_000),  # a connection without a call is closed
]
"""Options of servers: what anybody can make a node hold. `Server` itself limits the calls of each neighbour."""

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_Message = TypeVar("_Message", bound=Message)


@dataclass(frozen=True)
class Neighbor:
    """A node that hosts neighbours of agents here: its name, its ``host:port``, and those agents."""

    name: str
    address: str
    agents: tuple[int, ...]


class Channel:
    """A channel to a neighbouring node, and the calls that can be made on it.

    Parameters
    ----------
    neighbor : Neighbor
        The node.
    credentials : Credentials, optional
        Without them, nodes do not prove who they are.
    patience : float
        Seconds that the node may be silent while this one waits for it.
    """

    def __init__(self, neighbor: Neighbor, credentials: Credentials | None, patience: float) -> None:
        options: list[tuple[str, int | str]] = [*OPTIONS, _silence(patience)]
        if credentials:
            # The node proves its name, whatever address it has.
            options.append(("grpc.ssl_target_name_override", f"{neighbor.name}.{DOMAIN}"))
            identity = grpc.ssl_channel_credentials(credentials.authority, credentials.key, credentials.certificate)
            self._channel = grpc.aio.secure_channel(neighbor.address, identity, options)
        else:
            self._channel = grpc.aio.insecure_channel(neighbor.address, options)
        greet, deliver, fetch = (f"/{SERVICE}/{method}" for method in ("Greet", "Deliver", "Fetch"))
        self.greet = self._channel.unary_unary(greet, Hello.SerializeToString, lambda answer: read(Hello, answer))
        self.deliver = self._channel.stream_stream(deliver, response_deserializer=lambda answer: read(Refusal, answer))
        self.fetch = self._channel.unary_stream(fetch, Request.SerializeToString, parse)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close()


async def listen(
    address: str,
    handlers: dict[str, Callable[..., Any]],
    credentials: Credentials | None,
    patience: float,
    neighbors: int,
) -> "grpc.aio.Server":
    """Serve the calls ``Greet``, ``Deliver`` and ``Fetch`` at ``host:port``.

    To gRPC, all of them take a stream. It hands such a call over as soon as it begins, and not once the request is
    here, which may be never: nobody could refuse or count a call before that. ``Greet`` and ``Fetch`` get bytes.

    Raises
    ------
    ConfigError
        When the address is taken, or belongs to another machine.
    """
    most = ("grpc.max_allowed_incoming_connections", CONNECTIONS + 2 * neighbors)
    server = grpc.aio.server(options=[*OPTIONS, *DOOR, most, _silence(patience)])
    methods = {
        "Greet": grpc.stream_unary_rpc_method_handler(handlers["Greet"], None, Hello.SerializeToString),
        "Deliver": grpc.stream_stream_rpc_method_handler(handlers["Deliver"], parse, Refusal.SerializeToString),
        "Fetch": grpc.stream_stream_rpc_method_handler(handlers["Fetch"]),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    try:
        if credentials:
            pair = [(credentials.key, credentials.certificate)]
            identity = grpc.ssl_server_credentials(pair, credentials.authority, require_client_auth=True)
            server.add_secure_port(address, identity)
        else:
            server.add_insecure_port(address)
    except RuntimeError:
        raise ConfigError(
            f"peer-address = '{address}' cannot be served: use a free port of an address of this machine"
        ) from None
    await server.start()
    return server


def read(kind: type[_Message], message: bytes) -> _Message | None:
    """Return a serialized message, or None for nonsense: gRPC writes a traceback into the log if reading it raises."""
    try:
        found: _Message = kind.FromString(message)
    except DecodeError:
        return None
    return found


def is_node(neighbor: Neighbor, context: Context) -> bool:
    """Return whether the caller's certificate names this node."""
    names = context.auth_context().get("x509_subject_alternative_name", ())
    return f"{neighbor.name}.{DOMAIN}".encode() in names


def _silence(patience: float) -> tuple[str, int]:
    """Return gRPC's option for how long the other end may take to say that it is there."""
    return "grpc.keepalive_timeout_ms", int(1000 * (patience + GREETING))
