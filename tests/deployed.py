"""`deploy/local.sh` and runs in the deployment that it starts, for tests."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from safetensors.torch import load_file

from ross_flwr.runs.local import LocalRun
from ross_flwr.runs.side_by_side import side_by_side

ROOT = Path(__file__).parents[1]
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
POSSIBLE = pytest.mark.skipif(
    not (shutil.which("flower-superlink", path=PATH) and shutil.which("bash") and sys.platform == "linux"),
    reason="needs flwr's commands and bash",
)


def until(condition, what, seconds=420, pause=0.05):
    """Look for something every `pause` seconds until it is so, and return it."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(pause)
    return value


def environment(home, path=PATH):
    """What Flower's commands run in: a home of their own, this checkout, and the commands on `path`."""
    ours = {"FLWR_HOME": str(home), "FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    return {**os.environ, **ours, "PATH": path, "PYTHONPATH": str(ROOT)}


def written(keys):
    """Keys as `--run-config` takes them."""
    return " ".join(f"{key}={json.dumps(value)}" for key, value in keys.items())


class Results:
    """What a run with these keys left in its folder."""

    def __init__(self, folder, keys):
        self.folder, self.keys = folder, keys

    def history(self):
        return [json.loads(line) for line in self._of_method("history.jsonl").read_text().splitlines()]

    def summary(self):
        return json.loads(self._of_method("summary.json").read_text())

    def _of_method(self, name):
        return self.folder / self.keys["algorithm"] / name

    def assert_is_as_locally(self):
        """What agents told, and the models they ended with, are those of the same run in one process."""
        here = LocalRun(side_by_side(self.keys)[0])
        for _ in here.rounds():
            pass
        lines = self.history()
        assert [line["round"] for line in lines] == list(range(1, self.keys["num-rounds"] + 1))
        for line, local_line in zip(lines, here.history.lines, strict=True):
            for name in ("bytes", "gradients", "utilities", "work", "sent", "missing", "absent"):
                assert line[name] == local_line[name]
            assert (line["accuracy"] is None) == (local_line["accuracy"] is None)
            if line["accuracy"]:
                assert line["accuracy"] == pytest.approx(local_line["accuracy"], abs=1e-6)
        consensus = load_file(self._of_method("model.safetensors"))
        models = [here.host.agents[i]["model"] for i in here.history.honest]
        mean = here.assembly.task.model.named(sum(models) / len(models))
        assert consensus.keys() == mean.keys()
        for name, tensor in mean.items():
            assert (consensus[name] - tensor).abs().max() < 1e-4


class Run(Results):
    """`flwr run` of the app with these keys, at the SuperLink that Flower's configuration calls `here`."""

    def __init__(self, folder, environment, keys):
        super().__init__(folder, keys)
        folder.mkdir(exist_ok=True)  # of a run that goes on
        self._log = folder / "run.log"
        command = ["flwr", "run", str(ROOT), "here", "--stream"]
        command += ["--run-config", written({**keys, "results": str(folder)})]
        with self._log.open("w") as out:
            self._process = subprocess.Popen(command, env=environment, stdout=out, stderr=subprocess.STDOUT)

    def says(self, text):
        return text in self._log.read_text()

    def finish(self):
        try:
            self._process.wait(timeout=420)
        finally:
            self._process.kill()
        assert self.says("Result"), self._log.read_text()


class Deployment:
    """What `deploy/local.sh` starts in the folder `work`; its argument `shell` lets it stand until `stop`."""

    def __init__(self, work, argument, *, nodes=4, path=PATH):
        self.work = work
        self.environment = {**environment(work / "flwr", path), "WORK": str(work), "NODES": str(nodes)}
        self._printed = work / "local.out"
        self.restarted = []
        with self._printed.open("w") as out:
            self._process = subprocess.Popen(
                [str(ROOT / "deploy/local.sh"), argument],
                env=self.environment,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def stands(self):
        assert self._process.poll() is None, self.printed
        return "The deployment runs" in self.printed

    @property
    def printed(self):
        return self._printed.read_text()

    def run(self, name, keys):
        return Run(self.work / name, self.environment, keys)

    def stop(self):
        """Wait for its end, that of its shell too; nothing that was started may outlive it."""
        below = children_of(self._process.pid)
        for each in self.restarted:
            each.terminate()
            each.wait(timeout=60)
        try:
            self._process.stdin.close()
            self._process.wait(timeout=420)
        finally:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGTERM)
                self._process.wait(timeout=60)
        assert self._process.returncode == 0, self.printed
        left = list(filter(runs, below))
        send(signal.SIGKILL, left)
        assert not left, "something is still running"

    def kill_superlink(self):
        """Kill the SuperLink, and the ServerApps that it runs; return the command that starts it again."""
        pid = int((self.work / "superlink.pid").read_text())
        command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
        send(signal.SIGKILL, [pid, *children_of(pid)])
        return command

    def restart_superlink(self, command):
        """Start the SuperLink again, and wait until it knows all nodes."""
        with (self.work / "superlink-again.log").open("w") as log:
            process = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)
        self.restarted.append(process)
        (self.work / "superlink.pid").write_text(str(process.pid))
        until(lambda: self._online() == int(self.environment["NODES"]), "the nodes do not come back", pause=1)

    def _online(self):
        listed = ["flwr", "supernode", "list", "here", "--format", "json"]
        done = subprocess.run(listed, env=self.environment, capture_output=True, text=True)
        return done.stdout.count('"online"')

    def nodes(self):
        """The SuperNodes in the order of their agents."""
        return [Node(self, f"agent-{k + 1}") for k in range(int(self.environment["NODES"]))]


class Node:
    """A SuperNode of a deployment, and the process in which its agent is at work."""

    def __init__(self, deployment, name):
        self.name = name
        self.certs = deployment.work / "certs" / name
        self._deployment = deployment
        self._pid_file = deployment.work / f"{name}.pid"
        until(lambda: "flower-supernode" in runs(self._pid), f"{name} did not start", pause=0.01)  # bash forks first
        self._command = runs(self._pid).split("\0")[:-1]
        self.address = re.search(r'peer-address="(.*?)"', " ".join(self._command))[1]

    @property
    def _pid(self):
        return int(self._pid_file.read_text())

    def signal_app(self, number):
        """Signal the processes that run its ClientApp."""
        send(number, [pid for pid in children_of(self._pid) if "flwr-clientapp" in runs(pid)])

    def kill(self):
        send(signal.SIGKILL, [self._pid, *children_of(self._pid)])

    def restart(self):
        """Start the SuperNode again by the command of before; return whether the SuperLink takes it.

        It does not for up to a minute after a death that it has not noticed.
        """
        path = self._deployment.work / f"{self.name}-again.log"
        with path.open("w") as log:
            process = subprocess.Popen(self._command, env=self._deployment.environment, stdout=log, stderr=log)
        self._deployment.restarted.append(process)
        self._pid_file.write_text(str(process.pid))
        until(lambda: "SuperNode ID" in path.read_text() or process.poll() is not None, f"{self.name} hangs")
        return process.poll() is None


def runs(pid):
    """The command of a process, or nothing if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def send(number, pids):
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


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
