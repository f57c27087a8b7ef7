"""The Flower ServerApp: configuration → topology → PeerRelay."""

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from ross_flwr.transport.records import record_of
from ross_flwr.transport.relay import PeerRelay

__all__ = ["app"]

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the configured method, and the one beside it, through the relay."""
    relay = PeerRelay(**context.run_config)
    config, model = relay.config, relay.experiment.model
    relay.start(grid, record_of(model.named(model.initial)), config.num_rounds, config.phase_timeout)
