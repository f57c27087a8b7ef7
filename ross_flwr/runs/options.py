"""The keys of a run and of the machine that it runs on."""

from ross_flwr.config import ConfigError, group, option

__all__ = ["MachineOptions", "RunOptions"]


@group("The run")
class RunOptions:
    """What is run, and for how long."""

    algorithm: str = option("ross", "the method; `ross-flwr list algorithms` shows them")
    num_agents: int = option(10, "agents, spread over the nodes there are", unit="agents", minimum=2)
    num_rounds: int = option(60, "how long to run", unit="rounds", minimum=1)
    batches_per_round: int = option(
        1, "passes over the method's steps, one mini-batch each, that count as one round", unit="passes", minimum=1
    )
    evaluate_every: int = option(1, "rounds between two tests of the agents", unit="rounds", minimum=1)
    evaluate_at: str = option("", "further rounds to test, such as '60,130'")
    seed: int = option(0, "everything random in a run follows from it", minimum=0, maximum=2**32 - 1)

    @property
    def tested(self) -> frozenset[int]:
        """The rounds in `evaluate_at`.

        Raises
        ------
        ConfigError
            When it is not a list of rounds.
        """
        try:
            return frozenset(int(entry) for entry in self.evaluate_at.split(",") if self.evaluate_at)
        except ValueError:
            raise ConfigError(
                f"evaluate-at = '{self.evaluate_at}' is not allowed: it takes rounds with commas between them"
            ) from None


@group("Machine and results")
class MachineOptions:
    """Where a run computes, and what it keeps."""

    device: str = option(
        "auto",
        "where gradients are computed; auto takes a GPU if there is one",
        choices=("auto", "cpu", "cuda"),
    )
    engine: str = option(
        "auto",
        "how agents of one process compute gradients: one after the other, together, or as is faster for the model and "
        "the cores that the process is given, of which OMP_NUM_THREADS=1 leaves it one",
        choices=("auto", "loop", "batched"),
    )
    checkpoint_every: int = option(
        10,
        "rounds between two checkpoints, from which a run resumes; 0 for one when it ends",
        unit="rounds",
        minimum=0,
    )
