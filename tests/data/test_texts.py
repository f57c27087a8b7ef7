"""Texts: windows of several sources, test data from other files, and what is wrong told in one sentence."""

import re

import numpy as np
import pytest
import torch

from ross_flwr.config import ConfigError
from ross_flwr.data import Place, read_text


def write(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return Place(str(root))


def texts(rows):
    """Every window with the byte that follows it, as text."""
    windows = torch.cat([rows.inputs, rows.targets[:, -1:]], 1)
    return [bytes(each.tolist()).decode() for each in windows]


def test_windows_cover_a_source_once_and_no_file_is_both_trained_and_tested_on(tmp_path):
    letters = {f"a/{c}.txt": c * 17 for c in "bcdefghijk"} | {
        "x/one.txt": "0123456789" * 10,
        "x/picture.png": b"\0" * 99,
    }
    found = read_text("folder", write(tmp_path, letters), context=4)
    assert (found.classes, found.owners.tolist()) == (("a", "x"), found.train.labels.tolist())
    train, test = texts(found.train), texts(found.test)
    assert "".join(each[:-1] for each in train[found.train.labels.tolist().index(1) :]) == ("0123456789" * 8)[:76]
    assert len(test) == (2 * 17 - 1) // 4 + 4  # two files of ten of a; of the one of x its last fifth
    assert not set("".join(train[:30])) & set("".join(test[:8]))
    assert torch.equal(found.train.inputs[:, 1:], found.train.targets[:, :-1])


def test_the_standard_library_is_read_as_much_of_each_package_as_asked_for():
    found = read_text("python(kib=4, test-kib=1)", Place(), context=31)
    assert found.num_classes == 12
    assert found.train.labels.bincount().tolist() == [4095 // 31] * 12
    assert found.test.labels.bincount().tolist() == [1023 // 31] * 12
    assert found.train.inputs.dtype == torch.uint8


@pytest.mark.parametrize(
    ("name", "files", "error"),
    [
        ("folder", {}, "holds no text file"),
        ("folder", {"a.txt": "", "b.bin": bytes(9)}, "holds no text file"),
        (
            "folder",
            {"a.txt": "too short"},
            "source 'a.txt' has 9 bytes, which are too few to train and test on windows of 5",
        ),
        ("prose", {}, "dataset = 'prose' is not known: use one of folder, huggingface, python"),
        ("python(mib=1)", {}, "python takes kib, test-kib, vocabulary and got mib"),
    ],
)
def test_a_text_that_cannot_be_learned_from_is_refused_in_one_sentence(tmp_path, name, files, error):
    with pytest.raises(ConfigError, match=re.escape(error)):
        read_text(name, write(tmp_path, files), context=4)


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="is not a folder: dataset = 'folder' takes one of text files"):
        read_text("folder", Place(str(tmp_path / np.base_repr(7))), context=4)
