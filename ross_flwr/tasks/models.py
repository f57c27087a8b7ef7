"""The models of the experiments."""

from collections.abc import Callable
from copy import deepcopy
from math import ceil

import torch
from torch import nn

from ross_flwr.config import ConfigError, require
from ross_flwr.vision import import_torchvision

__all__ = ["MODELS", "build"]


def mlp(image_shape: tuple[int, int, int], num_classes: int, hidden: int) -> nn.Module:
    """Build a multilayer perceptron: one hidden layer of `hidden` ReLU units, for images of any size."""
    channels, height, width = image_shape
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(channels * height * width, hidden),
        nn.ReLU(),
        nn.Linear(hidden, num_classes),
    )


def cnn(image_shape: tuple[int, int, int], num_classes: int, hidden: int) -> nn.Module:
    """Build a LeNet-like CNN (LeCun et al., 1989): two 5x5 convolutions of stride 2 (8, 16 channels), hidden units."""
    # On a CPU, strides instead of max-pooling make the forward pass ten times and the gradient three times as fast.
    channels, height, width = image_shape
    return nn.Sequential(
        nn.Conv2d(channels, 8, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(8, 16, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * ceil(height / 4) * ceil(width / 4), hidden),
        nn.ReLU(),
        nn.Linear(hidden, num_classes),
    )


MODELS: dict[str, Callable[[tuple[int, int, int], int, int], nn.Module]] = {"mlp": mlp, "cnn": cnn}
"""Our models by name: (image_shape, num_classes, hidden) -> module."""


def build(
    name: str, image_shape: tuple[int, int, int], num_classes: int, *, hidden: int, seed: int, batch_size: int = 2
) -> nn.Module:
    """Build the model called `name`; the same seed gives the same initial parameters.

    Parameters
    ----------
    name : str
        A key of `MODELS`, or the name of any classification model of `torchvision.models`. Torchvision's models expect
        three channels; an image with one channel is repeated.
    image_shape : tuple[int, int, int]
        Channels, height, width.
    num_classes : int
        The number of outputs of the last layer.
    hidden : int
        The width of the hidden layer in our models; torchvision's ignore it.
    seed : int
        Determines the initial parameters.
    batch_size : int (default: 2)
        The number of images in a mini-batch.

    Raises
    ------
    ConfigError
        When the name is unknown, or the model cannot be built for these images, or cannot learn from one at a time.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if name in MODELS:
            return MODELS[name](image_shape, num_classes, hidden)
        models = import_torchvision().models
        require("model", name, [*MODELS, *models.list_models(module=models)])
        try:
            module: nn.Module = models.get_model(name, weights=None, num_classes=num_classes)
        except TypeError as error:
            raise ConfigError(f"model = '{name}' cannot be built for {num_classes} classes: {error}") from None
        module = module if image_shape[0] == 3 else nn.Sequential(RepeatChannels(), module)
        try:
            outputs = deepcopy(module)(torch.zeros(2, *image_shape))
        except (RuntimeError, AssertionError, ValueError) as error:
            size = "x".join(map(str, image_shape))
            said = str(error).splitlines()[0]
            raise ConfigError(
                f"model = '{name}' cannot take images of {size}: {said}; image-size = 224 fits most of torchvision's"
            ) from None
        if not isinstance(outputs, torch.Tensor):
            raise ConfigError(f"model = '{name}' gives more than one output: use one that gives class scores alone")
        if batch_size == 1:
            _refuse_single(name, module, torch.zeros(1, *image_shape))
        return module


def _refuse_single(name: str, module: nn.Module, image: torch.Tensor) -> None:
    """Refuse a model whose normalisation takes several images, or several places in one."""
    try:
        deepcopy(module)(image)
    except ValueError as error:
        raise ConfigError(
            f"model = '{name}' cannot learn with batch-size = 1: {error}; use batch-size = 2 or more"
        ) from None


class RepeatChannels(nn.Module):
    """Turns a grey image into three equal channels."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Repeat [B, 1, H, W] to [B, 3, H, W]."""
        return images.expand(-1, 3, -1, -1)
