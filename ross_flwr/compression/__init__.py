"""Codecs for what agents send each other. `CODECS` knows each by the name that it has in a configuration."""

from ross_flwr.compression.choco import Choco
from ross_flwr.compression.codec import Codec
from ross_flwr.compression.entropy import Zlib
from ross_flwr.compression.floats import BFloat16, Float16
from ross_flwr.compression.integers import QSGD, Int4, Int8
from ross_flwr.compression.low_rank import PowerSGD
from ross_flwr.compression.signs import Sign
from ross_flwr.compression.sparse import RandomK, TopK

__all__ = [
    "CODECS",
    "QSGD",
    "BFloat16",
    "Choco",
    "Codec",
    "Float16",
    "Int4",
    "Int8",
    "PowerSGD",
    "RandomK",
    "Sign",
    "TopK",
    "Zlib",
]

CODECS: dict[str, type[Codec]] = {
    "float16": Float16,
    "bfloat16": BFloat16,
    "int8": Int8,
    "int4": Int4,
    "qsgd": QSGD,
    "sign": Sign,
    "topk": TopK,
    "randomk": RandomK,
    "powersgd": PowerSGD,
    "choco": Choco,
    "zlib": Zlib,
}
"""Codecs by name."""
