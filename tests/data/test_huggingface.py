"""Hugging Face data sets whose rows, columns or parts are not as one would wish."""

import datetime
import io

import numpy as np
import pytest
from PIL import Image

from ross_flwr.config import ConfigError
from ross_flwr.data import Place
from ross_flwr.data.huggingface import huggingface

datasets = pytest.importorskip("datasets", reason="needs the extra 'data'")

PICTURES = [Image.fromarray(np.full((4, 4), 10 * i, np.uint8)) for i in range(12)]
LABELS = [i % 3 for i in range(12)]


@pytest.fixture(autouse=True)
def a_cache_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def part(labels=LABELS, kind="int64", images=PICTURES, column="label"):
    made = datasets.Value(kind) if isinstance(kind, str) else kind
    features = datasets.Features({"image": datasets.Image(), column: made})
    return datasets.Dataset.from_dict({"image": images, column: labels}, features=features)


def read(tmp_path, train, test=None):
    parts = {"train": train} if test is None else {"train": train, "test": test}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "set"))
    return huggingface(Place(str(tmp_path / "set"), label_column="label"))


def cut_short():
    whole = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    Image.fromarray(noise).save(whole, "PNG")
    return {"bytes": whole.getvalue()[:400], "path": None}


@pytest.mark.parametrize("kind", ["names", "words"])
def test_a_class_keeps_its_number_where_the_test_data_names_the_classes_in_another_order(tmp_path, kind):
    orders = [["ant", "bee", "cow"], ["cow", "ant", "bee"]]
    words = [orders[0][label] for label in LABELS]
    kinds = [datasets.ClassLabel(names=order) for order in orders]
    labels = [order.index(word) for order in orders[1:] for word in words]
    test = part(labels, kinds[1]) if kind == "names" else part(words, "string")
    source = read(tmp_path, part(LABELS, kinds[0]), test)
    assert source.classes == ("ant", "bee", "cow")
    assert source.train.labels.tolist() == source.test.labels.tolist() == LABELS


def test_fractions_are_classes(tmp_path):
    source = read(tmp_path, part([(label + 1) / 4 for label in LABELS], "float32"))
    assert source.classes == ("0.25", "0.5", "0.75")
    assert source.train.labels.bincount().tolist() == [3, 3, 3]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda: [part([None, None, *LABELS[2:]])], "column 'label' of .* is empty in 2 of 12 rows: remove them"),
        (lambda: [part([-1, *LABELS[1:]], datasets.ClassLabel(num_classes=3))], "a label is -1: labels count from 0"),
        (lambda: [part([[0]] * 12, datasets.List(datasets.Value("int64")))], "holds lists: it takes whole numbers or"),
        (lambda: [part([datetime.date(2026, 1, 1)] * 12, "date32")], "holds date32: it takes whole numbers or words"),
        (lambda: [part(images=[*PICTURES[:3], None, *PICTURES[4:]])], "the image in row 3 of .* is missing"),
        (
            lambda: [part(images=[cut_short(), *PICTURES[1:]])],
            "the image in row 0 of .* cannot be read.* truncated",
        ),
        (lambda: [part(), part(column="kind")], "the test data of .* has no column 'label', as training has"),
        (
            lambda: [part(), part(["a"] * 12, "string")],
            "column 'label' holds words in one part of the data and numbers",
        ),
    ],
)
def test_what_is_not_images_with_labels_is_refused_with_its_place(tmp_path, change, words):
    with pytest.raises(ConfigError, match=words):
        read(tmp_path, *change())


def test_an_image_whose_file_is_gone_is_named(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="datasets brings it")
    (tmp_path / "set").mkdir()
    rows = [{"image": {"bytes": None, "path": "/no/a.png"}, "label": label} for label in LABELS]
    parquet.write_table(datasets.Dataset.from_list(rows).data.table, tmp_path / "set" / "test.parquet")
    with pytest.raises(
        ConfigError, match=r"row 0 of .*, /no/a\.png, cannot be read as an image: No such file or directory"
    ):
        huggingface(Place(str(tmp_path / "set")))
