"""Random numbers that do not depend on what was drawn before."""

import zlib

import numpy as np

__all__ = ["stream"]


def stream(seed: int, purpose: str, agent: int = 0, pass_number: int = 0, draw: int = 0) -> np.random.Generator:
    """Return the random stream of (seed, purpose, agent, pass, draw).

    The streams are counter-based (Philox 4x64; Salmon et al., 2011): the seed and the purpose are the key, the rest is
    the counter, so no stream depends on how much of another was used, in which process, or before or after a restart.
    """
    key = np.array([seed, zlib.crc32(purpose.encode())], dtype=np.uint64)
    counter = np.array([0, draw, agent, pass_number], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))
