"""Small runs that are the same but for their engines, and what must be equal in them."""

import torch

SMALL = {
    "batch-size": 16,
    "validation-size": 30,
    "test-size": 50,
    "hidden": 8,
    "attackers": 1,
    "attack": "gradient-scaling",
}
COUNTED = ("gradients", "utilities", "work", "bytes")


def alike(run, other):
    """Return whether two runs counted the same, and have the same accuracies and models to the last bit."""
    (lines, models), (others, same) = map(_found, (run, other))
    return lines == others and torch.equal(models, same)


def _found(run):
    lines = [{kind: line[kind] for kind in (*COUNTED, "accuracy")} for line in run.history.lines]
    return lines, torch.stack([agent["model"] for agent in run.host.agents.values()])
