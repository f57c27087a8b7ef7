"""Seeds that two agents, or all, share and nobody else knows: they agree in messages that they exchange anyway."""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from struct import pack

import torch
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from torch import Tensor

from ross_flwr.algorithms.messages import Exchange, Form, Forms, Message, MessageTransform
from ross_flwr.learning.agent import Agent

__all__ = ["Keys", "begin", "common_seed", "renew", "shared_seed"]

PUBLIC, NAME, SEALED = "noise-key", "noise-name", "noise-seed"
"""In a message: a public key, a name of the seed of all that the sender has, and that seed for the receiver alone."""

PRIVATE, THEIRS = "privacy.key", "privacy.key-of."
"""In an agent's state: its private key, and the last public key of each neighbour."""

COMMON, HOLDS = "privacy.common", "privacy.common-of."
"""In an agent's state: the seed of all, the time when it was drawn before it, and what each neighbour named last."""

NONCE = 12


@dataclass(frozen=True)
class Keys(MessageTransform):
    """Sends the agent's public key along with every message, and keeps those of its neighbours.

    Two agents that hold each other's public key know a secret that follows from neither key alone (X25519; Langley,
    Hamburg and Turner, RFC 7748). Whoever carries the messages sees only public keys. Whoever *changes* them could put
    in keys of its own; on direct connections certificates rule that out, and through the ServerApp nothing does. An
    agent without a private key sends none.

    With `common`, all agents come to take one seed, each first one of its own. It travels from neighbour to neighbour,
    encrypted (ChaCha20-Poly1305, RFC 8439), and the one that was drawn last wins: so an agent that starts again, with a
    new seed, takes up no seed of before, as far as clocks agree.

    Parameters
    ----------
    common : bool (default: False)
        Whether there is a seed of all.

    Examples
    --------
    >>> Keys().wire({})
    {'noise-key': Form(shape=(32,), dtype=torch.uint8, optional=True)}
    """

    common: bool = False

    def wire(self, forms: Forms) -> Forms:
        """Return the forms, and those of keys."""
        lengths = {PUBLIC: 32} | ({NAME: 8, SEALED: NONCE + 40 + 16} if self.common else {})
        return {**forms, **{name: Form((size,), torch.uint8, optional=True) for name, size in lengths.items()}}

    def send(self, agent: Agent, outbox: dict[int, Message], exchange: Exchange) -> dict[int, Message]:
        """Return the messages with the agent's public key. What several receivers get alike is one object."""
        if PRIVATE not in agent.state:
            return outbox
        keys = {PUBLIC: _tensor(_public(_bytes(agent[PRIVATE])))}
        if self.common:
            keys[NAME] = _name(agent[COMMON])
        made = {id(message): {**message, **keys} for message in outbox.values()}
        sent = {j: made[id(message)] for j, message in outbox.items()}
        sealed = {j: _sealed(agent, j) for j in sent} if self.common else {}
        return sent | {j: {**sent[j], SEALED: seed} for j, seed in sealed.items() if seed is not None}

    def receive(self, agent: Agent, source: int, message: Message, exchange: Exchange) -> Message:
        """Keep the keys in a message, and return the rest."""
        for name, kept in ((PUBLIC, THEIRS), (NAME, HOLDS)):
            if name in message:
                agent[f"{kept}{source}"] = message[name]
        if SEALED in message and COMMON in agent.state:
            seed = _opened(agent, source, message[SEALED])
            if seed is not None and _bytes(seed) > _bytes(agent[COMMON]):
                agent[COMMON] = seed
        return {name: tensor for name, tensor in message.items() if name not in (PUBLIC, NAME, SEALED)}


def begin(agent: Agent, *, common: bool = False) -> None:
    """Give an agent a private key, and with `common` a seed for all."""
    agent[PRIVATE] = _tensor(X25519PrivateKey.generate().private_bytes_raw())
    if common:
        agent[COMMON] = _tensor(pack(">Q", time.time_ns()) + os.urandom(32))


def renew(agents: Iterable[Agent]) -> None:
    """Give agents that have keys others, so that noise of an earlier process does not come again."""
    for agent in agents:
        if PRIVATE in agent.state:
            begin(agent, common=COMMON in agent.state)


def shared_seed(agent: Agent, neighbor: int, number: int) -> int | None:
    """Return the 128 bits that an agent and a neighbour share for mini-batch `number`; None if they have no secret.

    They follow from the secret of both (HKDF with SHA-256; Krawczyk and Eronen, RFC 5869), from both public keys, both
    agents and the number.
    """
    found = _derived(agent, neighbor, b"noise" + pack(">Q", number), 16)
    return None if found is None else int.from_bytes(found)


def common_seed(agent: Agent, source: int, number: int) -> int:
    """Return the 128 bits of a source for mini-batch `number`, which all know who have the seed that the agent has."""
    info = b"ross_flwr common" + pack(">QQ", source, number)
    return int.from_bytes(HKDF(SHA256(), length=16, salt=None, info=info).derive(_bytes(agent[COMMON])))


def _sealed(agent: Agent, neighbor: int) -> Tensor | None:
    """Return the seed of all for a neighbour that names another; None if it has it, or there is no secret with it."""
    holds = agent.state.get(f"{HOLDS}{neighbor}")
    key = None if holds is None or torch.equal(holds, _name(agent[COMMON])) else _derived(agent, neighbor, b"seal", 32)
    if key is None:
        return None
    nonce = os.urandom(NONCE)
    return _tensor(nonce + ChaCha20Poly1305(key).encrypt(nonce, _bytes(agent[COMMON]), None))


def _opened(agent: Agent, neighbor: int, sealed: Tensor) -> Tensor | None:
    """Return the seed that a neighbour sealed; None if it was sealed for an older key, or not at all."""
    key, data = _derived(agent, neighbor, b"seal", 32), _bytes(sealed)
    if key is None:
        return None
    try:
        return _tensor(ChaCha20Poly1305(key).decrypt(data[:NONCE], data[NONCE:], None))
    except InvalidTag:
        return None


def _derived(agent: Agent, neighbor: int, purpose: bytes, length: int) -> bytes | None:
    """Return what an agent and a neighbour both derive from their keys; None if they have no secret."""
    if (key := agent.state.get(f"{THEIRS}{neighbor}")) is None:
        return None
    private, theirs = _bytes(agent[PRIVATE]), _bytes(key)
    try:
        secret = X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(theirs))
    except ValueError:  # one of the few keys with which everybody has the same secret
        return None
    ends = sorted([(agent.index, _public(private)), (neighbor, theirs)])
    info = b"ross_flwr " + b"".join(pack(">Q", index) + public for index, public in ends) + purpose
    return HKDF(SHA256(), length=length, salt=None, info=info).derive(secret)


def _name(common: Tensor) -> Tensor:
    return _tensor(sha256(_bytes(common)).digest()[:8])


def _public(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def _tensor(key: bytes) -> Tensor:
    return torch.tensor(list(key), dtype=torch.uint8)


def _bytes(key: Tensor) -> bytes:
    return bytes(key.tolist())
