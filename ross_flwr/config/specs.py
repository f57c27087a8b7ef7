"""Names with arguments in the text of a key, such as ``topk(0.01)`` or ``adamw(weight-decay=0.01), clip(1)``."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from ross_flwr.config.keys import ConfigError, keys_of, require

__all__ = ["Spec", "Specs"]

T = TypeVar("T")
Argument: TypeAlias = "str | Spec"

_TOKEN = re.compile(r"\s*([a-z][a-z0-9_-]*|[0-9][0-9.e-]*|[(),:=])")


@dataclass(frozen=True)
class Spec:
    """A name with arguments.

    Attributes
    ----------
    name : str
        The name.
    arguments : list of str or Spec
        The arguments without a name: numbers as they are written, and other names with arguments.
    named : mapping of str to str
        The arguments with a name.
    label : str
        What stands before the name and a colon; empty without one.

    Examples
    --------
    >>> Specs("compress", "topk(0.05)", "a codec", "'int8'").read()[0] == Spec("topk", ["0.05"])
    True
    """

    name: str
    arguments: list[Argument] = field(default_factory=list)
    named: Mapping[str, str] = field(default_factory=dict)
    label: str = ""


class Specs:
    """Reads the text of a key as names with arguments, and makes objects of them.

    Parameters
    ----------
    key : str
        The key.
    text : str
        Its text.
    part : str
        What a name stands for, such as ``"a codec"``.
    like : str
        How the text should be written, for error messages.

    Examples
    --------
    >>> specs = Specs("compress", "gradient: topk(0.05), choco(int4, rate=0.5)", "a codec", "'int8'")
    >>> first, second = specs.read()
    >>> first.label, first.name, first.arguments, second.arguments[0].name, second.named
    ('gradient', 'topk', ['0.05'], 'int4', {'rate': '0.5'})
    """

    def __init__(self, key: str, text: str, part: str, like: str) -> None:
        self._key, self._text, self._part, self._like = key, text, part, like
        self._tokens: list[str] = []

    def read(self) -> list[Spec]:
        """Return the names with their arguments, in order.

        Raises
        ------
        ConfigError
            Naming the part that cannot be read.
        """
        self._tokens = self._split()
        found = [self._labelled()]
        while self._tokens:
            self._expect(",")
            found.append(self._labelled())
        return found

    def one(self, known: Mapping[str, type[T]]) -> T:
        """Return the one object that the text names, of a dataclass of `known`.

        Raises
        ------
        ConfigError
            As `read` and `make`, when the name is not known, or there are several.

        Examples
        --------
        >>> from ross_flwr.learning.optimizers import Adam
        >>> Specs("optimizer", "adam(beta1=0.8)", "an optimizer", "'adam'").one({"adam": Adam}).beta1
        0.8
        """
        spec, *others = self.read()
        if others or spec.label:
            raise self.refusal("it names more than one thing")
        require(self._key, spec.name, known)
        given = [each.name if isinstance(each, Spec) else each for each in spec.arguments]
        return self.make(known[spec.name], spec, given)

    def make(self, cls: type[T], spec: Spec, given: Sequence[Any] = (), **values: Any) -> T:
        """Return an object of dataclass `cls`, whose `option` fields are the arguments `given` and the named ones.

        Raises
        ------
        ConfigError
            When there are too many arguments, an unknown one, or one with a value that its field does not take.
        """
        keys = {key.name: key for key in keys_of(cls)}
        if len(given) > len(keys):
            raise self.refusal(f"{spec.name} takes {len(keys) or 'no'} number{'s' * (len(keys) != 1)}")
        arguments = dict(zip(keys, given, strict=False))
        for name, argument in spec.named.items():
            if name not in keys or name in arguments:
                takes = f"takes {', '.join(keys) or 'no number'}"
                raise self.refusal(f"{spec.name} {takes} and got {name}{' twice' * (name in arguments)}")
            arguments[name] = argument
        for name, argument in arguments.items():
            key = keys[name]
            try:
                value: object = key.kind(argument)
            except (TypeError, ValueError):
                value = argument
            try:
                values[name.replace("-", "_")] = key.parse(value)
            except ConfigError as error:
                raise self.refusal(f"in {spec.name}, {error}") from None
        return cls(**values)

    def refusal(self, why: str) -> ConfigError:
        """Return the error of a text that cannot be read."""
        return ConfigError(f"{self._key} = '{self._text}' cannot be read, as {why}: write it like {self._like}")

    def _split(self) -> list[str]:
        tokens, at = [], 0
        while self._text[at:].strip():
            found = _TOKEN.match(self._text, at)
            if not found:
                raise self.refusal(f"'{self._text[at:].strip()[:20]}' is no part of {self._part}")
            tokens.append(found[1])
            at = found.end()
        return tokens

    def _labelled(self) -> Spec:
        label = ""
        if self._tokens[1:2] == [":"]:
            label = self._next()
            self._next()
        return self._spec(self._next(), label)

    def _spec(self, name: str, label: str = "") -> Spec:
        arguments: list[Argument] = []
        named: dict[str, str] = {}
        if self._tokens[:1] == ["("]:
            self._next()
            while True:
                token = self._next()
                if self._tokens[:1] == ["="]:
                    self._next()
                    named[token] = self._next()
                else:
                    arguments.append(token if token[0].isdigit() else self._spec(token))
                if self._tokens[:1] == [")"]:
                    self._next()
                    break
                self._expect(",")
        return Spec(name, arguments, named, label)

    def _next(self) -> str:
        if not self._tokens:
            raise self.refusal("it ends too early")
        return self._tokens.pop(0)

    def _expect(self, token: str) -> None:
        if self._next() != token:
            raise self.refusal(f"a '{token}' is missing")
