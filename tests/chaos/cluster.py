"""A run over `direct` with TLS in real processes, every way from one node to another through a proxy.

This process plays the ServerApp: it tells a node its segment again when it comes back.
"""

import ctypes
import logging
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from functools import cache
from multiprocessing import forkserver, get_context
from pathlib import Path
from threading import Event, Thread

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from addresses import free_addresses
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from proxy import Proxies

from ross_flwr import resolve
from ross_flwr.direct import certificates
from ross_flwr.flower import handlers
from ross_flwr.flower.protocol import Report, Segment, Setup, model_key
from ross_flwr.flower.records import tensors_of
from ross_flwr.runs.assemble import assemble

CAPABILITIES = 0x20080522
"""The version of Linux's capabilities."""
OVERRIDE = 0b110
"""CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH: with them root may write where nobody may."""
NODES, SURVIVORS = 5, (0, 1)
"""Nodes 0 and 1 are never killed, so that their memory can be compared and they report every round that they ran."""
PATIENCE = 0.75
PACE = 0.1
"""Seconds that a round takes longer than it must, so that there are not too many of them."""
KEYS = {"algorithm": "dpsgd", "num-agents": NODES, "topology": "complete", "attackers": 0, "hidden": 8}
KEYS |= {"validation-size": 20, "test-size": 100, "transport": "direct", "phase-timeout": PATIENCE}
KEYS |= {"return-model": "final", "checkpoint-every": 5, "evaluate-every": 10**6}

CONTEXT = get_context("forkserver")
COMPILER = shutil.which("cc")
"""Without one, no clock can step."""


@cache
def serve_forks():
    """Start the server that forks nodes: it has imported everything, and needs this folder to find what."""
    CONTEXT.set_forkserver_preload(["cluster", "torch.distributed.tensor"])
    here, before = Path(__file__).parent, {name: os.environ.get(name, "") for name in ("PYTHONPATH", "LD_PRELOAD")}
    os.environ["PYTHONPATH"] = os.pathsep.join([str(here), str(here.parent), before["PYTHONPATH"]])
    folder = tempfile.TemporaryDirectory()
    if COMPILER:
        clock = Path(folder.name) / "clock.so"
        subprocess.run([COMPILER, "-shared", "-fPIC", here / "clock.c", "-o", clock, "-ldl"], check=True)
        os.environ["LD_PRELOAD"] = str(clock)
    forkserver.ensure_running()
    first = CONTEXT.Process(target=os.getpid)
    first.start()
    first.join()
    os.environ.update(before)
    return folder  # for as long as the server lives


def obey_modes():
    """Give up root's right to ignore the modes of files."""
    kernel, header, sets = (
        ctypes.CDLL(None, use_errno=True),
        (ctypes.c_uint32 * 2)(CAPABILITIES),
        (ctypes.c_uint32 * 6)(),
    )
    assert kernel.capget(header, sets) == 0, os.strerror(ctypes.get_errno())
    for k in range(3):  # effective, permitted, inheritable
        sets[k] &= ~OVERRIDE
    assert kernel.capset(header, sets) == 0, os.strerror(ctypes.get_errno())


def play(pipe, shared, index, keys, addresses, onward, behind_by):
    """Be a node: run the segment as the ClientApp does, and tell what came of it."""
    logging.disable()
    obey_modes()

    class Watched(handlers.Neighborhood):
        def rounds(self, schedule, first, last):
            shared[0] = first
            for round in super().rounds(schedule, first, last):
                shared[1] = round.number
                if COMPILER:
                    ctypes.CDLL(None).step_clock(ctypes.c_long(shared[4]))
                assert all(agent["model"].isfinite().all() for agent in self.host.agents.values()), "NaN"
                resource.setrlimit(resource.RLIMIT_FSIZE, (shared[3] or resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                yield round
                time.sleep(shared[2] / 1000)

    handlers.Neighborhood = Watched
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, index, 1  # as Flower does
    topology = (assembly := assemble(resolve(keys))).topology
    neighbors = [(f"n{j}", address, [j]) for j, address in onward.items()]
    last = int(keys["num-rounds"])
    segment = Segment(1, last, topology.digest, {index: [topology.place(index)]}, neighbors, behind_by)
    model = assembly.task.model
    content = RecordDict({"initial": ArrayRecord(model.named(model.initial)), "config": ConfigRecord()})
    content[Setup.key] = Setup("run", keys, {index: topology.place(index)}).to_record()
    content[Segment.key] = segment.to_record()
    certs = Path(str(keys["state-dir"])).parent / "certs" / f"n{index}"
    node = {"peer-address": addresses[index], "peer-certs": str(certs)}
    try:
        context = Context(run_id=1, node_id=index, node_config=node, state=RecordDict(), run_config={})
        reply = handlers.segment(Message(content, index, "train.segment"), context).content
        tensors = tensors_of(reply.array_records[model_key(index)])
        pipe.send((Report.of(reply), all(bool(torch.isfinite(each).all()) for each in tensors.values())))
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")


class Node:
    """A node's process, and those that follow it when it dies."""

    def __init__(self, run, index):
        self.run, self.index, self.name = run, index, f"n{index}"
        self.shared = CONTEXT.Array("i", [0, 0, int(1000 * PACE), 0, 0], lock=False)
        self.allowed = Event()
        self.allowed.set()
        self.outcome = self.process = None
        self.errors, self.pids, self.starts = Counter(), [], 0
        self.thread = Thread(target=self._lead, daemon=True)

    @property
    def round(self):
        return self.shared[1]

    @property
    def state(self):
        return self.run.work / "state" / "run" / f"agent-{self.index}"

    def _lead(self):
        while self.outcome is None:
            self.allowed.wait()
            here, there = CONTEXT.Pipe()
            behind = time.monotonic() - self.run.began if self.starts else 0.0
            work = (there, self.shared, self.index, self.run.keys, self.run.addresses, self.run.onward[self.index])
            self.process = CONTEXT.Process(target=play, args=(*work, behind), daemon=True)
            self.process.start()
            self.starts += 1
            self.pids.append(self.process.pid)
            there.close()
            try:
                said = here.recv()
            except EOFError:
                said = None
            here.close()
            self.process.join()
            if isinstance(said, str):
                self.errors[said] += 1
                time.sleep(0.5)
            else:
                self.outcome = said

    def signal(self, number):
        os.kill(self.process.pid, number)

    def kill(self):
        self.allowed.clear()
        self.process.kill()  # it may have ended: on a slow machine, its certificate expires before it starts
        self.process.join(5)

    def come_back(self):
        """Start again, and wait until rounds begin."""
        self.shared[0] = 0
        self.allowed.set()
        until(lambda: self.shared[0] or self.outcome, f"{self.name} does not come back: {self.errors}")


def until(condition, what, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


class Run:
    """A run in so many processes. A context manager.

    Parameters
    ----------
    num_rounds : int
        The rounds of the run, which should last longer than the faults.
    """

    def __init__(self, num_rounds):
        serve_forks()
        self.work = Path(tempfile.mkdtemp(prefix="chaos-"))
        self.keys = {**KEYS, "num-rounds": num_rounds, "state-dir": str(self.work / "state")}
        self.num_rounds = num_rounds
        (self.work / "state").mkdir()
        certificates.init(self.work / "certs")
        for k in range(NODES):
            certificates.issue(self.work / "certs", f"n{k}")
        self.addresses = free_addresses(NODES)
        self.proxies = Proxies()
        self.doors, self.onward = {}, {k: {} for k in range(NODES)}
        for i in range(NODES):
            for j in set(range(NODES)) - {i}:
                self.doors[i, j], self.onward[i][j] = self.proxies.add(self.addresses[j])
        self.began = time.monotonic()
        self.nodes = [Node(self, k) for k in range(NODES)]

    def __enter__(self):
        for node in self.nodes:
            node.thread.start()
        return self

    def __exit__(self, kind, error, traceback):
        for node in self.nodes:
            if kind and node.outcome is None:
                node.outcome = "over"
                node.allowed.set()
                if node.process and node.process.is_alive():
                    node.process.kill()
            node.thread.join(30)
        self.proxies.close()
        shutil.rmtree(self.work)

    @property
    def round(self):
        """Where those are that are never killed."""
        return max(self.nodes[k].round for k in SURVIVORS)
