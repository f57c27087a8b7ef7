"""A frozen base, the same on every node, with a head that is trained and sent."""

from functools import cache

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ross_flwr import data


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(7)  # as if these weights were downloaded
            self.base = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 256))
        self.base.requires_grad_(False)
        self.head = nn.Linear(256, 10)

    def forward(self, x):
        return self.head(torch.relu(self.base(x)))


def trained(net):
    """What is trained, and sent."""
    return {name: tensor for name, tensor in net.state_dict().items() if name.startswith("head.")}


@cache
def load_data(partition_id, num_partitions, batch_size=16):
    """Loaders of a partition's training and test data."""
    digits = data.load("digits").train
    images, labels = (
        digits.images[partition_id::num_partitions].float() / 8 - 1,
        digits.labels[partition_id::num_partitions],
    )
    fifth = len(labels) // 5
    return (
        DataLoader(TensorDataset(images[fifth:], labels[fifth:]), batch_size=batch_size, shuffle=True),
        DataLoader(TensorDataset(images[:fifth], labels[:fifth]), batch_size=batch_size),
    )


def train(net, trainloader, epochs, lr):
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.head.parameters(), lr=lr, momentum=0.9)
    net.train()
    for _ in range(epochs):
        for images, labels in trainloader:
            optimizer.zero_grad()
            loss = criterion(net(images), labels)
            loss.backward()
            optimizer.step()
    return loss.item()


def test(net, testloader):
    criterion = nn.CrossEntropyLoss()
    net.eval()
    correct, loss = 0, 0.0
    with torch.no_grad():
        for images, labels in testloader:
            outputs = net(images)
            loss += criterion(outputs, labels).item()
            correct += (outputs.argmax(1) == labels).sum().item()
    return loss / len(testloader), correct / len(testloader.dataset)
