"""Folders of images, as people and programs leave them."""

import re

import numpy as np
import pytest
from PIL import Image

from ross_flwr.config import ConfigError
from ross_flwr.data import Place
from ross_flwr.data.folders import image_folder


@pytest.fixture(autouse=True)
def a_cache_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def read(folder, *files):
    """Write files and read their folder; an image is as bright as its name says."""
    for name in files:
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if digits := re.fullmatch(r"\d+", file.stem):
            Image.fromarray(np.full((4, 4), int(digits[0]), np.uint8)).save(file)
        else:
            file.write_bytes(b"not an image")
    return image_folder(Place(str(folder)))


def found(source):
    parts = ((part.images[:, 0, 0, 0].tolist(), part.labels.tolist()) for part in (source.train, source.test))
    return [dict(zip(*part, strict=True)) for part in parts]


CATS, DOGS = ("cat/200.png", "cat/202.png"), ("dog/201.png", "dog/203.png")
TRAIN, TEST = {200: 0, 202: 0, 201: 1, 203: 1}, {204: 0, 205: 1}


@pytest.mark.parametrize(
    ("train", "test"),
    [("train", "test"), ("Train", "Test"), ("training", "testing"), ("TRAIN", "val"), ("set/train", "set/validation")],
)
def test_training_and_test_folders_are_found_by_any_usual_name(tmp_path, train, test):
    training = [f"{train}/{file}" for file in CATS + DOGS]
    assert found(read(tmp_path / "set", *training, f"{test}/cat/204.png", f"{test}/dog/205.png")) == [TRAIN, TEST]


def test_a_test_folder_is_preferred_to_one_for_validation_and_may_lack_a_class(tmp_path):
    training = [f"train/{file}" for file in CATS + DOGS]
    assert found(read(tmp_path, *training, "val/cat/206.png", "test/dog/205.png")) == [TRAIN, {205: 1}]


def test_what_file_managers_archivers_and_notebooks_leave_is_no_data(tmp_path):
    left = [".ipynb_checkpoints/207.png", "cat/.ipynb_checkpoints/207.png", "__MACOSX/cat/208.png", "cat/._200.png"]
    left += ["cat/._x.png", "cat/Thumbs.db", "readme.txt"]
    source = read(tmp_path, *CATS, *DOGS, *left)
    assert source.classes == ("cat", "dog")
    assert {**found(source)[0], **found(source)[1]} == TRAIN


def test_a_folder_around_all_others_is_no_class(tmp_path):
    source = read(tmp_path, *(f"archive/animals/{file}" for file in CATS + DOGS), "__MACOSX/._animals")
    assert source.classes == ("cat", "dog")


def test_classes_may_be_called_train_and_test_and_hold_folders(tmp_path):
    source = read(tmp_path, "train/200.JPG", "train/202.png", "test/201.png", "test/203.png", "car/red/204.png")
    assert source.classes == ("car", "test", "train")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["val/cat/204.png", "test/dog/205.png"], "holds test, val and no training data: call it train"),
        (
            ["train/cat/204.png", "test/dog/205.png"],
            "different class folders in test and train: 'dog' is in test alone",
        ),
        (["200.png", "201.png"], "holds no class folders with images in them"),
        (["cat/notes.txt", "dog/notes.txt"], "holds no class folders with images in them"),
        (["cat/200.png", "cat/broken.png", "dog/201.png"], r"cat/broken\.png is not an image that can be read"),
    ],
)
def test_what_is_not_such_a_folder_is_refused(tmp_path, files, words):
    with pytest.raises(ConfigError, match=words):
        read(tmp_path, *files)
