"""Flower's simulation engine in this process, for tests and benchmarks."""

import os
import sys
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

    start_ray()
    run_simulation(server, client, num_nodes, backend_config={"client_resources": {"num_cpus": 1}})


def start_ray() -> None:
    """Start Ray as Flower would, but again if its node does not come up, as happens once in a while."""
    import ray

    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    for tries_left in (2, 1, 0):
        try:
            ray.init(include_dashboard=False, runtime_env={"env_vars": path})
        except Exception as error:
            ray.shutdown()
            if not tries_left or "timed out during startup" not in str(error):
                raise
        else:
            return
