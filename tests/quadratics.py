"""Agents whose loss is known in closed form, for tests of methods and transports."""

from collections.abc import Callable, Collection

import torch

from ross_flwr.engine.host import Host
from ross_flwr.graph.topology import Topology
from ross_flwr.learning.agent import Agent
from ross_flwr.learning.examples import Batch
from ross_flwr.learning.objective import Performance


class Quadratic:
    """F(x) = mean over the examples c_b of ½ ‖x − c_b‖²; its gradient is x − mean c_b.

    The utility is −½ ‖x − target‖², whatever its kind. `batches` holds the indices of every batch asked for.
    """

    def __init__(self, examples: torch.Tensor, target: torch.Tensor | None = None) -> None:
        self.examples = examples
        self.target = torch.zeros(examples.shape[1]) if target is None else target
        self.batches: list[list[int]] = []

    @property
    def size(self):
        return self.examples.shape[1]

    @property
    def sizes(self):
        """As if a vector were two tensors."""
        return [self.size // 3, self.size - self.size // 3]

    @property
    def output_layer(self):
        """As if the last four numbers were an output layer of two classes with one input: two weights, two biases."""
        return slice(self.size - 4, self.size)

    @property
    def parameter_sizes(self):
        return self.sizes

    @property
    def num_examples(self):
        return len(self.examples)

    @property
    def validation(self):
        """Q holds one example, the target, of class 0."""
        return Batch(self.target[None], torch.zeros(1, dtype=torch.int64))

    def batch(self, indices):
        self.batches.append(indices.tolist())
        return Batch(self.examples[indices], indices)

    def gradient(self, vector, batch, **_):
        return vector - batch.inputs.mean(0)

    def loss(self, vector, batch):
        return 0.5 * float((vector - batch.inputs).square().sum(1).mean())

    def buffer_shift(self):
        return None

    def utility(self, vector, kind, batch):
        return -0.5 * float((vector - self.target).square().sum())

    def outputs(self, vector, batch):
        """Scores of two classes, the better the nearer a class's weight and bias are to the target's."""
        gap = (vector - self.target)[self.output_layer].view(2, 2).square().sum(0)
        return (1 / (1 + gap)).expand(len(batch), 2)

    def test(self, vector):
        return Performance(
            loss=-self.utility(vector, "loss", self.validation), accuracy=float((vector > 0).float().mean())
        )


class Table:
    """Examples as a split: inputs and targets by row."""

    def __init__(self, inputs, targets):
        self.inputs, self.targets = inputs, targets

    def __len__(self):
        return len(self.targets)

    def batch(self, indices):
        return Batch(self.inputs[indices], self.targets[indices])


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def objective_of(agent: int, size: int = 6, seed: int = 0) -> Quadratic:
    """Agent's own loss: five examples around a centre of its own, and the origin as target."""
    return Quadratic(normal(1000 * seed + agent, 5, size) + normal(1000 * seed + 500 + agent, size))


def team(
    topology: Topology,
    algorithm,
    *,
    members: Collection[int] | None = None,
    objective: Callable[[int], object] = objective_of,
    batch_size: int = 5,
    alike: bool = False,
) -> list[Agent]:
    """The agents `members` (or all) of a run, each at a model of its own, or at the same if `alike`."""
    agents = []
    for index in range(topology.num_agents) if members is None else members:
        agent = Agent(
            index, objective(index), topology.mixing_row(index), seed=0, batch_size=batch_size, rule=algorithm.rule
        )
        agent.place(topology.mixing_row(index), topology.mixing_column(index))
        agent["model"] = normal(77 if alike else 77 + index, agent.objective.size)
        algorithm.start(agent)
        agents.append(agent)
    return agents


def stack(agents, name: str = "model") -> torch.Tensor:
    """One row per agent, float64, shape [N, P]."""
    return torch.stack([agent[name] for agent in agents]).double()


def full_gradients(agents, models: torch.Tensor) -> torch.Tensor:
    """Row i is the gradient of agent i's loss, on all its examples, at row i of `models`, shape [N, P]."""
    return models - torch.stack([agent.objective.examples.double().mean(0) for agent in agents])


def started(graph, algorithm, **settings):
    agents = team(graph, algorithm, **settings)
    return Host("run", algorithm, agents), agents


def run_round(host, round):
    for number in range(len(host.algorithm.steps)):
        host.activate(round, number)
    host.end_pass()
    return host.end_round(evaluate=False)
