"""The app's ServerApp."""

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from task import Net, trained

from ross_flwr import PeerRelay

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context):
    torch.manual_seed(0)
    strategy = PeerRelay(algorithm="ross", topology="ring", batches_per_round=18)
    return strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(trained(Net())),
        num_rounds=5,
        train_config=ConfigRecord({"lr": 0.1}),
    )
