"""The tasks that the key `task` names."""

from ross_flwr.tasks.arithmetic import Arithmetic
from ross_flwr.tasks.dealt import Dealt
from ross_flwr.tasks.images import Images
from ross_flwr.tasks.language_model import LanguageModel
from ross_flwr.tasks.signals import Signals
from ross_flwr.tasks.tabular import Tabular

__all__ = ["NAMED", "TASKS"]

TASKS: dict[str, type[Dealt]] = {each.name: each for each in (Images, LanguageModel, Signals, Tabular)}
"""Tasks whose data is dealt, by name."""

NAMED: dict[str, type[Dealt | Arithmetic]] = {**TASKS, Arithmetic.name: Arithmetic}
"""All values of the key."""
