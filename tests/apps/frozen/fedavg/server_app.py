"""The app's ServerApp."""

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from task import Net, trained

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context):
    torch.manual_seed(0)
    strategy = FedAvg()
    return strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(trained(Net())),
        num_rounds=5,
        train_config=ConfigRecord({"lr": 0.1}),
    )
