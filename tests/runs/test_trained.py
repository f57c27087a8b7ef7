"""What is taken out of a run: models in several formats, and how good they are."""

import json
import math
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from ross_flwr import data
from ross_flwr.cli import cli
from ross_flwr.config import ConfigError, resolve
from ross_flwr.learning.flat import FlatModel
from ross_flwr.runs.assemble import read_task
from ross_flwr.runs.folder import RunFolder
from ross_flwr.runs.local import start
from ross_flwr.runs.side_by_side import side_by_side
from ross_flwr.runs.trained import Trained, export

SMALL = {"num-agents": 4, "num-rounds": 3, "topology": "ring", "attackers": 1, "attack-strength": 0.5}
SMALL |= {"validation-size": 20, "hidden": 8}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The folder of a run of ROSS with D-PSGD beside it."""
    folder = tmp_path_factory.mktemp("results") / "run"
    for run in start(side_by_side({**SMALL, "beside": "dpsgd"}), folder):
        list(run.rounds())
    return folder


@pytest.fixture(scope="module")
def images():
    """Five test images, as models take them."""
    source = data.load("digits")
    return data.normalize(source.test.images[:5], source)


def loaded(file):
    """Return a model of the run's shape with the parameters in a file, all of them and no others."""
    module = read_task(resolve(SMALL)).model.module
    state = torch.load(file, weights_only=True) if file.suffix == ".pt" else load_file(file)
    module.load_state_dict(state, strict=True)
    return module.eval()


@torch.no_grad()
@pytest.mark.parametrize(
    ("agent", "kind", "name"),
    [
        (None, "safetensors", "consensus.safetensors"),
        (2, "safetensors", "agent-2.safetensors"),
        (3, "torch", "agent-3.pt"),
    ],
)
def test_an_exported_model_gives_the_outputs_of_the_run_s(results, images, agent, kind, name):
    run = Trained(results)
    file = export(run, agent, kind, None)
    assert file == results / name
    run.task.model.bind(run.model(agent))
    expected = run.task.model.module(images)
    assert torch.equal(loaded(file)(images), expected)


@torch.no_grad()
def test_so_does_one_in_onnx_under_the_same_names_for_any_number_of_images(results, images, tmp_path):
    reference = pytest.importorskip("onnx.reference", reason="needs the extra 'onnx'")
    run = Trained(results)
    model = reference.ReferenceEvaluator(str(export(run, 2, "onnx", tmp_path / "model.onnx")))
    assert {tensor.name for tensor in model.proto_.graph.initializer} >= set(run.task.model.shapes)
    run.task.model.bind(run.model(2))
    for some in (images, images[:1]):
        (found,) = model.run(None, {"inputs": some.numpy()})
        assert np.allclose(found, run.task.model.module(some), atol=1e-5)


def test_the_models_are_those_of_the_run_of_the_method_beside_it_too(results):
    for method, folder in (("ross", results), ("dpsgd", results / "dpsgd")):
        run = Trained(results, method)
        consensus = run.task.model.named(run.consensus)
        written = load_file(folder / "model.safetensors")
        assert all(torch.equal(consensus[name], tensor) for name, tensor in written.items())
        lines = (folder / "history.jsonl").read_text().splitlines()
        tested = {i: performance["accuracy"] for i, performance in run.test({}) if i is not None}
        assert {str(i): accuracy for i, accuracy in tested.items()} == json.loads(lines[-1])["agents"]


def test_integer_buffers_are_exported_too(results, tmp_path):
    run = Trained(results)
    module = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.BatchNorm1d(64), torch.nn.Linear(64, 10))
    run.task.model = FlatModel(module)
    run.consensus = run.task.model.initial
    state = load_file(export(run, None, "safetensors", tmp_path / "new" / "model.safetensors"))
    assert state["1.num_batches_tracked"].dtype == torch.int64
    module.load_state_dict(state, strict=True)


def test_what_is_tested_is_the_share_of_right_answers_the_loss_and_the_mean_f1(results):
    run = Trained(results)
    source = run.task.source
    run.task.model.bind(run.consensus)
    with torch.no_grad():
        outputs = run.task.model.module.eval()(data.normalize(source.test.images, source))
    labels, guesses = source.test.labels, outputs.argmax(1)
    f1 = []
    for label in range(10):
        hits = int(((guesses == label) & (labels == label)).sum())
        f1.append(2 * hits / (int((guesses == label).sum()) + int((labels == label).sum())))
    tested = dict(run.test({}))[None]
    assert tested["accuracy"] == pytest.approx(float((guesses == labels).float().mean()))
    assert tested["loss"] == pytest.approx(float(torch.nn.functional.cross_entropy(outputs, labels)), rel=1e-5)
    assert tested["f1"] == pytest.approx(sum(f1) / 10)


def test_other_data_is_normalised_as_the_run_s(results, tmp_path):
    source = data.load("digits")
    images, labels = source.test.images.numpy() / np.float32(16), source.test.labels.numpy()
    file = tmp_path / "other.npz"
    arrays = {"images": 1 - images, "labels": labels, "test_images": images, "test_labels": labels}
    np.savez(file, **arrays)
    other = {"dataset": "file", "data-path": str(file)}
    run = Trained(results)
    for (_, same), (_, expected) in zip(run.test(other), run.test({}), strict=True):
        assert same == pytest.approx(expected, rel=1e-5)
    np.savez(file, **{**arrays, "test_labels": (labels + 1) % 10})
    data.sources._load.cache_clear()
    assert dict(run.test(other))[None]["accuracy"] < dict(run.test({}))[None]["accuracy"]


@pytest.mark.parametrize("kind", [np.uint8, np.int64, np.float32])
def test_digits_are_tested_on_their_own_pixels_in_any_type(results, tmp_path, kind):
    source = data.load("digits")
    arrays = {"images": source.train.images.numpy().astype(kind), "labels": source.train.labels.numpy()}
    arrays |= {"test_images": source.test.images.numpy().astype(kind), "test_labels": source.test.labels.numpy()}
    np.savez(tmp_path / "digits.npz", **arrays)
    run = Trained(results)
    other = {"dataset": "file", "data-path": str(tmp_path / "digits.npz")}
    assert dict(run.test(other))[None] == pytest.approx(dict(run.test({}))[None], rel=1e-5)


def test_models_are_tested_on_the_scale_that_their_run_kept_and_on_classes_of_the_same_name(tmp_path):
    """The same images as real numbers and as bytes, and words as labels in another order."""
    digits, names = data.load("digits"), np.array(["zero", "one", "two", "three", "four", "five", "six", "seven"])
    few = digits.train.labels < len(names)
    pixels = (digits.train.images[few].numpy() * 15.9).astype(np.uint8)
    words, file = names[digits.train.labels[few].numpy()], tmp_path / "train.npz"
    np.savez(file, images=pixels.astype(np.float32), labels=words)
    config = resolve({**SMALL, "num-rounds": 30, "attackers": 0, "dataset": "file", "data-path": str(file)})
    (run,) = start([config], tmp_path / "run")
    list(run.rounds())
    expected = dict(Trained(tmp_path / "run").test({}))[None]
    assert expected["accuracy"] > 0.6

    np.savez(file, images=pixels, labels=words)  # the file of the run changes too
    data.sources._load.cache_clear()
    assert dict(Trained(tmp_path / "run").test({}))[None] == pytest.approx(expected, rel=1e-4)
    kept = json.loads((tmp_path / "run/summary.json").read_text())["pixels"]
    assert (kept["scale"], kept["signed"]) == (255, False)

    class_of = {word: i for i, word in enumerate(sorted(names))}
    numbers = np.array([class_of[word] for word in words])
    np.savez(tmp_path / "numbers.npz", images=pixels / 255, labels=numbers)
    other = {"dataset": "file", "data-path": str(tmp_path / "numbers.npz")}
    assert dict(Trained(tmp_path / "run").test(other))[None] == pytest.approx(expected, rel=1e-4)
    only = np.isin(words, ["two", "seven"])  # 0 and 1 in a file of their own
    np.savez(tmp_path / "numbers.npz", images=pixels[only], labels=words[only])
    data.sources._load.cache_clear()
    assert dict(Trained(tmp_path / "run").test(other))[None]["accuracy"] > 0.6


def test_the_commands_write_a_model_and_show_a_table(results):
    done = CliRunner().invoke(
        cli, ["export", str(results), "--method", "dpsgd", "--agent", "1"], catch_exceptions=False
    )
    assert f"{results / 'dpsgd' / 'agent-1.safetensors'}; it takes images of 1×8×8: (pixel / 16 − mean)" in done.output
    done = CliRunner().invoke(cli, ["evaluate", str(results), "-c", "test-size=100"], catch_exceptions=False)
    rows = [row.split() for row in done.output.splitlines() if "%" in row]
    assert [row[0] for row in rows] == ["consensus"] + 4 * ["agent"]
    (attacker,) = Trained(results).threats.attackers
    assert [row[1] for row in rows if "(attacks)" in row] == [str(attacker)]
    assert all(math.isclose(float(row[-3].rstrip("%")) % 1, 0) for row in rows)  # of 100 images


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda run, _: Trained(run, "cga"), "--method = 'cga' is not known: use one of dpsgd, ross"),
        (lambda run, _: Trained(run / "nowhere"), "nowhere holds no run"),
        (lambda run, _: Trained(run).model(4), "--agent 4 has no model in .*: there are agents 0 to 3"),
        (lambda run, _: list(Trained(run).test({"hidden": 9})), "-c hidden does not say what to test on: use dataset,"),
        (lambda run, path: export(Trained(run), 0, "torch", path), "cannot be written: Is a directory"),
        (
            lambda run, path: list(Trained(run).test({"dataset": "file", "data-path": str(path / "large.npz")})),
            "dataset = 'file' has images of 1×9×9 in 2 classes, and the models take images of 1×8×8 in 10 classes",
        ),
        (
            lambda run, path: list(Trained(run).test({"dataset": "file", "data-path": str(path / "words.npz")})),
            "the class 'ant', which the models do not know: they know 0, 1, 2",
        ),
        (
            lambda run, path: list(Trained(run).test({"dataset": "file", "data-path": str(path / "signed.npz")})),
            "pixels of both signs, and those that models learn from have pixels up to 16: store them on one scale",
        ),
    ],
)
def test_what_is_not_there_or_does_not_fit_is_refused(results, tmp_path, call, said):
    some = np.linspace(-1, 1, 640).reshape(10, 8, 8)
    np.savez(tmp_path / "words.npz", images=abs(some), labels=np.array(["0", "ant"])[np.arange(10) % 2])
    np.savez(tmp_path / "signed.npz", images=some, labels=np.arange(10) % 2)
    np.savez(tmp_path / "large.npz", images=np.zeros((10, 9, 9), np.uint8), labels=np.arange(10) % 2)
    with pytest.raises(ConfigError, match=said):
        call(results, tmp_path)


def test_a_run_on_flower_leaves_the_consensus_model_alone(results, tmp_path):
    for name in ("config.toml", "model.safetensors"):
        (tmp_path / name).write_bytes((results / name).read_bytes())
    run = Trained(tmp_path)
    assert torch.allclose(run.model(None), Trained(results).consensus)
    assert [agent for agent, _ in run.test({})] == [None]
    with pytest.raises(ConfigError, match=r"--agent 0 has no model in .*: there is no checkpoint"):
        run.model(0)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"holds no model\.safetensors that can be read"):
        Trained(tmp_path)


def test_files_of_different_runs_are_not_mixed(results, tmp_path):
    for name in ("config.toml", "checkpoint.safetensors"):
        (tmp_path / name).write_bytes((results / name).read_bytes().replace(b"hidden = 8", b"hidden = 9"))
    with pytest.raises(ConfigError, match=r"config\.toml and a checkpoint\.safetensors of different runs"):
        Trained(tmp_path)


def test_a_checkpoint_whose_content_makes_no_sense_is_refused_in_the_same_words(results, tmp_path):
    (tmp_path / "config.toml").write_bytes((results / "config.toml").read_bytes())
    folder = RunFolder(tmp_path)
    last, tensors, rest = RunFolder(results).read_checkpoint()
    states = [{}, {"x": {"model": "agent.0.model"}}, {"0": 1}, {"0": {}}, {"0": {"model": None}}, {"0": {"model": []}}]
    wrong = [{name: each[:3] for name, each in tensors.items()}, {name: each.int() for name, each in tensors.items()}]
    damaged = [(tensors, {**rest, "state": state}) for state in states]
    damaged += [(arrays, rest) for arrays in wrong] + [(tensors, {"ran": {}})]
    for arrays, remainder in damaged:
        folder.write_checkpoint(last, arrays, remainder)
        with pytest.raises(ConfigError, match=r"config\.toml and a checkpoint\.safetensors of different runs"):
            Trained(tmp_path)


def test_onnx_that_is_not_installed_is_asked_for(results, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r'pip install .*"onnxscript>=.* brings it'):
        export(Trained(results), None, "onnx", None)
