"""Images as tensors: decoded from files, and the scale of their pixels."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ross_flwr.config import ConfigError
from ross_flwr.extras import import_extra

__all__ = ["channels_first", "common_scale", "decode", "pixel_range"]

FULL = (1.0, 16.0, 255.0, 65535.0)
"""The scales of shares, of the digits, of bytes and of 16-bit images."""

_GREY = ("1", "L", "LA", "La")
_DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
"""Modes of Pillow: grey in 8 bits, and grey in more, which Pillow would cut to 255."""


def pixel_range(images: Tensor) -> tuple[float, bool]:
    """Return the largest value that a pixel of such images can have, and whether their values have a sign.

    It is the smallest number of `FULL` that no pixel exceeds, if some pixel exceeds half of it; otherwise, it is the
    largest value there is. Standardised images have values of both signs, and 1 as their scale.

    Raises
    ------
    ConfigError
        If a pixel is NaN or infinite.

    Examples
    --------
    >>> [pixel_range(torch.tensor(pixels)) for pixels in ([0, 200, 7], [0.0, 0.9], [0, 90], [-2.0, 2.5])]
    [(255.0, False), (1.0, False), (90.0, False), (1.0, True)]
    """
    low, high = (float(each) for each in images.aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        raise ConfigError("the images hold NaN or infinity: remove or replace such examples")
    if low < -high / 10:
        return 1.0, True
    full = next((each for each in FULL if high <= each), high)
    return (full if high > full / 2 else high) or 1.0, False


def common_scale(found: tuple[float, bool], known: tuple[float, bool]) -> float:
    """Return the scale of images whose range is `found`, beside images whose range is `known`.

    Raises
    ------
    ConfigError
        If the two ranges do not say how the images compare.

    Examples
    --------
    >>> common_scale((255.0, False), (1.0, False)), common_scale((90.0, False), (255.0, False))
    (255.0, 255.0)
    """
    if found[1] == known[1]:
        if 1 / 8 <= found[0] / known[0] <= 2:
            return known[0]
        if found[0] in FULL and known[0] in FULL:
            return found[0]
    ranges = [f"up to {scale:g}" if not signed else "of both signs" for scale, signed in (found, known)]
    raise ConfigError(
        f"some images have pixels {ranges[0]}, and those that models learn from have pixels {ranges[1]}: store them "
        "on one scale, since nothing says how the two compare"
    )


def decode(images: Iterable[tuple[str, Any]], size: int) -> Tensor:
    """Stack images as (n, C, H, W): grey if all are grey, else RGB; resized to `size` × `size` unless it is 0.

    Images of 8 bits a channel become uint8, grey images of more bits float32, with the values that they have.

    Parameters
    ----------
    images : iterable of (str, Any)
        What to call each image in an error, and a PIL image, a path or an open file.
    size : int
        Height and width; 0 to keep images as they are.

    Raises
    ------
    ConfigError
        If one cannot be read, they differ in size and `size` is 0, or only some have more than 8 bits.
    """
    arrays: list[NDArray[Any]] = []
    for name, origin in images:
        array = _array(name, origin, size)
        first = arrays[0] if arrays else array
        if array.shape[:2] != first.shape[:2]:
            (height, width), other = first.shape[:2], array.shape
            raise ConfigError(
                f"image-size = 0 keeps images as they are, and these differ: {height}×{width} and "
                f"{other[0]}×{other[1]}; image-size = 32, say, makes them alike"
            )
        if array.dtype != first.dtype:
            bits = "8 bits" if array.dtype == np.uint8 else "more than 8 bits"
            raise ConfigError(f"{name} has {bits} a pixel, unlike the images before it: store all in the same format")
        arrays.append(array)
    if any(array.ndim == 3 for array in arrays):
        arrays = [array if array.ndim == 3 else np.repeat(array[..., None], 3, axis=2) for array in arrays]
    return channels_first(torch.from_numpy(np.stack(arrays)) if arrays else torch.empty(0, 1, 1, dtype=torch.uint8))


def _array(name: str, origin: Any, size: int) -> NDArray[Any]:
    """Return an image as uint8, (H, W) or (H, W, 3), or as float32, (H, W)."""
    pillow = import_extra("PIL.Image", "data")
    try:
        image = origin if isinstance(origin, pillow.Image) else pillow.open(origin)
        image.load()
    except pillow.UnidentifiedImageError:
        raise ConfigError(f"{name} is not an image that can be read: replace or remove it") from None
    except (OSError, SyntaxError, ValueError, pillow.DecompressionBombError) as error:
        said = getattr(error, "strerror", None) or error
        raise ConfigError(f"{name} cannot be read as an image: {said}; replace or remove it") from None
    if image.mode in _DEEP:
        pixels: NDArray[Any] = np.asarray(image).astype(np.float32)
        if not size:
            return pixels
        resized = np.asarray(pillow.fromarray(pixels).resize((size, size)))
        return resized.clip(pixels.min(), pixels.max())  # an interpolation overshoots
    made = image.convert("L" if image.mode in _GREY else "RGB")
    return np.asarray(made.resize((size, size)) if size else made)


def channels_first(images: Tensor) -> Tensor:
    """Return (n, H, W) or (n, H, W, C) images as (n, C, H, W)."""
    return images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
