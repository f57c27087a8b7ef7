"""Labels by value and by name."""

import numpy as np
import pytest
import torch

from ross_flwr.config import ConfigError
from ross_flwr.data import Place
from ross_flwr.data.classes import numbered, renumbered
from ross_flwr.data.files import array_file

ROWS = np.arange(24)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([0.25, 0.5, 0.75], ("0.25", "0.5", "0.75")),
        ([90000, 90001, 90003], ("90000", "90001", "90003")),
        ([0, 1, 10**6], ("0", "1", "1000000")),
        ([-(2**40), 0, 2**62], None),
        (["ant", "bee", "cow"], ("ant", "bee", "cow")),
        ([0.0, 1.0, 2.0], ()),
        ([0, 1, 7], ()),
        ([False, True], ()),
    ],
    ids=str,
)
def test_labels_are_classes_by_their_value(tmp_path, values, names):
    labels = np.array(values)[ROWS % len(values)]
    np.savez(tmp_path / "set.npz", images=np.zeros((24, 2, 2), np.uint8), labels=labels)
    if names is None:
        with pytest.raises(ConfigError, match="labels count from 0"):
            array_file(Place(str(tmp_path / "set.npz")))
        return
    source = array_file(Place(str(tmp_path / "set.npz")))
    plain = [int(value) for value in values] if names == () else range(len(values))
    assert source.classes == names
    assert source.num_classes == max(plain) + 1
    assert source.train.labels.unique().tolist() == list(plain)


def test_a_class_has_one_number_in_training_and_test_data():
    (train, test), names = numbered([np.array(["b", "c"]), np.array(["c", "a", "b"])], "labels")
    assert [[names[i] for i in part] for part in (train, test)] == [["b", "c"], ["c", "a", "b"]]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ([np.linspace(0, 1, 400)], "labels has 400 different values in 400 examples, from 0.0 to 1.0"),
        ([np.array(["a"]), np.array([1])], "labels holds words in one part of the data and numbers in the other"),
        ([np.array(["2026-01-01"], dtype="datetime64[D]")], "labels holds datetime64.*whole numbers or words"),
    ],
)
def test_what_names_no_class_is_refused(columns, words):
    with pytest.raises(ConfigError, match=words):
        numbered(columns, "labels")


@pytest.mark.parametrize(
    ("labels", "classes", "known", "expected"),
    [
        ([0, 1, 2], ("c", "a", "b"), ("a", "b", "c"), [2, 0, 1]),
        ([0, 1], ("90001", "90003"), ("90000", "90001", "90002", "90003"), [1, 3]),
        ([2, 1], ("0", "1", "10"), (), [10, 1]),
        ([10, 2], (), ("0", "1", "10", "2"), [2, 3]),
        ([1, 0], (), ("ant", "bee"), [1, 0]),
        ([1, 0], ("ant", "bee"), (), [1, 0]),
        ([3, 0], (), (), [3, 0]),
        ([0], ("a", "unseen"), ("a",), [0]),
    ],
    ids=[
        "by name",
        "by value",
        "numerals",
        "by numerals",
        "names of numbers",
        "numbers of names",
        "numbers",
        "no example",
    ],
)
def test_other_data_is_tested_by_the_classes_of_the_models(labels, classes, known, expected):
    assert renumbered(torch.tensor(labels), classes, known, len(known) or 11).tolist() == expected


@pytest.mark.parametrize(
    ("classes", "known", "word"), [(("a", "d"), ("a", "b", "c"), "d"), ((), ("90000", "90001"), "0"), ((), (), "1")]
)
def test_a_class_that_the_models_do_not_know_is_refused(classes, known, word):
    with pytest.raises(ConfigError, match=f"the class '{word}', which the models do not know: they know "):
        renumbered(torch.tensor([0, 1]), classes, known, len(known) or 1)
