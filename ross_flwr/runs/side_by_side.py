"""Several methods, one after the other, on the same data."""

from collections.abc import Mapping

from ross_flwr.algorithms import ALGORITHMS
from ross_flwr.config import Config, Key, require, resolve
from ross_flwr.runs.options import RunOptions

__all__ = ["BESIDE", "side_by_side"]

BESIDE = Key(
    "beside",
    str,
    "",
    "other methods, with commas between them, to run for comparison: on the same data, with the same attackers and the "
    "same stream of batches, of which each takes as many as it has local steps",
    group="The run",
)
"""A key of `ross-flwr run` and of the ServerApp, but not of a single run."""


def side_by_side(raw: Mapping[str, object]) -> list[Config]:
    """Return the configuration in `raw`, followed by a copy for each method that ``beside`` names.

    Raises
    ------
    ConfigError
        As `resolve`, and when a method beside is not known.
    """
    names = str(BESIDE.parse(raw.get("beside", ""))).split(",")
    config = resolve({key: value for key, value in raw.items() if key != "beside"})
    first = config.part(RunOptions).algorithm
    methods = dict.fromkeys(name.strip() for name in names if name.strip() and name.strip() != first)
    for method in methods:
        require("beside", method, ALGORITHMS)
    return [config, *(resolve({**config.values, "algorithm": method}) for method in methods)]
