"""A table: standardised columns of scikit-learn's breast cancer data, one probability as output, Adam."""

from functools import cache

import torch
from sklearn.datasets import load_breast_cancer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer1 = nn.Linear(30, 32)
        self.layer2 = nn.Linear(32, 1)

    def forward(self, x):
        return torch.sigmoid(self.layer2(torch.relu(self.layer1(x))))


@cache
def load_data(partition_id, num_partitions, batch_size=16):
    """Loaders of a partition's training and test data."""
    features, labels = (torch.tensor(column) for column in load_breast_cancer(return_X_y=True))
    features = ((features - features.mean(0)) / features.std(0)).float()[partition_id::num_partitions]
    labels = labels.float()[partition_id::num_partitions].view(-1, 1)
    fifth = len(labels) // 5
    return (
        DataLoader(TensorDataset(features[fifth:], labels[fifth:]), batch_size=batch_size, shuffle=True),
        DataLoader(TensorDataset(features[:fifth], labels[:fifth]), batch_size=batch_size),
    )


def train(net, trainloader, epochs, lr):
    criterion = nn.BCELoss()
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)
    net.train()
    for _ in range(epochs):
        for features, labels in trainloader:
            optimizer.zero_grad()
            loss = criterion(net(features), labels)
            loss.backward()
            optimizer.step()
    return loss.item()


def test(net, testloader):
    criterion = nn.BCELoss()
    net.eval()
    correct, loss = 0, 0.0
    with torch.no_grad():
        for features, labels in testloader:
            outputs = net(features)
            loss += criterion(outputs, labels).item()
            correct += ((outputs > 0.5) == labels.bool()).sum().item()
    return loss / len(testloader), correct / len(testloader.dataset)
