"""What codecs do to Shapley values: ``python -m ross_flwr.studies.compressed_weights``.

ROSS runs on the digits without compression. In every round each honest agent's cross-gradients also pass each codec,
with its error feedback, and in every fourth round the game is played with these and with the gradients as they are, at
the same model and on the same mini-batches. What is compared are the exact Shapley values φ and the weights π. For
ross-plus, which plays no game by default, it is its screen's verdict, and the game among those that pass.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import product
from statistics import fmean
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ross_flwr.algorithms.cross_gradients import gradient_game
from ross_flwr.algorithms.ross import ROSS
from ross_flwr.algorithms.ross_plus import ROSSPlus
from ross_flwr.compression.codec import Codec, Leg, Memory
from ross_flwr.compression.options import read_codecs
from ross_flwr.config import Config, ConfigError, resolve
from ross_flwr.learning.agent import Agent
from ross_flwr.learning.classes import class_gradients
from ross_flwr.learning.shapley import WEIGHTINGS, shapley_values
from ross_flwr.report.table import markdown, percent
from ross_flwr.runs.local import LocalRun

__all__ = ["Shift", "main", "shifts"]

Weighed: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]
"""φ and π by player; zero for those that the screen of ross-plus leaves out."""

EVERY = 4
KIND = "gradient"
CODECS = (
    *("float16", "int8", "int4", "qsgd(1)", "sign", "topk(0.1)", "topk(0.01)", "topk(0.001)"),
    *("randomk(0.1)", "randomk(0.01)", "powersgd(2)", "choco(topk(0.01))"),
)
SCENARIOS: dict[str, dict[str, object]] = {
    "clean": {"attackers": 0},
    "poisoned": {"attackers": 3, "aggregator": "softmin"},
}
"""ross-plus mixes by `softmin` in any case."""


class Shift(NamedTuple):
    """How one game differs between gradients that passed a codec and the same gradients as they are."""

    codec: str
    ranks: float
    """Spearman's correlation of φ."""
    moved: float
    """½ Σ_j |π_j − π̂_j|, the part of the weight that goes to others."""
    attackers: float
    """What attackers among the neighbours get of the weight, less what they get uncompressed."""


def shifts(config: Config, codecs: Mapping[str, Codec]) -> Iterator[Shift]:
    """Run ROSS or ross-plus, and yield what each codec does to the game of every honest agent in every fourth round."""
    run = LocalRun(config)
    method, agents = run.host.algorithm, run.host.agents
    if not isinstance(method, ROSS | ROSSPlus):
        raise ConfigError(f"algorithm = '{method.name}' plays no game that is compared here: use 'ross' or 'ross-plus'")
    memories: dict[tuple[str, int, int], tuple[Memory, Memory]] = {}
    for line in run.rounds():
        for i in run.history.honest:
            model, players = agents[i]["model"], list(agents[i].mixing_row)
            plain = [agents[j].gradient(model, of="own" if j == i else "cross") for j in players]
            found: Weighed | None = None
            play = _game(method, agents[i], players) if line["round"] % EVERY == 0 else None
            for name, codec in codecs.items():
                decoded = [
                    _through(codec, gradient, agents[j], i, memories.setdefault((name, j, i), ({}, {})))
                    for j, gradient in zip(players, plain, strict=True)
                ]
                if play:
                    found = play(plain) if found is None else found
                    hostile = np.isin(players, list(run.assembly.threats.attackers))
                    yield _shift(name, found, play(decoded), hostile)


def _through(codec: Codec, gradient: Tensor, source: Agent, destination: int, memory: tuple[Memory, Memory]) -> Tensor:
    if source.index == destination:
        return gradient
    leg = Leg(source.seed, KIND, "cross_gradients", source.pass_number, 1, source.index, destination)
    sent, heard = memory
    data = codec.send(gradient, None, sent, {}, leg)
    return codec.receive(data, len(gradient), {}, heard, leg, mixed=False)


def _game(method: ROSS | ROSSPlus, agent: Agent, players: list[int]) -> Callable[[list[Tensor]], Weighed]:
    """Return what plays an agent's game of these players with any gradients of theirs."""
    classes = class_gradients(agent, agent["model"]) if isinstance(method, ROSSPlus) else None

    def play(gradients: list[Tensor]) -> Weighed:
        sent = dict(zip(players, gradients, strict=True))
        if isinstance(method, ROSSPlus) and classes is not None:
            sent = method.plausible(agent, sent, classes)
        game = gradient_game(agent, list(sent.values()), method.learning_rate, method.utility)
        values = dict(zip(sent, shapley_values(game, "exact", generator=agent.stream("shapley")), strict=True))
        weights = dict(zip(sent, WEIGHTINGS[method.weighting](np.array(list(values.values()))), strict=True))
        phi, pi = (np.array([found.get(j, 0.0) for j in players]) for found in (values, weights))
        return phi, pi

    return play


def _shift(name: str, plain: Weighed, coded: Weighed, hostile: NDArray[np.bool_]) -> Shift:
    (phi, before), (found, after) = plain, coded
    ranks = np.corrcoef(phi.argsort().argsort(), found.argsort().argsort())[0, 1]
    return Shift(name, float(ranks), float(abs(before - after).sum() / 2), float((after - before)[hostile].sum()))


def main() -> None:
    """Print a row per method, codec and scenario."""
    codecs = {name: codec for name in CODECS if (codec := read_codecs(name)[""])}
    rows = [["method", "codec", "scenario", "rank correlation of φ", "weight that moved", "of it to attackers"]]
    for method, (scenario, keys) in product(("ross", "ross-plus"), SCENARIOS.items()):
        chosen = {"algorithm": method, "num-rounds": 60, "evaluate-every": 60, **keys}
        found = [shift for seed in range(3) for shift in shifts(resolve({**chosen, "seed": seed}), codecs)]
        for name in codecs:
            mine = [shift for shift in found if shift.codec == name]
            moved, to = fmean(shift.moved for shift in mine), fmean(shift.attackers for shift in mine)
            rows.append(
                [method, name, scenario, f"{fmean(shift.ranks for shift in mine):.2f}", percent(moved), percent(to)]
            )
    print(markdown(rows))


if __name__ == "__main__":
    main()
