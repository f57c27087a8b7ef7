"""The `ross-flwr` command."""

import os
import sys
from io import TextIOWrapper

import click

from ross_flwr.cli.audit import audit
from ross_flwr.cli.certificates import certs
from ross_flwr.cli.comparison import compare
from ross_flwr.cli.doctor import doctor
from ross_flwr.cli.lists import config, data, list_
from ross_flwr.cli.new import new
from ross_flwr.cli.plan import plan
from ross_flwr.cli.results import evaluate, export, report
from ross_flwr.cli.runs import resume, run
from ross_flwr.config import ConfigError, one_line

__all__ = ["main"]


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  ross-flwr run                      a first run; it takes seconds
  ross-flwr config                   every key that can be set
  ross-flwr list topologies          the values that a key takes
  flwr run . --run-config 'topology="ring" num-rounds=20'
                                     the same keys on Flower nodes
\b
TAB completes commands, keys and names. Add this line to the shell's own file:
  bash  eval "$(_ROSS_FLWR_COMPLETE=bash_source ross-flwr)"
  zsh   eval "$(_ROSS_FLWR_COMPLETE=zsh_source ross-flwr)"
  fish  _ROSS_FLWR_COMPLETE=fish_source ross-flwr | source""",
)
@click.version_option(package_name="ross-flwr")
def cli() -> None:
    """Peer-to-peer learning on Flower.

    Agents learn together along the edges of a graph, without a server that averages their models. Some may attack.
    """


for command in (run, resume, plan, config, data, compare, audit, report, export, evaluate, list_, certs, doctor, new):
    cli.add_command(command)


def main() -> None:
    """Run the command. On bad input, or where the system refuses, print one sentence and exit with code 2."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(
            stream, TextIOWrapper
        ):  # a terminal shows what it can; files and pipes get UTF-8, as TOML has to be
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="replace")
    try:
        try:
            cli(prog_name="ross-flwr")
        finally:
            sys.stdout.flush()
    except ConfigError as error:
        _say(str(error))
    except OSError as error:
        if error.filename is None:  # Python would try to flush what is left, and fail again
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        what = error.filename or "the output"
        _say(f"{what} cannot be read or written: {error.strerror or error}")
    raise SystemExit(2)


def _say(text: str) -> None:
    """Print an error as one line. It may quote a file that anybody wrote, so no control character goes out."""
    print(f"ross-flwr: {' '.join(one_line(text).split())}", file=sys.stderr)
