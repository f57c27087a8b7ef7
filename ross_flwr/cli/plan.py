"""The command that tells what a run will take."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
from rich.table import Table

from ross_flwr.cli.completion import Hinting
from ross_flwr.cli.keys import read_run, run_config
from ross_flwr.cli.screen import console

if TYPE_CHECKING:
    from ross_flwr.plan.forecast import Forecast

__all__ = ["plan"]


@click.command(
    cls=Hinting,
    short_help="Tell what a run on Flower will take: time, bytes, memory.",
    epilog="""\b
Examples:
  ross-flwr plan -c num-agents=10 -c transport=direct --link 100mbit,5ms
  ross-flwr plan -c my.toml -c num-agents=10000 --link wifi --device 0.05""",
)
@run_config
@click.option(
    "--link",
    default="loopback",
    show_default=True,
    metavar="LINK",
    help="How nodes reach each other: loopback (processes of this machine), simulation (Flower's, on it), lan, wifi, "
    "lte, or a rate such as 100mbit or 2gbit,5ms.",
)
@click.option(
    "--device",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="What a gradient takes on a node; without it, as long as here, which is measured.",
)
def plan(run_config: Sequence[str], link: str, device: float | None) -> None:
    """Tell what a run on Flower will take, before it is made.

    The keys are those of `ross-flwr run`; of the methods beside it only the first counts. Some nodes are rehearsed in
    this process, which takes seconds, and then a round of all of them is simulated, or of 100 that stand for them.
    """
    from ross_flwr.plan.forecast import forecast
    from ross_flwr.runs.side_by_side import side_by_side

    config, *_ = side_by_side(read_run(run_config))
    told = forecast(config, link, device)
    table = Table(box=None, show_header=False, pad_edge=False)
    for row in rows(told):
        table.add_row(*row)
    console.print(table)
    click.echo(ending(told))


def rows(told: "Forecast") -> list[tuple[str, str, str]]:
    """Return what is told: a name, a number, and more about it."""
    from ross_flwr.report.table import short

    several = f", {told.simulated} of them simulated" if told.simulated < told.nodes else ""
    found = [
        ("nodes", f"{told.nodes:,}", f"a model of {told.parameters:,} parameters{several}"),
        ("round", seconds(told.seconds), f"{1 / told.seconds:.3g} rounds/s"),
        ("  computing", seconds(told.computing), f"a gradient takes {seconds(told.gradient)}"),
        ("  handling messages", seconds(told.handling), "processor time of a node"),
        ("  its link", seconds(told.transfer), ""),
        ("  waiting", seconds(told.waiting), "for other nodes, the server, or a processor they share"),
    ]
    if told.segment:
        found.append(("between segments", seconds(told.between), f"through Flower, every {told.segment} rounds"))
    memory = {"node": "memory of a node", "SuperLink": "of the SuperLink", "ServerApp": "of the ServerApp"}
    return [
        *found,
        ("a node sends", f"{short(told.sent)}B", f"in {told.messages:.3g} messages a round"),
        ("the server sends", f"{short(told.up)}B", f"and gets {short(told.down)}B a round"),
        *((memory[process], f"{short(held)}B", "") for process, held in told.memory.items()),
    ]


def ending(told: "Forecast") -> str:
    """Return the sentences on the bottleneck."""
    from ross_flwr.plan.forecast import REMEDIES

    name = told.bottleneck
    share = f", at work for {told.busy[name]:.0%} of the time" if name in told.busy else ""
    return f"Bottleneck: {name}{share}. {REMEDIES[name]}."


def seconds(value: float) -> str:
    """Return a time as people write it.

    Examples
    --------
    >>> seconds(0.0123), seconds(4.5), seconds(60136)
    ('12.3 ms', '4.5 s', '16.7 h')
    """
    for unit, length in (("h", 3600.0), ("min", 60.0), ("s", 1.0)):
        if value >= 2 * length or (unit == "s" and value >= 1):
            return f"{value / length:.3g} {unit}"
    return f"{1000 * value:.3g} ms"
