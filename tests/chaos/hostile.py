"""A ring over `direct` with TLS, a process each, that mixes by the median. One node, with a certificate, is hostile.

    python tests/chaos/hostile.py

For each kind of hostility it prints the honest nodes' accuracy at round `TESTED`, their rate after twenty times the
patience, memory and bytes of log, beside those of a run in which that node is honest. It exits with code 1 if a bar of
`BARS` is missed.
"""

import argparse
import logging
import os
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import forkserver, get_context
from pathlib import Path
from threading import Thread

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "benchmarks")]
os.environ["OMP_NUM_THREADS"] = "1"

import grpc  # noqa: E402
import torch  # noqa: E402
from addresses import free_addresses  # noqa: E402
from processes import issue  # noqa: E402
from usage import usage  # noqa: E402

from ross_flwr import resolve  # noqa: E402
from ross_flwr.direct.agreement import Agreement  # noqa: E402
from ross_flwr.direct.certificates import DOMAIN, Credentials  # noqa: E402
from ross_flwr.direct.channels import OPTIONS, SERVICE, Neighbor  # noqa: E402
from ross_flwr.direct.neighborhood import Neighborhood  # noqa: E402
from ross_flwr.direct.server import Server  # noqa: E402
from ross_flwr.direct.wire import chunks, layouts  # noqa: E402
from ross_flwr.engine.rounds import Schedule  # noqa: E402
from ross_flwr.peer.v1.peer_pb2 import Header  # noqa: E402
from ross_flwr.runs.assemble import assemble  # noqa: E402

NODES, HOSTILE = 6, 0
PATIENCE, PACE = 0.5, 0.2
"""Seconds to wait for an exchange, and those that a round takes longer than it must."""
SETTLING, MEASURED = 20 * PATIENCE, 8.0
"""Seconds from the first round on, and those after them in which the rate is measured."""
TESTED = 30
"""The round in which accuracy is compared. Towards a hundred, the median tears a ring apart without any attack."""
KEYS = {"algorithm": "dpsgd", "num-agents": NODES, "topology": "ring", "aggregator": "median", "attackers": 0}
KEYS |= {"partition": "iid", "hidden": 32, "num-rounds": 10**4}
BARS = {"accuracy": 0.05, "rate": 0.5, "MB": 100, "log": 100_000}
FLOODED = 0.9
"""The least rate beside a flooder, of what it is without."""


class Elsewhere(Agreement):
    """Says that it stands elsewhere: `by` exchanges ahead, and farther each time if they are many."""

    by, said = 0, 0

    def hello(self, exchange):
        type(self).said += 1
        return super().hello(max(0, exchange + self.by + (self.said if self.by > 1 else 0)))


def claim(node, by):
    node.peer.server.agreement = agreement = Elsewhere(**vars(node.peer.server.agreement))
    type(agreement).by = by


def lie(node, addresses, credentials):
    """Send models of hundreds."""
    send = node.send
    node.send = lambda t, k, leaving: send(
        t,
        k,
        [replace(each, tensors={n: torch.full_like(x, 100.0) for n, x in each.tensors.items()}) for each in leaving],
    )


def late_by(seconds, by=0):
    """Deliver so much later than it could, and lie, and perhaps claim to be elsewhere."""

    def stall(node, addresses, credentials):
        lie(node, addresses, credentials)
        claim(node, by)
        send = node.send

        def delayed(t, k, leaving):
            time.sleep(seconds)
            send(t, k, leaving)

        node.send = delayed

    return stall


def silent(node, addresses, credentials):
    """Send nothing, and claim to be behind."""
    claim(node, -1)
    node.send = lambda t, k, leaving: None


def greet(node, addresses, credentials):
    """Claim to be far ahead, and poison what is fetched."""

    async def fetch(self, request, context):
        model = {"model": torch.full((node.host.agents[HOSTILE]["model"].numel(),), 100.0)}
        for chunk in chunks(Header(run="run", source=HOSTILE, tensors=layouts(model)), model.values()):
            await context.write(chunk)

    Server.fetch = fetch
    lie(node, addresses, credentials)
    claim(node, 100)


def flood(node, addresses, credentials):
    """Send nonsense, open calls and leave them open, some hundred a second to each neighbour, and take part as ever."""

    def pour(j):
        identity = grpc.ssl_channel_credentials(credentials.authority, credentials.key, credentials.certificate)
        options = [*OPTIONS, ("grpc.ssl_target_name_override", f"n{j}.{DOMAIN}"), ("grpc.use_local_subchannel_pool", 1)]
        channels = [grpc.secure_channel(addresses[j], identity, options) for _ in range(8)]
        number = 0
        while True:
            number += 1
            channel, method = channels[number % 8], ("Greet", "Deliver", "Fetch")[number % 3]
            body = [b"", b"\xff" * 100, os.urandom(1 << 16)][number % 3]
            channel.stream_stream(f"/{SERVICE}/{method}")(iter([body, body]), timeout=5)
            time.sleep(0.005)

    for j in node.host.agents[HOSTILE].neighbors:
        Thread(target=pour, args=(j,), daemon=True).start()


KINDS = {
    "liar": lie,
    "staller": late_by(0.9 * PATIENCE, -1),
    "late every time": late_by(0.9 * PACE),
    "silent": silent,
    "greeter that lies": greet,
    "flooder": flood,
}


class Counted(logging.Handler):
    """Counts the bytes of a log."""

    written = 0

    def emit(self, record):
        self.written += len(record.getMessage()) + 1


def play(pipe, index, addresses, folder, kind):
    """Be a node, hostile from round 5 on if it is to be, until told to end; tell when each round ended."""
    torch.set_num_threads(1)
    log = Counted()
    logging.getLogger().addHandler(log)
    logging.getLogger("flwr").propagate = True
    assembly = assemble(resolve(KEYS))
    topology, credentials = assembly.topology, Credentials.read(folder / f"n{index}")
    host = assembly.host("run", {index: topology.place(index)})
    neighbors = [Neighbor(f"n{j}", addresses[j], (j,)) for j in host.agents[index].neighbors]
    settings = {"address": addresses[index], "topology": topology.digest, "layout": assembly.task.model.digest}
    settings |= {"passes": 10**4, "patience": PATIENCE, "credentials": credentials}
    ended, accuracy, before = [], None, None
    with Neighborhood(host, neighbors, **settings) as node:
        pipe.send("ready")
        pipe.recv()
        for round in node.rounds(Schedule(10**4, evaluate_every=10**6, evaluate_at=frozenset({TESTED})), 1, 10**4):
            before = before or usage(os.getpid())[0]
            ended.append(time.monotonic())
            if round.number >= TESTED and accuracy is None:
                agent = host.agents[index]
                accuracy = agent.objective.test(agent["model"])["accuracy"]
            if round.number == 5 and kind and index == HOSTILE:
                KINDS[kind](node, addresses, credentials)
            if pipe.poll():
                break
            time.sleep(PACE)
        finite = bool(host.agents[index]["model"].isfinite().all())
        told = {
            "ended": ended,
            "accuracy": accuracy,
            "finite": finite,
            "dropped": dict(host.dropped + node.peer.mail.dropped),
        }
        pipe.send(told | {"MB": usage(os.getpid())[0] - before, "log": log.written})
        pipe.recv()


@contextmanager
def ring(kind, context, folder):
    """Start a ring; when the context ends, so do its processes."""
    addresses, pipes, processes = free_addresses(NODES), [], []
    for k in range(NODES):
        here, there = context.Pipe()
        processes.append(context.Process(target=play, args=(there, k, addresses, folder, kind), daemon=True))
        processes[-1].start()
        pipes.append(here)
    try:
        for pipe in pipes:
            assert pipe.recv() == "ready"
        yield pipes
    finally:
        for process in processes:
            process.kill()
            process.join(10)


def measure(kinds):
    """Run a ring for each of these kinds, all at once, and return what the honest nodes tell of each."""
    context = get_context("forkserver")
    context.set_forkserver_preload(
        ["ross_flwr.runs.assemble", "ross_flwr.direct.neighborhood", "torch.distributed.tensor"]
    )
    here = Path(__file__).parent
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(here), str(here.parent), str(here.parent / "benchmarks"), os.environ.get("PYTHONPATH", "")]
    )
    forkserver.ensure_running()
    found = {}

    def watch(kind):
        with ring(kind, context, folder) as pipes:
            for pipe in pipes:
                pipe.send("go")
            began = time.monotonic()
            time.sleep(SETTLING + MEASURED + 1)
            honest = [pipe for k, pipe in enumerate(pipes) if k != HOSTILE]
            for pipe in pipes:
                pipe.send("end")
            told = [pipe.recv() for pipe in honest if pipe.poll(60)]
        assert len(told) == NODES - 1, f"{kind}: a node does not end"
        since, until = began + SETTLING, began + SETTLING + MEASURED
        rates = [sum(since < at <= until for at in each["ended"]) / MEASURED for each in told]
        dropped = {
            reason: sum(each["dropped"].get(reason, 0) for each in told) for each in told for reason in each["dropped"]
        }
        found[kind] = {"accuracies": [each["accuracy"] for each in told], "rate": min(rates), "dropped": dropped}
        found[kind] |= {name: max(each[name] for each in told) for name in ("MB", "log")}
        assert all(each["finite"] for each in told), f"{kind}: a model is not finite"

    with tempfile.TemporaryDirectory() as place:
        folder = issue(Path(place), NODES)
        threads = [Thread(target=watch, args=(kind,)) for kind in kinds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert found.keys() == {*kinds}, "a ring failed"
    return found


def missed(kind, found, without):
    """Return which bars are missed beside this kind of hostile node."""
    if None in found["accuracies"]:
        return [f"{kind}: not everybody reached round {TESTED}"]
    means = [sum(each["accuracies"]) / len(each["accuracies"]) for each in (found, without)]
    rate = found["rate"] / without["rate"]
    return [
        f"{kind}: {what}"
        for what, bad in {
            f"accuracy {means[0]:.3f} instead of {means[1]:.3f}": means[0] < means[1] - BARS["accuracy"],
            f"rate {rate:.2f}": rate < (FLOODED if kind == "flooder" else BARS["rate"]),
            f"{found['MB']:.0f} MB more": found["MB"] > without["MB"] + BARS["MB"],
            f"{found['log']} bytes of log": found["log"] > without["log"] + BARS["log"],
        }.items()
        if bad
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", default=[*KINDS], help=f"of {', '.join(KINDS)}; by default all, in turn")
    without, faults = measure([None])[None], []
    results = {"nobody": without} | {kind: measure([kind])[kind] for kind in parser.parse_args().kinds}
    for kind, found in results.items():
        accuracies = ", ".join("-" if each is None else f"{each:.3f}" for each in found["accuracies"])
        line = f"{kind}: accuracy {accuracies}; rate {found['rate'] / without['rate']:.2f} ({found['rate']:.2f}/s); "
        print(line + f"{found['MB']:+.1f} MB; {found['log']} bytes of log; {found['dropped']}", flush=True)
        faults += missed(kind, found, without)
    print(*faults, sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
