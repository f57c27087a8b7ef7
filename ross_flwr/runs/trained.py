"""The models in the folder of a run, to test them again or export them."""

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save
from torch import Tensor, nn

from ross_flwr.config import ConfigError, require, resolve
from ross_flwr.extras import import_extra
from ross_flwr.files import fresh
from ross_flwr.learning.classes import f1_scores
from ross_flwr.learning.objective import ModuleObjective, Performance
from ross_flwr.runs.assemble import assemble, read_task
from ross_flwr.runs.folder import RunFolder, reading
from ross_flwr.runs.options import RunOptions
from ross_flwr.tasks.dealt import Dealt
from ross_flwr.tasks.images import Images
from ross_flwr.typed_json import reader_of

__all__ = ["DATA_KEYS", "FORMATS", "Trained", "export"]

DATA_KEYS = ("dataset", "data-path", "download", "image-size", "label-column", "num-classes", "test-split", "test-size")
"""The configuration keys that say what models are tested on."""


class Trained:
    """The models of one method in the folder of a run.

    Parameters
    ----------
    path : Path
        The folder.
    method : str
        The main method or one that ran beside it; empty for the main one.

    Attributes
    ----------
    folder : RunFolder
        Where the method's results are.
    task : Dealt
        Data and model that its configuration names; of images, with the pixels' scale, mean and deviation of the run.
    threats : Threats
        Who attacked, and whose data was bad.
    agents : dict[int, Tensor]
        Each agent's model at the last checkpoint, shape [P]. A run on Flower leaves none.
    consensus : Tensor
        The mean of the honest agents' models, shape [P].

    Raises
    ------
    ConfigError
        When there is no such run or model.
    """

    def __init__(self, path: Path, method: str = "") -> None:
        main = RunFolder(path)
        configs = {each: each.read_config() for each in (main, *main.beside())}
        methods = {config.part(RunOptions).algorithm: folder for folder, config in reversed(configs.items())}
        if method:
            require("--method", method, methods)
        self.folder = methods[method] if method else main
        self.config = configs[self.folder]
        self.task = read_task(self.config)
        self._take_kept_pixels()
        self.threats = assemble(self.config).threats
        checkpoint = self.folder.read_checkpoint()
        named = {} if checkpoint else self.folder.read_model()
        self.agents: dict[int, Tensor] = {}
        try:
            if checkpoint:
                _, tensors, rest = checkpoint
                self.agents = {int(i): tensors[names["model"]] for i, names in rest["state"].items()}
                honest = [model for i, model in self.agents.items() if i not in self.threats.attackers]
                self.consensus = torch.stack(honest).mean(0)
            else:
                self.consensus = self.task.model.flatten(named)
            shape = self.task.model.initial.shape
            fits = all(model.shape == shape for model in (self.consensus, *self.agents.values()))
        except (KeyError, ValueError, TypeError, RuntimeError):  # whatever a damaged file leads to
            fits = False
        if not fits:
            kind = "checkpoint" if checkpoint else "model"
            own = "" if checkpoint else ", or the model of an app that brings its own: load that file in the app"
            raise ConfigError(f"{self.folder.path} holds a config.toml and a {kind}.safetensors of different runs{own}")

    def _take_kept_pixels(self) -> None:
        """Take the scale, mean and deviation of the pixels that a finished run kept, whatever its data is now."""
        summary, task = self.folder.read_summary() or {}, self.task
        if "pixels" not in summary or not isinstance(task, Images):
            return
        with reading(self.folder.path / "summary.json"):
            kept: _Pixels = reader_of(_Pixels)(summary["pixels"])
            channels = task.source.image_shape[0]
            if not len(kept.mean) == len(kept.deviation) == channels or min(kept.scale, *kept.deviation) <= 0:
                raise ValueError(f"pixels is {summary['pixels']!r:.80}")
        mean, deviation = tuple(kept.mean), tuple(kept.deviation)
        task.source = replace(task.source, scale=kept.scale, signed=kept.signed, mean=mean, std=deviation)

    def model(self, agent: int | None) -> Tensor:
        """Return an agent's model, or the consensus model for None, shape [P]."""
        if agent is None:
            return self.consensus
        if agent not in self.agents:
            known = f"there are agents 0 to {len(self.agents) - 1}" if self.agents else "there is no checkpoint"
            raise ConfigError(f"--agent {agent} has no model in {self.folder.path}: {known}")
        return self.agents[agent]

    def test(self, other: Mapping[str, Any]) -> Iterator[tuple[int | None, Performance]]:
        """Test the consensus model (None), then each agent's; of images, ``"f1"`` is the mean F1 of the classes.

        Parameters
        ----------
        other : mapping of str to Any
            Keys of `DATA_KEYS` that differ from the run. Images are always normalised as in the run; an example's class
            is the one of the same name or number.

        Raises
        ------
        ConfigError
            On other keys, and data that the models cannot take.
        """
        for key in other:
            if key not in DATA_KEYS:
                raise ConfigError(f"-c {key} does not say what to test on: use {', '.join(DATA_KEYS)}")
        objective = self._tested_on(other)
        for agent in (None, *self.agents):
            yield agent, objective.test(self.model(agent).to(self.task.device))

    def _tested_on(self, other: Mapping[str, Any]) -> ModuleObjective:
        task = self.task
        if not isinstance(task, Images):
            if other:
                raise ConfigError(
                    f"-c {next(iter(other))} has no effect: models of task = '{task.name}' are tested on the test "
                    "data of their run alone: leave it out"
                )
            return task.objective(0)
        where = read_task(resolve({**self.config.values, **other})) if other else task
        if not isinstance(where, Images) or where.source.image_shape != task.source.image_shape:
            raise ConfigError(f"dataset = '{where.dataset}' has {_kind(where)}, and the models take {_kind(task)}")
        test = where.test_split(task.source)
        metrics = {"f1": lambda outputs, targets: f1_scores(outputs, targets).nanmean()}
        return ModuleObjective(task.model, test, None, test, metrics=metrics)


@dataclass(frozen=True)
class _Pixels:
    """How a summary says that images were normalised."""

    scale: float
    signed: bool
    mean: list[float]
    deviation: list[float]


def _kind(task: Dealt) -> str:
    shape = f" of {'×'.join(map(str, task.source.image_shape))}" if isinstance(task, Images) else ""
    return f"{task.name}{shape} in {task.source.num_classes} classes"


def _state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def _safetensors(module: nn.Module, _example: Tensor) -> bytes:
    return save(_state(module))


def _torch(module: nn.Module, _example: Tensor) -> bytes:
    file = BytesIO()
    torch.save(_state(module), file)
    return file.getvalue()


def _onnx(module: nn.Module, example: Tensor) -> bytes:
    for name in ("onnx", "onnxscript"):
        import_extra(name, "onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PyTorch warns of its own future changes
        program = torch.onnx.export(
            module,
            (example.expand(2, *example.shape[1:]),),  # from a single one, the exporter would fix the batch size at one
            dynamo=True,
            input_names=["inputs"],
            output_names=["scores"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            verbose=False,
        )
    if program is None:
        raise ConfigError("--format onnx: PyTorch cannot export this model; use --format safetensors")
    model: bytes = program.model_proto.SerializeToString()
    return model


FORMATS = {"safetensors": (".safetensors", _safetensors), "torch": (".pt", _torch), "onnx": (".onnx", _onnx)}
"""Suffix and writer by the name of the format."""


def export(trained: Trained, agent: int | None, kind: str, out: Path | None) -> Path:
    """Write a model under its own parameter names, and return the file.

    Parameters
    ----------
    trained : Trained
        The models.
    agent : int, optional
        Whose; None for the consensus model.
    kind : str
        A key of `FORMATS`.
    out : Path, optional
        The file; by default, consensus or agent-<i> in the folder of the method's results.

    Raises
    ------
    ConfigError
        When there is no such model, ONNX is not installed, or nothing can be written there.
    """
    suffix, write = FORMATS[kind]
    model = trained.task.model
    model.bind(trained.model(agent).to(trained.task.device))
    file = out or fresh(trained.folder.path / f"{'consensus' if agent is None else f'agent-{agent}'}{suffix}")
    first = torch.zeros(1, dtype=torch.int64)
    example = trained.task.part(first, test=True).batch(first).inputs
    content = write(model.module.eval(), cast(Tensor, example))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    except OSError as error:
        raise ConfigError(f"--out {file} cannot be written: {error.strerror or error}") from None
    return file
