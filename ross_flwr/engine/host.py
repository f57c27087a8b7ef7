"""The host of one node's agents: it runs a step for all of them and passes on what they send, on every transport."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from time import perf_counter_ns
from typing import Any, TypeAlias

from torch import Size, Tensor, dtype

from ross_flwr.algorithms.algorithm import Algorithm
from ross_flwr.algorithms.messages import Broadcast, Exchange, Forms, Inbox, Message, MessageTransform, Outbox
from ross_flwr.engine.engines import Engine, Loop
from ross_flwr.engine.envelope import Envelope
from ross_flwr.engine.events import AgentReport
from ross_flwr.engine.mailroom import Mailroom
from ross_flwr.engine.snapshots import Snapshot, put_back, take
from ross_flwr.graph.topology import Places
from ross_flwr.learning.agent import Agent
from ross_flwr.learning.requests import Test

__all__ = ["Host"]


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
    engine : Engine, optional
        What runs a step for all of them; by default, one after the other.
    transforms : sequence of MessageTransform, optional
        The message chain: attacks, codecs, faults.
    places : callable, optional
        From an agent and a pass to its row and column of W, if the graph changes; without it, agents keep theirs.
    absent : callable, optional
        From an agent and a pass to whether the agent is away.
    attackers : collection of int, optional
        The agents that attack, here and on other nodes: the log tells them.

    Attributes
    ----------
    mailroom : Mailroom
        Sorts and counts messages.
    ran : dict[int, tuple[int, int]]
        The pass and the number of the step that each agent ran last. Agents that missed a step are left out.
    patience : dict[str, float]
        For how many seconds other nodes may still keep this one waiting, by name: a transport ends sooner than the run.
    """

    def __init__(
        self,
        run: str,
        algorithm: Algorithm,
        agents: Sequence[Agent],
        *,
        engine: Engine | None = None,
        transforms: Sequence[MessageTransform] = (),
        places: Places | None = None,
        absent: Callable[[int, int], bool] | None = None,
        attackers: Collection[int] = (),
    ) -> None:
        self.algorithm = algorithm
        self.agents = {agent.index: agent for agent in agents}
        self.engine: Engine = engine or Loop()
        self.mailroom = Mailroom(run, transforms, attackers)
        self.places, self.absent = places, absent
        self.ran: dict[int, tuple[int, int]] = {}
        self.patience: dict[str, float] = {}

    @property
    def run(self) -> str:
        """The name of the run."""
        return self.mailroom.run

    @property
    def dropped(self) -> Counter[str]:
        """Messages refused so far, by reason."""
        return self.mailroom.refusals.counts

    @property
    def about(self) -> dict[str, Any]:
        """What the summary says of the engine, and of messages."""
        return {"engine": self.engine.name, "dropped": dict(self.dropped)}

    def activate(self, pass_number: int, number: int, arrived: Iterable[Envelope] = ()) -> list[Envelope]:
        """Run step `number` of a pass for every agent.

        An agent that is absent, or did not run the step before, sits out the pass; its neighbours see it as missing.

        Parameters
        ----------
        pass_number, number : int
            What to run, both counted from 0.
        arrived : iterable of Envelope
            What arrived from agents on other nodes.

        Returns
        -------
        list[Envelope]
            What the transport must carry to other nodes.
        """
        step = self.algorithm.steps[number]
        if self.places:
            for index, agent in self.agents.items():
                agent.place(*self.places(index, pass_number))
        running = {i: agent for i, agent in self.agents.items() if self._runs(i, pass_number, number)}
        self.ran = dict.fromkeys(running, (pass_number, number))
        inboxes = self._open(running, pass_number, number, arrived)
        for agent in running.values():
            agent.pass_number = pass_number
        outboxes = {
            index: _by_destination(running[index], outbox)
            for index, outbox in self.engine.run(self.algorithm, step, running, inboxes).items()
        }
        exchange = Exchange(
            pass_number=pass_number,
            number=number,
            step=step,
            forms=self._forms(step),
            agents=running,
            inboxes=inboxes,
            outboxes=outboxes,
        )
        silence = number < len(self.algorithm.steps) - 1 and self.algorithm.optional(step)
        return [
            envelope
            for index, outbox in outboxes.items()
            for envelope in self._send(running[index], outbox, exchange, silence=silence)
        ]

    def preview(self, envelope: Envelope) -> Message:
        """Return what the receiver of an envelope would read; raise `Refused` if it would drop the envelope."""
        number, step = self.algorithm.steps.index(envelope.step), envelope.step
        exchange = Exchange(pass_number=envelope.pass_number, number=number, step=step, forms=self._forms(step))
        return self.mailroom.preview(self.agents[envelope.destination], envelope.source, envelope.tensors, exchange)

    def end_pass(self) -> None:
        """Finish a pass over the algorithm's steps for every agent that ran the last one."""
        for index in self.ran:
            self.agents[index].end_pass()

    def end_round(self, *, evaluate: bool) -> list[AgentReport]:
        """Report what every agent that ran the last step did since its last report; if `evaluate`, test it."""
        mailroom, reports = self.mailroom, []
        missing, mailroom.missing = mailroom.missing, {}
        for index in sorted(self.ran):
            agent = self.agents[index]
            report = AgentReport(
                index,
                gradients=agent.counts["gradients"],
                utilities=agent.counts["utilities"],
                work=agent.counts.work,
                sent=mailroom.sent.pop(index, {}),
                missing=sorted(missing.get(index, ())),
                weights=agent.reported.get("weights", {}),
                spent=agent.reported.get("spent"),
                time={kind: agent.counts[f"{kind}-ns"] / 1e9 for kind in ("gradients", "utilities", "exchange")},
            )
            agent.counts.clear()
            agent.reported = {}
            reports.append(report)
        if evaluate:
            _test(reports, self.agents, self.engine)
        return reports

    def snapshot(self) -> Snapshot:
        """Return all that the host carries from one activation to the next."""
        return take(self.agents, self.mailroom, self.ran, self.patience)

    def restore(self, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> None:
        """Restore what `snapshot` returned. `rest` may have been through JSON, which turns keys into texts.

        Raises
        ------
        ValueError
            When it is damaged. The host is of no use then.
        """
        self.ran, self.patience = put_back(self.agents, self.mailroom, tensors, rest)

    def resume(self, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]) -> None:
        """Restore what `snapshot` returned in another process, to agents that have just begun.

        Raises
        ------
        ValueError
            When it is damaged, or of other agents. The host is of no use then.
        """
        before = _layouts(self.agents)
        self.restore(tensors, rest)
        if len(rest["state"]) != len(before) or _lost(before, _layouts(self.agents)):
            raise ValueError("it holds the state of other agents")

    def _runs(self, index: int, pass_number: int, number: int) -> bool:
        if number:
            return self.ran.get(index) == (pass_number, number - 1)
        return not (self.absent and self.absent(index, pass_number))

    def _open(
        self, running: Mapping[int, Agent], pass_number: int, number: int, arrived: Iterable[Envelope]
    ) -> dict[int, Inbox]:
        if number == 0:
            self.mailroom.sort(self.agents, arrived, None)
            return {index: Inbox() for index in running}
        step = self.algorithm.steps[number - 1]
        exchange = Exchange(pass_number=pass_number, number=number - 1, step=step, forms=self._forms(step))
        sacks = self.mailroom.sort(self.agents, arrived, exchange)
        optional = self.algorithm.optional(step)
        return {
            index: self.mailroom.open(agent, sacks.get(index, {}), exchange, optional=optional)
            for index, agent in running.items()
        }

    def _forms(self, step: str) -> Forms:
        return self.algorithm.forms(step, next(iter(self.agents.values())))

    def _send(self, agent: Agent, outbox: dict[int, Message], exchange: Exchange, *, silence: bool) -> list[Envelope]:
        began = perf_counter_ns()
        leaving = self.mailroom.post(self.agents, outbox, agent, exchange, silence=silence)
        agent.counts["exchange-ns"] += perf_counter_ns() - began
        return leaving


Layouts: TypeAlias = dict[int, dict[str, tuple[Size, dtype]]]
"""Shape and type of what each agent remembers."""


def _lost(before: Layouts, now: Layouts) -> bool:
    """Return whether an agent no longer has all that it had."""
    return any(not before[i].items() <= now[i].items() for i in before)


def _layouts(agents: Mapping[int, Agent]) -> Layouts:
    return {i: {name: (v.shape, v.dtype) for name, v in agent.state.items()} for i, agent in agents.items()}


def _test(reports: Sequence[AgentReport], agents: Mapping[int, Agent], engine: Engine) -> None:
    """Add to each report how good the agent's model is on its test set."""
    requests = [Test(agents[each.agent].objective, agents[each.agent]["model"]) for each in reports]
    for report, performance in zip(reports, engine.answer(requests), strict=True):
        report.add(performance)


def _by_destination(agent: Agent, outbox: Outbox) -> dict[int, Message]:
    """Return the messages of an outbox, the one to the agent itself included, by destination."""
    if isinstance(outbox, Broadcast):
        return dict.fromkeys((agent.index, *agent.receivers), outbox.message)
    return dict(outbox)
