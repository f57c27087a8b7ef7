"""Shapley-weighted cross-gradients."""

import numpy as np

from ross_flwr.algorithms.algorithm import Algorithm, Inbox, Outbox, broadcast, register, step
from ross_flwr.config import option
from ross_flwr.learning.agent import Agent
from ross_flwr.learning.shapley import ESTIMATORS, WEIGHTINGS, Game, shapley_values


@register("ross")
class ROSS(Algorithm):
    momentum: float = option(0.9, "momentum coefficient α", minimum=0.0, maximum=0.9999)
    mix_momentum: bool = option(True, "whether the momentum is mixed along with the model")
    weighting: str = option("relu", "how Shapley values become weights", choices=WEIGHTINGS)
    temperature: float = option(0.33, "temperature of weighting = 'softmax', relative to the largest |φ|")
    utility: str = option("loss", "what a coalition is worth on Q_i", choices=("loss", "accuracy"))
    probe: str = option("sgd", "probe", choices=("sgd", "momentum"))
    fallback: str = option("skip", "when no contribution is positive", choices=("self", "uniform", "skip"))
    shapley: str = option("auto", "estimator of the Shapley values", choices=ESTIMATORS)
    permutations: int = option(0, "R", minimum=0)
    guard: str = option("none", "x")
    guard_factor: float = option(1.0, "x")

    def start(self, agent: Agent) -> None:
        agent["momentum"] = agent["model"].new_zeros(agent["model"].shape)

    @step
    def share(self, agent: Agent, inbox: Inbox) -> Outbox:
        return broadcast(model=agent["model"])

    @step
    def cross_gradients(self, agent: Agent, inbox: Inbox) -> Outbox:
        return {j: {"gradient": agent.gradient(model)} for j, model in inbox.gather("model").items()}

    @step
    def descend(self, agent: Agent, inbox: Inbox) -> Outbox:
        gradients = inbox.gather("gradient")
        model, momentum = agent["model"], agent["momentum"]
        eta, alpha = self.learning_rate, self.momentum
        if "clipmed" in self.guard:
            norms = {j: float(g.norm()) for j, g in gradients.items()}
            radius = float(np.median(list(norms.values()))) * self.guard_factor
            gradients = {j: g * min(1, radius / max(norms[j], 1e-12)) for j, g in gradients.items()}
        if "clipown" in self.guard:
            norms = {j: float(g.norm()) for j, g in gradients.items()}
            radius = norms[agent.index] * self.guard_factor
            gradients = {j: g * min(1, radius / max(norms[j], 1e-12)) for j, g in gradients.items()}
        if "clipmin" in self.guard:
            norms = {j: float(g.norm()) for j, g in gradients.items()}
            radius = min(norms.values()) * self.guard_factor
            gradients = {j: g * min(1, radius / max(norms[j], 1e-12)) for j, g in gradients.items()}
        players = list(gradients)

        def value(coalition: tuple[int, ...]) -> float:
            probe = model.clone()
            if coalition and self.probe == "momentum":
                probe.sub_(momentum, alpha=eta * alpha)
            for k in coalition:
                probe.sub_(gradients[players[k]], alpha=eta / len(coalition))
            return agent.utility(probe, self.utility)

        game = Game(len(players), value)
        phi = shapley_values(game, self.shapley, permutations=self.permutations, generator=agent.stream("shapley"))
        pi = WEIGHTINGS[self.weighting](phi, self.temperature)
        if not pi.any() and self.fallback != "skip":
            pi = (
                np.full(len(players), 1 / len(players))
                if self.fallback == "uniform"
                else np.eye(len(players))[players.index(agent.index)]
            )
        agent.weights = {j: float(p) for j, p in zip(players, pi, strict=True)}
        if pi.any():
            direction = model.new_zeros(model.shape)
            for j, p in agent.weights.items():
                direction.add_(gradients[j], alpha=p)
            new_momentum = direction.add_(momentum, alpha=alpha)
            proposal = model - eta * new_momentum
            if "gate" in self.guard:
                base = game(0)
                now = agent.utility(proposal, self.utility)
                if not now >= base - self.guard_factor:
                    new_momentum = momentum * 0 if "reset" in self.guard else momentum
                    proposal = model
            momentum, model = new_momentum, proposal
        elif self.guard == "decay":
            momentum = momentum * alpha
        return broadcast(model=model, momentum=momentum)

    @step
    def mix(self, agent: Agent, inbox: Inbox) -> None:
        agent["model"] = agent.mix(inbox.gather("model"))
        agent["momentum"] = agent.mix(inbox.gather("momentum")) if self.mix_momentum else inbox[agent.index]["momentum"]
