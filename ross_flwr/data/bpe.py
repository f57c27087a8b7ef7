"""Tokens of several bytes: byte-level BPE."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ross_flwr.extras import import_extra

__all__ = ["BYTES", "Tokenizer", "bpe"]

BYTES = 256
"""How many bytes there are, and thus the fewest tokens."""


class Tokenizer:
    """A trained tokenizer.

    Attributes
    ----------
    tokens : tuple of str
        Its tokens by number; each letter stands for a byte.
    """

    def __init__(self, trained: Any) -> None:
        self._trained = trained
        numbers: dict[str, int] = trained.get_vocab()
        self.tokens = tuple(sorted(numbers, key=numbers.__getitem__))

    def encode(self, text: bytes) -> Tensor:
        """Return the tokens of a text, int16 of shape [m]. What is no UTF-8 becomes U+FFFD."""
        return torch.tensor(self._trained.encode(text.decode(errors="replace")).ids, dtype=torch.int16)


def bpe(size: int, texts: Sequence[bytes]) -> Tokenizer:
    """Learn `size` tokens from texts: all bytes, and the pairs of tokens that are most frequent, merged one by one.

    Sennrich et al., "Neural machine translation of rare words with subword units", 2016; on bytes as in GPT-2 (Radford
    et al., 2019). The same texts give the same tokens on every node.

    Raises
    ------
    ConfigError
        When the extra ``text`` is not installed.
    """
    tokenizers = import_extra("tokenizers", "text")
    level = tokenizers.pre_tokenizers.ByteLevel
    found = tokenizers.Tokenizer(tokenizers.models.BPE())
    found.pre_tokenizer = level(add_prefix_space=False)
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=size, initial_alphabet=level.alphabet(), show_progress=False)
    found.train_from_iterator((text.decode(errors="replace") for text in texts), trainer)
    return Tokenizer(found)
