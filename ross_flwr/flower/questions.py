"""The question to a node who it is: before a run, and whenever a node may have died and come back."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from logging import WARNING, getLogger

from flwr.app import ConfigRecord, Message, RecordDict

from ross_flwr.config import ConfigError
from ross_flwr.flower.grid import Post
from ross_flwr.flower.placement import NODE_TIMEOUT
from ross_flwr.flower.protocol import Answer, Setup
from ross_flwr.flower.replies import answer_of

__all__ = ["Questions", "ask"]

logger = getLogger("flwr")

ASK_AGAIN = 60.0
"""Seconds after which every silent node is asked who it is, and then after twice as many. A busy node answers later."""

LOOK_AGAIN = 1.0
"""Seconds between two checks of which nodes are connected. A lost node that is back is asked at once."""

QUIET = 2.0
"""Seconds without any reply after which a node that has answered is not waited for, though it was asked twice."""

FAILURES = 3
"""Before a run, a node that fails this often to answer is not asked again."""


class Questions:
    """Asks nodes who they are, and asks again.

    Parameters
    ----------
    post : Post
        Reaches the nodes.
    setup : Setup
        The run, for a node to judge whether it can take part.
    config : ConfigRecord
        Sent along, for mods.
    """

    def __init__(self, post: Post, setup: Setup, config: ConfigRecord) -> None:
        self._post, self._setup, self._config = post, setup, config
        self._sent: dict[str, tuple[int, float]] = {}
        self._lost: set[int] = set()
        self._looked = self._heard = post.clock()
        self._pause = ASK_AGAIN
        self._ask_all_at = self._looked + self._pause

    def ask(self, nodes: Iterable[int]) -> None:
        """Ask nodes who they are."""
        for node in nodes:
            content = RecordDict({Setup.key: self._setup.to_record(), "config": self._config})
            for number in self._post.send([Message(content, node, "query.who")]):
                self._sent[number] = node, self._post.clock()

    def ask_again(self, silent: Collection[int]) -> None:
        """Ask the silent nodes that are back, and from time to time all silent ones; to be called between two polls."""
        now = self._post.clock()
        if now - self._looked <= LOOK_AGAIN:
            return
        self._looked = now
        there = set(self._post.grid.get_node_ids()) & {*silent}
        if now > self._ask_all_at:
            self._pause *= 2
            self._ask_all_at = now + self._pause
            self.ask(there)
        else:
            self.ask(self._lost & there - {self._sent[number][0] for number in self._sent.keys() & self._post.waiting})
        self._lost = {*silent} - there

    def lose(self, node: int) -> None:
        """Ask a node that has failed as soon as Flower says that it is connected."""
        self._lost.add(node)

    def hear(self) -> None:
        """Note that a reply has come."""
        self._heard = self._post.clock()

    @property
    def quiet(self) -> bool:
        """Whether no reply has come for a while."""
        return self._post.clock() - self._heard > QUIET

    def asked_twice(self, answered: Collection[int]) -> bool:
        """Return whether a node that has answered has another question before it.

        Flower's simulation gives a node several messages at once, and the one that ends last decides on its state: an
        answer that comes after the set-up would undo that.
        """
        return any(self._sent[number][0] in answered for number in self._sent.keys() & self._post.waiting)

    def asked_at(self, number: str) -> float | None:
        """Return when the question was asked that a message's number stands for; None if it is no question."""
        return self._sent[number][1] if number in self._sent else None

    def forget(self) -> None:
        """Wait no longer for answers."""
        for number in self._sent.keys() & self._post.waiting.keys():
            del self._post.waiting[number]


def _foreign(answers: Mapping[int, Answer]) -> list[int]:
    """Return the nodes that believe in another certificate authority than most do."""
    authorities = Counter(answer.authority for answer in answers.values())
    usual = max(authorities, key=lambda authority: authorities[authority], default="")
    return [node for node, answer in answers.items() if answer.authority != usual]


def ask(post: Post, nodes: Collection[int], setup: Setup, config: ConfigRecord, *, direct: bool) -> dict[int, Answer]:
    """Ask the nodes of a run who they are, until all have answered or `NODE_TIMEOUT` is over; return their answers.

    A node that fails, or dies and comes back, is asked again. The run can begin if more than half of the nodes take
    part. Those that do not are named, and their agents are absent until they do.

    Raises
    ------
    ConfigError
        When no more than half of them take part, with what one of the others lacks.
    """
    config["server-round"] = 0
    answers: dict[int, Answer] = {}
    problems = dict.fromkeys(nodes, f"it has not answered within {NODE_TIMEOUT:g} s")
    failures: Counter[int] = Counter()
    told: set[int] = set()
    questions = Questions(post, setup, config)
    questions.ask(nodes)

    def go_on(elapsed: float) -> bool:
        silent = {node for node in problems if node not in told and failures[node] < FAILURES}
        questions.ask_again(silent)
        if silent and elapsed < NODE_TIMEOUT:
            return True
        return questions.asked_twice(told) and not questions.quiet

    for _, reply in post.receive(go_on):
        questions.hear()
        node, others = reply.node, [answer for node, answer in answers.items() if node != reply.node]
        answer = answer_of(reply.message, others, post.drop, direct=direct) if reply.message else None
        if answer is None:
            failures[node] += 1
            problems[node] = _failure(reply.problem)
            questions.lose(node)
            continue
        told.add(node)
        if answer.problem:
            problems[node] = answer.problem
        else:
            answers[node] = answer
            problems.pop(node, None)
    questions.forget()
    for node in _foreign(answers):
        problems[node] = (
            "its certificates are of another authority (ca.pem) than those of most nodes: issue it new ones by that "
            "authority"
        )
        del answers[node]
    if 2 * len(answers) <= len(nodes):
        node = next(iter(problems))
        raise ConfigError(
            f"{len(answers)} of {len(nodes)} nodes can take part, which is not more than half: node {node} cannot take "
            f"part: {problems[node]}"
        )
    for node, problem in problems.items():
        logger.log(
            WARNING, "\t├──> node %d cannot take part, and its agents are absent until it can: %s", node, problem
        )
    return answers


def _failure(problem: str) -> str:
    if "No query function registered" in problem:
        return "its ClientApp hosts no agents: call peer_app(app=app, …) in the ClientApp's file"
    return f"it failed: {problem[:200]}" if problem else "its answer was refused"
