"""The key of compression, and how its text is read."""

import re
from collections.abc import Iterable, Mapping
from itertools import pairwise

from ross_flwr.algorithms import ALGORITHMS, Algorithm
from ross_flwr.compression import CODECS, Choco, Codec
from ross_flwr.compression.link import EVERYTHING, Compression
from ross_flwr.config import ConfigError, group, keys_of, option, require

__all__ = ["CompressionOptions", "read_codecs"]

GRADIENTS = frozenset({"gradient", "reward", "update"})
"""Vectors that the receiver adds to a model, so that what is left out of one can come with the next."""

ANSWERS = frozenset({"cross_gradients", "reward"})
"""Steps that answer a model with a vector made for this very model."""

_TOKEN = re.compile(r"\s*([a-z][a-z0-9_-]*|[0-9][0-9.e-]*|[(),:])")


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
        if not algorithm.averages and any(isinstance(codec, Choco) for codec in codecs.values()):
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
    {'gradient': TopK(share=0.05), 'model': Choco(codec=Int4(), rate=0.5)}
    """
    return _Reader(text).codecs()


class _Reader:
    """Reads a text from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[str] = []
        at = 0
        while text[at:].strip():
            found = _TOKEN.match(text, at)
            if not found:
                raise self._refusal(f"'{text[at:].strip()[:20]}' is no part of a codec")
            self._tokens.append(found[1])
            at = found.end()

    def codecs(self) -> dict[str, Codec | None]:
        found: dict[str, Codec | None] = {}
        while True:
            kind = EVERYTHING
            if self._tokens[1:2] == [":"]:
                kind = self._next()
                self._next()
            name = self._next()
            require("compress", name, ("none", *CODECS))
            if kind in found:
                raise self._refusal(f"it names two codecs for {kind or 'all vectors'}")
            found[kind] = None if name == "none" else self._codec(name)
            if not self._tokens:
                return found
            self._expect(",")

    def _codec(self, name: str) -> Codec:
        require("compress", name, CODECS)
        arguments: list[str | Codec] = []
        if self._tokens[:1] == ["("]:
            self._next()
            while True:
                token = self._next()
                arguments.append(token if token[0].isdigit() else self._codec(token))
                if self._tokens[:1] == [")"]:
                    self._next()
                    break
                self._expect(",")
        return self._made(name, arguments)

    def _made(self, name: str, arguments: list[str | Codec]) -> Codec:
        cls, given = CODECS[name], list(arguments)
        values: dict[str, object] = {}
        if cls is Choco:
            inner = given.pop(0) if given else None
            if not isinstance(inner, Codec) or isinstance(inner, Choco):
                raise self._refusal("choco takes another codec first, such as choco(topk(0.1))")
            values["codec"] = inner
        keys = keys_of(cls)
        if len(given) > len(keys):
            raise self._refusal(f"{name} takes {len(keys) or 'no'} number{'s' * (len(keys) != 1)}")
        for key, argument in zip(keys, given, strict=False):
            try:
                number: object = key.kind(argument)
            except (TypeError, ValueError):
                number = argument
            try:
                values[key.name] = key.parse(number)
            except ConfigError as error:
                raise self._refusal(f"in {name}, {error}") from None
        return cls(**values)

    def _next(self) -> str:
        if not self._tokens:
            raise self._refusal("it ends too early")
        return self._tokens.pop(0)

    def _expect(self, token: str) -> None:
        if self._next() != token:
            raise self._refusal(f"a '{token}' is missing")

    def _refusal(self, why: str) -> ConfigError:
        return ConfigError(
            f"compress = '{self._text}' cannot be read, as {why}: write it like 'int8', or like "
            "'model: choco(topk(0.1)), gradient: topk(0.01)'"
        )


def _require_kinds(codecs: Mapping[str, Codec | None]) -> None:
    """Refuse kinds that no method sends, and codecs that leave too little of a model."""
    known = {"momentum", *_declared()}
    for kind, codec in codecs.items():
        if kind != EVERYTHING:
            require("compress", kind, known)
        if codec and codec.coarse and kind not in GRADIENTS:
            name = next(name for name, cls in CODECS.items() if type(codec) is cls)
            raise ConfigError(
                f"compress = '{name}' for {kind or 'all vectors'} would leave too little of "
                f"{'a ' + kind if kind else 'models'}: use 'gradient: {name}' or choco({name})"
            )


def _declared() -> Iterable[str]:
    """Return the vectors that methods send, by name, as far as they are known without an agent."""
    sends = [part.__sends__ for method in ALGORITHMS.values() for part in method.declared.values()]
    return [name for declared in sends if not callable(declared) for name in declared]
