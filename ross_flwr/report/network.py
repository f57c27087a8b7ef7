"""The graph of a run, with the weight that each agent gave to each neighbour, round by round."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import cos, hypot, pi, sin

from ross_flwr.report.tables import Row, by

__all__ = ["Network", "networks"]

THIN, WIDE = 0.015, 0.11
"""How wide a wedge is for the weight 0 and for the largest; the radius of the circle is 1."""

_NOTHING, _COLD, _HOT = (221, 221, 221), (190, 210, 235), (8, 48, 107)


@dataclass(frozen=True)
class Network:
    """The graph of a run. Agents are on a circle. Each edge is two wedges: the one that is wide at i is what i gave j.

    Attributes
    ----------
    scenario, name, title : str
        Its place in the report, the name of its files, and its heading.
    roles : dict[int, str]
        ``"honest"``, ``"bad data"`` or ``"attacker"``, by agent.
    rounds : list[int]
        The rounds that can be drawn.
    pairs : list[tuple[int, int]]
        Who gave to whom, (i, j).
    weights : list[list[float | None]]
        By round, then pair; None if the agent did not report.
    """

    scenario: str
    name: str
    title: str
    roles: dict[int, str]
    rounds: list[int]
    pairs: list[tuple[int, int]]
    weights: list[list[float | None]]

    @property
    def alt(self) -> str:
        """The network in words: who is poisoned, and the largest weight of the last round."""
        poisoned = [str(i) for i, role in self.roles.items() if role != "honest"]
        given = {pair: weight for pair, weight in zip(self.pairs, self.weights[-1], strict=True) if weight}
        most = max(given, key=given.__getitem__, default=None)
        largest = (
            f"agent {most[0]} gives agent {most[1]} the most, {given[most]:.2f}" if most else "nobody gives weight"
        )
        bad = f"of which {', '.join(poisoned)} attack or have bad data" if poisoned else "all honest"
        return f"{self.title}. {len(self.roles)} agents, {bad}. In round {self.rounds[-1]}, {largest}."

    @cached_property
    def largest(self) -> float:
        """The largest weight of all rounds, 1 when there is none."""
        return max((w for row in self.weights for w in row if w), default=1.0)

    def place(self, agent: int) -> tuple[float, float]:
        """Return the position of an agent."""
        angle = pi / 2 - 2 * pi * sorted(self.roles).index(agent) / len(self.roles)
        return cos(angle), sin(angle)

    def wedges(self, k: int) -> list[tuple[list[float], list[float], str]]:
        """Return corners and colour of every wedge in the round at place `k`, those that lie above others last.

        A wedge has no corners where the agent did not report.
        """
        given = sorted(zip(self.weights[k], self.pairs, strict=True), key=lambda each: each[0] or 0.0)
        return [(*(([], []) if w is None else self.corners(*pair, w)), self.shade(w)) for w, pair in given]

    def corners(self, i: int, j: int, weight: float) -> tuple[list[float], list[float]]:
        """Return x and y of the corners of a triangle from i, where it is the wider the larger the weight, to j."""
        (x, y), (x_j, y_j) = self.place(i), self.place(j)
        half = (THIN + (WIDE - THIN) * self.share(weight)) / 2 / hypot(x_j - x, y_j - y)
        across, along = half * (y - y_j), half * (x_j - x)
        corners = (x + across, y + along), (x_j, y_j), (x - across, y - along)
        return [round(corner[0], 3) for corner in corners], [round(corner[1], 3) for corner in corners]

    def share(self, weight: float) -> float:
        """Return a weight as a share of the largest one."""
        return min(max(weight / self.largest, 0.0), 1.0)

    def shade(self, weight: float | None) -> str:
        """Return the colour of a weight: grey for 0, then the darker the larger."""
        if not weight:
            return "#{:02x}{:02x}{:02x}".format(*_NOTHING)
        share = self.share(weight)
        channels = (round(cold + share * (hot - cold)) for cold, hot in zip(_COLD, _HOT, strict=True))
        return "#{:02x}{:02x}{:02x}".format(*channels)


def networks(rows: Sequence[Row]) -> list[Network]:
    """Return the networks of `tables.edges`."""
    found = []
    for (scenario, topology, method, seed), group in by(rows, "scenario", "topology", "method", "seed"):
        hearing = {row["agent"] for row in group}
        pairs = sorted({(row["agent"], row["neighbour"]) for row in group if row["neighbour"] in hearing})
        rounds, weights = [], []
        for (number,), of_round in by(group, "rounds"):
            given = {(row["agent"], row["neighbour"]): row["weight"] for row in of_round}
            rounds.append(number)
            weights.append([given.get(pair) for pair in pairs])
        found.append(
            Network(
                scenario,
                f"network-{scenario}-{topology}-{method}",
                f"{scenario}, {topology}: weights in {method}, seed {seed}",
                dict(sorted((row["agent"], row["role"]) for row in group)),
                rounds,
                pairs,
                weights,
            )
        )
    return found
