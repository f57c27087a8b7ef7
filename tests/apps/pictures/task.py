"""Pictures: dictionaries as Flower Datasets gives them, a training and a test split, SGD with momentum."""

from functools import cache

import torch
from torch import nn
from torch.utils.data import DataLoader

from ross_flwr import data


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)
        self.fc = nn.Linear(8 * 6 * 6, 10)

    def forward(self, x):
        return self.fc(torch.relu(self.conv(x)).flatten(1))


@cache
def load_data(partition_id, num_partitions, batch_size=16):
    """Loaders of a partition's training and test data."""
    digits = data.load("digits").train
    numbers = range(partition_id, len(digits.labels), num_partitions)
    rows = [{"img": digits.images[i].float() / 8 - 1, "label": int(digits.labels[i])} for i in numbers]
    fifth = len(rows) // 5
    return DataLoader(rows[fifth:], batch_size=batch_size, shuffle=True), DataLoader(
        rows[:fifth], batch_size=batch_size
    )


def train(net, trainloader, epochs, lr):
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9)
    net.train()
    running_loss = 0.0
    for _ in range(epochs):
        for batch in trainloader:
            optimizer.zero_grad()
            loss = criterion(net(batch["img"]), batch["label"])
            loss.backward()
            optimizer.step()
            running_loss += loss.item()
    return running_loss / len(trainloader)


def test(net, testloader):
    criterion = nn.CrossEntropyLoss()
    net.eval()
    correct, loss = 0, 0.0
    with torch.no_grad():
        for batch in testloader:
            outputs = net(batch["img"])
            loss += criterion(outputs, batch["label"]).item()
            correct += (outputs.argmax(1) == batch["label"]).sum().item()
    return loss / len(testloader), correct / len(testloader.dataset)
