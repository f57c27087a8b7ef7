"""Every codec and private method over every transport, and resumed in mid-run: ``python tests/flower/everywhere.py``.

A row is a run of four rounds on four agents. Figures are the largest difference of any number of any agent's model from
the same run in one process: stopped after round 2 and resumed there; through the relay, whose nodes put their agents
into Flower's state and take them out again with every message; and over direct connections, where they do so after
round 2. It takes minutes, so it is no test of the suite, which has a few of these rows.
"""

import sys
from logging import getLogger
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

sys.path.append(str(Path(__file__).parents[1]))
from addresses import free_addresses
from flwr.app import ArrayRecord
from flwr.supercore.task_identity import TaskIdentity
from nodes import Nodes, app_of, keys_beside

from ross_flwr import PeerDirect, PeerRelay, resolve
from ross_flwr.algorithms import ALGORITHMS
from ross_flwr.compression import CODECS
from ross_flwr.direct import certificates
from ross_flwr.flower import placement
from ross_flwr.flower.records import tensors_of
from ross_flwr.runs.local import LocalRun, resume

BASE = {"num_agents": 4, "num_rounds": 4, "topology": "ring", "attackers": 0, "validation_size": 20, "hidden": 8}
BASE |= {"test_size": 50, "evaluate_every": 4, "engine": "loop"}
DIRECT = {"segment_rounds": 2, "return_model": "final", "phase_timeout": 30.0}
WITH_CODEC = ("choco", "zlib")
ALONE = [name for name in CODECS if name not in WITH_CODEC]
TEXTS = [name for name in ALONE if not CODECS[name]().coarse]
TEXTS += [f"gradient: {name}" for name in ALONE] + [f"choco({name})" for name in ALONE]
TEXTS += ["zlib(int8)", "zlib(choco(topk)), gradient: zlib(sign)"]
PRIVATE = [name for name, cls in ALGORITHMS.items() if cls.private] + ["ross", "ross-plus", "dpsgd", "dmsgd", "dsgt"]
RUNS = {text: {"algorithm": "ross", "compress": text} for text in TEXTS}
RUNS |= {f"{name}, z = 2": {"algorithm": name, "dp_clip": 1.0, "dp_noise": 2.0} for name in PRIVATE}
RUNS["pdsl, compressed"] = RUNS["pdsl, z = 2"] | {"compress": "choco(int4), gradient: topk(0.05)"}


def config_of(options):
    return resolve({name.replace("_", "-"): value for name, value in options.items()})


def models(run):
    return torch.stack([run.host.agents[i]["model"] for i in sorted(run.host.agents)])


def resumed(options, folder):
    half = LocalRun(config_of(options | {"checkpoint_every": 2}), folder)
    for line in half.rounds():
        if line["round"] == 2:
            break
    (rest,) = resume(folder)
    list(rest.rounds())
    return models(rest)


def over(strategy, options, certs, **settings):
    config = config_of(options)
    addresses, model = free_addresses(4), LocalRun(config).assembly.task.model
    nodes = Nodes(
        app_of(config),
        range(4),
        lambda k: {"peer-address": addresses[k], "peer-certs": str(certs[k])},
        together=True,
    )
    made = strategy(**keys_beside(options | settings))
    made.start(nodes, ArrayRecord(model.named(model.initial)), options["num_rounds"])
    assert not made.dropped, made.dropped
    return torch.stack([model.flatten(tensors_of(made.models[i])) for i in range(4)])


def main(wanted):
    placement.SETTLE = 0.0
    getLogger("flwr").setLevel("ERROR")
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 1, 1
    with TemporaryDirectory() as folder:
        certificates.init(Path(folder) / "certs")
        certs = [certificates.issue(Path(folder) / "certs", f"n{k}") for k in range(4)]
        print("| run | resumed | relay | direct |\n|---|--:|--:|--:|")
        for number, (name, options) in enumerate(RUNS.items()):
            if wanted and name not in wanted:
                continue
            options = BASE | options
            run = LocalRun(config_of(options))
            list(run.rounds())
            found = [
                resumed(options, Path(folder) / str(number)),
                over(PeerRelay, options, certs),
                over(PeerDirect, options, certs, **DIRECT),
            ]
            far = [float((each - models(run)).abs().max()) for each in found]
            print(f"| `{name}` |", " | ".join(f"{each:.1e}" if each else "0" for each in far), "|", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
