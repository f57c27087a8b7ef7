"""On a GPU: the same numbers, and everything that an agent holds stays there."""

import pytest
import torch

from ross_flwr.config import resolve
from ross_flwr.runs.local import LocalRun

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU and PyTorch's build for it"),
]


@pytest.mark.parametrize("more", [{}, {"model": "cnn"}], ids=["mlp", "cnn"])
@pytest.mark.parametrize("method", ["dpsgd", "ross", "ross-plus", "dsgt"])
def test_a_gpu_gives_the_numbers_of_a_cpu_and_keeps_the_state(method, more, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    models = []
    for device in ("cpu", "cuda"):
        keys = {"algorithm": method, "device": device, "num-rounds": 2, "num-agents": 6, "attackers": 1, "hidden": 8}
        run = LocalRun(resolve(keys | more | {"topology": "random-regular", "batch-size": 16, "validation-size": 30}))
        list(run.rounds())
        agents = run.host.agents.values()
        assert {tensor.device.type for agent in agents for tensor in agent.state.values()} == {device}
        models.append(torch.stack([agent["model"].cpu() for agent in agents]))
    torch.testing.assert_close(models[1], models[0], rtol=1e-3, atol=1e-4)
