"""Callers of a node's peer port, for tests."""

import grpc

from ross_flwr.direct.certificates import Credentials
from ross_flwr.direct.peer import OPTIONS


def channel_to(name: str, address: str, credentials: Credentials) -> grpc.Channel:
    """Return a channel to the node `name` at `address`, for somebody with these credentials."""
    identity = grpc.ssl_channel_credentials(credentials.authority, credentials.key, credentials.certificate)
    return grpc.secure_channel(address, identity, [*OPTIONS, ("grpc.ssl_target_name_override", f"{name}.ross-flwr")])
