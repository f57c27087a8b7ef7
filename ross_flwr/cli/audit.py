"""The command that attacks a method's privacy."""

from collections.abc import Sequence
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path

import click

from ross_flwr.cli.keys import read, run_config
from ross_flwr.cli.screen import FOLDER
from ross_flwr.config import resolve
from ross_flwr.files import new_folder

__all__ = ["audit"]


@click.command(
    short_help="Attack a method's privacy, without noise and with it.",
    epilog="""\b
Examples:
  ross-flwr audit
  ross-flwr audit -c algorithm=pdsl -c dp-epsilon=0.5 --out results/audit""",
)
@run_config
@click.option("--out", type=FOLDER, metavar="FOLDER", help="Where the results go [results/<time>-audit].")
def audit(run_config: Sequence[str], out: Path | None) -> None:
    """Run a method without noise and with it, let neighbours look for examples, and write what they found.

    They compute images from gradients, tell examples that an agent trained on from others by its models, and echo
    models, so that agents know their data by heart. Without options, cross-gradient is audited on digits at ε = 1.

    The folder gets audit.html, with the images beside what was made of their gradients, and audit.json.
    """
    from ross_flwr.report.audit import write_audit
    from ross_flwr.runs import audit as audits

    config = resolve({**audits.DEFAULTS, **read(run_config)})
    name = f"{datetime.now():%Y%m%d-%H%M%S}-audit"
    with nullcontext(out) if out else new_folder(Path("results"), name) as folder:
        found = audits.audit(config)
        page = write_audit(found, folder)
    width = max(len(row["attack"]) for row in found.rows)
    for row in found.rows:
        verdict = "succeeds" if row["succeeds"] else "fails"
        click.echo(f"{row['attack']:{width}}  {row['run']:13}  {row['found']:5.2f}  {verdict}")
    click.echo(found.promise)
    click.echo(f"The report is {page}")
