"""D-PSGD of decentralizepy (sacs-epfl/decentralizepy, its src on PYTHONPATH), a process for each node, over TCP."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from processes import Run
from torch import nn

from ross_flwr.runs.assembly import Assembly

BATCH = 32


class OneBatch:
    """An agent's data: one batch. How fast a round is does not depend on what is in it."""

    __testing__ = __validating__ = False

    def __init__(self, rank: int, machine_id: int, mapping: Any, **_: Any) -> None:
        self.batch = torch.rand(BATCH, 784), torch.randint(10, (BATCH,))

    def get_trainset(self, batch_size: int, shuffle: bool) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [self.batch]

    def get_testset(self) -> None:
        return None


def Network() -> nn.Module:  # noqa: N802  (their name of a class)
    """Their model, with the layers of ours."""
    model: Any = import_module("decentralizepy.models.Model").Model()
    model.layers = nn.Sequential(nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 10))
    model.forward = model.layers.forward
    return model  # type: ignore[no-any-return]


@contextmanager
def decentralizepy(assembly: Assembly, index: int, addresses: list[str], certs: Path | None) -> Iterator[Run]:
    """Their node, which is told anew for how many rounds to run."""
    number = len(addresses)
    graph = import_module("decentralizepy.graphs.Ring").Ring(number)
    mapping = import_module("decentralizepy.mappings.Linear").Linear(1, number)
    with TemporaryDirectory() as folder:
        places = Path(folder) / "addresses.json"
        places.write_text(json.dumps({"0": "127.0.0.1"}))
        config = {
            "DATASET": {"dataset_package": __name__, "dataset_class": "OneBatch", "model_class": "Network"},
            "OPTIMIZER_PARAMS": {"optimizer_package": "torch.optim", "optimizer_class": "SGD", "lr": 0.1},
            "TRAIN_PARAMS": {
                "training_package": "decentralizepy.training.Training",
                "training_class": "Training",
                "loss_package": "torch.nn",
                "loss_class": "CrossEntropyLoss",
                "rounds": 1,
                "batch_size": BATCH,
            },
            "COMMUNICATION": {
                "comm_package": "decentralizepy.communication.TCP",
                "comm_class": "TCP",
                "addresses_filepath": str(places),
                "offset": int(addresses[0].split(":")[1]),
            },
            "SHARING": {"sharing_package": "decentralizepy.sharing.Sharing", "sharing_class": "Sharing"},
        }
        kind = import_module("decentralizepy.node.DPSGDNode").DPSGDNode
        never = {"test_after": 10**9, "train_evaluate_after": 10**9}
        node = kind(index, 0, mapping, graph, config, 1, folder, folder, reset_optimizer=0, **never)

        def run(rounds: int) -> None:
            node.iterations, node.sharing.communication_round = rounds, 0
            node.run()

        yield run
