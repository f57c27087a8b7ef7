"""All agents in this process: no serialisation, messages are shared tensors."""

from collections.abc import Iterator
from time import perf_counter

from ross_flwr.engine.events import Round
from ross_flwr.engine.host import Host

__all__ = ["rounds"]


def rounds(host: Host, first: int, last: int, *, passes: int = 1, evaluate_every: int = 1) -> Iterator[Round]:
    """Run rounds `first` … `last` (counted from 1, both included), yielding each as it ends.

    Parameters
    ----------
    host : Host
        Hosts every agent of the run, their state as it was at the end of round ``first - 1``.
    passes : int
        Passes over the method's steps in one round.
    evaluate_every : int
        Test the agents every so many rounds, and in the last.
    """
    for number in range(first, last + 1):
        began = perf_counter()
        for iteration in range((number - 1) * passes, number * passes):
            for step in range(len(host.algorithm.steps)):
                host.activate(iteration, step)
            host.end_pass()
        evaluate = number % evaluate_every == 0 or number == last
        reports = host.end_round(evaluate=evaluate)
        models = {index: agent["model"] for index, agent in host.agents.items()} if evaluate else None
        yield Round(number, reports, perf_counter() - began, models)
