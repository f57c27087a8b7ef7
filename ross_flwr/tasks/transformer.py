"""A small causal transformer over tokens."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear, scaled_dot_product_attention

from ross_flwr.config import ConfigError, option
from ross_flwr.data.bpe import BYTES

__all__ = ["LANGUAGE_MODELS", "Transformer"]


@dataclass(frozen=True)
class Transformer:
    """A causal transformer in the shape of GPT-2 (Radford et al., 2019), whose input and output share weights."""

    layers: int = option(1, "blocks of attention and a layer of four times the width", minimum=1)
    width: int = option(32, "numbers that stand for a token", minimum=1)
    heads: int = option(2, "heads of attention; they divide the width", minimum=1)
    context: int = option(32, "how many tokens are looked at", unit="tokens", minimum=1)

    def build(self, seed: int, tokens: int = BYTES) -> nn.Module:
        """Build the module for so many tokens; the same seed gives the same initial parameters.

        Raises
        ------
        ConfigError
            When the heads do not divide the width.
        """
        if self.width % self.heads:
            raise ConfigError(
                f"model has heads = {self.heads} and width = {self.width}: use a width that is a multiple of the heads"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return _Network(self, tokens)


LANGUAGE_MODELS: dict[str, type[Transformer]] = {"transformer": Transformer}
"""Models of texts by name."""


class _Network(nn.Module):
    """From tokens, int64 of shape [B, T], to the scores of the next ones, shape [B, T, V]."""

    def __init__(self, shape: Transformer, tokens: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, shape.width)
        self.positions = nn.Parameter(torch.empty(shape.context, shape.width))
        self.blocks = nn.Sequential(*(_Block(shape.width, shape.heads) for _ in range(shape.layers)))
        self.norm = nn.LayerNorm(shape.width)
        nn.init.normal_(self.embedding.weight, std=shape.width**-0.5)
        nn.init.normal_(self.positions, std=0.1 * shape.width**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the scores."""
        hidden = self.embedding(tokens) + self.positions[: tokens.shape[1]]
        return linear(self.norm(self.blocks(hidden)), self.embedding.weight)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.first, self.second = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention, self.mixed = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the hidden states after attention to earlier ones and a layer for each, shape [B, T, width]."""
        parts = self.attention(self.first(hidden)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind()
        attended = scaled_dot_product_attention(query, key, value, is_causal=True)
        hidden = hidden + self.mixed(attended.transpose(1, 2).flatten(2))
        deeper: Tensor = self.narrow(gelu(self.wide(self.second(hidden))))
        return hidden + deeper
