"""What compression is worth where links are slow: two nodes that talk directly, 100 Mbit/s into each of them."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import pytest
from addresses import free_addresses
from pytest_benchmark.fixture import BenchmarkFixture

from ross_flwr import resolve
from ross_flwr.direct.channels import Neighbor
from ross_flwr.direct.neighborhood import Neighborhood
from ross_flwr.engine.rounds import Schedule
from ross_flwr.runs.assemble import assemble

sys.path.append(str(Path(__file__).parents[1] / "chaos"))
from proxy import Door, Proxies

LINK = 100e6 / 8
ROUNDS = 8
MODEL = {"algorithm": "dpsgd", "num-agents": 2, "topology": "ring", "attackers": 0, "hidden": 13_000}
"""On the digits, 975,010 parameters: 3.9 MB in float32."""


@pytest.fixture
def proxies() -> Iterator[Proxies]:
    made = Proxies()
    yield made
    made.close()


def seconds_a_round(proxies: Proxies, compress: str) -> float:
    """Return the median over the rounds of a run but the first, in which the nodes meet."""
    addresses = free_addresses(2)
    doors: list[tuple[Door, str]] = [proxies.add(address) for address in addresses]
    for door, _ in doors:
        door.rate = LINK
    schedule = Schedule(ROUNDS, evaluate_every=ROUNDS)

    def node(k: int) -> list[float]:
        assembly = assemble(resolve({**MODEL, "compress": compress, "num-rounds": ROUNDS}))
        host = assembly.host("run", {k: assembly.topology.place(k)})
        with Neighborhood(
            host,
            [Neighbor(f"n{1 - k}", doors[1 - k][1], (1 - k,))],
            address=addresses[k],
            topology="topology",
            layout="layout",
            passes=ROUNDS,
            patience=60.0,
        ) as neighborhood:
            rounds = list(neighborhood.rounds(schedule, 1, ROUNDS))
        assert not host.dropped
        assert not any(report.missing for each in rounds for report in each.reports)
        return [each.seconds for each in rounds[1:-1]]

    with ThreadPoolExecutor(2) as pool:
        return median(seconds for found in pool.map(node, range(2)) for seconds in found)


def test_int8_runs_at_1_5_times_the_speed_on_a_link_of_100_mbit(benchmark: BenchmarkFixture, proxies: Proxies) -> None:
    plain = [seconds_a_round(proxies, "none")]
    short = benchmark.pedantic(seconds_a_round, (proxies, "int8"), rounds=1)
    plain.append(seconds_a_round(proxies, "none"))
    ratio = median(plain) / short
    print(f"\n{1 / median(plain):.2f} rounds/s in float32, {1 / short:.2f} in int8: {ratio:.2f} times")
    benchmark.group = f"{ratio:.2f} times the speed of float32"
    assert ratio >= 1.5
