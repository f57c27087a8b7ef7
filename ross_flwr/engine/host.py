"""The agents of one node: runs a step for all of them and routes what they send. Every transport feeds one of these."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from logging import DEBUG, WARNING, getLogger
from time import perf_counter_ns
from typing import Any

from torch import Tensor

from ross_flwr.algorithms.algorithm import Algorithm, Broadcast, Inbox, Message
from ross_flwr.engine.envelope import Envelope, defect
from ross_flwr.engine.events import AgentReport
from ross_flwr.graph.topology import Places
from ross_flwr.learning.agent import Agent
from ross_flwr.threats.adversary import Adversary
from ross_flwr.threats.faults import Faults

__all__ = ["Host"]

logger = getLogger("ross_flwr")


class Host:
    """Runs the steps of a block of agents.

    Parameters
    ----------
    run : str
        Name of the run, on every envelope.
    algorithm : Algorithm
        The method.
    agents : sequence of Agent
        The agents hosted here. Messages between them never leave.
    places : callable, optional
        From an agent and a round to its row and column of W, where the graph changes; agents keep theirs without.
    adversary : Adversary, optional
        Rewrites what attackers send.
    faults : Faults, optional
        Who is away, and which messages get lost.

    Attributes
    ----------
    dropped : Counter
        Messages refused so far, by reason.
    """

    def __init__(
        self,
        run: str,
        algorithm: Algorithm,
        agents: Sequence[Agent],
        *,
        places: Places | None = None,
        adversary: Adversary | None = None,
        faults: Faults | None = None,
    ) -> None:
        self.run = run
        self.algorithm = algorithm
        self.places = places
        self.adversary = adversary
        self.faults = faults
        self.agents = {agent.index: agent for agent in agents}
        self.dropped: Counter[str] = Counter()
        self.sent: dict[int, dict[int, dict[str, int]]] = {}
        self.missing: dict[int, set[int]] = {}
        self.mailboxes: dict[int, Inbox] = {}
        self.progress: dict[int, tuple[int, int]] = {}

    def activate(self, round: int, step: int, arrived: Iterable[Envelope] = ()) -> list[Envelope]:
        """Run step number `step` of `round` for every agent.

        An agent that is away, or did not run the step before, sits the round out: its neighbours see it as missing.

        Parameters
        ----------
        round, step : int
            What to run; steps count from 0.
        arrived : iterable of Envelope
            What came from agents on other nodes.

        Returns
        -------
        list[Envelope]
            What has to be carried to other nodes.
        """
        name = self.algorithm.steps[step]
        if self.places:
            for index, agent in self.agents.items():
                agent.place(*self.places(index, round))
        on_time = {index for index, ran in self.progress.items() if ran == (round, step - 1)}
        mailboxes = {index: inbox for index, inbox in self.mailboxes.items() if index in on_time}
        self.mailboxes = {}
        for envelope in arrived:
            self._receive(envelope, round, step, mailboxes)
        inboxes: dict[int, Inbox] = {}
        outboxes: dict[int, dict[int, Message]] = {}
        for index, agent in self.agents.items():
            if index not in on_time if step > 0 else self.faults and self.faults.absent(index, round):
                self.progress.pop(index, None)
                continue
            self.progress[index] = (round, step)
            agent.round = round
            inboxes[index] = inbox = Inbox(sorted(mailboxes.get(index, {}).items()))
            if step > 0 and len(inbox) <= len(agent.neighbors):
                self.missing.setdefault(index, set()).update(j for j in agent.neighbors if j not in inbox)
            outbox = self.algorithm.run_step(name, agent, inbox)
            if isinstance(outbox, Broadcast):
                outbox = dict.fromkeys((index, *agent.receivers), outbox.message)
            outboxes[index] = dict(outbox)
        if self.adversary:
            self.adversary.tamper(name, {i: self.agents[i] for i in outboxes}, inboxes, outboxes)
        return [
            envelope
            for index, outbox in outboxes.items()
            for envelope in self._send(self.agents[index], outbox, round, step)
        ]

    def end_pass(self) -> None:
        """Finish a pass over the algorithm's steps for every agent that ran the last one."""
        for index in self.progress:  # who missed a step has none
            self.agents[index].end_pass()

    def end_round(self, *, evaluate: bool) -> list[AgentReport]:
        """Tell what every agent that ran the last step did since its last report, and how good it is if `evaluate`."""
        reports = []
        missing, self.missing = self.missing, {}
        for index in sorted(self.progress):
            agent = self.agents[index]
            report = AgentReport(
                index,
                gradients=agent.counts["gradients"],
                utilities=agent.counts["utilities"],
                sent=self.sent.pop(index, {}),
                missing=sorted(missing.get(index, ())),
                weights=agent.weights,
                time={kind: agent.counts[f"{kind}-ns"] / 1e9 for kind in ("gradients", "utilities", "exchange")},
            )
            agent.counts.clear()
            agent.weights = {}
            if evaluate:
                performance = agent.objective.test(agent["model"])
                report.loss, report.accuracy = performance.pop("loss"), performance.pop("accuracy")
                report.attack_success = performance.pop("attack-success", None)
                report.metrics = dict(performance)
            reports.append(report)
        return reports

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return all that the host carries from one activation to the next: tensors by key, and the rest as JSON.

        It stays as it is when the host goes on, for vectors are replaced, never changed, and what is counted is copied.
        A tensor that stands in several places (an agent's model and the message with it, say) is returned once.
        """
        tensors: dict[str, Tensor] = {}
        keys: dict[int, str] = {}

        def store(key: str, message: Message) -> dict[str, str]:
            for name, tensor in message.items():
                if id(tensor) not in keys:
                    keys[id(tensor)] = f"{key}.{name}"
                    tensors[f"{key}.{name}"] = tensor
            return {name: keys[id(tensor)] for name, tensor in message.items()}

        rest = {
            "state": {i: store(f"agent.{i}", agent.state) for i, agent in self.agents.items()},
            "mail": {
                i: {j: store(f"mail.{j}.{i}", message) for j, message in inbox.items()}
                for i, inbox in self.mailboxes.items()
            },
            "progress": dict(self.progress),
            "counts": {i: dict(agent.counts) for i, agent in self.agents.items()},
            "weights": {i: agent.weights for i, agent in self.agents.items()},
            "sent": {i: {j: dict(kinds) for j, kinds in sent.items()} for i, sent in self.sent.items()},
            "missing": {i: sorted(missing) for i, missing in self.missing.items()},
            "dropped": dict(self.dropped),
        }
        return tensors, rest

    def restore(self, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> None:
        """Take back what `snapshot` returned; `rest` may have been through JSON, which makes keys texts."""

        def fetch(keys: Mapping[str, str]) -> Message:
            return {name: tensors[key] for name, key in keys.items()}

        state, counts, weights = (
            {int(i): entry for i, entry in rest[name].items()} for name in ("state", "counts", "weights")
        )
        for i, agent in self.agents.items():
            agent.state = fetch(state[i])
            agent.counts = Counter(counts[i])
            agent.weights = {int(j): weight for j, weight in weights[i].items()}
        self.mailboxes = {
            int(i): Inbox({int(j): fetch(keys) for j, keys in mail.items()}) for i, mail in rest["mail"].items()
        }
        self.progress = {int(i): (round, step) for i, (round, step) in rest["progress"].items()}
        self.sent = {int(i): {int(j): kinds for j, kinds in sent.items()} for i, sent in rest["sent"].items()}
        self.missing = {int(i): set(missing) for i, missing in rest["missing"].items()}
        self.dropped = Counter(rest["dropped"])

    def _send(self, agent: Agent, outbox: Mapping[int, Message], round: int, step: int) -> list[Envelope]:
        began = perf_counter_ns()
        leaving = []
        sent = self.sent.setdefault(agent.index, {})
        sound: dict[int, str] = {}
        for destination, message in outbox.items():
            if destination != agent.index:
                if destination not in agent.mixing_column:
                    self._drop("no-edge", agent.index, destination)
                    continue
                kinds = sent.setdefault(destination, {})
                for name, tensor in message.items():
                    kinds[name] = kinds.get(name, 0) + tensor.nbytes
                if self.faults and self.faults.lost(agent.index, destination, round, step):
                    self.dropped["lost"] += 1
                    continue
            if destination in self.agents:
                if destination != agent.index and id(message) not in sound:
                    sound[id(message)] = defect(message, None)
                if reason := sound.get(id(message)):
                    self._drop(reason, agent.index, destination)
                else:
                    self.mailboxes.setdefault(destination, Inbox())[agent.index] = message
            else:
                name = self.algorithm.steps[step]
                leaving.append(Envelope(self.run, round, name, agent.index, destination, message))
        agent.counts["exchange-ns"] += perf_counter_ns() - began
        return leaving

    def _receive(self, envelope: Envelope, round: int, step: int, mailboxes: dict[int, Inbox]) -> None:
        destination, source = envelope.destination, envelope.source
        mailbox = mailboxes.setdefault(destination, Inbox())
        if envelope.run != self.run:
            reason = "other-run"
        elif destination not in self.agents:
            reason = "not-hosted"
        elif source not in self.agents[destination].neighbors:
            reason = "no-edge"
        elif step == 0 or (envelope.round, envelope.step) != (round, self.algorithm.steps[step - 1]):
            reason = "other-step"
        elif source in mailbox:
            reason = "duplicate"
        else:
            reason = defect(envelope.tensors, mailbox.get(destination))
        if reason:
            self._drop(reason, source, destination)
        else:
            mailbox[source] = envelope.tensors

    def _drop(self, reason: str, source: int, destination: int) -> None:
        first = self.dropped[reason] == 0
        self.dropped[reason] += 1
        logger.log(
            WARNING if first else DEBUG,
            "dropped a message from agent %d to agent %d: %s",
            source,
            destination,
            reason,
        )
