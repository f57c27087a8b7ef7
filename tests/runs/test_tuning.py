"""Tuning: equally many choices for every method, on data and seeds that the comparison does not read."""

import csv
from collections import Counter

import pytest

from ross_flwr.algorithms import ALGORITHMS
from ross_flwr.config import ConfigError, resolve
from ross_flwr.runs import compare
from ross_flwr.runs.cells import claim
from ross_flwr.runs.ended import REFUSED
from ross_flwr.runs.grids import Grid
from ross_flwr.runs.history import History
from ross_flwr.runs.options import RunOptions
from ross_flwr.runs.tuning import tune

PLAN = """
seeds = [0, 1]
[keys]
num-rounds = 60
momentum = 0.3
[tuning]
seeds = [7, 8, 9]
scenarios = ["clean", "poisoned"]
configurations = 4
rounds = 20
[tuning.grid]
learning-rate = [0.03, 0.1, 0.3]
local-steps = [1, 5]
momentum = [0.0, 0.9]
[tuning.own.balance]
similarity = [0.3, 3.0]
[methods.dmsgd]
[methods.balance]
[methods.cautious]
algorithm = "dmsgd"
momentum = 0.5
[scenarios.clean]
attackers = 0
[scenarios.poisoned]
attackers = 1
[scenarios.other]
attackers = 2
[topologies.ring]
topology = "ring"
[topologies.complete]
topology = "complete"
"""


def read(folder, text=PLAN):
    (folder / "plan.toml").write_text(text)
    return compare.read_plan(str(folder / "plan.toml"), {})


def tuned(plan, root, accuracy):
    """Tune as if every run ended with the `accuracy` of its method's parameters; return also the runs by stage."""
    stages = []

    def work(_word, cells):
        new = [cell for cell in cells if cell.result(root) is None]
        stages.append(new)
        for cell in new:
            algorithm = cell.config.part(ALGORITHMS[cell.config.part(RunOptions).algorithm])
            found = accuracy(algorithm)
            folder = cell.folder(root)
            if found is None:
                folder.path.mkdir(parents=True)
                (folder.path / REFUSED).write_text("not here")
            else:
                work = cell.config.values["num-rounds"] * getattr(algorithm, "local_steps", 1)
                nothing = {**History(4).summary(), "algorithm": algorithm.name, "topology": "ring"}
                folder.write_summary({**nothing, "accuracy": {"mean": found}, "work": work})

    return tune(plan, root, work), stages


def near(best):
    """Return an accuracy that is highest at the learning rate `best`."""
    return lambda algorithm: 1 / (1 + abs(algorithm.learning_rate - best) + algorithm.local_steps / 100)


def test_every_method_tries_equally_many_configurations_and_the_better_half_on_all_seeds(tmp_path):
    plan, stages = tuned(read(tmp_path), tmp_path / "out", near(0.1))
    first, finalists = stages
    by_method = Counter(cell.place[1:3] for cell in first)
    assert by_method == dict.fromkeys([(m, t) for m in plan.methods for t in plan.topologies], 4 * 2)
    assert {cell.place[-1] for cell in first} == {"7"}
    assert Counter(cell.place[1:3] for cell in finalists) == dict.fromkeys(by_method, 2 * 2 * 2)
    assert {cell.place[-2] for cell in first} == {"clean", "poisoned"}
    for cell in [*first, *finalists]:
        values = cell.config.values
        assert (values["test-split"], values["num-rounds"]) == ("tuning", 20)
        assert values["seed"] in (7, 8, 9)
        assert values["attackers"] == ("clean", "poisoned").index(cell.place[-2])


def test_a_method_takes_the_keys_that_it_has_and_its_row_does_not_set(tmp_path):
    grids = read(tmp_path).tuning.grids
    assert list(grids["dmsgd"].lists) == ["learning-rate", "local-steps", "momentum"]
    assert list(grids["balance"].lists) == ["learning-rate", "local-steps", "similarity"]
    assert list(grids["cautious"].lists) == ["learning-rate", "local-steps"]


@pytest.mark.parametrize(("best", "chosen"), [(0.1, 0.1), (0.3, 0.3), (0.8, 0.9), (9.0, 2.7), (0.0, 0.0033)])
def test_where_the_edge_wins_the_next_rate_is_tried_at_most_twice(best, chosen, tmp_path):
    plan, stages = tuned(read(tmp_path).only(methods="dmsgd", topologies="ring"), tmp_path / "out", near(best))
    assert plan.tuned["dmsgd", "ring"]["learning-rate"] == chosen
    assert len(stages) <= 4
    for wider in stages[2:]:
        assert len(wider) == 3 * 2
        assert len({cell.place[3] for cell in wider}) == 1


def test_what_was_tried_and_chosen_is_written_and_runs_without_tuning_when_given_back(tmp_path):
    plan, stages = tuned(read(tmp_path), tmp_path / "out", near(0.1))
    rows = list(csv.DictReader((tmp_path / "out" / "tuning.csv").open()))
    assert len(rows) == sum(map(len, stages))
    chosen = [row for row in rows if (row["method"], row["topology"], row["chosen"]) == ("balance", "ring", "True")]
    assert {(row["learning-rate"], row["local-steps"], row["momentum"]) for row in chosen} == {("0.1", "1", "")}
    assert [(row["scenario"], row["seed"]) for row in chosen] == [(s, n) for s in ("clean", "poisoned") for n in "789"]

    again = read(tmp_path, PLAN + (tmp_path / "out" / "tuned.toml").read_text())
    assert again.tuned == plan.tuned
    assert tuned(again, tmp_path / "again", near(0.1)) == (again, [])
    cells = {cell.place: cell.config.values for cell in again.cells()}
    values = cells["dmsgd", "other", "complete", "1"]
    assert {key: values[key] for key in again.tuned["dmsgd", "complete"]} == again.tuned["dmsgd", "complete"]
    assert values["test-split"] == "test"
    assert cells["cautious", "other", "complete", "1"]["momentum"] == 0.5
    assert [cell.config for cell in again.cells()] == [cell.config for cell in plan.cells()]


def test_with_a_budget_every_configuration_takes_as_much_work_as_the_budgets_method(tmp_path):
    text = PLAN.replace("[tuning]", '[budget]\nmethod = "balance"\nrounds = 60\n[tuning]', 1)
    plan, (costs, *stages) = tuned(read(tmp_path, text).only(topologies="ring"), tmp_path / "out", near(0.1))
    assert len({cell.place for cell in costs}) == len(costs) == 1 + 2 * 4 + 2  # K times the own key, of three methods
    assert {cell.config.values["num-rounds"] for cell in costs} == {20}
    values = [cell.config.values for stage in stages for cell in stage]
    rounds = {(each["local-steps"], each["num-rounds"]) for each in values}
    assert rounds == {(1, 20), (5, 4)}
    assert plan.tuned["balance", "ring"]["local-steps"] == 1


def test_with_a_budget_the_learning_rate_may_be_all_that_is_tuned(tmp_path):
    text = PLAN.replace("[tuning]", '[budget]\nmethod = "dmsgd"\nrounds = 60\n[tuning]', 1)
    text = text.replace("local-steps = [1, 5]\nmomentum = [0.0, 0.9]\n", "")
    plan, (costs, *_) = tuned(read(tmp_path, text).only(methods="dmsgd"), tmp_path / "out", near(0.1))
    assert len(costs) == 2 * 2
    assert plan.tuned["dmsgd", "ring"] == {"learning-rate": 0.1}


def test_a_folder_of_another_comparison_is_refused_before_anything_is_tuned(tmp_path):
    plan = read(tmp_path)
    plan.cells()[0].folder(tmp_path / "out").write_config(resolve({"num-rounds": 3}))
    with pytest.raises(ConfigError, match="holds a run of another experiment"):
        claim(plan, tmp_path / "out")
    assert not (tmp_path / "out/experiment.toml").exists()


def test_a_method_that_cannot_run_gets_no_keys(tmp_path):
    plan, _ = tuned(read(tmp_path), tmp_path, lambda algorithm: None if algorithm.name == "balance" else 0.5)
    assert {method for method, _ in plan.tuned} == {"dmsgd", "cautious"}


def test_every_value_of_a_list_is_tried_about_as_often():
    grid = Grid({"learning-rate": (0.01, 0.03, 0.1, 0.3), "local-steps": (1, 5), "momentum": (0.0, 0.9)})
    points = grid.points(8)
    assert len({tuple(point.values()) for point in points}) == 8
    for key, values in grid.lists.items():
        assert Counter(point[key] for point in points) == dict.fromkeys(values, 8 / len(values))
    assert len(grid.points(99)) == 16


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("rounds = 20", "", "has no rounds"),
        ("rounds = 20", "round = 20", "has the entry round = 20: it takes seeds, scenarios"),
        ('["clean", "poisoned"]', '["clan"]', "names clan, which is not one of the scenarios: clean, poisoned, other"),
        ("own.balance", "own.balanced", "names balanced, which is not one of the methods: dmsgd, balance, cautious"),
        ("[7, 8, 9]", "[1, 8, 9]", "has the seed 1, which the comparison is run with"),
        ("[0.3, 3.0]", "0.3", "has similarity = 0.3: it takes a list of values"),
        ("similarity", "similarty", "key similarty .* did you mean similarity"),
        ("similarity", "sam-radius", "own.balance. has sam-radius, which is not a key of this method"),
        ("[0.0, 0.9]", "[0.0, 9]", "momentum = 9.0 is not allowed"),
        ("[0.03, 0.1, 0.3]\nlocal-steps = [1, 5]", "[0.1]\nlocal-step = [1]", "key local-step .* did you mean"),
        ("learning-rate = [0.03, 0.1, 0.3]\nlocal-steps = [1, 5]", "", "no key that cautious could tune"),
    ],
)
def test_a_wrong_table_is_refused_in_one_sentence(old, new, said, tmp_path):
    assert old in PLAN
    with pytest.raises(ConfigError, match=said):
        read(tmp_path, PLAN.replace(old, new))


def test_tuned_keys_of_what_is_not_in_the_file_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"has \[tuned.dmsgd\] rnig, which is not a method and topology in it"):
        read(tmp_path, PLAN + "[tuned.dmsgd]\nrnig = { learning-rate = 0.1 }\n")
