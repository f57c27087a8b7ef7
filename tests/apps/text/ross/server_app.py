"""The app's ServerApp."""

import torch
from flwr.app import ArrayRecord, ConfigRecord, Context
from flwr.serverapp import Grid, ServerApp
from task import Net

from ross_flwr import PeerRelay

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context):
    torch.manual_seed(0)
    strategy = PeerRelay(algorithm="ross", topology="ring", local_steps=8, momentum=0.0)
    return strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord(Net().state_dict()),
        num_rounds=8,
        train_config=ConfigRecord({"lr": 0.01}),
    )
