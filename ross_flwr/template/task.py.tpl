"""The model and the data: put yours here."""

import torch
from flwr.app import Context
from ross_flwr import data
from torch import Tensor, nn
from torch.utils.data import TensorDataset


class Net(nn.Module):
    """A small network for images of 8 × 8 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 16, 3)
        self.head = nn.Linear(16 * 6 * 6, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return a score for each class."""
        return self.head(torch.relu(self.conv(images)).flatten(1))


def load_data(context: Context) -> tuple[TensorDataset, TensorDataset, TensorDataset]:
    """Return this node's training, validation and test data.

    Here each node takes its share of the same digits, by the number that Flower's simulation gives it, or that
    --node-config "partition-id=0 num-partitions=4" gives a SuperNode. A device reads its own data instead, and
    --node-config can tell it where.
    """
    number, count = int(context.node_config["partition-id"]), int(context.node_config["num-partitions"])
    digits = data.load("digits").train
    images, labels = digits.images[number::count].float() / 8 - 1, digits.labels[number::count]
    fifth = len(labels) // 5
    sizes = [len(labels) - 2 * fifth, fifth, fifth]
    train, validation, test = map(TensorDataset, images.split(sizes), labels.split(sizes))
    return train, validation, test
