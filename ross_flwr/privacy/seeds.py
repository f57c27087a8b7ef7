"""Seeds that two agents share and nobody else knows: they agree on them in the messages that they exchange anyway."""

from collections.abc import Iterable
from struct import pack

import torch
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from torch import Tensor

from ross_flwr.algorithms.messages import Exchange, Form, Forms, Message, MessageTransform
from ross_flwr.learning.agent import Agent

__all__ = ["Keys", "begin", "renew", "shared_seed"]

PUBLIC = "noise-key"
"""The name of a public key in a message, uint8 of shape [32]."""

PRIVATE, THEIRS = "privacy.key", "privacy.key-of."
"""In an agent's state: its private key, and the last public key of each neighbour."""


class Keys(MessageTransform):
    """Sends the agent's public key along with every message, and keeps those of its neighbours.

    Two agents that hold each other's public key know a secret that follows from neither key alone (X25519; Langley,
    Hamburg and Turner, RFC 7748). Whoever carries the messages sees only public keys. Whoever *changes* them could put
    in keys of its own; on direct connections certificates rule that out, and through the ServerApp nothing does. An
    agent without a private key sends none.

    Examples
    --------
    >>> Keys().wire({})
    {'noise-key': Form(shape=(32,), dtype=torch.uint8, optional=True)}
    """

    def wire(self, forms: Forms) -> Forms:
        """Return the forms, and that of a key."""
        return {**forms, PUBLIC: Form((32,), torch.uint8, optional=True)}

    def send(self, agent: Agent, outbox: dict[int, Message], exchange: Exchange) -> dict[int, Message]:
        """Return the messages with the agent's public key. What several receivers get alike is one object."""
        if PRIVATE not in agent.state:
            return outbox
        key = _tensor(_public(_bytes(agent[PRIVATE])))
        made = {id(message): {**message, PUBLIC: key} for message in outbox.values()}
        return {j: made[id(message)] for j, message in outbox.items()}

    def receive(self, agent: Agent, source: int, message: Message, exchange: Exchange) -> Message:
        """Keep the key in a message, and return the rest."""
        if PUBLIC not in message:
            return message
        agent[f"{THEIRS}{source}"] = message[PUBLIC]
        return {name: tensor for name, tensor in message.items() if name != PUBLIC}


def begin(agent: Agent) -> None:
    """Give an agent a private key."""
    agent[PRIVATE] = _tensor(X25519PrivateKey.generate().private_bytes_raw())


def renew(agents: Iterable[Agent]) -> None:
    """Give agents that have a private key another, so that noise of an earlier process does not come again."""
    for agent in agents:
        if PRIVATE in agent.state:
            begin(agent)


def shared_seed(agent: Agent, neighbor: int, number: int) -> int | None:
    """Return the 128 bits that an agent and a neighbour share for mini-batch `number`; None if they have no secret.

    They follow from the secret of both (HKDF with SHA-256; Krawczyk and Eronen, RFC 5869), from both public keys, both
    agents and the number.
    """
    if (key := agent.state.get(f"{THEIRS}{neighbor}")) is None:
        return None
    private, theirs = _bytes(agent[PRIVATE]), _bytes(key)
    try:
        secret = X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(theirs))
    except ValueError:  # one of the few keys with which everybody has the same secret
        return None
    ends = sorted([(agent.index, _public(private)), (neighbor, theirs)])
    about = b"".join(pack(">Q", index) + public for index, public in ends)
    info = b"ross_flwr noise" + about + pack(">Q", number)
    return int.from_bytes(HKDF(SHA256(), length=16, salt=None, info=info).derive(secret))


def _public(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def _tensor(key: bytes) -> Tensor:
    return torch.tensor(list(key), dtype=torch.uint8)


def _bytes(key: Tensor) -> bytes:
    return bytes(key.tolist())
