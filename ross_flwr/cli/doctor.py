"""The command that checks an installation and a node."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import click

from ross_flwr.cli.screen import FOLDER
from ross_flwr.config import ConfigError

__all__ = ["doctor"]


@click.command(
    short_help="Check an installation, and a node of a deployment.",
    epilog="""\b
Examples:
  ross-flwr doctor
\b
  ross-flwr doctor --certs certs/kitchen --address 192.168.1.20:9700 --serve
  ross-flwr doctor --certs certs/cellar --peer kitchen@192.168.1.20:9700""",
)
@click.option("--certs", type=FOLDER, metavar="FOLDER", help="The node's certificates: peer-certs.")
@click.option(
    "--address", default="", metavar="HOST:PORT", help="The address on which neighbours call the node (peer-address)."
)
@click.option("--superlink", default="", metavar="HOST:PORT", help="The SuperLink, as the node calls it.")
@click.option("--peer", "peers", multiple=True, metavar="NAME@HOST:PORT", help="A neighbour; may be repeated.")
@click.option("--serve", is_flag=True, help="Then answer other nodes' doctors at this address, until Ctrl-C.")
def doctor(certs: Path | None, address: str, superlink: str, peers: Sequence[str], serve: bool) -> None:
    """Check versions, and with options a node: its certificates and port, the SuperLink and the neighbours.

    Each finding is one line: what was checked, ok or problem, and what to do. The exit code is 1 if there is a problem.
    Round trip, bandwidth and clock of a neighbour are measured if `ross-flwr doctor --serve` runs there.
    """
    from ross_flwr import doctor as diagnosis

    if serve and not (certs and address):
        raise ConfigError("--serve needs --certs and --address: who answers, and where")

    def tell(finding: diagnosis.Finding) -> None:
        click.echo(f"{finding.what:<18} ", nl=False)
        click.secho("ok       " if finding.ok else "problem  ", fg="green" if finding.ok else "red", nl=False)
        click.echo(": ".join(filter(None, [finding.text, finding.remedy])))

    findings = []
    for finding in diagnosis.examine(address, certs, superlink, peers):
        tell(finding)
        findings.append(finding)
    if serve and certs:
        click.echo(f"Answering at {address}; Ctrl-C ends it")
        with suppress(KeyboardInterrupt):
            diagnosis.serve(address, certs, tell)
    if not all(finding.ok for finding in findings):
        raise click.exceptions.Exit(1)
