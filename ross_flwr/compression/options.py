"""The key of compression, and how its text is read."""

from collections.abc import Iterable, Mapping
from itertools import pairwise

from ross_flwr.algorithms import ALGORITHMS, Algorithm
from ross_flwr.compression import CODECS, Choco, Codec, RandomK, TopK, Zlib
from ross_flwr.compression.link import EVERYTHING, Compression
from ross_flwr.config import ConfigError, Spec, Specs, group, option, require

__all__ = ["CompressionOptions", "read_codecs"]

GRADIENTS = frozenset({"gradient", "reward", "update"})
"""Vectors that the receiver adds to a model, so that what is left out of one can come with the next."""

ANSWERS = frozenset({"cross_gradients", "reward"})
"""Steps that answer a model with a vector made for this very model."""


@group("Compression")
class CompressionOptions:
    """How what agents send is compressed."""

    compress: str = option(
        "none",
        "how vectors travel: one codec for all, or one for each kind, such as 'model: int8, gradient: topk(0.01)'; "
        "`ross-flwr list codecs` shows them",
    )

    def link(self, algorithm: Algorithm) -> Compression | None:
        """Return the link of the message chain that compresses; None for ``"none"``.

        Raises
        ------
        ConfigError
            When the text cannot be read, or a kind needs another codec.
        """
        if self.compress == "none":
            return None
        codecs = read_codecs(self.compress)
        _require_kinds(codecs)
        if not algorithm.averages and any(isinstance(_inner(codec), Choco) for codec in codecs.values()):
            raise ConfigError(
                f"compress = 'choco' needs models that are averaged, and {algorithm.name} adds up shares of them, of "
                "which differences would lose a part: use compress = 'int8', say"
            )
        return Compression(codecs, frozenset(a for a, b in pairwise(algorithm.steps) if b in ANSWERS))


def read_codecs(text: str) -> dict[str, Codec | None]:
    """Return the codecs that a text names, by kind of vector; without a kind, for all others; None for ``none``.

    Raises
    ------
    ConfigError
        Naming the part that cannot be read.

    Examples
    --------
    >>> read_codecs("gradient: topk(0.05), model: choco(int4, 0.5)")
    {'gradient': TopK(share=0.05, momentum=0.0), 'model': Choco(codec=Int4(), rate=0.5)}
    """
    specs = Specs("compress", text, "a codec", "'int8', or like 'model: choco(topk(0.1)), gradient: topk(0.01)'")
    found: dict[str, Codec | None] = {}
    for spec in specs.read():
        kind = spec.label or EVERYTHING
        require("compress", spec.name, ("none", *CODECS))
        if kind in found:
            raise specs.refusal(f"it names two codecs for {kind or 'all vectors'}")
        found[kind] = None if spec.name == "none" else _codec(specs, spec)
    return found


def _codec(specs: Specs, spec: Spec) -> Codec:
    require("compress", spec.name, CODECS)
    cls = CODECS[spec.name]
    given = [_codec(specs, each) if isinstance(each, Spec) else each for each in spec.arguments]
    if cls not in (Choco, Zlib):
        return specs.make(cls, spec, given)
    inside = given[0] if given else None
    if not isinstance(inside, Codec) or isinstance(inside, Zlib) or cls is type(inside):
        raise specs.refusal(f"{spec.name} takes another codec first, such as {spec.name}(topk(0.1))")
    if cls is Choco and isinstance(inside, TopK | RandomK) and inside.momentum:
        raise specs.refusal("choco sends differences, which have no momentum")
    return specs.make(cls, spec, given[1:], codec=inside)


def _inner(codec: Codec | None) -> Codec | None:
    """Return the codec whose bytes `zlib` compresses, or the codec itself."""
    return codec.codec if isinstance(codec, Zlib) else codec


def _require_kinds(codecs: Mapping[str, Codec | None]) -> None:
    """Refuse kinds that no method sends, and codecs that leave too little of a model."""
    known = {"momentum", *_declared()}
    for kind, codec in codecs.items():
        if kind != EVERYTHING:
            require("compress", kind, known)
        if codec and codec.coarse and kind not in GRADIENTS:
            name = next(name for name, cls in CODECS.items() if type(_inner(codec)) is cls)
            raise ConfigError(
                f"compress = '{name}' for {kind or 'all vectors'} would leave too little of "
                f"{'a ' + kind if kind else 'models'}: use 'gradient: {name}' or choco({name})"
            )


def _declared() -> Iterable[str]:
    """Return the vectors that methods send, by name, as far as they are known without an agent."""
    sends = [part.__sends__ for method in ALGORITHMS.values() for part in method.declared.values()]
    return [name for declared in sends if not callable(declared) for name in declared]
