"""Sparser models for those who agree less."""

from ross_flwr.algorithms.algorithm import Algorithm, register, step
from ross_flwr.algorithms.messages import Inbox, Message, Outbox, broadcast
from ross_flwr.algorithms.reputation import Rewards, largest
from ross_flwr.learning.agent import Agent


@register("cgsv-reward")
class CGSVReward(Rewards):
    """CGSV (Xu et al., NeurIPS 2021) as a reward: an agent tells its neighbours as much as their updates were worth.

    ::

        x½_i = x_i after K local steps
        u_ij = Γ (x½_j − x_i) / ‖x½_j − x_i‖ for j in M_i;   u_i = Σ_j r_ij u_ij;   x̂_i = x_i + u_i
        r_ij as for `cgsv`, with u_ij in the place of G_ij
        v_ij = the q_ij largest components of x̂_i − x½_j;   q_ij = ⌊P tanh(β r_ij) / max_k tanh(β r_ik)⌋
        x_i ← Σ_j w_ij (x½_i + v_ji)                                                           (v_ii in full)

    The paper has a server; here each agent is the server of M_i, an adaptation of ours. The receiver keeps its own
    values where a component is withheld, so with rewards of zero agents train locally. With β → ∞ nothing is withheld
    and x_i = Σ_j w_ij x̂_j. Unequal rewards break the double stochasticity of the mixing, because models are meant to
    differ. The protocol assumes honesty: an agent sees its neighbours' x½_j, and nothing stops it from using them.

    State: x_i, r_i. Per agent, pass and k neighbours: two exchanges, K gradients, 2·k·P·4 bytes, for v_ij is sent with
    its zeros; as pairs of index and value it would take q_ij·8.
    """

    family = "fairness"

    @property
    def undefended(self) -> Algorithm:
        """Attackers judge nobody, and withhold nothing of the models' plain mean."""
        return UndefendedReward(**vars(self))

    @step(sends=("model",))
    def share(self, agent: Agent, inbox: Inbox) -> Outbox:
        """Train, and send x½_i."""
        return broadcast(model=self.train(agent))

    @step(sends=("reward",))
    def reward(self, agent: Agent, inbox: Inbox) -> dict[int, Message]:
        """Judge the neighbours' updates, and send each the part of the model made of them that it earned."""
        models = inbox.gather("model")
        common, weights = self.appraise(agent, {j: model - agent["model"] for j, model in models.items()})
        agent.report(weights=weights)
        target = agent["model"] + self.update_length * common
        quotas = self.quotas(agent) | {agent.index: len(target)}
        agent["model"] = models[agent.index]
        return {j: {"reward": largest(target - model, quotas[j])} for j, model in models.items()}

    @step()
    def collect(self, agent: Agent, inbox: Inbox) -> None:
        """Mix the models that the rewards make of the own one."""
        rewarded = {j: agent["model"] + reward for j, reward in inbox.gather("reward").items()}
        agent["model"] = agent.mix(rewarded)


class UndefendedReward(CGSVReward):
    """What attackers run."""

    def reward(self, agent: Agent, inbox: Inbox) -> dict[int, Message]:
        """Send what makes a neighbour's model the plain mean of those that arrived."""
        models = inbox.gather("model")
        mean = agent.mix(models)
        agent["model"] = models[agent.index]
        return {j: {"reward": mean - model} for j, model in models.items()}
