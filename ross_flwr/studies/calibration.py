"""How far off Shapley estimators are in games of real gradients: ``python -m ross_flwr.studies.calibration``.

The games are those of the honest agents of `shapley.toml` on its first seed, while three of ten agents poison their
gradients. They are played after every fourth round, on that round's mini-batches. All 2¹⁰ coalitions give the exact
values.
"""

from collections.abc import Iterator
from statistics import fmean, median

import numpy as np

from ross_flwr.algorithms.cross_gradients import gradient_game
from ross_flwr.algorithms.ross import ROSS
from ross_flwr.algorithms.ross_plus import ROSSPlus
from ross_flwr.config import Config, ConfigError
from ross_flwr.learning.shapley import Game, relu, shapley_values
from ross_flwr.learning.streams import stream
from ross_flwr.report.table import markdown, percent
from ross_flwr.runs.compare import read_plan
from ross_flwr.runs.local import LocalRun

__all__ = ["Errors", "errors", "games", "main"]

EVERY = 4
SAMPLED = ("permutation", "antithetic", "truncated", "stratified")
BUDGETS = (1, 2, 4, 8, 16, 32)

Errors = tuple[list[int], list[float], list[float], list[float]]
"""Of each game: coalitions evaluated, |φ̂ − φ| / |φ|, the share of players whose sign is wrong, and Σ|π̂ − π| / 2.

The last is the share of the weights, in proportion to positive values, that goes to other players.
"""


def games(config: Config) -> Iterator[Game]:
    """Run ROSS or ROSSPlus and yield the game of every honest agent after every fourth round."""
    run = LocalRun(config)
    method, agents = run.host.algorithm, run.host.agents
    if not isinstance(method, ROSS | ROSSPlus):
        raise ConfigError(f"algorithm = '{method.name}' plays no game that is calibrated here: use 'ross'")
    for line in run.rounds():
        if line["round"] % EVERY == 0:
            for i in run.history.honest:
                gradients = [agents[j].gradient(agents[i]["model"]) for j in agents[i].mixing_row]
                yield gradient_game(agents[i], gradients, method.learning_rate, method.utility)


def errors(played: list[Game], estimator: str, budget: int) -> Errors:
    """Return how far an estimator with budget R is off in each of these games."""
    found: Errors = ([], [], [], [])
    for k, game in enumerate(played):
        exact = shapley_values(game, "exact", generator=stream(0, "unused"))
        again = _again(game)
        draw = stream(budget, f"calibration {estimator}", k)
        estimate = shapley_values(again, estimator, permutations=budget, generator=draw)
        found[0].append(again.evaluations)
        found[1].append(float(np.linalg.norm(estimate - exact) / np.linalg.norm(exact)))
        found[2].append(float(np.mean((estimate > 0) != (exact > 0))))
        found[3].append(float(np.abs(relu(estimate) - relu(exact)).sum() / 2))
    return found


def _again(game: Game) -> Game:
    """Return the same game as if nothing were evaluated yet; what `game` knows is not computed again."""
    return Game(
        game.num_players, lambda coalitions: game.values(sum(1 << j for j in coalition) for coalition in coalitions)
    )


def main() -> None:
    """Print a row per estimator and budget R."""
    plan = read_plan("shapley", {}).only(methods="antithetic-20", scenarios="gradient-scaling")
    played = list(games(plan.cells()[0].config))
    rows = [["estimator, R", "coalitions evaluated", "median error", "wrong signs", "weight to others"]]
    for estimator in SAMPLED:
        for budget in BUDGETS:
            looks, off, wrong, shifted = errors(played, estimator, budget)
            numbers = f"{fmean(looks):.0f}", percent(median(off)), percent(fmean(wrong)), percent(fmean(shifted))
            rows.append([f"{estimator}, {budget}", *numbers])
    print(markdown(rows))
    print(f"\n{len(played)} games of {played[0].num_players} players")


if __name__ == "__main__":
    main()
