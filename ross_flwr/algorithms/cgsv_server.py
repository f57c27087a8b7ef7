"""CGSV as published: a server, and clients that earn what they download."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ross_flwr.algorithms.algorithm import Algorithm, register, step
from ross_flwr.algorithms.messages import Inbox, Message
from ross_flwr.algorithms.reputation import Rewards, largest
from ross_flwr.config import ConfigError
from ross_flwr.learning.agent import Agent

SERVER = 0
"""The hub of the star."""


@register("cgsv-server")
class CGSVServer(Rewards):
    """CGSV (Xu et al., NeurIPS 2021) on a star whose hub, agent 0, is the server and learns nothing from its own data.

    ::

        clients:  Δ_i = (K local steps from x_i) − x_i;   u_i = Γ Δ_i / ‖Δ_i‖
        server:   u = Σ_i r_i u_i;   ψ_i = cos(u_i, u)                    (r_i = 1/N for this sum in the first round)
                  r_i ← max(α r_i + (1 − α) ψ_i, floor);   r_i ← r_i / Σ_k r_k
                  v_i = the q_i largest components of u;   q_i = ⌊P tanh(β r_i) / max_k tanh(β r_k)⌋;   w ← w + u
        clients:  x_i ← x_i + v_i

    N clients are N + 1 agents: the hub's part of the data is left alone, its accuracy is that of w, and it shares in
    the means over agents. The paper's values are Γ = 0.5 for MNIST, α = 0.95, β from 1 to 2
    (`altruism`; ∞ is the same for all) and three local epochs. Its released code also clamps r and shrinks η from epoch
    to epoch (not here: u_i has length Γ whatever η), and masks layer by layer; here, as written, the vector is one.

    State: x_i; w and r at the server. Per round: two exchanges, K gradients a client, P·4 bytes up and P·4 down for
    each, v_i being sent with its zeros; as pairs of index and value it would take q_i·8.
    """

    family = "fairness"
    needs = ("a star",)
    fixed_graph = True
    takes_rule = False

    @property
    def undefended(self) -> Algorithm:
        """Clients that attack send updates of any length; a server that attacks judges nobody."""
        return UndefendedServer(**vars(self))

    def check(self, mixing: NDArray[np.float64], total_passes: int) -> None:
        """Refuse whatever is not a star with agent 0 in its middle."""
        edges = mixing.copy()
        np.fill_diagonal(edges, 0)
        if not edges[SERVER, 1:].all() or edges[1:, 1:].any():
            raise ConfigError(
                "algorithm = 'cgsv-server' takes a star with agent 0 in its middle, and this graph is another: "
                "use topology = 'star'"
            )

    @step(sends=("update",), optional=True)
    def upload(self, agent: Agent, inbox: Inbox) -> dict[int, Message]:
        """Send u_i to the server."""
        if agent.index == SERVER:
            return {}
        update = self.train(agent) - agent["model"]
        return {SERVER: {"update": self.update_length * nn.functional.normalize(update, dim=0)}}

    @step(sends=("reward",), optional=True)
    def reward(self, agent: Agent, inbox: Inbox) -> dict[int, Message]:
        """Judge the clients' updates, and send each as much of their sum as it earned."""
        updates = inbox.gather("update")
        if not updates:
            return {}
        common, weights = self.appraise(agent, updates)
        agent.report(weights=weights)
        update = self.update_length * common
        agent["model"] = agent["model"] + update
        quotas = self.quotas(agent)
        return {j: {"reward": largest(update, quotas[j])} for j in updates}

    @step()
    def download(self, agent: Agent, inbox: Inbox) -> None:
        """Add the reward."""
        if SERVER in inbox:
            agent["model"] = agent["model"] + inbox[SERVER]["reward"]


class UndefendedServer(CGSVServer):
    """What attackers run."""

    def upload(self, agent: Agent, inbox: Inbox) -> dict[int, Message]:
        """Send Δ_i to the server."""
        return {} if agent.index == SERVER else {SERVER: {"update": self.train(agent) - agent["model"]}}

    def reward(self, agent: Agent, inbox: Inbox) -> dict[int, Message]:
        """Send everybody the mean update."""
        updates = inbox.gather("update")
        if not updates:
            return {}
        update = torch.stack(list(updates.values())).mean(0)
        agent["model"] = agent["model"] + update
        return {j: {"reward": update} for j in updates}
