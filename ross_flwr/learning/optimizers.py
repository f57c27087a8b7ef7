"""Optimizers for local steps: what the key `optimizer` names, and what keeps their state with an agent."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from math import cos, floor, pi
from typing import ClassVar, TypeAlias

import torch
from torch import Tensor, nn, optim

from ross_flwr.config import ConfigError, Specs, option, require

__all__ = [
    "OPTIMIZERS",
    "PREFIX",
    "SCHEDULES",
    "SGD",
    "Adam",
    "AdamW",
    "Clip",
    "Constant",
    "Cosine",
    "Factory",
    "Momentum",
    "Optimizer",
    "Step",
    "Stepping",
    "read_optimizer",
]

Factory: TypeAlias = Callable[[Iterable[nn.Parameter]], optim.Optimizer]
"""From parameters to an optimizer of PyTorch's that changes them."""

PREFIX = "optimizer."
"""How the names begin under which an agent's state holds an optimizer's."""


class Kind(ABC):
    """An optimizer by its name. A subclass is a frozen dataclass of its numbers, each declared with `option`."""

    moments: ClassVar[tuple[str, ...]] = ()
    """The vectors that it remembers, by their names in PyTorch's optimizer."""

    @abstractmethod
    def make(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> optim.Optimizer:
        """Return PyTorch's optimizer."""


def _weight_decay(default: float) -> float:
    value: float = option(default, "how much parameters shrink, times their size and the learning rate", minimum=0.0)
    return value


def _beta(default: float, meaning: str) -> float:
    value: float = option(default, meaning, minimum=0.0, maximum=0.999999)
    return value


@dataclass(frozen=True)
class SGD(Kind):
    """Stochastic gradient descent; `weight-decay` (0) adds to the gradient."""

    weight_decay: float = _weight_decay(0.0)

    def make(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> optim.Optimizer:
        """Return PyTorch's SGD."""
        return optim.SGD(parameters, lr=learning_rate, weight_decay=self.weight_decay)


@dataclass(frozen=True)
class Momentum(Kind):
    """SGD with heavy-ball momentum: `coefficient` (0.9), `weight-decay` (0)."""

    moments = ("momentum_buffer",)

    coefficient: float = _beta(0.9, "how much of the last step is kept")
    weight_decay: float = _weight_decay(0.0)

    def make(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> optim.Optimizer:
        """Return PyTorch's SGD with momentum."""
        return optim.SGD(parameters, lr=learning_rate, momentum=self.coefficient, weight_decay=self.weight_decay)


@dataclass(frozen=True)
class Adam(Kind):
    """Adam (Kingma and Ba, ICLR 2015): `beta1` (0.9), `beta2` (0.999), `weight-decay` (0), added to the gradient."""

    moments = ("exp_avg", "exp_avg_sq")

    beta1: float = _beta(0.9, "decay of the first moment")
    beta2: float = _beta(0.999, "decay of the second moment")
    weight_decay: float = _weight_decay(0.0)

    def make(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> optim.Optimizer:
        """Return PyTorch's Adam."""
        return optim.Adam(parameters, lr=learning_rate, betas=(self.beta1, self.beta2), weight_decay=self.weight_decay)


@dataclass(frozen=True)
class AdamW(Adam):
    """AdamW (Loshchilov and Hutter, ICLR 2019): Adam whose `weight-decay` (0.01) does not pass through the moments."""

    weight_decay: float = _weight_decay(0.01)

    def make(self, parameters: Iterable[nn.Parameter], learning_rate: float) -> optim.Optimizer:
        """Return PyTorch's AdamW."""
        return optim.AdamW(parameters, lr=learning_rate, betas=(self.beta1, self.beta2), weight_decay=self.weight_decay)


class Schedule(ABC):
    """By what to multiply the learning rate in the course of a run."""

    @abstractmethod
    def factor(self, progress: float) -> float:
        """Return the factor when this share of the run is over, from 0 to 1."""


@dataclass(frozen=True)
class Constant(Schedule):
    """The learning rate stays the same."""

    def factor(self, progress: float) -> float:
        """Return 1."""
        return 1.0


@dataclass(frozen=True)
class Cosine(Schedule):
    """The learning rate falls along half a cosine to the share `final` (0) of it, as in PyTorch's CosineAnnealingLR.

    Examples
    --------
    >>> round(Cosine(final=0.2).factor(0.5), 6)
    0.6
    """

    final: float = option(0.0, "the share of the learning rate at the end of the run", minimum=0.0, maximum=1.0)

    def factor(self, progress: float) -> float:
        """Return f + (1 − f)·(1 + cos πp)/2."""
        return self.final + (1 - self.final) * (1 + cos(pi * progress)) / 2


@dataclass(frozen=True)
class Step(Schedule):
    """The learning rate is multiplied by `by` (0.1) after every share `every` (0.5) of the run, as in PyTorch's StepLR.

    Examples
    --------
    >>> [round(Step(every=0.3).factor(t / 10), 6) for t in (2, 3, 9)]
    [1.0, 0.1, 0.001]
    """

    every: float = option(0.5, "the share of the run between two changes", minimum=1e-6, maximum=1.0)
    by: float = option(0.1, "by what the learning rate is multiplied", minimum=0.0, maximum=1.0)

    def factor(self, progress: float) -> float:
        """Return b^⌊p/e⌋."""
        return self.by ** floor(progress / self.every + 1e-9)


@dataclass(frozen=True)
class Clip:
    """A direction longer than `norm` (1) is shortened to it before the optimizer sees it."""

    norm: float = option(1.0, "the longest that a direction may be, in the L2 norm", minimum=1e-12)

    def __call__(self, direction: Tensor) -> Tensor:
        """Return the direction, shape [n], or a shorter one, as PyTorch's ``clip_grad_norm_`` does."""
        length = torch.linalg.vector_norm(direction)
        return torch.mul(direction, (self.norm / (length + 1e-6)).clamp(max=1.0))


OPTIMIZERS: dict[str, type[Kind]] = {"sgd": SGD, "momentum": Momentum, "adam": Adam, "adamw": AdamW}
"""Optimizers by name."""

SCHEDULES: dict[str, type[Schedule]] = {"constant": Constant, "cosine": Cosine, "step": Step}
"""Schedules of the learning rate by name."""


@dataclass(frozen=True)
class Optimizer:
    """How an agent takes local steps: an optimizer, a schedule of its learning rate, and the clipping of directions."""

    kind: Kind = SGD()
    schedule: Schedule = Constant()
    clip: Clip | None = None


@cache
def read_optimizer(text: str) -> Optimizer:
    """Return what a text of the key `optimizer` names: an optimizer, then perhaps a schedule and clipping.

    Raises
    ------
    ConfigError
        Naming the part that cannot be read.

    Examples
    --------
    >>> read_optimizer("adamw(weight-decay=0.1), clip(1), cosine").kind
    AdamW(beta1=0.9, beta2=0.999, weight_decay=0.1)
    >>> read_optimizer("momentum(0.8)")
    Optimizer(kind=Momentum(coefficient=0.8, weight_decay=0.0), schedule=Constant(), clip=None)
    """
    specs = Specs("optimizer", text, "an optimizer", "'adam', or like 'adamw(weight-decay=0.01), clip(1), cosine'")
    first, *others = specs.read()
    require("optimizer", first.name, OPTIMIZERS)
    clips: list[Clip] = []
    schedules: list[Schedule] = []
    for spec in others:
        require("optimizer", spec.name, ("clip", *SCHEDULES))
        if spec.name == "clip":
            clips.append(specs.make(Clip, spec, spec.arguments))
        else:
            schedules.append(specs.make(SCHEDULES[spec.name], spec, spec.arguments))
        if max(len(clips), len(schedules)) > 1:
            raise specs.refusal(f"{spec.name} is a second {'clip' if len(clips) > 1 else 'schedule'}")
    kind = specs.make(OPTIMIZERS[first.name], first, first.arguments)
    return Optimizer(kind, next(iter(schedules), Constant()), next(iter(clips), None))


class Stepping:
    """An optimizer of PyTorch's at work on a flat vector of its own.

    Parameters
    ----------
    make : Factory
        Makes the optimizer.
    model : Tensor
        The vector to start from, shape [P]; it stays as it is.
    shapes : mapping of str to shape
        The parameters at the head of the vector as the optimizer sees them, by name. Float buffers after them stay.
    state : mapping of str to Tensor
        What holds what `state` returned before; without that, the optimizer begins.
    clip : Clip, optional
        Shortens directions.

    Attributes
    ----------
    model : Tensor
        Where the steps have led. The next one changes it in place.

    Examples
    --------
    >>> from functools import partial
    >>> stepping = Stepping(partial(optim.SGD, lr=0.1, momentum=0.9), torch.ones(2), {"": torch.Size([2])}, {})
    >>> stepping.step(torch.tensor([1.0, 0.0]))
    tensor([0.9000, 1.0000])
    >>> stepping.state
    {'optimizer.momentum_buffer': tensor([1., 0.])}
    """

    def __init__(
        self,
        make: Factory,
        model: Tensor,
        shapes: Mapping[str, torch.Size],
        state: Mapping[str, Tensor],
        clip: Clip | None = None,
    ) -> None:
        self.model = model.clone()
        self._clip = clip
        self._prefixes = [f"{PREFIX}{name}." if name else PREFIX for name in shapes]
        self._sizes = [shape.numel() for shape in shapes.values()]
        self._parameters = [
            nn.Parameter(part.view(shape)) for part, shape in zip(self._parts(self.model), shapes.values(), strict=True)
        ]
        self._optimizer = make(self._parameters)
        kept = {k: self._begun(prefix, state) for k, prefix in enumerate(self._prefixes)}
        if any(kept.values()):
            self._optimizer.load_state_dict(self._optimizer.state_dict() | {"state": kept})

    def step(self, direction: Tensor) -> Tensor:
        """Take a step along `direction`, shape [P], as if it were the gradient, and return where it leads."""
        direction = self._clip(direction) if self._clip else direction
        for parameter, part in zip(self._parameters, self._parts(direction), strict=True):
            parameter.grad = part.view(parameter.shape)
        self._optimizer.step()
        return self.model

    @property
    def state(self) -> dict[str, Tensor]:
        """What the optimizer remembers, under the names of an agent's state."""
        found = {}
        for k, entries in self._optimizer.state_dict()["state"].items():
            for name, value in entries.items():
                if isinstance(value, int | float):
                    value = torch.tensor(value, dtype=torch.int64 if isinstance(value, int) else torch.float64)
                if isinstance(value, Tensor):
                    found[self._prefixes[k] + name] = value
                elif value is not None:
                    raise ConfigError(
                        f"{type(self._optimizer).__name__} keeps a {type(value).__name__} called '{name}', which "
                        "cannot be part of an agent's state: use an optimizer that keeps tensors and numbers"
                    )
        return found

    def _begun(self, prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor | float]:
        """Return what is kept about one parameter. Vectors of a state are replaced, never changed, so it is copied."""
        kept: dict[str, Tensor | float] = {}
        for name, value in state.items():
            owner, _, key = name.rpartition(".")
            if owner + "." == prefix:
                number = value.dim() == 0 and value.dtype in (torch.int64, torch.float64)
                kept[key] = value.item() if number else value.clone()
        return kept

    def _parts(self, vector: Tensor) -> tuple[Tensor, ...]:
        return torch.split(vector[: sum(self._sizes)], self._sizes)
