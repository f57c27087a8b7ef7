"""Tables as a task: classes and numbers are learned, measured, poisoned and corrupted."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from ross_flwr import resolve
from ross_flwr.config import ConfigError
from ross_flwr.runs.assemble import assemble, read_task
from ross_flwr.runs.local import LocalRun
from ross_flwr.tasks.tabular import area_under_curve

SMALL = {"task": "tabular", "num-agents": 4, "topology": "complete", "batch-size": 16, "validation-size": 20}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A file of 600 rows: the sum and its sign follow from three numbers and a word."""
    draw = np.random.default_rng(0)
    numbers, words = draw.normal(size=(600, 3)), draw.choice(["no", "yes"], 600)
    total = numbers @ [1.0, -2.0, 0.5] + (words == "yes")
    file = tmp_path_factory.mktemp("tables") / "sums.csv"
    rows = (f"{','.join(map(str, row))},{word},{each}" for row, word, each in zip(numbers, words, total, strict=True))
    file.write_text("\n".join(["a,b,c,word,total", *rows]))
    return file


@pytest.mark.parametrize(("algorithm", "attackers"), [("ross", 0), ("ross-plus", 1)])
def test_a_number_is_learned_and_its_error_is_told_in_its_own_unit(table, algorithm, attackers):
    keys = {"data-path": str(table), "model": "linear", "algorithm": algorithm, "attackers": attackers}
    keys |= {"learning-rate": 0.05, "momentum": 0.5, "num-rounds": 15, "evaluate-every": 15}
    run = LocalRun(resolve({**SMALL, **keys}))
    *_, last = run.rounds()
    error, spread = last["metrics"]["rmse"], run.assembly.task.source.scale[1]
    assert error["max"] < 0.05 * spread
    assert last["loss"]["max"] == pytest.approx((error["max"] / spread) ** 2)
    assert np.isnan(last["accuracy"]["mean"])


def test_regression_is_dealt_and_screened_by_quantiles(table):
    task = read_task(resolve({**SMALL, "data-path": str(table), "partition-alpha": 0.1}))
    counts = [task.source.train.labels[part].bincount(minlength=10) for part in task.shares.parts]
    assert max(float(each.max() / each.sum()) for each in counts) > 0.3
    validation = task.objective(0).validation
    assert validation.labels.bincount().tolist() == [2] * 10
    assert validation.take(torch.tensor([3])).labels.shape == (1,)
    assert validation.targets.is_floating_point()


def test_classes_of_the_table_that_ships_are_learned_and_bad_labels_change_them():
    keys = {"num-agents": 4, "topology": "ring", "task": "tabular", "model": "logistic", "algorithm": "dpsgd"}
    run = LocalRun(resolve({**keys, "attackers": 0, "num-rounds": 40, "evaluate-every": 40, "validation-size": 0}))
    *_, last = run.rounds()
    assert last["accuracy"]["mean"] > 0.78  # 0.754 have the more frequent class
    assert last["metrics"]["auc"]["min"] > 0.85
    clean, bad = (
        read_task(resolve({**keys, "attackers": 0, "corruption": kind, "corrupted": 4})).objective(1)
        for kind in ("none", "label-flip")
    )
    few = torch.arange(20)
    assert torch.equal(bad.batch(few).targets, 1 - clean.batch(few).targets)


def test_the_area_under_the_curve_is_that_of_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(200, 4, generator=generator, dtype=torch.float64).round(decimals=1)  # with ties
    labels = torch.randint(4, (200,), generator=generator)
    expected = roc_auc_score(labels, scores.softmax(1), multi_class="ovr")
    assert area_under_curve(scores, labels) == pytest.approx(expected)
    assert area_under_curve(scores[:, :2], labels % 2) == pytest.approx(
        roc_auc_score(labels % 2, scores[:, :2].softmax(1)[:, 1])
    )
    assert np.isnan(area_under_curve(scores, torch.zeros(200).long()))


@pytest.mark.parametrize(
    ("keys", "error"),
    [
        ({"model": "logistic"}, "model = 'logistic' predicts a class, and the label is a number: use model = 'mlp'"),
        ({"model": "cnn"}, "model = 'cnn' is not known: use one of linear, logistic, mlp"),
        ({"image-size": 8}, "image-size = 8 means nothing with task = 'tabular'"),
        (
            {"corruption": "label-flip"},
            "corruption cannot do 'label-flip' to the data of this task: it can do none, feature-noise",
        ),
        ({"validation-noise": 0.5}, "validation-noise cannot do 'label-noise' to the data"),
        ({"algorithm": "bristle"}, "bristle judges classes, and the targets of this task are not classes"),
        (
            {"attack": "flipped-labels", "attackers": 1},
            "attack = 'flipped-labels' takes a task with one class for each",
        ),
        ({"algorithm": "ross", "utility": "accuracy"}, "utility = 'accuracy' needs targets that are classes"),
        ({"algorithm": "ross", "utility": "own"}, "utility = 'own' is the app's own function, and it has none"),
    ],
)
def test_what_a_table_of_numbers_cannot_do_is_refused(table, keys, error):
    config = resolve({**SMALL, "data-path": str(table), "attackers": 0, **keys})
    with pytest.raises(ConfigError, match=error):
        assemble(config).agents()
