"""The calibration study: games of real gradients, and how far estimators are off in them."""

import pytest

from ross_flwr.config import resolve
from ross_flwr.studies.calibration import errors, games

KEYS = {
    "algorithm": "ross-plus",
    "num-agents": 5,
    "topology": "complete",
    "attackers": 1,
    "num-rounds": 8,
    "evaluate-every": 8,
    "seed": 0,
}


@pytest.fixture(scope="module")
def played():
    return list(games(resolve(KEYS)))


def test_every_honest_agent_plays_after_every_fourth_round(played):
    assert len(played) == 4 * 2
    assert {game.num_players for game in played} == {5}
    assert len({game(0b11111) for game in played}) == len(played)


def test_an_estimator_is_as_far_off_as_its_budget_lets_it_be(played):
    evaluated, *wrongs = errors(played, "exact", 1)
    assert (set(evaluated), *map(max, wrongs)) == ({32}, 0.0, 0.0, 0.0)
    few, many = (errors(played, "antithetic", budget) for budget in (1, 64))
    assert set(few[0]) == {6}
    assert max(many[0]) <= 32
    assert 0 < sum(many[1]) < sum(few[1]) / 3
    assert 0 <= sum(many[2]) < sum(few[2])
    assert 0 < sum(many[3]) < sum(few[3]) / 2
