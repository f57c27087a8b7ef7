"""Data: sources, partitions over agents, and class-balanced draws."""

from ross_flwr.data.partitions import PARTITIONS, class_balanced, partition
from ross_flwr.data.sources import SOURCES, Examples, Source, load, normalize

__all__ = ["PARTITIONS", "SOURCES", "Examples", "Source", "class_balanced", "load", "normalize", "partition"]
