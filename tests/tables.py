"""A grid that is a table, with a clock that only its user moves."""

from collections import Counter

from flwr.app import Error, Message, RecordDict

from ross_flwr.flower.grid import Post
from ross_flwr.flower.patience import Patience
from ross_flwr.flower.protocol import Segment


class Later:
    """The half of a grid from which replies come after some seconds of a clock that only its user moves."""

    def __init__(self):
        self.now = 0.0
        self.due = {}

    def clock(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds

    def pull_messages(self, numbers):
        return [self.due[number][1] for number in numbers if self.due[number][0] <= self.now]


class Table(Later):
    """A grid whose nodes answer after the seconds that stand in `answers`: with an error if negative, never if None.

    A node that is not in it takes no message. `content` gives what a node answers to a message.
    """

    code = 0
    """Flower's code for the errors."""

    def __init__(self, content=lambda message: RecordDict(), **answers):
        super().__init__()
        self.answers = {int(node.removeprefix("n")): seconds for node, seconds in answers.items()}
        self.content = content
        self.pushed = []
        self.looks = []
        self.dropped = Counter()
        drop = lambda reason, node, text: self.dropped.update([reason])  # noqa: E731
        self.post = Post(self, drop, Patience(1.7), clock=self.clock, sleep=self.sleep)

    def segments(self, node):
        """The segments that a node was told, in order."""
        return [Segment.from_record(record) for to, record in self.pushed if to == node and record]

    def get_node_ids(self):
        return list(self.answers)

    def push_messages(self, messages):
        (message,) = messages
        node = message.metadata.dst_node_id
        if node not in self.answers:
            return [""]
        number = f"m{len(self.due)}"
        self.pushed.append((node, message.content.get(Segment.key)))
        seconds = self.answers[node]
        content = (
            Error(code=self.code, reason="broken") if seconds is not None and seconds < 0 else self.content(message)
        )
        reply = Message(content, reply_to=message)
        reply.metadata.__dict__.update(_src_node_id=node, _reply_to_message_id=number)
        self.due[number] = (float("inf") if seconds is None else self.now + abs(seconds), reply)
        return [number]

    def pull_messages(self, numbers):
        self.looks.append(self.now)
        return super().pull_messages(numbers)
