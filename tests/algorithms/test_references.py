"""What other methods are held against: everybody alone, and all data in one place."""

from itertools import product

import pytest
import torch
from torch import nn

from ross_flwr.config import resolve
from ross_flwr.runs.local import LocalRun

SMALL = {"num-agents": 5, "topology": "ring", "num-rounds": 3, "hidden": 8, "batch-size": 16, "validation-size": 20}
SMALL |= {"attackers": 2, "learning-rate": 0.3}


def test_centralized_with_full_batches_is_sgd_on_the_union_of_the_honest_agents_data():
    run = LocalRun(resolve(SMALL | {"algorithm": "centralized"}))
    task = run.assembly.task
    source = task.source
    honest = run.history.honest
    union = torch.cat([task.shares.parts[i] for i in honest])
    assert len(honest) == 3
    assert len(union) < sum(map(len, task.shares.parts))
    for agent in run.host.agents.values():
        agent.batches.size = agent.objective.num_examples
        assert agent.batches.size == len(union)
    for line in run.rounds():
        assert (line["bytes"], line["gradients"], line["missing"]) == (0, 5, [])

    images = source.train.images[union].double() / source.scale
    images = (images - source.mean[0]) / source.std[0]
    model = task.model.module.double()
    nn.utils.vector_to_parameters(task.model.initial.double(), model.parameters())
    sgd = torch.optim.SGD(model.parameters(), lr=0.3)
    for _ in range(3):
        sgd.zero_grad()
        nn.functional.cross_entropy(model(images), source.train.labels[union]).backward()
        sgd.step()
    expected = nn.utils.parameters_to_vector(model.parameters())
    for i in honest:
        torch.testing.assert_close(run.host.agents[i]["model"].double(), expected, rtol=0, atol=1e-5)


def test_the_agents_of_centralized_draw_batches_of_their_own():
    run = LocalRun(resolve(SMALL | {"algorithm": "centralized", "attackers": 0}))
    list(run.rounds())
    models = [agent["model"] for agent in run.host.agents.values()]
    assert all(not torch.equal(models[0], model) for model in models[1:])


def test_the_agents_of_isolated_keep_to_their_own_data():
    task = LocalRun(resolve(SMALL | {"algorithm": "isolated"})).assembly.task
    assert all(torch.equal(task.training(i), task.shares.parts[i]) for i in range(5))


TRAINING = {
    "dpsgd": (True, False),
    "isolated-with-validation": (True, True),
    "validation-only": (False, True),
}


@pytest.mark.parametrize(("name", "own", "validation"), [(name, *data) for name, data in TRAINING.items()])
def test_references_train_on_what_their_names_say(name, own, validation):
    assembly = LocalRun(resolve(SMALL | {"algorithm": name})).assembly
    assert_trained_on(assembly, own=own, validation=validation)


def test_with_use_validation_methods_that_do_not_judge_by_it_train_on_it():
    judges = {"dpsgd": False, "ross": True, "ubar": True}
    for (name, judged), rule in product(judges.items(), ("mean", "softmin")):
        assembly = LocalRun(resolve(SMALL | {"algorithm": name, "aggregator": rule, "use-validation": True})).assembly
        assert_trained_on(assembly, own=True, validation=not judged)


def assert_trained_on(assembly, *, own, validation):
    for agent in assembly.agents():
        mine = assembly.task.objective(agent.index)
        expected = [mine.batch(torch.arange(mine.num_examples))] if own else []
        expected += [mine.validation] if validation else []
        examples = agent.objective.batch(torch.arange(agent.objective.num_examples))
        assert torch.equal(examples.inputs, torch.cat([each.inputs for each in expected]))
        assert torch.equal(examples.targets, torch.cat([each.targets for each in expected]))
