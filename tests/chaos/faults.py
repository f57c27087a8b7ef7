"""Faults. Each lasts as long as its context is open; `who` is a node, `way` a pair of nodes."""

import shutil
import signal
import time
from contextlib import ExitStack, contextmanager

from cluster import COMPILER, until

from ross_flwr.direct import certificates
from ross_flwr.runs.folder import RunFolder


@contextmanager
def kill(run, who, way):
    """kill -9; it resumes from its state."""
    node = run.nodes[who]
    node.kill()
    saved = RunFolder(node.state).read_checkpoint()
    yield
    node.come_back()
    finished = saved[0] if saved else 0
    assert node.shared[0] > finished, f"{node.name} had saved round {finished} and resumes with {node.shared[0]}"


@contextmanager
def lose(run, who, way):
    """kill -9, and its state is gone: it starts anew."""
    node = run.nodes[who]
    node.kill()
    shutil.rmtree(node.state, ignore_errors=True)
    yield
    node.come_back()


@contextmanager
def stop(run, who, way):
    """SIGSTOP and SIGCONT."""
    run.nodes[who].signal(signal.SIGSTOP)
    yield
    run.nodes[who].signal(signal.SIGCONT)


@contextmanager
def full(run, who, way):
    """No file of the process can grow beyond 256 bytes, as if the disk were full."""
    run.nodes[who].shared[3] = 256
    yield
    run.nodes[who].shared[3] = 0


@contextmanager
def readonly(run, who, way):
    """Its state folder cannot be written."""
    node = run.nodes[who]
    until(node.state.is_dir, f"{node.name} has no state")
    node.state.chmod(0o500)
    yield
    node.state.chmod(0o700)


@contextmanager
def expire(run, who, way):
    """Its certificate expires while it runs; then its connections break, and it gets a new certificate and restarts."""
    node, folder = run.nodes[who], run.work / "certs"
    node.kill()

    def issue(days):
        days, certificates.DAYS = certificates.DAYS, days
        shutil.rmtree(folder / node.name)
        certificates.issue(folder, node.name)
        certificates.DAYS = days

    issue(4 / 86400)
    node.allowed.set()
    time.sleep(4)
    for (i, j), door in run.doors.items():
        if who in (i, j):
            run.proxies.call(door.cut)
    yield
    node.kill()
    issue(certificates.DAYS)
    node.come_back()


@contextmanager
def cut(run, who, way):
    """Break the connections on a way, again and again."""
    run.proxies.call(run.doors[way].cut)
    yield
    run.proxies.call(run.doors[way].cut)


@contextmanager
def close(run, who, way):
    """Break them, and refuse new ones."""
    run.proxies.call(run.doors[way].close)
    yield
    run.doors[way].open = True


def parted(is_parted):
    """Nothing passes between two nodes, either way, if `is_parted` says so of the pair."""

    @contextmanager
    def fault(run, who, way):
        with ExitStack() as stack:
            for pair in run.doors:
                if is_parted({*pair}, who, {*way}):
                    stack.enter_context(hold(run, pair, "there"))
                    stack.enter_context(hold(run, pair, "back"))
            yield

    return fault


@contextmanager
def one_way(run, who, way):
    """What one node says to another does not arrive, on whosever connection."""
    with hold(run, way, "there"), hold(run, way[::-1], "back"):
        yield


@contextmanager
def hold(run, way, direction):
    flow = run.doors[way].flows[direction]
    run.proxies.call(flow.clear)
    yield
    run.proxies.call(flow.set)


@contextmanager
def delay(run, who, way):
    """Every piece takes up to 0.3 s longer."""
    run.doors[way].delay = 0.3
    yield
    run.doors[way].delay = 0.0


def spoiled(how):
    @contextmanager
    def fault(run, who, way):
        run.doors[way].spoilt = how
        yield
        run.doors[way].spoilt = ""

    return fault


@contextmanager
def step(run, who, way):
    """Its wall clock jumps by hours: ahead if its number is the larger one on the way, and back if not."""
    run.nodes[who].shared[4] = 3 * 3600 if who == max(way) else -3 * 3600
    yield
    run.nodes[who].shared[4] = 0


@contextmanager
def replay(run, who, way):
    """Somebody repeats what a node said in an earlier connection."""
    answer = run.proxies.run(run.doors[way].replay())
    assert len(answer) < 10_000, "more than a handshake was answered"
    yield


OUTAGES = {
    "kill -9, resume": kill,
    "kill -9, state lost": lose,
    "SIGSTOP": stop,
    "certificate expires": expire,
    "cut off": parted(lambda pair, who, way: who in pair),
}
"""Those that neighbours notice."""
FAULTS = (
    OUTAGES
    | {
        "disk full": full,
        "state read-only": readonly,
        "connections broken": cut,
        "connections refused": close,
        "partition": parted(lambda pair, who, way: pair == way),
        "halves": parted(lambda pair, who, way: len(pair & way) == 1),
        "one-way partition": one_way,
        "delay": delay,
        "bytes duplicated": spoiled("duplicate"),
        "bytes reordered": spoiled("reorder"),
        "bytes changed": spoiled("garble"),
        "bytes dropped": spoiled("drop"),
        "connection replayed": replay,
    }
    | ({"clock steps": step} if COMPILER else {})
)
