"""An audit: a method runs without noise and with it, and neighbours look for examples in what they get."""

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from math import inf, sqrt
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from ross_flwr.algorithms.messages import Exchange, Message, MessageTransform
from ross_flwr.config import Config, ConfigError, resolve
from ross_flwr.engine.host import Host
from ross_flwr.engine.rounds import rounds
from ross_flwr.learning.agent import Agent
from ross_flwr.learning.examples import Batch
from ross_flwr.learning.objective import ModuleObjective
from ross_flwr.learning.splits import Whole
from ross_flwr.learning.streams import stream
from ross_flwr.privacy import Privacy
from ross_flwr.privacy.disclosure import area, entropy, inverted, likeness, threshold
from ross_flwr.privacy.options import PrivacyOptions
from ross_flwr.runs.assemble import assemble, limit_threads
from ross_flwr.runs.assembly import Assembly
from ross_flwr.runs.history import History
from ross_flwr.runs.options import RunOptions
from ross_flwr.tasks.task import Task

__all__ = ["DEFAULTS", "Audit", "Canaries", "audit"]

DEFAULTS = {
    "algorithm": "cross-gradient",
    "num-agents": 6,
    "topology": "ring",
    "partition": "iid",
    "too-few": "top-up",
    "test-size": 900,
    "learning-rate": 0.2,
    "attackers": 0,
    "dp-clip": 1.0,
    "dp-epsilon": 1.0,
}
"""What an audit is of, unless the user says: few digits for each agent, which are soon known by heart, in 60 rounds."""

CANARIES, PICTURES = 40, 6
"""How many examples with wrong labels an agent trains on, and how many images are looked for in gradients."""

ALIKE, UNLIKE, SURE = 0.9, 0.5, 3.0
"""An inversion succeeds above the first correlation, and fails below the second. To tell members from others succeeds
if the area under the ROC curve is so many standard deviations above ½."""


@dataclass(frozen=True)
class Audit:
    """What came of it.

    Attributes
    ----------
    promise : str
        What the run with noise promises.
    epsilon : float
        Its ε.
    rows : list[dict]
        An attack each: ``attack``, ``run``, ``found`` (a correlation, or an area under the ROC curve),
        ``chance``, ``accuracy`` (of the best threshold, None for inversions) and ``succeeds``.
    pictures : list[tuple[Tensor, Tensor, Tensor]]
        Images, and what was made of their gradients without noise and with it, shape [C, H, W] each.
    """

    promise: str
    epsilon: float
    rows: list[dict[str, Any]]
    pictures: list[tuple[Tensor, Tensor, Tensor]]


class Canaries:
    """A task in which every agent has examples with wrong labels, which a model can only know by heart.

    Of 2n such examples of an agent, n are drawn to stay in its data, its `members`; the `others` are taken out.
    """

    def __init__(self, task: Task, count: int, seed: int) -> None:
        self.task = task
        self.count, self.seed = count, seed
        self.members: dict[int, Batch] = {}
        self.others: dict[int, Batch] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def objective(self, agent: int) -> ModuleObjective:
        """Return the loss of `agent` on its own data, canaries included."""
        objective = copy(self.task.objective(agent))
        if not isinstance(objective, ModuleObjective):
            raise ConfigError("an audit takes a task with examples of classes, such as dataset = 'digits'")
        everything, generator = (
            objective.batch(torch.arange(objective.num_examples)),
            stream(self.seed, "canaries", agent),
        )
        labels, count = everything.targets, min(self.count, objective.num_examples // 3)
        if not isinstance(labels, Tensor) or everything.labels is None or count == 0:
            raise ConfigError("an audit takes a task with examples of classes, such as dataset = 'digits'")
        classes = objective.outputs(self.task.model.initial, everything.take(torch.arange(1))).shape[1]
        order = torch.from_numpy(generator.permutation(len(everything)))
        chosen = order[: 2 * count]
        wrong = labels.clone()
        wrong[chosen] = (labels[chosen] + torch.from_numpy(generator.integers(1, classes, 2 * count))) % classes
        everything = Batch(everything.inputs, wrong)
        self.members[agent], self.others[agent] = everything.take(chosen[:count]), everything.take(chosen[count:])
        objective.train_data = Whole(everything.take(torch.cat([chosen[:count], order[2 * count :]])))
        return objective


class Listening(MessageTransform):
    """Keeps the last model that each agent sent."""

    def __init__(self) -> None:
        self.models: dict[int, Tensor] = {}

    def send(self, agent: Agent, outbox: dict[int, Message], exchange: Exchange) -> dict[int, Message]:
        """Keep the model."""
        for message in outbox.values():
            if "model" in message:
                self.models[agent.index] = message["model"]
        return outbox


def audit(config: Config) -> Audit:
    """Run what `config` says without noise and with it, look for examples, and return what was found.

    Three attacks, by a neighbour:

    - *gradient inversion*: it has a gradient at its own model, on one example, and computes the example;
    - *membership inference*: it has the last model that an agent sent, and tells canaries that the agent trains on from
      others, by their loss or their label-informed entropy; and the same on the agent's model after the mean of its
      neighbours' models is taken out of it, as far as they weigh in W;
    - *echo*: half of the agents send their neighbours' models back, so that these know their data by heart; then the
      same.

    Raises
    ------
    ConfigError
        When the configuration has no noise, or is not of images with a model that begins with a linear layer.
    """
    limit_threads()
    privacy = config.part(PrivacyOptions).read(assemble(config).algorithm)
    if privacy is None or not (privacy.noise or privacy.epsilon):
        raise ConfigError("an audit compares runs without noise and with it: use dp-clip = 1.0 with dp-epsilon = 1.0")
    plain = Privacy(clip=inf)
    rows: list[dict[str, Any]] = []
    found: list[list[Tensor]] = []
    promise: dict[str, Any] = {}
    half = config.part(RunOptions).num_agents // 2
    for name, chosen in (("without noise", plain), ("with noise", privacy)):
        images, made = _inversions(config, chosen)
        found.append(made)
        alike = fmean(abs(likeness(a, b)) for a, b in zip(made, images, strict=True))
        rows.append({"attack": "gradient inversion", "run": name, "found": alike, "chance": 0.0, "accuracy": None})
        rows[-1]["succeeds"] = alike > (ALIKE if chosen is plain else UNLIKE)
        for echo in (False, True):
            keys = {"attackers": half, "attack": "echo"} if echo else {"attackers": 0}
            host, canaries, told, promise = _run(resolve({**config.values, **keys}), chosen)
            rows += [{**row, "run": name} for row in _memberships(host, canaries, told, "echo: " if echo else "")]
    said = promise["privacy"]
    return Audit(said["statement"], said["epsilon"], rows, list(zip(images, *found, strict=True)))


def _assembled(config: Config, privacy: Privacy) -> Assembly:
    assembly = assemble(config)
    assembly.privacy = privacy
    assembly.check()
    return assembly


def _inversions(config: Config, privacy: Privacy) -> tuple[list[Tensor], list[Tensor]]:
    """Return images of an agent, and what a neighbour makes of its gradient on each."""
    agent = _assembled(resolve({**config.values, "batch-size": 1}), privacy).agents()[0]
    if not isinstance(agent.objective, ModuleObjective):
        raise ConfigError("gradients are inverted for images: use dataset = 'digits', say")
    images, found = [], []
    for number in range(PICTURES):
        agent.pass_number = number
        (image,) = agent.batches.take(number).inputs
        images.append(image)
        gradient = agent.gradient(agent["model"], of="cross")
        found.append(inverted(gradient, agent.objective.model.shapes).view(image.shape))
    return images, found


def _run(config: Config, privacy: Privacy) -> tuple[Host, Canaries, dict[int, Tensor], dict[str, Any]]:
    """Run a configuration with canaries, and return what holds its agents, the models they sent, and its promise."""
    assembly, listening = _assembled(config, privacy), Listening()
    canaries = Canaries(assembly.task, CANARIES, assembly.seed)
    assembly.task = canaries
    host = assembly.host("audit")
    host.mailroom.transforms = [listening, *host.mailroom.transforms]
    history = History(assembly.graphs.num_agents, assembly.threats.attackers)
    for finished in rounds(host, assembly.schedule, 1, assembly.schedule.num_rounds):
        history.add(finished)
    victims = {i: host.agents[i] for i in history.honest}
    if assembly.threats.attackers:
        victims = {i: each for i, each in victims.items() if set(each.neighbors) & assembly.threats.attackers}
    host.agents = victims
    return host, canaries, listening.models, assembly.promise(history)


def _memberships(host: Host, canaries: Canaries, told: Mapping[int, Tensor], prefix: str) -> list[dict[str, Any]]:
    """Return how well members are told from others, mean over agents, by score and by model."""
    rows = []
    for model in ("received model", "isolated model"):
        for score in ("loss", "entropy"):
            areas, accuracies = [], []
            for i, agent in host.agents.items():
                vector = told[i] if model == "received model" else _isolated(agent, told)
                members, others = (
                    _scores(agent, vector, part[i], score) for part in (canaries.members, canaries.others)
                )
                areas.append(area(members, others))
                accuracies.append(threshold(members, others))
            count = len(members)
            spread = sqrt((2 * count + 1) / (12 * count**2) / len(areas))
            row = {"attack": f"{prefix}membership by {score}, {model}", "found": fmean(areas), "chance": 0.5}
            rows.append({**row, "accuracy": fmean(accuracies), "succeeds": fmean(areas) > 0.5 + SURE * spread})
    return rows


def _isolated(agent: Agent, told: Mapping[int, Tensor]) -> Tensor:
    """Return (x_i − Σ_j w_ij x_j) / w_ii."""
    rest = told[agent.index].clone()
    for j in agent.neighbors:
        rest.sub_(told[j], alpha=agent.mixing_row[j])
    return rest / agent.mixing_row[agent.index]


def _scores(agent: Agent, vector: Tensor, batch: Batch, score: str) -> Tensor:
    """Return how surely the model at `vector` knows each example, shape [B], more for surer."""
    outputs = agent.objective.outputs(vector, batch)
    if score == "entropy":
        return -entropy(outputs, batch.targets)
    return -torch.nn.functional.cross_entropy(outputs.double(), batch.targets, reduction="none")
