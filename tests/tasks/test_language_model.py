"""Texts as a task: the next byte is learned, sources stand in for classes, and wrong requests are refused."""

import math
import sys

import pytest
import torch

from ross_flwr import resolve
from ross_flwr.config import ConfigError
from ross_flwr.runs.assemble import assemble, read_task
from ross_flwr.runs.local import LocalRun

KEYS = {"task": "language-model", "dataset": "python(kib=8)", "model": "transformer(width=16,context=16)"}
KEYS |= {"num-agents": 4, "topology": "complete", "attackers": 0, "validation-size": 24, "batch-size": 16}


@pytest.mark.parametrize(("algorithm", "attackers"), [("ross", 0), ("ross-plus", 1)])
def test_the_next_byte_is_learned_and_its_loss_is_told_in_bits(algorithm, attackers):
    keys = {"algorithm": algorithm, "attackers": attackers, "utility": "loss", "num-rounds": 10, "evaluate-every": 10}
    run = LocalRun(resolve({**KEYS, **keys}))
    *_, last = run.rounds()
    bits = last["metrics"]["bits-per-byte"]
    assert bits["max"] < 6.2 < 8 < run.assembly.task.objective(0).test(run.assembly.task.model.initial)["bits-per-byte"]
    assert bits["mean"] == pytest.approx(last["loss"]["mean"] / math.log(2))
    assert last["metrics"]["perplexity"]["max"] == pytest.approx(math.exp(last["loss"]["max"]))
    assert last["accuracy"]["mean"] > 0.1


def test_a_byte_is_predicted_from_earlier_ones_alone_and_weights_are_tied():
    task = read_task(resolve(KEYS))
    module, batch = task.model.module, task.objective(0).batch(torch.arange(3))
    changed = batch.inputs.clone()
    changed[:, 9:] = 0
    before, after = module(batch.inputs), module(changed)
    assert torch.equal(before[:, :9], after[:, :9])
    assert not torch.isclose(before[:, 9:], after[:, 9:]).all(-1).any()
    width, context = 16, 16
    assert task.model.size == (256 + context + 2) * width + 12 * width**2 + 13 * width  # 4 + 9 in biases and norms
    assert batch.labels.tolist() == task.source.train.labels[task.training(0)][:3].tolist()


def test_validation_sets_have_equally_many_windows_of_each_source_and_wrong_bytes_are_drawn():
    task = read_task(resolve({**KEYS, "corruption": "label-flip", "corrupted": 4, "validation-noise": 1.0}))
    clean = read_task(resolve(KEYS)).objective(1)
    bad = task.objective(1)
    assert bad.validation.labels.bincount().tolist() == [2] * 12
    few = torch.arange(5)
    assert torch.equal(bad.batch(few).targets, 255 - clean.batch(few).targets)
    assert torch.equal(bad.batch(few).inputs, clean.batch(few).inputs)
    assert not (bad.validation.targets == clean.validation.targets).any()


@pytest.mark.parametrize(
    ("keys", "error"),
    [
        ({"model": "transformer(width=10,heads=4)"}, "heads = 4 and width = 10: use a width that is a multiple"),
        ({"model": "mlp"}, "model = 'mlp' is not known: use one of transformer"),
        ({"model": "transformer(depth=2)"}, "transformer takes layers, width, heads, context and got depth"),
        ({"hidden": 8}, "hidden = 8 means nothing with task = 'language-model'"),
        ({"corruption": "backdoor"}, "corruption cannot do 'backdoor' to the data of this task: it can do none, label"),
        ({"algorithm": "bristle"}, "expected those of an output layer"),
        (
            {"attack": "flipped-labels", "attackers": 1},
            "attack = 'flipped-labels' takes a task with one class for each",
        ),
    ],
)
def test_what_a_text_cannot_do_is_refused(keys, error):
    with pytest.raises(ConfigError, match=error.replace("(", r"\(")):
        assemble(resolve({**KEYS, **keys})).agents()


def test_a_hugging_face_set_of_texts_is_dealt_by_a_column(tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = {"text": [f"{who} says {n}, and nothing else." for n in range(60) for who in "ab"], "who": ["a", "b"] * 60}
    datasets.Dataset.from_dict(rows).save_to_disk(str(tmp_path))
    task = read_task(resolve({**KEYS, "dataset": "huggingface", "data-path": str(tmp_path), "owner-column": "who"}))
    assert task.source.classes == ("a", "b")
    first = task.source.train
    assert bytes(first.inputs[first.labels == 1][0].tolist()) == b"b says 0, and no"
    wrong = {"dataset": "huggingface", "data-path": str(tmp_path), "owner-column": "whom"}
    with pytest.raises(ConfigError, match=r"owner-column = 'whom' is not a column of data-path = .*: text, who are"):
        assemble(resolve({**KEYS, **wrong})).agents()


def test_tokens_of_several_bytes_are_told_in_bits_per_byte():
    pytest.importorskip("tokenizers")
    task = read_task(resolve({**KEYS, "dataset": "python(kib=8,vocabulary=300)"}))
    measured = task.objective(0).test(task.model.initial)
    targets = task.part(task.shares.test, test=True).targets
    read = "".join(task.source.inputs[token] for token in targets.flatten().tolist())  # a letter for each byte
    assert measured["bits-per-byte"] == pytest.approx(measured["loss"] / math.log(2) * targets.numel() / len(read))
    assert len(read) > targets.numel()
    assert task.num_outputs == len(set(task.source.inputs)) == 300


def test_without_the_tokenizers_their_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ConfigError, match="the package tokenizers is not installed: pip install"):
        assemble(resolve({**KEYS, "dataset": "python(kib=9,vocabulary=300)"})).agents()
