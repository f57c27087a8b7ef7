"""What is learned: models, losses, data."""

from ross_flwr.tasks.dealt import Dealt
from ross_flwr.tasks.images import Images, images
from ross_flwr.tasks.language_model import LanguageModel, language_model
from ross_flwr.tasks.signals import Signals, signals
from ross_flwr.tasks.tabular import Tabular, tabular
from ross_flwr.tasks.task import Task

__all__ = [
    "Dealt",
    "Images",
    "LanguageModel",
    "Signals",
    "Tabular",
    "Task",
    "images",
    "language_model",
    "signals",
    "tabular",
]
