"""What two stages would save: ``python -m ross_flwr.studies.two_stages``.

Shapley weights need only utilities. So each neighbour could send a sketch of its cross-gradient first; the agent plays
its game with the sketches, and asks for whole gradients only where the weight is worth it. Here ROSS learns like this
in one process, and counts the bytes that such messages would have. No transport has them: an exchange more costs a
round trip in every pass.
"""

from collections import Counter
from dataclasses import dataclass, field, fields
from statistics import fmean

from torch import Tensor

from ross_flwr.algorithms.ross import ROSS
from ross_flwr.compression.codec import Codec, Leg
from ross_flwr.compression.options import read_codecs
from ross_flwr.config import Config, ConfigError, resolve
from ross_flwr.learning.agent import Agent
from ross_flwr.report.table import markdown, percent
from ross_flwr.runs.local import LocalRun
from ross_flwr.studies.compressed_weights import SCENARIOS

__all__ = ["Saved", "TwoStages", "main", "saved"]

SKETCHES = ("none", "int4", "sign", "topk(0.01)")
LEAST = (0.0, 0.5)


@dataclass(frozen=True, kw_only=True)
class TwoStages(ROSS):
    """ROSS whose games are played with sketches, and whose steps take whole gradients of few.

    Attributes
    ----------
    sketch : Codec, optional
        What makes sketches; without it, whole gradients come at once.
    least : float
        The weight from which a gradient is asked for, in units of 1/m, with m players.
    counted : Counter
        Bytes of sketches and of whole gradients, how many neighbours had a gradient, and how many were asked for it.
    """

    sketch: Codec | None = None
    least: float = 0.0
    counted: Counter[str] = field(default_factory=Counter)

    def weights(self, agent: Agent, gradients: dict[int, Tensor]) -> dict[int, float]:
        """Return π_ij of the game with sketches, without those below `least` and in sum as before."""
        others = [j for j in gradients if j != agent.index]
        seen = {j: self._seen(agent, j, gradient) if j in others else gradient for j, gradient in gradients.items()}
        found = super().weights(agent, seen)
        chosen = {j: weight for j, weight in found.items() if j == agent.index or weight > self.least / len(gradients)}
        asked = [j for j in others if chosen.get(j, 0.0) > 0]
        whole = len(asked) if self.sketch else len(others)
        self.counted.update(whole=4 * agent.objective.size * whole, asked=len(asked), others=len(others))
        total = sum(chosen.values())
        return {j: weight / total * sum(found.values()) for j, weight in chosen.items()} if total > 0 else {}

    def _seen(self, agent: Agent, source: int, gradient: Tensor) -> Tensor:
        if self.sketch is None:
            return gradient
        leg = Leg(agent.seed, "sketch", "cross_gradients", agent.pass_number, 1, source, agent.index)
        data = self.sketch.encode(gradient, leg, {})
        self.counted["sketches"] += len(data)
        return self.sketch.decode(data, len(gradient), leg)


@dataclass(frozen=True)
class Saved:
    """What a run gave: the accuracy of honest agents, bytes of gradients, and the part of neighbours that was asked."""

    accuracy: float
    num_bytes: int
    asked: float


def saved(config: Config, sketch: Codec | None, least: float) -> Saved:
    """Run ROSS in two stages."""
    run = LocalRun(config)
    plain = run.host.algorithm
    if not isinstance(plain, ROSS):
        raise ConfigError(f"algorithm = '{plain.name}' has no two stages here: use 'ross'")
    given = {each.name: getattr(plain, each.name) for each in fields(plain)}
    run.host.algorithm = method = TwoStages(**given, sketch=sketch, least=least)
    lines = list(run.rounds())
    counted = method.counted
    return Saved(
        lines[-1]["accuracy"]["mean"], counted["whole"] + counted["sketches"], counted["asked"] / counted["others"]
    )


def main() -> None:
    """Print a row per sketch and least weight."""
    rows = [
        [
            "sketch",
            "asked from",
            *(f"{what}, {name}" for name in SCENARIOS for what in ("accuracy", "asked", "fewer bytes")),
        ]
    ]
    usual: dict[str, float] = {}
    for name in SKETCHES:
        for least in LEAST:
            row = [name, f"{least:g}/m"]
            for scenario, keys in SCENARIOS.items():
                chosen = {"algorithm": "ross", "num-rounds": 60, "evaluate-every": 60, **keys}
                found = [saved(resolve({**chosen, "seed": seed}), read_codecs(name)[""], least) for seed in range(3)]
                num_bytes = fmean(each.num_bytes for each in found)
                usual.setdefault(scenario, num_bytes)
                accuracy, asked = (fmean(getattr(each, what) for each in found) for what in ("accuracy", "asked"))
                row += [percent(accuracy), percent(asked), f"{usual[scenario] / num_bytes:.1f}"]
            rows.append(row)
    print(markdown(rows))


if __name__ == "__main__":
    main()
