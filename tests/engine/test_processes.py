"""Processes that compute for a run: they change nothing but its time."""

import gc
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset
from twins import SMALL, alike

from ross_flwr import graph, simulate
from ross_flwr.algorithms.dpsgd import DPSGD
from ross_flwr.config import ConfigError, resolve
from ross_flwr.engine import processes
from ross_flwr.engine.arena import Arena
from ross_flwr.engine.batched import Batched, choose
from ross_flwr.files import held
from ross_flwr.learning.flat import FlatModel
from ross_flwr.learning.requests import Test
from ross_flwr.runs.local import LocalRun
from ross_flwr.tasks.models import MODELS
from ross_flwr.tasks.own import Own

pytestmark = pytest.mark.skipif(not processes.can_fork(), reason="forks on Linux only")
SETTING = SMALL | {
    "algorithm": "dpsgd",
    "num-agents": 5,
    "num-rounds": 3,
    "topology": "ring",
}


class Answers:
    """How many jobs other processes have done."""

    def __init__(self) -> None:
        self.count = 0
        self.inner = processes.Worker.receive

    def __get__(self, worker, _):
        def receive():
            job, answers = self.inner(worker)
            self.count += answers is not None and not job.done
            return job, answers

        return receive


@pytest.fixture
def answers(monkeypatch):
    """However short a request takes, it goes to another process if one has nothing to do; count those that do."""
    monkeypatch.setattr(processes, "WORTH", -1)
    monkeypatch.setattr(processes.Worker, "receive", counted := Answers())
    return counted


def started(more=(), path=None, number=3):
    """Return a run whose requests three processes answer."""
    run = LocalRun(resolve(SETTING | dict(more) | {"engine": "loop"}), path)
    run.host.engine = Batched(number, stacking=False, forking=True)
    return run


class Drawing(nn.Module):
    """Draws random numbers, and has buffers that training moves."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 12), nn.BatchNorm1d(12), nn.Dropout(), nn.Linear(12, 10)
        )

    def forward(self, images):
        return self.layers(images)


CASES = {
    "dpsgd": {},
    "ross-plus": {"algorithm": "ross-plus"},
    "ross": {"algorithm": "ross", "validation-batch": 10},
    "private": {"algorithm": "pdsl", "dp-clip": 1.0, "dp-noise": 0.5, "attackers": 0},
    "poisoned, with faults": {"attack": "flipped-labels", "dropout": 0.3, "message-loss": 0.2},
    "backdoor": {"corruption": "backdoor", "corrupted": 2, "attackers": 0},
    "batch-norm and dropout": {"model": "drawing"},
}


@pytest.mark.parametrize("more", CASES.values(), ids=CASES)
def test_processes_give_the_numbers_of_the_loop_to_the_last_bit(more, answers, monkeypatch):
    monkeypatch.setitem(MODELS, "drawing", lambda *_: Drawing())
    monkeypatch.setattr(processes.Worker, "take_back", lambda self: None)
    alone, together = LocalRun(resolve(SETTING | more | {"engine": "loop"})), started(more)
    for run in (alone, together):
        list(run.rounds())
    assert alike(alone, together)
    assert answers.count >= 3
    assert together.summary()["engine"] == "loop, 3 processes"


def test_what_fails_is_told_as_by_the_loop(answers):
    run = started()
    rounds = run.rounds()
    next(rounds)

    def failing(outputs, targets):
        raise ConfigError(f"no loss of {len(targets)} examples")

    run.host.engine.close()
    for agent in run.host.agents.values():
        agent.objective.criterion = failing
    with pytest.raises(ConfigError, match="no loss of 16 examples"):
        next(rounds)


def test_what_only_fails_elsewhere_is_done_here(answers):
    """Say, an app's data set that reads a file which was opened before the fork."""
    alone, together, here = started(number=1), started(), os.getpid()
    for agent in together.host.agents.values():
        inner = agent.objective.criterion

        def failing(outputs, targets, inner=inner):
            if os.getpid() != here:
                raise OSError("Bad file descriptor")
            return inner(outputs, targets)

        agent.objective.criterion = failing
    for run in (alone, together):
        list(run.rounds())
    assert alike(alone, together)
    assert answers.count == 0


def test_the_others_do_the_work_of_a_process_that_was_killed(answers, caplog):
    alone, together = started(number=1), started()
    list(alone.rounds())
    rounds = together.rounds()
    next(rounds)
    for worker in list(together.host.engine._processes._workers):
        worker.process.kill()
        worker.process.join()
        next(rounds)
    list(rounds)
    assert caplog.text.count("ended with exit code -9") == 2
    assert alike(alone, together)


def test_nobody_waits_for_a_process_that_has_not_begun(answers):
    alone, together = started(number=1), started()
    list(alone.rounds())
    rounds = together.rounds()
    next(rounds)
    for worker in together.host.engine._processes._workers:
        os.kill(worker.process.pid, signal.SIGSTOP)
    list(rounds)
    assert alike(alone, together)


def test_nobody_waits_for_ever_for_a_process_that_does_not_end_what_it_has_begun(answers, monkeypatch, caplog):
    """Say, since another thread held a lock when it was forked."""
    monkeypatch.setattr(processes, "PATIENCE", 0.5)
    monkeypatch.setattr(processes.Worker, "take_back", lambda self: None)
    alone, together, here = started(number=1), started(), os.getpid()
    for agent in together.host.agents.values():
        inner = agent.objective.criterion
        agent.objective.criterion = lambda *pair, inner=inner: inner(*pair) if os.getpid() == here else time.sleep(600)
    for run in (alone, together):
        list(run.rounds())
    assert alike(alone, together)
    assert caplog.text.count("ended with exit code -9") == 2


def test_a_run_goes_on_alone_where_it_may_have_no_other_process(answers, monkeypatch, caplog):
    def refused(self):
        raise OSError("Cannot allocate memory")

    monkeypatch.setattr("multiprocessing.process.BaseProcess.start", refused)
    alone, together = started(number=1), started()
    for run in (alone, together):
        list(run.rounds())
    assert alike(alone, together)
    assert "no more than 1 processes compute for this run: Cannot allocate memory" in caplog.text


def test_processes_end_with_the_run_and_hold_no_file_of_it(answers, tmp_path):
    run = started(path=tmp_path / "run")
    run.begin()
    with held(tmp_path / "lock"):
        rounds = run.rounds()
        next(rounds)
        workers = [worker.process for worker in run.host.engine._processes._workers]
        assert len(workers) == 2
    with held(tmp_path / "lock"):  # the workers are there, but do not hold it
        assert all(each.is_alive() for each in workers)
    rounds.close()
    assert not any(each.is_alive() for each in workers)


def test_what_was_given_up_here_ends_only_here(answers, tmp_path):
    """A generator in a cycle that Python has not found yet is in both processes."""

    class Cycle:
        pass

    def given_up():
        try:
            yield
        finally:
            (tmp_path / f"{os.getpid()}").touch()

    run = started()
    cycle = Cycle()
    cycle.generator = given_up()
    next(cycle.generator)
    cycle.self = cycle
    for agent in run.host.agents.values():
        inner = agent.objective.criterion
        agent.objective.criterion = lambda *pair, inner=inner: (gc.collect() and 0) or inner(*pair)
    gc.disable()
    try:
        del cycle
        rounds = run.rounds()
        next(rounds)
    finally:
        gc.enable()
    rounds.close()
    gc.collect()
    assert [file.name for file in tmp_path.iterdir()] == [f"{os.getpid()}"]


def test_processes_end_when_that_which_forked_them_is_killed(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from engine import test_processes as here\n"
        "here.processes.WORTH = -1\n"
        "run = here.started({'num-rounds': 10**6})\n"
        "for line in run.rounds():\n"
        "    if line['round'] == 2:\n"
        "        print(*(each.process.pid for each in run.host.engine._processes._workers), flush=True)\n"
    )
    command = [sys.executable, str(script), str(Path(__file__).parents[1])]
    parent = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    assert len(pids) == 2
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_engine_that_was_stopped_in_a_round_can_be_used_again(answers):
    """Answers that come late are not taken for others."""
    run, again = started(number=1), started()
    list(run.rounds())
    engine, calls = again.host.engine, []
    inner = again.host.algorithm.run_step

    def stopping(*arguments):
        calls.append(arguments)
        if len(calls) == 13:
            raise ValueError("stopped")
        return inner(*arguments)

    again.host.algorithm.__dict__["run_step"] = stopping
    with pytest.raises(ValueError, match="stopped"):
        list(again.rounds())
    del again.host.algorithm.__dict__["run_step"]
    other = started()
    other.host.engine = engine
    list(other.rounds())
    assert alike(run, other)


def test_tensors_that_have_no_room_go_as_bytes():
    arena = Arena(256, known := {})
    known |= {id(each): each for each in [object()]}
    (thing,) = known.values()
    sent = [torch.arange(40), (torch.ones(3, 4)[:, ::2], thing), {"none": torch.empty(0), "flag": torch.tensor(True)}]
    got = arena.load(arena.dump(sent))
    assert got[1][1] is thing
    for here, there in zip(
        [got[0], got[1][0], *got[2].values()], [sent[0], sent[1][0], *sent[2].values()], strict=True
    ):
        assert here.dtype == there.dtype
        assert torch.equal(here, there)


def test_tensors_lie_as_they_did():
    """Convolutions depend on strides, and products on where a vector begins."""
    arena = Arena(2**16, {})
    images, row = torch.rand(2, 3, 4, 4).to(memory_format=torch.channels_last), torch.rand(3, 5)[1]
    assert row.data_ptr() % 64 == 20
    got = arena.load(arena.dump([images, row]), copy=False)
    assert got[0].stride() == images.stride()
    assert got[1].data_ptr() % 64 == 20
    assert torch.equal(got[0], images)
    assert torch.equal(got[1], row)


def test_an_engine_forgets_what_it_knew_when_it_is_closed(answers):
    run = started()
    list(run.rounds())
    assert run.host.engine._processes._known == {}


def test_messages_that_fill_the_pipe_on_both_ends_do_not_meet(answers, monkeypatch):
    monkeypatch.setattr(processes, "ROOM", 1000)
    monkeypatch.setattr(processes, "VECTORS", 0)
    alone, together = (started({"hidden": 3000, "num-rounds": 2}, number=number) for number in (1, 2))
    for run in (alone, together):
        list(run.rounds())
    assert alike(alone, together)
    assert answers.count > 0


def test_the_first_tests_of_a_run_are_spread_too(answers, monkeypatch):
    monkeypatch.setattr(processes, "WORTH", 0)
    monkeypatch.setattr(processes.Worker, "take_back", lambda self: None)
    run = started()
    tested = [Test(agent.objective, agent["model"]) for agent in run.host.agents.values()]
    alone = [request.answer() for request in tested]
    assert run.host.engine.answer(tested) == alone
    assert answers.count > 0
    run.host.engine.close()


def test_models_that_do_not_stack_use_all_cores_in_processes(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(4)))
    drawing, chain = FlatModel(Drawing()), FlatModel(nn.Sequential(nn.Linear(4, 3)))
    assert choose("auto", drawing, 10, forking=True).name == "loop, 4 processes"
    assert choose("auto", drawing, 3, forking=True).name == "loop, 3 processes"
    assert choose("auto", drawing, 1, forking=True).name == choose("auto", drawing, 10).name == "loop"
    assert choose("loop", drawing, 10, forking=True).name == "loop"
    assert choose("auto", chain, 10, forking=True).name == "batched, 4 threads"
    assert choose("auto", chain, 10, forking=True, clipped=True).name == "loop, 4 processes"
    private = LocalRun(resolve(SETTING | CASES["private"]))
    assert private.host.engine.name == "loop, 4 processes"


def test_code_of_an_app_runs_in_one_process(monkeypatch):
    """What it remembers, draws from NumPy or reads from an open file would differ by process."""
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(4)))
    data = TensorDataset(torch.rand(8, 64), torch.arange(8) % 2)
    task = Own(Drawing(), lambda agent: data, lambda agent: data, batch_size=4)
    assert simulate(DPSGD(), graph.ring(3), task, rounds=1).summary["engine"] == "loop"
