"""The `ross-flwr` command."""

import inspect
import os
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from ross_flwr import certificates, topology
from ross_flwr import compare as comparison
from ross_flwr.algorithms import ALGORITHMS, Algorithm
from ross_flwr.config import ConfigError, keys, require, resolve, to_toml
from ross_flwr.data import PARTITIONS, SOURCES
from ross_flwr.learning.aggregators import AGGREGATORS
from ross_flwr.learning.models import MODELS
from ross_flwr.learning.shapley import ESTIMATORS, WEIGHTINGS
from ross_flwr.report.folder import RunFolder
from ross_flwr.report.holdings import holdings_table, plot_holdings
from ross_flwr.report.report import write_report
from ross_flwr.report.table import percent, result_table
from ross_flwr.run import LocalRun, holdings, start
from ross_flwr.run import resume as resume_runs
from ross_flwr.threats.attacks import ATTACKS
from ross_flwr.threats.corruption import CORRUPTIONS
from ross_flwr.threats.faults import FAULTS
from ross_flwr.threats.poisoning import POISONS

__all__ = ["main"]

INTERRUPTED = 130
"""The exit code of a run that Ctrl-C ended: 128 and the number of SIGINT."""

console = Console()

run_config = click.option(
    "-c",
    "--run-config",
    multiple=True,
    metavar="KEY=VALUE",
    help="A key and its value, or a TOML file of them. May be given several times; the last one wins.",
)


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="""\b
Examples:
  ross-flwr run                      a first run; it takes seconds
  ross-flwr config                   every key that can be set
  ross-flwr list topologies          what may stand under a key
  flwr run . --run-config 'topology="ring" num-rounds=20'
                                     the same keys on Flower nodes""",
)
@click.version_option(package_name="ross-flwr")
def cli() -> None:
    """Peer-to-peer learning on Flower.

    Agents learn together along the edges of a graph, with no server that averages their models, while some attack.
    """


@cli.command(
    short_help="Run a method, and another beside it, in this process.",
    epilog="""\b
Examples:
  ross-flwr run -c num-rounds=20 -c topology=ring -c attackers=2
\b
  ross-flwr config > my.toml         then change what you like in it
  ross-flwr run -c my.toml -c seed=1 --out results/seed-1""",
)
@run_config
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FOLDER", help="Where the results go [results/<time>-<method>]."
)
def run(run_config: Sequence[str], out: Path | None) -> None:
    """Run a method, and another beside it on the same data, with all agents in this process.

    Without options: ROSS on 10 agents, of which three send poisoned gradients, beside D-PSGD. The folder of results
    holds config.toml, history.jsonl (one line a round), summary.json and model.safetensors (the mean of the honest
    agents' models), and a folder with the same for the method beside.
    """
    config = resolve(read(run_config))
    folder = out or Path("results") / f"{datetime.now():%Y%m%d-%H%M%S}-{config.algorithm}"
    if RunFolder(folder).config.exists():
        raise ConfigError(
            f"--out {folder} holds a run already: `ross-flwr resume {quoted(folder)}` continues it, and a new run "
            "takes another folder"
        )
    with stoppable(folder):
        finish(start(config, folder), folder)


@cli.command(
    short_help="Continue a run that stopped.",
    epilog="\b\nExample:\n  ross-flwr resume results/20250131-120000-ross",
)
@click.argument("folder", type=click.Path(path_type=Path))
def resume(folder: Path) -> None:
    """Continue the run in FOLDER from its last checkpoint, and then the one of the method beside it.

    The results are those of a run that never stopped. To make a run longer, raise num-rounds in its config.toml first.
    """
    with stoppable(folder):
        finish(resume_runs(folder), folder)


@cli.command(
    short_help="Show every key, its default and what it means.",
    epilog="\b\nExample:\n  ross-flwr config -c algorithm=dpsgd > my.toml",
)
@run_config
def config(run_config: Sequence[str]) -> None:
    """Show every key with its default, its unit, what it takes and what it means.

    The output is a TOML file, which `ross-flwr run -c` and `flwr run --run-config` take.
    """
    for line in to_toml(resolve(read(run_config)).options).splitlines():
        heading, comment = line.startswith("# =="), line.startswith("#")
        click.secho(line, bold=heading or None, dim=(comment and not heading) or None)


@cli.command(
    short_help="Show who holds what.",
    epilog="\b\nExample:\n  ross-flwr data -c partition=shards --plot shards.png",
)
@run_config
@click.option(
    "--plot", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE.png", help="Draw a heat map as well."
)
def data(run_config: Sequence[str], plot: Path | None) -> None:
    """Show how many training examples of each class every agent holds, before anything is run or corrupted."""
    counts = holdings(resolve(read(run_config))).tolist()
    console.print(holdings_table(counts, console.width))
    if plot:
        plot_holdings(counts, plot)
        click.echo(f"The heat map is in {plot}")


@cli.command(
    short_help="Run methods × scenarios × topologies × seeds, and tabulate.",
    epilog="""\b
Examples:
  ross-flwr compare digits --out results/digits
  ross-flwr compare mnist -c data-path=FOLDER --quick
  ross-flwr compare my.toml --methods ross,dpsgd --jobs 4""",
)
@click.argument("experiment")
@run_config
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FOLDER", help="Where the results go [results/<experiment>]."
)
@click.option("--methods", default="", metavar="A,B", help="Only these rows of the experiment.")
@click.option("--scenarios", default="", metavar="A,B", help="Only these scenarios.")
@click.option("--topologies", default="", metavar="A,B", help="Only these topologies.")
@click.option("--quick", is_flag=True, help="One seed, 20 rounds, no tuning: a first impression.")
@click.option("--jobs", type=click.IntRange(1), help="Runs at once [one per core].")
def compare(
    experiment: str,
    run_config: Sequence[str],
    out: Path | None,
    methods: str,
    scenarios: str,
    topologies: str,
    quick: bool,
    jobs: int | None,
) -> None:
    """Run every cell of EXPERIMENT, a TOML file or one that ships, and show accuracy by method and topology.

    A cell is an ordinary run in a folder of its own. Those that are done are not run again and one that stopped goes on
    where it was, so the same command continues a comparison that was stopped. All methods share initial model, batches
    and validation sets; when the experiment tunes, each runs with its best learning rate of the same grid.
    """
    plan = comparison.read_plan(experiment, read(run_config))
    plan = plan.only(methods=methods, scenarios=scenarios, topologies=topologies)
    plan = plan.quick() if quick else plan
    folder = out or Path("results") / (Path(experiment).stem + ("-quick" if quick else ""))
    jobs = jobs or os.cpu_count() or 1
    trials = plan.tuning_cells()
    columns = TextColumn("{task.description:<8}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, TextColumn("{task.fields[last]}"), console=console) as progress:

        def work(description: str, cells: list[comparison.Cell]) -> None:
            task = progress.add_task(description, total=len(cells), last="")
            for cell in comparison.run_cells(cells, folder, jobs):
                progress.update(task, advance=1, last=" ".join(cell.place))

        if trials:
            work("tuning", trials)
        cells = plan.cells(comparison.tuned(trials, folder))
        work("cells", cells)
    for table in comparison.result_tables(plan, cells, folder):
        console.print(table)
    click.echo(f"A line per run is in {comparison.write_csv(cells, folder)}")


@cli.command(
    short_help="Show results as a page, pictures and tables.",
    epilog="\b\nExample:\n  ross-flwr report results/digits",
)
@click.argument("folder", type=click.Path(path_type=Path))
def report(folder: Path) -> None:
    """Write report.html, one page that needs nothing but itself, into FOLDER, which a run or a comparison has filled.

    The same figures as PNG and their numbers as CSV go into the folder report in it.
    """
    click.echo(f"The report is {write_report(folder)}")


LISTS: dict[str, Mapping[str, Any]] = {
    "aggregators": AGGREGATORS,
    "algorithms": ALGORITHMS,
    "attacks": {"none": "Nobody lies.", **POISONS, **ATTACKS},
    "corruptions": CORRUPTIONS,
    "datasets": SOURCES,
    "faults": FAULTS,
    "mixing": topology.MIXING_RULES,
    "models": MODELS,
    "partitions": PARTITIONS,
    "shapley": ESTIMATORS,
    "topologies": topology.TOPOLOGIES,
    "weightings": WEIGHTINGS,
}


@cli.command(
    "list",
    short_help="List what may stand under a key.",
    help=f"List what may stand under a key. WHAT is one of {', '.join(LISTS)}; without it, all names are listed.",
    epilog="\b\nExample:\n  ross-flwr list topologies",
)
@click.argument("what", default="")
def list_(what: str) -> None:
    """List what may stand under a key."""
    if not what:
        show({name: ", ".join(entries) for name, entries in LISTS.items()})
        return
    require("list", what, LISTS)
    entries = {name: about(entry) for name, entry in LISTS[what].items()}
    if what == "algorithms":
        by_family = sorted(entries, key=lambda name: (ALGORITHMS[name].family, name))
        entries = {name: f"{entries[name]}\n{traits(ALGORITHMS[name])}" for name in by_family}
    if what == "models":
        entries["<name>"] = "Any classification model of torchvision.models, by its name there."
    show(entries)


certificates_in = click.option(
    "--in",
    "folder",
    type=click.Path(path_type=Path),
    default=Path("certs"),
    metavar="FOLDER",
    show_default=True,
    help="Where the certificate authority is.",
)


@cli.group(short_help="Make the certificates by which nodes know each other.")
def certs() -> None:
    """Make the certificates by which the nodes of a deployment know each other (transport = "direct")."""


@certs.command("init", epilog="\b\nExample:\n  ross-flwr certs init --in certs")
@certificates_in
def certs_init(folder: Path) -> None:
    """Make a deployment's certificate authority.

    Who has its ca.key decides who is who: keep it off the nodes.
    """
    click.echo(f"The authority's certificate is {certificates.init(folder)}")


@certs.command("issue", epilog="\b\nExample:\n  ross-flwr certs issue kitchen --host 192.168.1.20 --host kitchen.local")
@click.argument("name")
@click.option("--host", "hosts", multiple=True, metavar="HOST", help="A host name or address of the node.")
@certificates_in
def certs_issue(name: str, hosts: Sequence[str], folder: Path) -> None:
    """Make node NAME a key and a certificate.

    The folder it prints is all the node needs: copy it there, and name it as peer-certs in the SuperNode's
    --node-config. With auth.pub, `flwr supernode register` makes the node known to a SuperLink; with auth.key, the
    SuperNode proves that it is the one.
    """
    click.echo(f"The certificate of {name} is in {certificates.issue(folder, name, hosts)}")


def about(entry: Any) -> str:
    """Return the first paragraph of what is said about something registered."""
    return entry if isinstance(entry, str) else (inspect.getdoc(entry) or "").partition("\n\n")[0].replace("\n", " ")


def traits(method: type[Algorithm]) -> str:
    """Return a method's family, its exchanges a round and what it needs; of keys that decide on these, the defaults."""
    default = method()
    exchanges = len(default.steps) - 1
    data = ["a validation set"] if default.needs_validation else []
    bound = ["f (byzantine)"] if "byzantine" in method.__dataclass_fields__ else []
    needs = ", ".join([*method.needs, *data, *bound])
    parts = [method.family, f"{exchanges} exchange{'s' * (exchanges != 1)}", f"needs {needs}" if needs else ""]
    return "[" + "; ".join(filter(None, parts)) + "]"


def show(entries: Mapping[str, str]) -> None:
    """Print names and what they are in two columns, as wide as the terminal."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in entries.items():
        table.add_row(Text(name, style="bold"), Text(text))
    console.print(table)


PAIR = r"([\w.-]+)=('[^']*'|\"[^\"]*\"|\S*)(?=\s|$)"


def read(entries: Sequence[str]) -> dict[str, Any]:
    """Return the keys that ``-c`` options set, later ones winning.

    An entry is a file, one ``KEY=VALUE``, or several with spaces between them as ``flwr run`` takes them. A value is
    read as TOML does, except that texts need no quotes.
    """
    texts = {key.name for key in keys() if key.kind is str}
    found: dict[str, Any] = {}
    for entry in entries:
        if "=" not in entry:
            found.update(read_file(entry))
            continue
        several = re.fullmatch(rf"\s*(?:{PAIR}\s*)+", entry)
        for key, text in re.findall(PAIR, entry) if several else [entry.split("=", 1)]:
            key, text = key.strip(), text.strip()
            try:
                value = tomllib.loads(f"value = {text}")["value"]
            except tomllib.TOMLDecodeError:
                value = text
            found[key] = text if key in texts and not isinstance(value, str) else value
    return found


def read_file(name: str) -> dict[str, Any]:
    """Return the keys that TOML file `name` sets."""
    try:
        return tomllib.loads(Path(name).read_text(encoding="utf-8"))
    except OSError:
        raise ConfigError(f"-c {name} is neither KEY=VALUE nor a TOML file that can be read") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"-c {name} is not TOML: {error}") from None


def finish(runs: Sequence[LocalRun], folder: Path) -> None:
    """Run what is left of each run behind a progress bar, and show the results."""
    columns = TextColumn("{task.description:<8}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    summaries = {}
    with Progress(*columns, TextColumn("{task.fields[accuracy]}"), console=console) as progress:
        for each in runs:
            name, done = each.config.algorithm, len(each.history.lines)
            task = progress.add_task(name, total=each.config.num_rounds, completed=done, accuracy="")
            with closing(each.rounds()) as rounds:
                for line in chain(each.history.lines[:done], rounds):
                    progress.update(task, completed=line["round"])
                    if line["accuracy"]:
                        progress.update(task, accuracy=f"accuracy {percent(line['accuracy']['mean'])}")
            summaries[name] = each.summary()
    console.print(result_table(summaries))
    click.echo(f"Results are in {folder}")


@contextmanager
def stoppable(folder: Path) -> Iterator[None]:
    """Let Ctrl-C end a run with a sentence on how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        begun = RunFolder(folder).config.exists()
        hint = f"`ross-flwr resume {quoted(folder)}` continues the run" if begun else "no round was finished"
        click.echo(f"ross-flwr: interrupted; {hint}", err=True)
        raise click.exceptions.Exit(INTERRUPTED) from None


def quoted(folder: Path) -> str:
    """Return a path as a shell takes it."""
    return shlex.quote(str(folder))


def main() -> None:
    """Run the command; bad input ends it with one sentence and exit code 2."""
    try:
        cli()
    except ConfigError as error:
        print(f"ross-flwr: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
