"""Flower nodes in this process, for tests: a thread each, no engine and no polling."""

from concurrent.futures import Future, ThreadPoolExecutor
from types import SimpleNamespace

import torch
from flwr.app import Context, Error, Message, RecordDict
from torch.utils.data import TensorDataset

from ross_flwr import peer_app
from ross_flwr.config import options_of
from ross_flwr.runs.assemble import read_task
from ross_flwr.tasks.options import CorruptionOptions, DataOptions


def context_of(run_config, node_id=0, **node_config):
    return Context(run_id=1, node_id=node_id, node_config=node_config, state=RecordDict(), run_config=run_config)


class KilledError(RuntimeError):
    """What ends a node's process."""


class NodeError(RuntimeError):
    """A node's own error, which Flower would pass on as a reply."""


class Nodes:
    """A grid of nodes that run a ClientApp, each one message at a time.

    The k-th of the `numbers`, by which Flower knows the nodes, is that of partition k. `node_config` tells what else
    stands in its configuration. One node runs after the other, as in a process of Flower's, unless they run `together`:
    then each needs a module of its own (`app_of`), since torch crashes where two threads differentiate one module.
    """

    run = SimpleNamespace(run_id=1)

    def __init__(self, app, numbers=(100, 101, 102, 103), node_config=lambda k: {}, *, together=False):
        self.app = app
        self.contexts = {
            number: context_of(
                {},
                number,
                **{"partition-id": k, "num-partitions": len(numbers), "reproducible-noise": True, **node_config(k)},
            )
            for k, number in enumerate(numbers)
        }
        one = ThreadPoolExecutor(1)
        self.threads = {number: ThreadPoolExecutor(1) if together else one for number in numbers}
        self.replies: dict[str, Future] = {}

    def get_node_ids(self):
        return list(self.contexts)

    def push_messages(self, messages):
        pushed = []
        for message in messages:
            number = str(len(self.replies))
            message.metadata.__dict__["_message_id"] = number
            self.replies[number] = self.threads[message.metadata.dst_node_id].submit(self.answer, message)
            pushed.append(number)
        return pushed

    def answer(self, message):
        node = message.metadata.dst_node_id
        try:
            reply = self.app(message, self.contexts[node])
        except KilledError as error:
            reply = Message(Error(code=0, reason=repr(error)), reply_to=message)
        reply.metadata.__dict__["_src_node_id"] = node
        return reply

    def send_and_receive(self, messages, *, timeout=None):
        """Do as Flower's own strategies ask."""
        return [self.replies[number].result(timeout) for number in self.push_messages(messages)]

    def pull_messages(self, numbers):
        done = [self.replies[number] for number in numbers if self.replies[number].done()]
        for error in filter(None, (reply.exception() for reply in done)):
            raise NodeError(str(error)) from error
        return [reply.result() for reply in done]


def keys_beside(options):
    """The options that stay keys of a run whose own data is what the others name; the app of `app_of` refuses those."""
    data = {key.name for part in (DataOptions, CorruptionOptions) for key in options_of(part)}
    return {name: value for name, value in options.items() if name.replace("_", "-") not in data}


def app_of(config, mods=None, module=lambda context, module: module):
    """Return an app whose own data and model are those that `config` names, so that nodes share no module.

    `module` may change the module of a node.
    """
    images = read_task(config)

    def part(name):
        def load(context):
            objective = images.objective(context.node_config["partition-id"])
            split = {"train": objective.train_data, "test": objective.test_data}.get(name)
            batch = split.batch(torch.arange(len(split))) if split else objective.validation
            return TensorDataset(batch.inputs, batch.targets)

        return load

    return peer_app(
        mods,
        model=lambda context: module(context, read_task(config).model.module),
        train_data=part("train"),
        validation_data=part("validation"),
        test_data=part("test"),
    )
