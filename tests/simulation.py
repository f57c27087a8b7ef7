"""Flower's simulation engine in this process, for tests and benchmarks."""

import os
from collections.abc import Callable

import pytest
from flwr.app import Context
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp


def simulate(num_nodes: int, client: ClientApp, play: Callable[[Grid], None]) -> None:
    """Give `play` a grid with `num_nodes` simulated nodes that run `client`, one CPU each."""
    pytest.importorskip("ray", reason="needs the extra 'simulation'")
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    from flwr.simulation import run_simulation

    server = ServerApp()

    @server.main()
    def main(grid: Grid, context: Context) -> None:
        play(grid)

    run_simulation(server, client, num_nodes, backend_config={"client_resources": {"num_cpus": 1}})
