"""A grid whose nodes answer by a script and at once: sound replies, but for what one of them says instead."""

from types import SimpleNamespace

import torch
from flwr.app import Error, Message, RecordDict

from ross_flwr.engine.events import AgentReport
from ross_flwr.flower.protocol import Answer, Call, Report, RoundReport, Segment, Setup, model_key
from ross_flwr.flower.records import record_of, route_of


class Scripted:
    """Nodes 10, 11, … of which each hosts the agent of a ring; node 10 + k is that of partition k.

    `twist` gets a message of type `kind` to one of the `liars` and its sound reply, and returns what the node says:
    records, or an `Error`.
    """

    run = SimpleNamespace(run_id=1)

    def __init__(self, strategy, *, kind="", twist=lambda message, content: content, liars=(13,)):
        self.model = record_of(strategy.assembly.task.model.named(strategy.assembly.task.model.initial))
        self.schedule, self.num_agents = strategy.assembly.schedule, strategy.assembly.topology.num_agents
        self.kind, self.twist, self.liars = kind, twist, liars
        self.replies, self.told = {}, []

    def get_node_ids(self):
        return [10 + agent for agent in range(self.num_agents)]

    def push_messages(self, messages):
        return [self._push(message) for message in messages]

    def pull_messages(self, numbers):
        return [reply for number in numbers for reply in self.replies.pop(number, ())]

    def _push(self, message):
        number, node, kind = f"m{len(self.told)}", message.metadata.dst_node_id, message.metadata.message_type
        self.told.append((node, kind))
        content = getattr(self, f"_{kind.partition('.')[2]}")(node - 10, message)
        if node in self.liars and kind == self.kind:
            content = self.twist(message, content)
        reply = Message(content, reply_to=message)
        reply.metadata.__dict__.update(_src_node_id=node, _reply_to_message_id=number)
        self.replies[number] = [reply]
        return number

    def _who(self, agent, message):
        return self._content(Answer(agent, f"n{agent}", f"127.0.0.1:{9000 + agent}"))

    def _models(self, agent, message):
        return RecordDict({model_key(agent): self._scaled(agent)})

    def _segment(self, agent, message):
        call = Segment.of(message.content)
        content = self._content(Report([self._round(agent, number) for number in range(call.first, call.last + 1)]))
        options = Setup.of(message.content).options
        if options["return-model"] == "final" and call.last == options["num-rounds"]:
            content.update(self._models(agent, message))
        return content

    def _share(self, agent, message):
        if Setup.key in message.content:
            self.name = Setup.of(message.content).run
        return self._mail(agent, Call.of(message.content).pass_number)

    def _mix(self, agent, message):
        call = Call.of(message.content)
        number = call.pass_number // self.schedule.passes + 1
        content = self._mail(agent, call.pass_number + 1) if call.pass_number + 1 < call.end else RecordDict()
        content.update(self._content(Report([self._round(agent, number)])))
        return content

    def _mail(self, agent, pass_number):
        entries = [(agent, (agent + side) % self.num_agents, "message.0") for side in (-1, 1)]
        route = route_of(entries, {"run": self.name, "pass": pass_number, "step": "share"})
        return RecordDict({"message.0": record_of({"model": torch.ones(3)}), "route": route})

    def _round(self, agent, number):
        sent = {(agent + side) % self.num_agents: {"model": 12} for side in (-1, 1)}
        report = AgentReport(agent, gradients=1, work=32.0, sent=sent, time={"gradients": 0.0})
        if self.schedule.tests(number):
            report.loss, report.accuracy = 0.5 + agent / 10, 0.9 - agent / 10
        return RoundReport(number, None, [report])

    def _content(self, record):
        return RecordDict({record.key: record.to_record()})

    def _scaled(self, agent):
        return record_of({name: torch.full(array.shape, float(agent)) for name, array in self.model.items()})


def failing(message, content):
    """A twist that makes the node fail."""
    return Error(code=0, reason="broken")


def saying(**records):
    """A twist that puts records into the reply; None takes one away."""

    def twist(message, content):
        changed = {**content, **records}
        return RecordDict({key: record for key, record in changed.items() if record is not None})

    return twist
