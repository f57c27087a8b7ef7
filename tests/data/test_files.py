"""Somebody's own files: folders of images, array files, Hugging Face data sets; and the cache of decoded images."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from ross_flwr.config import ConfigError
from ross_flwr.data import Place, load, sources
from ross_flwr.data.cache import cached
from ross_flwr.data.files import array_file
from ross_flwr.data.folders import image_folder
from ross_flwr.data.huggingface import huggingface

CIFAR10 = Path(__file__).parents[2].parent / "shared/data/cifar10"
RNG = np.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (30, 6, 5, 3), dtype=np.uint8)
LABELS = np.arange(30) % 3


@pytest.fixture(autouse=True)
def a_cache_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "ross-flwr"


def place(path, **settings):
    return Place(str(path), **settings)


def write_folder(folder, pixels=PIXELS):
    for i, (image, label) in enumerate(zip(pixels, LABELS, strict=True)):
        file = folder / "abc"[label] / f"{i:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
    return folder


def test_a_folder_of_class_folders_becomes_images_and_labels(tmp_path):
    write_folder(tmp_path / "set/train")
    write_folder(tmp_path / "set/test", PIXELS[::-1])
    (tmp_path / "set/train/d").mkdir()
    (tmp_path / "set/test/d").mkdir()
    source = image_folder(place(tmp_path / "set"))
    order = LABELS.argsort(kind="stable")
    assert np.array_equal(source.train.images.numpy(), PIXELS[order].transpose(0, 3, 1, 2))
    assert source.train.labels.tolist() == LABELS[order].tolist()
    assert np.array_equal(source.test.images.numpy(), PIXELS[::-1][order].transpose(0, 3, 1, 2))
    assert (source.num_classes, source.image_shape, source.scale) == (4, (3, 6, 5), 255)
    assert source.mean == pytest.approx((PIXELS / 255).mean((0, 1, 2)).tolist(), abs=1e-5)
    assert source.std == pytest.approx((PIXELS / 255).std((0, 1, 2)).tolist(), abs=1e-5)


def test_without_test_folders_a_fifth_of_each_class_is_held_out_always_the_same(tmp_path):
    source, again = (image_folder(place(write_folder(tmp_path / "set"))) for _ in range(2))
    assert source.test.labels.bincount().tolist() == [2, 2, 2]
    assert source.train.labels.bincount().tolist() == [8, 8, 8]
    assert torch.equal(source.test.images, again.test.images)


def test_images_of_two_sizes_take_image_size(tmp_path):
    write_folder(tmp_path)
    Image.fromarray(PIXELS[0].repeat(2, axis=0)).save(tmp_path / "a/00.png")
    with pytest.raises(ConfigError, match="image-size = 0 keeps images as they are, and these differ: 12×5 and 6×5"):
        image_folder(place(tmp_path))
    assert image_folder(place(tmp_path, image_size=8)).image_shape == (3, 8, 8)


@pytest.mark.parametrize(
    "names",
    [
        ("images", "labels", "test_images", "test_labels"),
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("x_train", "y_train", "x_test", "y_test"),
    ],
)
@pytest.mark.parametrize("suffix", ["npz", "pt"])
def test_an_array_file_is_read_whatever_the_usual_names(tmp_path, names, suffix):
    arrays = dict(zip(names, (PIXELS, LABELS[:, None], PIXELS[:7, ..., 0], LABELS[:7]), strict=True))
    arrays[names[2]] = PIXELS[:7]
    file = tmp_path / f"set.{suffix}"
    if suffix == "npz":
        np.savez(file, **arrays, owners=LABELS)
    else:
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        torch.save({**tensors, "owners": torch.from_numpy(LABELS)}, file)
    source = array_file(place(file))
    assert np.array_equal(source.train.images.numpy(), PIXELS.transpose(0, 3, 1, 2))
    assert source.train.labels.tolist() == source.owners.tolist() == LABELS.tolist()
    assert (len(source.test), source.num_classes) == (7, 3)
    assert load("file", str(file), num_classes=5).num_classes == 5
    with pytest.raises(ConfigError, match="num-classes = 2 is too few"):
        load("file", str(file), num_classes=2)


def test_real_pixels_stay_real(tmp_path):
    np.savez(tmp_path / "set.npz", images=PIXELS[..., 0] / 255, labels=LABELS)
    source = array_file(place(tmp_path / "set.npz"))
    assert (source.train.images.dtype, source.image_shape, source.scale) == (torch.float32, (1, 6, 5), 1)
    assert (len(source.train), len(source.test)) == (24, 6)


class Harmful:
    """What a pickle can do: make a file."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_nothing_is_unpickled(tmp_path):
    trace = tmp_path / "trace"
    torch.save({"images": Harmful(trace), "labels": Harmful(trace)}, tmp_path / "set.pt")
    np.savez(tmp_path / "set.npz", images=np.array([Harmful(trace)], dtype=object), labels=LABELS)
    for file in ("set.pt", "set.npz"):
        with pytest.raises(ConfigError, match="data-path = "):
            array_file(place(tmp_path / file))
    assert not trace.exists()


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"images": PIXELS}, "holds images: call them images, labels"),
        ({"images": PIXELS, "labels": LABELS[:5]}, "holds 30 images and 5 labels"),
        ({"images": PIXELS, "labels": LABELS - 1}, "a label is -1: labels count from 0"),
        (
            {"images": PIXELS, "labels": np.stack([LABELS, LABELS], 1)},
            r"labels has shape \(30, 2\): it takes one label",
        ),
        ({"images": PIXELS, "labels": LABELS + np.nan}, "labels holds NaN or infinity: every example needs a class"),
        ({"images": PIXELS, "labels": LABELS + 1j}, "labels holds complex128: labels are whole numbers or words"),
        ({"images": PIXELS + 1j, "labels": LABELS}, "images holds complex128: pixels are whole or real numbers"),
        ({"images": PIXELS + np.nan, "labels": LABELS}, "the images hold NaN or infinity"),
        ({"images": -1.0 * PIXELS, "labels": LABELS, "test_images": PIXELS, "test_labels": LABELS}, "of both signs"),
        ({"images": PIXELS.reshape(30, -1), "labels": LABELS}, "images has shape .*n × height × width"),
        (
            {"images": PIXELS.astype(int) * 300, "labels": LABELS},
            "whole numbers from 0 to 76500: pixels go from 0 to 255",
        ),
        ({"images": PIXELS[:0], "labels": LABELS[:0]}, "without examples"),
    ],
)
def test_arrays_that_are_no_data_set_are_refused(tmp_path, arrays, words):
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(ConfigError, match=words):
        array_file(place(tmp_path / "set.npz"))


def test_a_path_may_begin_with_the_home_folder_and_no_other_user_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_folder(tmp_path / "images")
    np.savez(tmp_path / "set.npz", images=PIXELS, labels=LABELS)
    datasets = pytest.importorskip("datasets", reason="needs the extra 'data'")
    columns = {"image": [Image.fromarray(image) for image in PIXELS], "label": LABELS.tolist()}
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    (tmp_path / "hub").mkdir()
    datasets.Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "hub" / "train.parquet")
    for name, file in (("image-folder", "images"), ("file", "set.npz"), ("huggingface", "hub")):
        source = load(name, f"~/{file}")
        assert len(source.train) + len(source.test) == len(PIXELS)
        with pytest.raises(ConfigError, match="data-path = '~nobody-here/"):
            load(name, f"~nobody-here/{file}")


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_images_of_16_bits_are_read_in_either_order_of_bytes_beside_arrays_of_words(tmp_path, order):
    pixels = (PIXELS.astype(np.uint32) * 257).astype(order)
    np.savez(tmp_path / "set.npz", images=pixels, labels=LABELS, names=np.array(["a", "b", "c"]))
    source = array_file(place(tmp_path / "set.npz"))
    assert source.scale == 65535
    assert source.mean == pytest.approx((PIXELS / 255).mean((0, 1, 2)).tolist(), abs=0.03)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({1: torch.zeros(3), "labels": torch.zeros(3)}, "holds 1, labels: call them images, labels"),
        (
            {"images": torch.eye(30).to_sparse(), "labels": torch.zeros(30)},
            "images is a sparse tensor: store a dense one",
        ),
        ({"images": torch.zeros(30, 4, 4, dtype=torch.complex64), "labels": torch.zeros(30)}, "images holds complex64"),
        ([torch.zeros(3)], "cannot be read as arrays by name"),
    ],
)
def test_tensors_that_are_no_data_set_are_refused(tmp_path, arrays, words):
    torch.save(arrays, tmp_path / "set.pt")
    with pytest.raises(ConfigError, match=words):
        array_file(place(tmp_path / "set.pt"))


def test_other_types_of_tensors_are_read(tmp_path):
    images = torch.rand(30, 4, 4)
    for kind in (torch.bfloat16, torch.float16, torch.float64):
        tensors = {"images": images.to(kind).requires_grad_(), "labels": torch.arange(30.0) % 3}
        torch.save(tensors, tmp_path / "set.pt")
        found = array_file(place(tmp_path / "set.pt"))
        assert (found.train.images.dtype, found.num_classes) == (torch.float32, 3)


def test_linux_can_drop_the_images_of_a_pt_file_from_memory_unless_pytorch_before_1_6_wrote_it(tmp_path):
    images, labels = torch.zeros(30, 1, 4, 4, dtype=torch.uint8), torch.arange(30) % 3
    arrays = {"images": images, "labels": labels, "test_images": images, "test_labels": labels}
    for name, mapped in (("new.pt", True), ("old.pt", False)):
        torch.save(arrays, tmp_path / name, _use_new_zipfile_serialization=mapped)
        source = array_file(place(tmp_path / name))
        assert (str(tmp_path / name) in Path("/proc/self/maps").read_text()) == mapped
        assert torch.equal(source.train.images, images)


@pytest.mark.parametrize("name", ["image-folder", "file", "huggingface"])
@pytest.mark.parametrize("path", ["", "nowhere"])
def test_a_path_that_leads_nowhere_is_refused(name, path):
    with pytest.raises(ConfigError, match=f"data-path = '{path}'"):
        load(name, path)


@pytest.mark.parametrize("names", ["", "string", "large_string"], ids=["numbers", "names", "names of newer pandas"])
def test_a_saved_hugging_face_set_is_read_with_its_owners(tmp_path, names):
    datasets = pytest.importorskip("datasets", reason="needs the extra 'data'")
    columns = {
        "picture": [Image.fromarray(image) for image in PIXELS],
        "kind": ["abc"[label] for label in LABELS] if names else LABELS.tolist(),
        "writer": [f"w{i // 10}" for i in range(30)],
    }
    kind = datasets.Value(names) if names else datasets.ClassLabel(names=["a", "b", "c", "d"])
    features = datasets.Features({"picture": datasets.Image(), "kind": kind, "writer": datasets.Value("string")})
    made = datasets.Dataset.from_dict(columns, features=features)
    datasets.DatasetDict({"train": made, "test": made.select(range(6))}).save_to_disk(str(tmp_path / "set"))
    settings = {"label_column": "kind"} if names else {}
    source = huggingface(place(tmp_path / "set", owner_column="writer", **settings))
    assert np.array_equal(source.train.images.numpy(), PIXELS.transpose(0, 3, 1, 2))
    assert source.train.labels.tolist() == LABELS.tolist()
    assert source.owners.tolist() == [i // 10 for i in range(30)]
    assert (len(source.test), source.num_classes) == (6, 3 if names else 4)
    with pytest.raises(ConfigError, match=r"owner-column = 'author' is not a column .*: picture, kind, writer are"):
        huggingface(place(tmp_path / "set", owner_column="author", **settings))
    if names:
        with pytest.raises(ConfigError, match="label-column = '' does not say"):
            huggingface(place(tmp_path / "set"))


def test_without_datasets_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ConfigError, match=r'pip install .*"datasets>='):
        huggingface(place(tmp_path))


@pytest.mark.skipif(not CIFAR10.is_dir(), reason=f"no CIFAR-10 in {CIFAR10}")
def test_cifar10_in_parquet_is_whole():
    pytest.importorskip("datasets", reason="needs the extra 'data'")
    source = load("huggingface", str(CIFAR10))
    assert source.image_shape == (3, 32, 32)
    assert source.train.labels.bincount().tolist() == [5000] * 10
    assert source.test.labels.bincount().tolist() == [1000] * 10


def test_decoded_images_are_kept_until_a_file_changes(tmp_path, a_cache_of_its_own):
    write_folder(tmp_path / "set")
    first = image_folder(place(tmp_path / "set"))
    (kept,) = a_cache_of_its_own.iterdir()
    assert kept.suffix == ".safetensors"
    assert torch.equal(image_folder(place(tmp_path / "set")).train.images, first.train.images)
    Image.fromarray(255 - PIXELS[0]).save(tmp_path / "set/a/00.png", compress_level=0)
    assert image_folder(place(tmp_path / "set")).mean != first.mean
    assert len(list(a_cache_of_its_own.iterdir())) == 2


def test_a_damaged_or_forbidden_cache_costs_time_only(tmp_path, a_cache_of_its_own, monkeypatch):
    calls = []

    def decode():
        calls.append(1)
        return {"x": torch.arange(3)}

    def ask():
        assert cached("key", decode)["x"].tolist() == [0, 1, 2]
        return len(calls)

    assert [ask(), ask()] == [1, 1]
    (file,) = a_cache_of_its_own.iterdir()
    file.write_bytes(b"cut short")
    assert [ask(), ask()] == [2, 2]
    (tmp_path / "occupied").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "occupied"))
    assert [ask(), ask()] == [3, 4]


KILLED = """
import os, signal, sys, torch
from ross_flwr.data import cache

def killed(tensors, path):
    with open(path, "wb") as part:
        part.write(b"half a fi")
    os.kill(os.getpid(), signal.SIGKILL)

cache.save_file = killed
cache.cached(sys.argv[1], lambda: {"x": torch.arange(3)})
"""


def test_what_killed_processes_leave_in_the_cache_does_not_pile_up(a_cache_of_its_own):
    for key in "abc":
        subprocess.run([sys.executable, "-c", KILLED, key])
        assert len(list(a_cache_of_its_own.iterdir())) == 1
    cached("d", lambda: {"x": torch.arange(3)})
    (file,) = a_cache_of_its_own.iterdir()
    assert file.suffix == ".safetensors"


@pytest.mark.parametrize(("name", "holds_out"), [("food101", False), ("eurosat", True), ("svhn", False)])
def test_sets_of_torchvision_are_read_as_arrays_or_as_images(name, holds_out, tmp_path, monkeypatch):
    class Set:
        def __init__(self, _root, *, download, split="train"):
            self.split, self.classes = split, ["a", "b", "c", "never"]

    class Files(Set):
        def __len__(self):
            return 30

        def __getitem__(self, i):
            return Image.fromarray(PIXELS[i]), int(LABELS[i])

    class Arrays(Set):
        data, labels = PIXELS.transpose(0, 3, 1, 2), LABELS

    torchvision = SimpleNamespace(datasets=SimpleNamespace(Food101=Files, EuroSAT=Files, SVHN=Arrays))
    monkeypatch.setattr(sources, "import_torchvision", lambda: torchvision)
    source = sources.SOURCES[name](place(tmp_path))
    assert (source.image_shape, source.num_classes) == ((3, 6, 5), 4)
    assert (len(source.train), len(source.test)) == ((24, 6) if holds_out else (30, 30))
    if not holds_out:
        assert np.array_equal(source.train.images.numpy(), PIXELS.transpose(0, 3, 1, 2))
        assert source.test.labels.tolist() == LABELS.tolist()
