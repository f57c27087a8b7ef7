"""The real thing: `deploy/local.sh` starts a SuperLink and four SuperNodes with TLS and node authentication."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from ross_flwr import resolve
from ross_flwr.run import LocalRun

ROOT = Path(__file__).parents[2]
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
SAME = {"num-agents": 4, "topology": "ring", "attackers": 1, "num-rounds": 6, "beside": "", "evaluate-every": 2}

pytestmark = [
    pytest.mark.deployment,
    pytest.mark.skipif(
        not (shutil.which("flower-superlink", path=PATH) and shutil.which("bash") and sys.platform == "linux"),
        reason="needs flwr's commands and bash",
    ),
]


def deployment(work, **keys):
    """Start deploy/local.sh with these keys beside its own; it works in folder `work`."""
    written = " ".join(f"{key}={json.dumps(value)}" for key, value in keys.items())
    environment = {**os.environ, "PATH": PATH, "PYTHONPATH": str(ROOT), "WORK": str(work)}
    with (work / "local.out").open("w") as out:
        return subprocess.Popen(
            [str(ROOT / "deploy/local.sh"), written],
            env=environment,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def finish(process, work):
    """Wait for the end, whatever it is, and return what was printed."""
    try:
        process.wait(timeout=420)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)
    printed = (work / "local.out").read_text()
    assert process.returncode == 0, printed
    for pid in work.glob("*.pid"):
        assert not Path(f"/proc/{pid.read_text().strip()}").exists(), f"{pid.stem} is still running"
    return printed


def history_of(work, method="ross"):
    return [json.loads(line) for line in (work / f"results/{method}/history.jsonl").read_text().splitlines()]


def locally(**keys):
    run = LocalRun(resolve({**SAME, **keys}))
    for _ in run.rounds():
        pass
    return run


@pytest.mark.parametrize("keys", [{"segment-rounds": 3, "return-model": "final"}], ids=["direct"])
def test_agents_have_the_models_they_have_in_one_process(tmp_path, keys):
    printed = finish(deployment(tmp_path, **SAME, **keys), tmp_path)
    assert "Result" in printed
    expected = locally()
    lines = history_of(tmp_path)
    assert [line["round"] for line in lines] == list(range(1, 7))
    for line, local_line in zip(lines, expected.history.lines, strict=True):
        for name in ("bytes", "gradients", "utilities", "sent", "missing", "absent"):
            assert line[name] == local_line[name]
        assert (line["accuracy"] is None) == (local_line["accuracy"] is None)
        if line["accuracy"]:
            assert line["accuracy"] == pytest.approx(local_line["accuracy"], abs=1e-6)
    consensus = load_file(tmp_path / "results/ross/model.safetensors")
    models = [expected.host.agents[i]["model"] for i in expected.history.honest]
    mean = expected.experiment.model.named(sum(models) / len(models))
    for name, tensor in mean.items():
        assert (consensus[name] - tensor).abs().max() < 1e-4
    summary = json.loads((tmp_path / "results/ross/summary.json").read_text())
    assert summary["dropped"] == {}


def children_of(pid):
    """All processes below `pid`."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, parent = int(stat.parent.name), int(stat.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if parent == pid:
            found += [name, *children_of(name)]
    return found


def test_the_others_finish_when_a_node_is_killed_in_the_middle_of_a_segment(tmp_path):
    rounds = 400
    keys = {**SAME, "num-rounds": rounds, "segment-rounds": rounds, "phase-timeout": 10.0, "local-steps": 1}
    process = deployment(tmp_path, **keys)
    log = tmp_path / "run.log"
    deadline = time.monotonic() + 300
    node = tmp_path / "agent-2.pid"
    victims: list[int] = []
    while len(victims) < 2 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
        if log.exists() and "[ROUNDS" in log.read_text():
            pid = int(node.read_text())
            at_work = [each for each in children_of(pid) if listens(each)]
            victims = [pid, *children_of(pid)] if at_work else []
    assert victims, (tmp_path / "local.out").read_text()
    time.sleep(1.5)
    for each in victims:
        os.kill(each, signal.SIGKILL)
    finish(process, tmp_path)
    lines = history_of(tmp_path)
    assert len(lines) == rounds
    gone = {agent for line in lines for agent in line["absent"]}
    assert len(gone) == 1
    (dead,) = gone
    left = [line["round"] for line in lines if any(j == dead for _, j in line["missing"])]
    assert left
    assert left[-1] == rounds
    assert {tuple(pair) for pair in lines[-1]["missing"]} == {((dead - 1) % 4, dead), ((dead + 1) % 4, dead)}


def listens(pid):
    """Whether a process has opened its peer port: it runs the ClientApp's segment."""
    try:
        return any("flwr-clientapp" in part for part in Path(f"/proc/{pid}/cmdline").read_text().split("\0"))
    except OSError:
        return False
