"""Memory and bytes of a step of training: DECA beside decentralized Adam and LoRA, on a transformer.

``python tests/benchmarks/test_training_memory.py`` prints the tables of the READMEs. One agent of a ring trains and
hears two neighbours. Counted is what PyTorch has allocated in the process at the worst moment of a pass: activations,
the initial model and messages included.
"""

import copy
import math

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from ross_flwr import graph
from ross_flwr.algorithms import ALGORITHMS
from ross_flwr.engine.envelope import Envelope
from ross_flwr.engine.host import Host
from ross_flwr.learning.agent import Agent
from ross_flwr.tasks.own import Own
from ross_flwr.tasks.transformer import Transformer

CONTEXT = 32
RING = graph.of_graph(graph.ring(3))


class Windows(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, k):
        text = torch.arange(CONTEXT + 1) * (k + 3) % 256
        return text[:-1], text[1:]


class LoRA(nn.Module):
    """A frozen linear layer with a trained product of low rank beside it."""

    def __init__(self, base, rank):
        super().__init__()
        self.base = base
        self.down = nn.Parameter(torch.randn(rank, base.in_features) / math.sqrt(base.in_features))
        self.up = nn.Parameter(torch.zeros(base.out_features, rank))

    def forward(self, inputs):
        return self.base(inputs) + inputs @ self.down.T @ self.up.T


def with_adapters(module, rank=8):
    module.requires_grad_(False)
    for block in module.blocks:
        for name, layer in list(block.named_children()):
            if isinstance(layer, nn.Linear):
                setattr(block, name, LoRA(layer, rank))
    return module


def loss(outputs, targets):
    return nn.functional.cross_entropy(outputs.flatten(0, 1), targets.flatten())


def hosted(method, module):
    data = Windows()
    task = Own(module, lambda _: data, lambda _: data, loss=loss, batch_size=4)
    agent = Agent(0, task.objective(0), RING.mixing_row(0), seed=0, batch_size=4)
    agent.total_passes = 100
    agent["model"] = task.model.initial.clone()
    method.start(agent)
    return Host("run", method, [agent])


def run_pass(host, number):
    """Run a pass in which both neighbours send what the agent itself sends; return the bytes that it sent."""
    sent, arrived = 0, []
    for step in range(len(host.algorithm.steps)):
        leaving = host.activate(number, step, arrived)
        sent += sum(tensor.nbytes for each in leaving for tensor in each.tensors.values())
        arrived = [
            Envelope("run", number, each.step, each.destination, 0, {k: t.clone() for k, t in each.tensors.items()})
            for each in leaving
        ]
        del leaving
    host.end_pass()
    return sent


def measured(method, make):
    """Return the most memory that a process with one agent holds in its third pass, and the bytes that a pass sends."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        host = hosted(method, make())
        for number in range(3):
            with record_function(f"pass {number}"):
                sent = run_pass(host, number)
    events = profiled.profiler.kineto_results.events()
    begin = next(event.start_ns() for event in events if event.name() == "pass 2")
    now = most = 0
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        now += event.nbytes()
        if event.start_ns() >= begin:
            most = max(most, now)
    return most, sent


def model(layers=8):
    return Transformer(layers=layers, width=128, heads=4, context=CONTEXT).build(0)


ROWS = {
    "dadam": (ALGORITHMS["dadam"](), model),
    "dadam, moments at home": (ALGORITHMS["dadam"](mix_momentum=False), model),
    "dadam, LoRA of rank 8": (ALGORITHMS["dadam"](), lambda: with_adapters(model())),
    **{f"deca, {b} blocks": (ALGORITHMS["deca"](blocks=b), model) for b in (2, 4, 8, 16)},
}


def test_training_by_eight_blocks_takes_two_fifths_of_adams_memory_and_an_eighth_of_its_bytes():
    methods = ALGORITHMS["dadam"](mix_momentum=False), ALGORITHMS["deca"](blocks=8)
    whole, blocks = (measured(method, lambda: model(2)) for method in methods)
    assert blocks[0] <= 0.4 * whole[0]
    assert blocks[1] <= whole[1] / 8 + 8


def frozen_base(nodes=50):
    """Return the parameters frozen and trained, the bytes of a message, and those of all frozen memory of the nodes."""
    module = with_adapters(Transformer(layers=12, width=264, heads=4, context=CONTEXT).build(0), rank=4)
    for block in module.blocks:  # adapters of the attention's input alone
        for layer in (block.mixed, block.wide, block.narrow):
            layer.requires_grad_(False)
    modules = [copy.deepcopy(module) for _ in range(nodes)]
    hosts = [hosted(ALGORITHMS["dpsgd"](), each) for each in modules]
    frozen = [p for each in modules for p in each.parameters() if not p.requires_grad]
    memory = sum({p.untyped_storage().data_ptr(): p.untyped_storage().nbytes() for p in frozen}.values())
    sent = run_pass(hosts[0], 0) // 2
    return sum(p.numel() for p in frozen) // nodes, hosts[0].agents[0].objective.size, sent, memory


if __name__ == "__main__":
    found = {name: measured(*row) for name, row in ROWS.items()}
    full = found["dadam"][0]
    for name, (memory, sent) in found.items():
        print(f"| {name} | {memory / 1e6:.1f} MB | {memory / full:.2f} | {sent / 1e6:.2f} MB |")
    base, trained, message, memory = frozen_base()
    print(f"{base:,} frozen and {trained:,} trained parameters, 50 nodes in a process:")
    print(f"a message has {message:,} bytes, and frozen parameters take {memory / 1e6:.1f} MB in all")
