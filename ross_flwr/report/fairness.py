"""Whether agents that do well alone do well together: ``python -m ross_flwr.report.fairness RUN STANDALONE``."""

import sys
from argparse import ArgumentParser
from collections.abc import Mapping, Sequence
from math import nan
from pathlib import Path
from statistics import correlation, fmean

from ross_flwr.config import ConfigError
from ross_flwr.runs.folder import RunFolder

__all__ = ["fairness", "final_accuracies", "main"]


def fairness(standalone: Mapping[int, float], collaborative: Mapping[int, float]) -> float:
    """Return ρ = 100 · Pearson correlation of the accuracies that agents reach alone and together.

    Lyu et al., "Collaborative fairness in federated learning", 2020; the measure of CGSV (Xu et al., NeurIPS 2021).
    100 is fair. NaN where all agents are alike, alone or together.

    Examples
    --------
    >>> fairness({1: 0.5, 2: 0.6, 3: 0.9}, {1: 0.7, 2: 0.75, 3: 0.9})
    100.0
    """
    alone, together = [standalone[i] for i in collaborative], list(collaborative.values())
    return 100 * correlation(alone, together) if len(set(alone)) > 1 and len(set(together)) > 1 else nan


def final_accuracies(folder: Path) -> dict[int, float]:
    """Return the accuracy of each agent in the last test of the run in `folder`.

    Raises
    ------
    ConfigError
        When no agent was tested.
    """
    found = RunFolder(folder)
    lines = found.read_history() if found.history.is_file() else ()
    tested = [line["agents"] for line in lines if line["agents"]]
    if not tested:
        raise ConfigError(f"{folder} holds no run whose agents were tested: name the folder that --out gave it")
    return {int(i): accuracy for i, accuracy in tested[-1].items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print mean and best accuracy of two runs, and ρ between them."""
    parser = ArgumentParser(prog="python -m ross_flwr.report.fairness", description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a run in which agents learn together")
    parser.add_argument("standalone", type=Path, help="folder of the run with algorithm = 'isolated' beside it")
    parser.add_argument("--without", type=int, action="append", default=[], metavar="AGENT", help="a server, say")
    options = parser.parse_args(arguments)
    together, alone = (
        {i: accuracy for i, accuracy in final_accuracies(folder).items() if i not in options.without}
        for folder in (options.run, options.standalone)
    )
    if together.keys() != alone.keys():
        raise ConfigError(
            f"{options.run} and {options.standalone} do not have the same agents: they cannot be compared"
        )
    for name, accuracies in (("standalone", alone), ("together", together)):
        print(f"{name:<12}{fmean(accuracies.values()):.1%} (best {max(accuracies.values()):.1%})")
    print(f"{'fairness':<12}{fairness(alone, together):.2f}")


if __name__ == "__main__":
    try:
        main()
    except ConfigError as error:
        sys.exit(f"ross-flwr: {error}")
