"""Data: sources, partitions over agents, and draws by class."""

from ross_flwr.data.draws import class_balanced, draw_classes, most_balanced, top_up
from ross_flwr.data.examples import Examples, Place, Source, normalize, tuning_split
from ross_flwr.data.partitions import PARTITIONS, partition
from ross_flwr.data.sources import SOURCES, load

__all__ = [
    "PARTITIONS",
    "SOURCES",
    "Examples",
    "Place",
    "Source",
    "class_balanced",
    "draw_classes",
    "load",
    "most_balanced",
    "normalize",
    "partition",
    "top_up",
    "tuning_split",
]
