"""The commands for certificates."""

from collections.abc import Sequence
from pathlib import Path

import click

from ross_flwr.cli.screen import FOLDER

__all__ = ["certs"]

certificates_in = click.option(
    "--in",
    "folder",
    type=FOLDER,
    default=Path("certs"),
    metavar="FOLDER",
    show_default=True,
    help="Where the certificate authority is.",
)


@click.group(
    short_help="Make the certificates by which nodes know each other.",
    epilog="\b\nExamples:\n  ross-flwr certs init\n  ross-flwr certs issue kitchen --host 192.168.1.20",
)
def certs() -> None:
    """Make the certificates by which the nodes of a deployment know each other (transport = "direct")."""


@certs.command("init", epilog="\b\nExample:\n  ross-flwr certs init --in certs")
@certificates_in
def certs_init(folder: Path) -> None:
    """Make a deployment's certificate authority.

    Whoever holds its ca.key can pose as any node: keep it off the nodes.
    """
    from ross_flwr.direct import certificates

    click.echo(f"The authority's certificate is {certificates.init(folder)}")


@certs.command(
    "issue",
    epilog="\b\nExamples:\n  ross-flwr certs issue kitchen --host 192.168.1.20 --host kitchen.local\n"
    "  ross-flwr certs issue agent-1 agent-2 --host 127.0.0.1",
)
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@click.option("--host", "hosts", multiple=True, metavar="HOST", help="A host name or address of the nodes.")
@certificates_in
def certs_issue(names: Sequence[str], hosts: Sequence[str], folder: Path) -> None:
    """Make each node NAME a key and a certificate.

    The node needs only the folder that this prints: copy it there, and name it as peer-certs in the SuperNode's
    --node-config. `flwr supernode register` takes auth.pub and makes the node known to a SuperLink; the SuperNode
    proves with auth.key that it is that node.
    """
    from ross_flwr.direct import certificates

    for name in names:
        click.echo(f"The certificate of {name} is in {certificates.issue(folder, name, hosts)}")


@certs.command("revoke", epilog="\b\nExample:\n  ross-flwr certs revoke kitchen")
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@certificates_in
def certs_revoke(names: Sequence[str], folder: Path) -> None:
    """Expel each node NAME, whose key was stolen or lost.

    Copy the list that this writes into the certificates' folder (peer-certs) of every other node. A node reads it at
    once, also during a run: it no longer calls the expelled node, and refuses its calls. Nobody gets the name again.
    Expel the node from the SuperLink too, with `flwr supernode unregister`.
    """
    from ross_flwr.direct import certificates

    first, *others = certificates.revoke(folder, names)
    click.echo(f"{', '.join(names)}: revoked. Copy {first} into the certificates' folder of every other node")
    for path in others:
        click.echo(f"The list is also in {path}")
    click.echo("Expel them from the SuperLink too, by the numbers that `flwr supernode register` printed:")
    click.echo("flwr supernode unregister NUMBER")
