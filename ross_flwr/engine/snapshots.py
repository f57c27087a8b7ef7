"""What a host carries from one activation to the next, as tensors and JSON."""

from collections import Counter
from collections.abc import Mapping
from typing import Any, TypeAlias

from torch import Tensor

from ross_flwr.algorithms.messages import Message
from ross_flwr.engine.mailroom import Mailroom
from ross_flwr.learning.agent import Agent
from ross_flwr.learning.counts import Counts

__all__ = ["Snapshot", "put_back", "take"]

Snapshot: TypeAlias = tuple[dict[str, Tensor], dict[str, Any]]
Ran: TypeAlias = dict[int, tuple[int, int]]
"""The pass and the number of the step that each agent ran last."""


def take(agents: Mapping[int, Agent], mailroom: Mailroom, ran: Ran, patience: Mapping[str, float]) -> Snapshot:
    """Return all that a host carries from one activation to the next: tensors by key, and the rest as JSON.

    It stays valid while the host goes on, because vectors are replaced, never changed, and counts are copied.
    A tensor that occurs in several places, such as an agent's model and the message that holds it, is returned once.
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
        "state": {i: store(f"agent.{i}", agent.state) for i, agent in agents.items()},
        "mail": {
            i: {j: store(f"mail.{j}.{i}", message) for j, message in sack.items()}
            for i, sack in mailroom.waiting.items()
        },
        "ran": dict(ran),
        "counts": {i: dict(agent.counts) for i, agent in agents.items()},
        "reported": {i: dict(agent.reported) for i, agent in agents.items()},
        "sent": {i: {j: dict(kinds) for j, kinds in sent.items()} for i, sent in mailroom.sent.items()},
        "missing": {i: sorted(missing) for i, missing in mailroom.missing.items()},
        "dropped": dict(mailroom.refusals.counts),
        "patience": dict(patience),
    }
    return tensors, rest


def put_back(
    agents: Mapping[int, Agent], mailroom: Mailroom, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]
) -> tuple[Ran, dict[str, float]]:
    """Restore agents and mailroom from what `take` returned, and return what each agent ran last, and the patience.

    Raises
    ------
    ValueError
        When it is damaged. Agents and mailroom are of no use then.
    """
    try:
        return _put_back(agents, mailroom, tensors, rest), dict(rest["patience"])
    except (KeyError, TypeError, AttributeError) as error:  # whatever wrong JSON leads to
        raise ValueError(f"the state of its agents is damaged: {error!r}") from error


def _put_back(
    agents: Mapping[int, Agent], mailroom: Mailroom, tensors: Mapping[str, Tensor], rest: Mapping[str, Any]
) -> Ran:
    def fetch(keys: Mapping[str, str]) -> Message:
        return {name: tensors[key] for name, key in keys.items()}

    def by_number(entries: Mapping[Any, Any]) -> dict[int, Any]:
        return {int(i): entry for i, entry in entries.items()}

    state, counts, reported = (by_number(rest[name]) for name in ("state", "counts", "reported"))
    for i, agent in agents.items():
        agent.state = fetch(state[i])
        agent.counts = Counts(counts[i])
        agent.reported = dict(reported[i])
        if "weights" in agent.reported:
            agent.reported["weights"] = by_number(agent.reported["weights"])
    messages: dict[tuple[tuple[str, str], ...], Message] = {}  # one that went to several agents is one object again

    def message(keys: Mapping[str, str]) -> Message:
        return messages.setdefault(tuple(keys.items()), fetch(keys))

    mailroom.waiting = {
        i: {j: message(keys) for j, keys in by_number(sack).items()} for i, sack in by_number(rest["mail"]).items()
    }
    mailroom.sent = {i: by_number(sent) for i, sent in by_number(rest["sent"]).items()}
    mailroom.missing = {i: set(missing) for i, missing in by_number(rest["missing"]).items()}
    mailroom.refusals.counts = Counter(rest["dropped"])
    return {i: (pass_number, number) for i, (pass_number, number) in by_number(rest["ran"]).items()}
