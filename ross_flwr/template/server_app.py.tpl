"""What runs once: it says who talks to whom, and collects what happens."""

import torch
from flwr.app import ArrayRecord, Context
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Result
from ross_flwr import PeerDirect, PeerRelay

from $module.task import Net

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> Result:
    """Let the agents learn together, all from the same initial model."""
    options = dict(context.run_config)
    strategy = PeerDirect(**options) if options["transport"] == "direct" else PeerRelay(**options)
    torch.manual_seed(0)
    rounds, patience = options["num-rounds"], options["phase-timeout"]
    result = strategy.start(grid, ArrayRecord(Net().state_dict()), rounds, patience)
    last = result.evaluate_metrics_clientapp[rounds]
    print("Result: accuracy {accuracy-mean:.1%}, from {accuracy-min:.1%} to {accuracy-max:.1%}".format(**last))
    return result
