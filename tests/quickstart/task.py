"""The model and the data of the app, a loop that trains and one that tests: what Flower's PyTorch quick start has."""

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ross_flwr import data


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)
        self.fc = nn.Linear(8 * 6 * 6, 10)

    def forward(self, x):
        return self.fc(torch.relu(self.conv(x)).flatten(1))


def images_and_labels(examples):
    return examples.images.float() / 8 - 1, examples.labels


def load_data(partition_id, num_partitions, batch_size, flippers):
    """Loaders of a partition's training, validation and test data; the first `flippers` train on labels 9 - y."""
    images, labels = images_and_labels(data.load("digits").train)
    mine = torch.arange(partition_id, len(labels), num_partitions)
    fifth = len(mine) // 5
    train, validation, test = mine.split([len(mine) - 2 * fifth, fifth, fifth])
    learned = 9 - labels[train] if partition_id < flippers else labels[train]
    return (
        DataLoader(TensorDataset(images[train], learned), batch_size, shuffle=True),
        DataLoader(TensorDataset(images[validation], labels[validation])),
        DataLoader(TensorDataset(images[test], labels[test])),
    )


def load_centralized_test_set():
    return DataLoader(TensorDataset(*images_and_labels(data.load("digits").test)), batch_size=128)


def train(net, trainloader, epochs, lr):
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    net.train()
    running_loss = 0.0
    for _ in range(epochs):
        for images, labels in trainloader:
            optimizer.zero_grad()
            loss = criterion(net(images), labels)
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
    return running_loss / (epochs * len(trainloader))


def test(net, testloader):
    net.eval()
    correct, loss = 0, 0.0
    with torch.no_grad():
        for images, labels in testloader:
            outputs = net(images)
            loss += nn.functional.cross_entropy(outputs, labels, reduction="sum").item()
            correct += (outputs.argmax(1) == labels).sum().item()
    return loss / len(testloader.dataset), correct / len(testloader.dataset)
