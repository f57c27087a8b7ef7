"""Texts: the next token."""

from functools import cached_property
from math import exp, log
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from ross_flwr.config import Specs
from ross_flwr.data import Place, Records, read_text, tuning_records
from ross_flwr.data.bpe import BYTES
from ross_flwr.learning.examples import Batch
from ross_flwr.learning.flat import FlatModel
from ross_flwr.learning.outputs import Loss, Test, accuracy, mean_of
from ross_flwr.tasks.dealt import Dealt, Part
from ross_flwr.tasks.transformer import LANGUAGE_MODELS, Transformer

__all__ = ["LanguageModel", "language_model"]

AT_ONCE = 2**14
"""Tokens of test and validation data that are computed on at once."""


class Windows(Part):
    """Some windows of a text: tokens, and for each the next one."""

    @property
    def targets(self) -> Tensor:
        """The next tokens, int64 of shape [n, T]."""
        return super().targets.long()

    def batch(self, indices: Tensor) -> Batch:
        """Return the windows at `indices`, int64 of shape [B]."""
        taken = super().batch(indices)
        return Batch(taken.inputs.long(), taken.targets.long(), taken.groups)


class LanguageModel(Dealt):
    """Prediction of the next byte or token of a text, whose sources are dealt to the agents. See `Dealt`.

    Sources stand in for classes: partitions deal by them, and validation sets have equally many windows of each.

    Examples
    --------
    >>> task = language_model("python(kib=8)")(4, 0)
    >>> task.source.num_classes, task.source.train.inputs.shape[1]
    (12, 32)
    """

    name = "language-model"
    defaults = ("python", "folder")
    corruptions = ("label-noise", "asymmetric-label-noise", "label-flip")
    unused = frozenset({"image-size", "num-classes", "label-column", "hidden"})
    first_run = MappingProxyType({"optimizer": "adam", "learning-rate": 0.01, "momentum": 0.0, "mix-momentum": False})

    @cached_property
    def shape(self) -> Transformer:
        """The shape of the model."""
        like = "'transformer', or like 'transformer(layers=2, width=64)'"
        return Specs("model", self.options.model or "transformer", "a model", like).one(LANGUAGE_MODELS)

    @property
    def takes(self) -> str:
        """How many tokens it looks at."""
        kind = "tokens" if self.source.inputs else "bytes"
        return f"{kind}, numbers from 0 to {self.num_outputs - 1}, {self.shape.context} of them at most"

    @cached_property
    def source(self) -> Records:
        """The text in windows, on the device."""
        options = self.options
        place = Place(options.data_path, options.download, owner_column=options.owner_column)
        source = read_text(self.dataset, place, self.shape.context)
        return (tuning_records(source) if self.options.test_split == "tuning" else source).to(self.device)

    @property
    def num_outputs(self) -> int:
        """The number of tokens that there are."""
        return len(self.source.inputs) or BYTES

    @cached_property
    def model(self) -> FlatModel:
        """The module that all agents of this process compute with, and the model that each starts from."""
        module = self.shape.build(self.seed, self.num_outputs)
        return FlatModel(module.to(self.device), outputs=self.source.inputs)

    @property
    def chunk(self) -> int:
        """Windows of test and validation data that are computed on at once."""
        return max(AT_ONCE // self.shape.context, 1)

    def part(self, indices: Tensor, *, test: bool = False) -> Windows:
        """Return the training or test windows at `indices`."""
        return Windows(self.source, indices, test=test)

    @property
    def loss(self) -> Loss:
        """The mean cross-entropy of a token, in nats."""
        return _cross_entropy

    def own_test(self) -> Test:
        """Return a test that also measures bits per byte and perplexity."""
        windows = self.part(self.shares.test, test=True)
        lengths = torch.tensor([len(token) for token in self.source.inputs] or [1] * BYTES)
        targets = windows.targets
        tokens_per_byte = targets.numel() / int(lengths[targets.cpu()].sum())

        def test(module: nn.Module) -> dict[str, float]:
            measured = []
            for indices in torch.split(torch.arange(len(windows)), self.chunk):
                batch = windows.batch(indices)
                outputs, targets = module(batch.inputs), batch.targets
                pair = float(self.loss(outputs, targets)), accuracy(outputs, targets, self.loss)
                measured.append((len(indices), pair))
            loss, correct = mean_of(measured)
            return {
                "loss": loss,
                "accuracy": correct,
                "bits-per-byte": loss / log(2) * tokens_per_byte,
                "perplexity": exp(min(loss, 700)),
            }

        return test

    def describe(self) -> dict[str, Any]:
        """Return what the summary of a run says of the data and the model."""
        return {**super().describe(), "sources": list(self.source.classes), "context": self.shape.context}


language_model = LanguageModel.deal
"""Return a function that makes a language model from N and a seed, for `simulate`; see `Dealt.deal`."""


def _cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())
