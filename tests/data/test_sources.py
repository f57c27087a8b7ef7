"""The data sources: what they hold, how they are normalised, what they refuse."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ross_flwr.config import ConfigError
from ross_flwr.data import SOURCES, Examples, Place, Source, load, normalize, sources

DIGITS_SHA256 = "1534eb1eb0904fb93a82168deed130355991952891681778d0f09d247ffa314b"
DIGITS_TEST_SPLIT = "b79cee8a65614497"
MNIST = Path(__file__).parents[2].parent / "shared/data"
needs_mnist = pytest.mark.skipif(not (MNIST / "MNIST/raw").is_dir(), reason=f"no MNIST in {MNIST}")


def all_examples(source):
    return (
        torch.cat([source.train.images, source.test.images]),
        torch.cat([source.train.labels, source.test.labels]),
    )


def as_rows(images, labels):
    return sorted((int(label), image.numpy().tobytes()) for image, label in zip(images, labels, strict=True))


def digest(*tensors):
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest()[:16]


def test_the_digits_are_those_of_scikit_learn_each_once():
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
    published = datasets.load_digits()
    images = torch.from_numpy(published.images).to(torch.uint8).unsqueeze(1)
    assert as_rows(*all_examples(load("digits"))) == as_rows(images, published.target)


def test_the_digits_file_is_in_the_order_of_scikit_learn():
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
    records = map(json.loads, Path(sources.__file__).with_name("digits.jsonl").read_text().splitlines()[1:])
    embedded = [(record["label"], [int(pixel, 17) for pixel in record["pixels"]]) for record in records]
    published = datasets.load_digits()
    assert embedded == list(zip(published.target, published.data.astype(int).tolist(), strict=True))


def test_the_digits_file_is_as_it_was_made_and_says_where_it_is_from():
    content = Path(sources.__file__).with_name("digits.jsonl").read_bytes()
    head = content.splitlines()[0].decode()
    assert hashlib.sha256(content).hexdigest() == DIGITS_SHA256
    assert len(content) < 300_000
    assert all(word in head for word in ("CC BY 4.0", "https://doi.org/10.24432/C50P49", "Alpaydin", "1998"))


def test_the_digits_split_never_changes():
    source = load("digits")
    assert digest(source.test.images, source.test.labels) == DIGITS_TEST_SPLIT


def test_the_digits_split_is_balanced_and_repeats_no_image():
    source = load("digits")
    assert (len(source.train), len(source.test)) == (1437, 360)
    assert source.test.labels.bincount().tolist() == [36] * 10
    assert len(set(as_rows(*all_examples(source)))) == 1797
    assert (source.image_shape, source.num_classes, source.scale) == ((1, 8, 8), 10, 16)


@needs_mnist
def test_mnist_has_the_published_numbers_of_each_digit():
    source = load("mnist", str(MNIST))
    assert source.train.labels.bincount().tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949,
    ]  # fmt: skip
    assert source.test.labels.bincount().tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert source.train.images.shape == (60_000, 1, 28, 28)
    assert source.test.images.shape == (10_000, 1, 28, 28)
    assert (source.train.images.dtype, source.train.labels.dtype) == (torch.uint8, torch.int64)


@pytest.mark.parametrize("name", ["digits", pytest.param("mnist", marks=needs_mnist)])
def test_normalised_training_images_have_mean_zero_and_deviation_one(name):
    source = load(name, "" if name == "digits" else str(MNIST))
    images = normalize(source.train.images, source)
    assert images.dtype == torch.float32
    assert images.mean().item() == pytest.approx(0, abs=1e-3)
    assert images.std().item() == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_normalising_follows_the_formula_by_channel_and_leaves_its_input_alone(dtype):
    nothing = Examples(torch.empty(0, 3, 4, 5), torch.empty(0, dtype=torch.int64))
    source = Source(nothing, nothing, 10, mean=(0.1, 0.5, 0.9), std=(0.2, 0.3, 0.4), scale=255)
    images = torch.randint(0, 256, (7, 3, 4, 5), generator=torch.Generator().manual_seed(0)).to(dtype)
    before = images.clone()
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (source.mean, source.std))
    torch.testing.assert_close(normalize(images, source), (before / 255 - mean) / std)
    assert torch.equal(images, before)


def test_taken_examples_keep_their_labels_and_the_order_asked_for():
    train = load("digits").train
    indices = torch.tensor([5, 0, 5])
    taken = train.take(indices)
    assert len(taken) == 3
    assert torch.equal(taken.images, train.images[indices])
    assert torch.equal(taken.labels, train.labels[indices])


def test_a_source_is_read_once_in_a_process():
    assert load("digits") is load("digits", download=False)


def test_colour_images_come_channels_first(monkeypatch):
    rng = np.random.default_rng(0)

    def stand_in(_root, *, train, download):
        assert not download
        count = 6 if train else 4
        data = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        return SimpleNamespace(data=data, targets=list(range(count)), classes=["a"] * 10)

    torchvision = SimpleNamespace(datasets=SimpleNamespace(CIFAR10=stand_in))
    monkeypatch.setattr(sources, "import_torchvision", lambda: torchvision)
    source = SOURCES["cifar10"](Place())
    rng = np.random.default_rng(0)
    red = rng.integers(0, 256, (6, 32, 32, 3), dtype=np.uint8)[..., 0]
    assert source.image_shape == (3, 32, 32)
    assert source.num_classes == 10
    assert np.array_equal(source.train.images[:, 0].numpy(), red)
    assert source.test.labels.tolist() == [0, 1, 2, 3]
    assert normalize(source.train.images, source).shape == (6, 3, 32, 32)


OWN_FILES = ("digits", "image-folder", "file", "huggingface")


@pytest.mark.parametrize("name", [name for name in SOURCES if name not in OWN_FILES])
def test_missing_files_are_refused_with_the_folder_the_key_and_the_remedy(name, tmp_path):
    with pytest.raises(ConfigError) as refusal:
        load(name, str(tmp_path))
    message = str(refusal.value)
    assert all(word in message for word in (str(tmp_path.resolve()), "data-path", "download = true"))


@needs_mnist
def test_a_file_cut_short_is_refused_like_a_missing_one(tmp_path):
    raw = tmp_path / "MNIST/raw"
    raw.mkdir(parents=True)
    for file in (MNIST / "MNIST/raw").iterdir():
        (raw / file.name).write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ConfigError, match="does not hold all of MNIST"):
        load("mnist", str(tmp_path))


def test_a_download_that_fails_says_why(monkeypatch, tmp_path):
    def offline(_root, **_):
        raise OSError("no route to host")

    torchvision = SimpleNamespace(datasets=SimpleNamespace(MNIST=offline))
    monkeypatch.setattr(sources, "import_torchvision", lambda: torchvision)
    with pytest.raises(ConfigError, match=r"data-path.*no route to host"):
        load("mnist", str(tmp_path), download=True)


def test_an_unknown_source_is_refused_with_the_nearest_known_one():
    with pytest.raises(ConfigError, match=r"dataset = 'mnits' is not known.*did you mean 'mnist'"):
        load("mnits")


def test_every_source_is_described_in_one_line():
    assert all(loader.__doc__ and "\n" not in loader.__doc__ for loader in SOURCES.values())


def test_importing_the_data_room_imports_neither_torchvision_nor_flower():
    code = "import sys, ross_flwr.data; print({'torchvision', 'flwr', 'ray'} & set(sys.modules) or 'none')"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "none"
