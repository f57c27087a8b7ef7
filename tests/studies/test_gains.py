"""The study of weights by gains: its liar is believed by its neighbours alone."""

from ross_flwr.studies.gains import METHODS, SCENARIOS, run


def test_the_liars_neighbours_take_its_word_and_others_do_not_hear_it():
    result = run(METHODS["`fgrpo`, reported"], *SCENARIOS["the same, and a liar"], seed=0, rounds=1)
    weights = result.history[-1]["weights"]
    assert {i: row["0"] for i, row in weights.items() if "0" in row} == {"1": 1.0, "5": 1.0}
    assert all(0.1 < weight < 0.9 for i in "234" for weight in weights[i].values())
