"""A model as one flat vector."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from functools import reduce
from threading import local
from weakref import WeakKeyDictionary, WeakValueDictionary

import torch
from torch import Tensor, nn
from torch._C._nn import unflatten_dense_tensors  # one call, for which other threads wait but once

from ross_flwr.config import ConfigError

__all__ = ["FlatModel"]

_FROZEN: WeakValueDictionary[bytes, Tensor] = WeakValueDictionary()
"""The values of the frozen parameters of all models of this process, by their digest: equal ones share memory."""


class FlatModel:
    """An `nn.Module` whose parameters and float buffers are views of whichever flat vector is bound to it.

    The layout of the vector is: parameters that are trained in the module's order, then float buffers (BatchNorm
    statistics) in the module's order, each row-major. Binding copies nothing: the module computes on the vector's own
    memory.

    Frozen parameters, with ``requires_grad=False``, and buffers that stay `still` never travel; the models of a process
    share those that are equal. Each process has buffers of its own that are not in the `state_dict` or hold infinities.

    Parameters
    ----------
    module : nn.Module
        Any module. Its floating-point state becomes float32.
    still : collection of str
        The names of float buffers that no forward pass changes.
    outputs : sequence of str
        What the outputs stand for, where their numbers do not say it.

    Attributes
    ----------
    size : int
        P, the length of a flat vector.
    sizes : list[int]
        The lengths of the tensors it is made of, in order.
    num_parameters : int
        The number of leading entries that are parameters; the rest are float buffers.

    Raises
    ------
    ConfigError
        When every parameter is frozen, or one holds complex numbers.
    """

    def __init__(self, module: nn.Module, still: Collection[str] = (), outputs: Sequence[str] = ()) -> None:
        self.module = module.float()
        self._outputs = list(outputs)
        every = dict(module.named_parameters())
        parameters = {name: parameter for name, parameter in every.items() if parameter.requires_grad}
        if not parameters:
            raise ConfigError("all parameters of the model are frozen: agents have nothing to learn")
        if imaginary := [name for name, parameter in parameters.items() if parameter.is_complex()]:
            raise ConfigError(
                f"parameter '{imaginary[0]}' holds complex numbers, and agents send real ones: keep both parts of them "
                "in one real tensor (torch.view_as_real)"
            )
        self._frozen: dict[str, Tensor] = {name: each for name, each in every.items() if name not in parameters}
        self._held: dict[str, Tensor] = {}
        self._changed: set[str] = set()
        persistent = module.state_dict().keys()
        buffers = {
            name: buffer
            for name, buffer in module.named_buffers()
            if buffer.is_floating_point() and name in persistent and bool(buffer.isfinite().all())
        }
        self._still = [(_owner(module, name), name, buffers.pop(name)) for name in still if name in buffers]
        self._frozen |= {name: buffer for _, name, buffer in self._still}
        for name, tensor in self._frozen.items():
            self._freeze(name, tensor.data)
        self.parameters = list(parameters.values())
        self._versions = {name: buffer._version for _, name, buffer in self._still}
        self._buffers = [(_owner(module, name), name, buffer) for name, buffer in buffers.items()]
        self.shapes = {name: tensor.shape for name, tensor in (parameters | buffers).items()}
        self.sizes = [shape.numel() for shape in self.shapes.values()]
        self.num_parameters = sum(p.numel() for p in self.parameters)
        self._tensors = [*self.parameters, *buffers.values()]
        self.size = sum(self.sizes)
        first = {id(parameter): name for name, parameter in every.items()}
        again = module.named_parameters(remove_duplicate=False)
        self._tied = {name: first[id(parameter)] for name, parameter in again if name not in every}
        self._bound: Tensor | None = None
        self.initial = torch.cat([tensor.detach().reshape(-1) for tensor in self._tensors])
        """The module's state when it was wrapped, shape [P]."""

    @property
    def here(self) -> "FlatModel":
        """The model; in a thread that is `helping`, that thread's own copy of it."""
        return _copies.get(self)

    @property
    def device(self) -> torch.device:
        """Where the model was when it was wrapped."""
        return self.initial.device

    @property
    def buffers(self) -> set[str]:
        """The names of the float buffers in the vector."""
        return {name for _, name, _ in self._buffers}

    @property
    def has_buffers(self) -> bool:
        """Whether the vector has float buffers after the parameters."""
        return self.size > self.num_parameters

    @property
    def output_layer(self) -> slice:
        """Where the last two parameters are: the output layer's weight, shape [C, ...], and bias, shape [C].

        Raises
        ------
        ConfigError
            When they have other shapes.
        """
        shapes = [tuple(parameter.shape) for parameter in self.parameters[-2:]]
        if len(shapes) < 2 or len(shapes[0]) < 2 or shapes[1] != shapes[0][:1]:
            raise ConfigError(
                f"the model's last parameters have the shapes {shapes}: expected those of an output layer, its weight "
                "(classes, inputs) and its bias (classes,)"
            )
        length = sum(parameter.numel() for parameter in self.parameters[-2:])
        return slice(self.num_parameters - length, self.num_parameters)

    @property
    def digest(self) -> str:
        """A short fingerprint of layout and outputs; peers with different ones cannot exchange vectors."""
        text = repr([(name, tuple(shape)) for name, shape in self.shapes.items()] + self._outputs)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def bind(self, vector: Tensor) -> None:
        """Make the module compute on `vector`, shape [P]; in-place changes of its buffers write into it."""
        if vector is not self._bound:
            for tensor, view in zip(self._tensors, unflatten_dense_tensors(vector, self._tensors), strict=True):
                tensor.data = view
            self._bound = vector

    def read(self) -> Tensor:
        """Return the module's state as a new vector, shape [P], wherever it has moved from the bound one."""
        state = torch.cat([tensor.detach().float().reshape(-1) for tensor in self._tensors])
        self._bound = None
        return state

    def settle(self) -> None:
        """Write the buffers that a forward pass assigned anew into the bound vector, and take the old ones back."""
        for owner, name, buffer in self._buffers:
            key = name.rpartition(".")[2]
            assigned = getattr(owner, key)
            if assigned is not buffer:
                setattr(owner, key, buffer)
                if assigned.shape != buffer.shape:
                    shapes = f"{tuple(assigned.shape)}: expected {tuple(buffer.shape)}"
                    raise ConfigError(f"the forward pass gave buffer '{name}' the shape {shapes}, as before")
                buffer.data.copy_(assigned.detach())
        for owner, name, buffer in self._still:
            if buffer._version != self._versions[name] or getattr(owner, name.rpartition(".")[2]) is not buffer:
                raise ConfigError(
                    f"buffer '{name}' changed in a forward pass, and in the first one it did not, so that it does not "
                    "travel: change it in every pass, or in none"
                )

    def named(self, vector: Tensor, *, frozen: bool = False) -> dict[str, Tensor]:
        """Return views of `vector`, and `frozen` parameters if asked for, under the names of the `state_dict`."""
        parts = torch.split(vector, self.sizes)
        named = {name: part.view(shape) for (name, shape), part in zip(self.shapes.items(), parts, strict=True)}
        if frozen:
            named |= self._held
        return named | {name: named[first] for name, first in self._tied.items() if first in named}

    def freeze(self, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Take the values of frozen parameters and still buffers from `named`, and return those that are not its own.

        The module was made with its own values. A node in another process, which makes the module anew, needs the
        others.

        Raises
        ------
        ConfigError
            When a shape differs.
        """
        for name, parameter in self._frozen.items():
            if name in named:
                self._check_shape(name, named[name], parameter.shape)
                value = named[name].to(parameter)
                if not torch.equal(value, parameter.data):
                    self._freeze(name, value)
                    self._changed.add(name)
        return {name: self._held[name] for name in named if name in self._changed}

    def _freeze(self, name: str, value: Tensor) -> None:
        self._held[name] = self._frozen[name].data = _shared(value)

    def flatten(self, named: Mapping[str, Tensor]) -> Tensor:
        """Return a new flat vector, shape [P], from tensors under the module's own names.

        Raises
        ------
        ConfigError
            When a name is missing or a shape differs.
        """
        for name, shape in self.shapes.items():
            if name not in named:
                peft = "; PEFT's own functions leave '.default' out: take the names of the module's state_dict"
                more = peft if name.replace(".default.", ".") in named else ""
                raise ConfigError(f"tensor '{name}' is missing: expected {', '.join(self.shapes)}{more}")
            self._check_shape(name, named[name], shape)
        return torch.cat([named[name].detach().float().reshape(-1) for name in self.shapes])

    def _check_shape(self, name: str, tensor: Tensor, expected: torch.Size) -> None:
        if tensor.shape != expected:
            raise ConfigError(f"tensor '{name}' has shape {tuple(tensor.shape)}: expected {tuple(expected)}")


class _Copies(local):
    """What this thread computes on instead of the models that it is given, if it is `helping`."""

    of: WeakKeyDictionary[FlatModel, FlatModel] | None = None

    def get(self, model: FlatModel) -> FlatModel:
        if self.of is None:
            return model
        if model not in self.of:
            self.of[model] = FlatModel(deepcopy(model.module))
        return self.of[model]


_copies = _Copies()


def helping() -> None:
    """Let this thread compute on copies of all models, so that it can compute at the same time as others."""
    _copies.of = WeakKeyDictionary()
    torch.set_num_threads(1)


def _owner(module: nn.Module, name: str) -> nn.Module:
    return reduce(getattr, name.split(".")[:-1], module)  # TorchScript has no get_submodule


def _shared(tensor: Tensor) -> Tensor:
    """Return the tensor with these values that this process has on the same device, or else this one."""
    content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)} {tensor.device}\n".encode())
    digest.update(content.data)
    found = _FROZEN.get(digest.digest())
    if found is None or not torch.equal(found, tensor):  # its module's owner may have written into it since
        found = _FROZEN[digest.digest()] = tensor.detach()
    return found
