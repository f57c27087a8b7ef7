"""torchvision is imported when asked for, whatever build of torch stands beside it."""

import subprocess
import sys

import pytest

from ross_flwr import vision

WORKS = """
try:
    import torchvision
except RuntimeError:
    pass
from ross_flwr.vision import import_torchvision
torchvision = import_torchvision()
assert import_torchvision() is torchvision
import torch
model = torchvision.models.get_model("resnet18", num_classes=10)
assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
assert torchvision.transforms.functional.hflip(torch.arange(2).view(1, 1, 2)).flatten().tolist() == [1, 0]
assert torchvision.datasets.MNIST
"""


def test_torchvision_imports_and_its_models_run_also_after_a_failure():
    run = subprocess.run([sys.executable, "-c", WORKS], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert not run.stderr


def test_an_import_that_fails_for_another_reason_is_not_retried(monkeypatch):
    tried = []

    def fail(name):
        tried.append(name)
        raise RuntimeError("out of cheese")

    monkeypatch.setattr(vision, "import_module", fail)
    with pytest.raises(RuntimeError, match="out of cheese"):
        vision.import_torchvision()
    assert tried == ["torchvision"]
