"""Coverage-guided fuzzing of all that reads input from others: ``python tests/chaos/fuzz.py --seconds 60 [TARGET …]``.

It needs the package atheris. Each target runs in a process of its own. What it prints is a line per target: how many
inputs were executed, and in what time. An input that raises what it should not stops its target, is kept in the folder
``crashes`` and shown; the exit code is then 1.
"""

import os
import re
import subprocess
import sys
import tempfile
from argparse import ArgumentParser
from pathlib import Path

NAMES = (
    *(
        "envelope",
        "encoded",
        "record",
        "reply",
        "route",
        "topology",
        "configuration",
        "experiment",
        "certificate",
        "result",
    ),
    *("lines", "summary"),
)

MEMORY = "/dev/shm"
"""Where the files of a target lie, if the system has such a place: in memory."""


def main() -> None:
    """Run the targets one after the other."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="for each target [60]")
    parser.add_argument("targets", nargs="*", default=NAMES, metavar="TARGET", help=", ".join(NAMES))
    options = parser.parse_args()
    total, failed = 0, []
    for name in options.targets:
        crashes = Path("crashes", name)
        crashes.mkdir(parents=True, exist_ok=True)
        limits = [f"-max_total_time={options.seconds}", "-timeout=20", "-rss_limit_mb=4096", "-max_len=20000"]
        command = [sys.executable, __file__, "--one", name, *limits, f"-artifact_prefix={crashes}/"]
        with tempfile.TemporaryDirectory(dir=MEMORY if Path(MEMORY).is_dir() else None) as scratch:
            environment = {**os.environ, "TMPDIR": scratch}
            ended = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment)
        said = ended.stdout + ended.stderr
        done = re.search(r"Done (\d+) runs in (\d+) second", said)
        executed = int(done[1]) if done else max(map(int, re.findall(r"^#(\d+)\t", said, flags=re.M)), default=0)
        total += executed
        print(f"{name:<14} {executed:>11,} executions", flush=True)
        if ended.returncode:
            failed.append(name)
            print(said[-3000:], file=sys.stderr)
    print(f"{'all':<14} {total:>11,} executions; crashed: {', '.join(failed) or 'none'}")
    raise SystemExit(bool(failed))


def one(name: str, arguments: list[str]) -> None:
    """Fuzz one target, in this process, from its seeds."""
    import atheris

    with atheris.instrument_imports(include=["ross_flwr"]):
        from targets import feed, seeds

    corpus = tempfile.mkdtemp()
    for number, seed in enumerate(seeds(name)):
        Path(corpus, f"seed-{number}").write_bytes(seed)
    atheris.Setup([sys.argv[0], *arguments, corpus], lambda data: feed(name, data) and None)
    atheris.Fuzz()  # it ends the process


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2], sys.argv[3:])
    else:
        main()
