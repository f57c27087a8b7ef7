"""One scale of images, whatever files and types they come in."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from ross_flwr.config import ConfigError
from ross_flwr.data import Place, normalize
from ross_flwr.data.files import array_file
from ross_flwr.data.folders import image_folder
from ross_flwr.data.pixels import common_scale, decode, pixel_range

GREY = np.random.default_rng(0).integers(0, 256, (12, 6, 5), dtype=np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (12, 6, 5, 3), dtype=np.uint8)


def images(*arrays, mode=None):
    for i, array in enumerate(arrays):
        made = Image.fromarray(array)
        yield f"image {i}", made.convert(mode) if mode else made


@pytest.fixture
def file(tmp_path):
    """Write arrays into a file, and read it as a source."""

    def read(**arrays):
        np.savez(tmp_path / "set.npz", **arrays)
        return array_file(Place(str(tmp_path / "set.npz")))

    return read


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32], ids=["16 bits", "I", "F"])
def test_grey_images_of_more_than_8_bits_keep_their_values(kind):
    deep = [image.astype(kind) * 257 for image in GREY]
    decoded = decode(images(*deep), 0)
    assert np.array_equal(decoded[:, 0].numpy(), GREY * np.float32(257))
    assert pixel_range(decoded) == (65535, False)
    smaller = decode(images(*deep), 3)
    assert smaller.shape == (12, 1, 3, 3)
    assert 0 <= smaller.min() < 20_000 < 40_000 < smaller.max() <= 65535


def test_a_16_bit_file_is_read_as_the_same_data_in_8_bits(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, factor, kind in (("bytes", 1, np.uint8), ("words", 257, np.uint16)):
        for i, image in enumerate(GREY):
            path = tmp_path / name / "ab"[i % 2] / f"{i:02}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.astype(kind) * kind(factor)).save(path)
    small, large = (image_folder(Place(str(tmp_path / name))) for name in ("bytes", "words"))
    assert (small.scale, large.scale) == (255, 65535)
    torch.testing.assert_close(normalize(small.train.images, small), normalize(large.train.images, large))


def test_one_grey_image_among_coloured_ones_takes_no_colour_from_the_others():
    for order in ([GREY[0], COLOUR[0]], [COLOUR[0], GREY[0]]):
        decoded = decode(images(*order), 0)
        assert all(
            np.array_equal(
                found.numpy().transpose(1, 2, 0), array if array.ndim == 3 else array[..., None].repeat(3, 2)
            )
            for found, array in zip(decoded, order, strict=True)
        )
    assert decode(images(GREY[0], mode="LA"), 0).shape == (1, 1, 6, 5)


def test_images_of_8_and_of_more_bits_are_not_mixed():
    with pytest.raises(ConfigError, match="image 1 has more than 8 bits a pixel, unlike the images before it"):
        decode(images(GREY[0], GREY[1].astype(np.float32)), 0)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "a is not an image that can be read: replace or remove it"),
        (b"not an image", "a is not an image that can be read"),
        ("cut", "a cannot be read as an image: .*truncated.*; replace or remove it"),
        (None, "a cannot be read as an image: No such file or directory; replace or remove it"),
    ],
    ids=["empty", "text", "cut short", "absent"],
)
def test_an_image_that_cannot_be_read_is_named(tmp_path, content, words):
    if content == "cut":
        whole = io.BytesIO()
        Image.fromarray(COLOUR.reshape(24, -1, 3)).save(whole, "PNG")
        content = whole.getvalue()[:200]
    if content is not None:
        (tmp_path / "a").write_bytes(content)
    with pytest.raises(ConfigError, match=words):
        decode([("a", tmp_path / "a")], 0)


@pytest.mark.parametrize(
    ("train", "test"),
    [
        (np.uint8(1), np.float32(1 / 255)),
        (np.float32(1), np.uint8(1)),
        (np.float32(1 / 255), np.float32(1)),
        (np.uint16(257), np.uint8(1)),
        (np.float64(1 / 255), np.uint16(257)),
    ],
    ids=["bytes, shares", "real bytes, bytes", "shares, real bytes", "words, bytes", "shares, words"],
)
def test_training_and_test_images_of_two_types_are_brought_to_one_scale(file, train, test):
    """The same pixels, as whole numbers, as real numbers and as shares of one."""
    labels = np.arange(12) % 2
    arrays = {"images": GREY.astype(train.dtype) * train, "test_images": GREY.astype(test.dtype) * test}
    source = file(**arrays, labels=labels, test_labels=labels)
    found, expected = (normalize(part.images, source) for part in (source.test, source.train))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert source.train.images.max() / source.scale == pytest.approx(1)


def test_the_scale_of_digits_is_16_in_any_type(file):
    pixels = GREY % 17
    for kind in (np.uint8, np.int64, np.float32):
        assert file(images=pixels.astype(kind), labels=np.arange(12) % 2).scale == 16


def test_standardised_images_stay_as_they_are(file):
    pixels = np.random.default_rng(0).standard_normal((12, 6, 5)).astype(np.float32)
    source = file(images=pixels, labels=np.arange(12) % 2)
    assert (source.scale, source.signed) == (1, True)


@pytest.mark.parametrize(
    ("found", "known", "scale"),
    [
        ((90.0, False), (255.0, False), 255),  # dark images
        ((0.4, False), (1.0, False), 1),
        ((15.0, False), (16.0, False), 16),
        ((1.0, False), (16.0, False), 1),
        ((255.0, False), (16.0, False), 255),
        ((1.0, True), (1.0, True), 1),
    ],
)
def test_ranges_that_can_be_compared_have_a_scale(found, known, scale):
    assert common_scale(found, known) == scale


@pytest.mark.parametrize(
    ("found", "known"),
    [
        ((1.0, False), (90.0, False)),
        ((0.06, False), (16.0, False)),
        ((255.0, False), (90.0, False)),
        ((255.0, False), (1.0, True)),
        ((1.0, True), (1.0, False)),
    ],
)
def test_others_are_refused(found, known):
    with pytest.raises(ConfigError, match="store them on one scale, since nothing says how the two compare"):
        common_scale(found, known)
