"""Every method gives the numbers that it gave before: models to 1e-5, bytes and gradients exactly.

``python tests/pinned/test_pinned.py [METHOD ...]`` writes ``pinned.json`` anew, for the methods named or for all. Do so
only for a change that is meant to change numbers, and say which in the commit.
"""

import json
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from ross_flwr.config import resolve
from ross_flwr.flower.records import pack, unpack
from ross_flwr.runs.assemble import assemble
from ross_flwr.runs.local import LocalRun
from ross_flwr.runs.options import RunOptions

FILE = Path(__file__).with_name("pinned.json")
PINNED = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}

SETTING = {
    "engine": "loop",  # others agree with it to rounding, which decides what cgsv-server and cgsv-reward leave out
    "num-agents": 6,
    "num-rounds": 3,
    "topology": "random-regular",
    "topology-degree": 4,
    "partition": "dirichlet",
    "too-few": "top-up",
    "batch-size": 16,
    "validation-size": 30,
    "test-size": 100,
    "hidden": 8,
    "attackers": 0,
    "evaluate-every": 3,
}
SCENARIOS = {
    "clean": {},
    "lies": {"attackers": 2, "attack": "ipm"},
    "poison": {"attackers": 2, "attack": "gradient-scaling"},
    "faults": {"dropout": 0.2, "message-loss": 0.2},
    "median": {"aggregator": "median"},
}
OF_METHOD = {
    "cgsv-server": {"topology": "star"},
    "d2": {"mixing": "lazy-metropolis"},
    "deca": {"blocks": 2, "block-passes": 2},
    "diloco": {"local-steps": 3},
    "sgp": {"mixing": "push"},
    "single-merge": {"topology": "complete", "merge-passes": 1, "gossip-every": 2},
}
NOT_ALLOWED = {(method, "median") for method in ("d2", "deca", "dsgt", "net-fleet", "sgp")}
"""A robust rule would break what these methods rest on."""


def config_of(method, scenario):
    return resolve({**SETTING, **OF_METHOD.get(method, {}), **SCENARIOS[scenario], "algorithm": method})


def locally(config):
    run = LocalRun(config)
    sent, gradients = Counter(), 0
    for line in run.rounds():
        gradients += line["gradients"]
        for kinds in line["sent"].values():
            sent.update(kinds)
    return run.host.agents, sent, gradients


def on_two_nodes(config):
    """Run as two nodes do that send each other records through Flower."""
    hosts = []
    for block in (range(0, 6, 2), range(1, 6, 2)):
        assembly = assemble(config)
        hosts.append(assembly.host("run", {i: assembly.topology.place(i) for i in block}, "loop"))
    sent, gradients = Counter(), 0
    for number in range(config.part(RunOptions).num_rounds):
        mail = [(), ()]
        for step in range(len(hosts[0].algorithm.steps)):
            records = [pack(host.activate(number, step, mail[k])) for k, host in enumerate(hosts)]
            mail = [unpack(records[1], "cpu"), unpack(records[0], "cpu")]
        for host in hosts:
            host.end_pass()
            for report in host.end_round(evaluate=False):
                gradients += report.gradients
                for kinds in report.sent.values():
                    sent.update(kinds)
    return hosts[0].agents | hosts[1].agents, sent, gradients


def digest(agents, sent, gradients):
    """Four numbers of each agent's model: its norm, and how far it reaches along three fixed directions."""
    models = torch.stack([agents[i]["model"] for i in sorted(agents)]).double()
    directions = torch.randn(models.shape[1], 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    numbers = torch.cat([models.norm(dim=1, keepdim=True), models @ (directions / directions.norm(dim=0))], dim=1)
    rounded = [[float(f"{number:.8g}") for number in row] for row in numbers.tolist()]
    return {"models": rounded, "sent": dict(sorted(sent.items())), "gradients": gradients}


@pytest.mark.parametrize("where", [locally, on_two_nodes])
@pytest.mark.parametrize("method", PINNED)
def test_a_method_gives_the_numbers_that_it_gave_before(method, where):
    for scenario, wanted in PINNED[method].items():
        found = digest(*where(config_of(method, scenario)))
        expected = torch.tensor(wanted["models"])
        close = (torch.tensor(found["models"]) - expected).abs() <= 1e-5 * expected[:, :1].clamp(min=1)
        assert close.all(), f"{method}, {scenario}: other models"
        assert found["sent"] == wanted["sent"], f"{method}, {scenario}: other bytes"
        assert found["gradients"] == wanted["gradients"], f"{method}, {scenario}: another number of gradients"


def write(methods):
    """Pin what the methods give today."""
    from ross_flwr.algorithms import ALGORITHMS

    for method in methods or ALGORITHMS:
        scenarios = [name for name in SCENARIOS if (method, name) not in NOT_ALLOWED]
        PINNED[method] = {name: digest(*locally(config_of(method, name))) for name in scenarios}
    lines = [
        f'"{method}": {{\n'
        + ",\n".join(f'  "{name}": {json.dumps(entry)}' for name, entry in scenarios.items())
        + "\n}"
        for method, scenarios in sorted(PINNED.items())
    ]
    FILE.write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    write(sys.argv[1:])
