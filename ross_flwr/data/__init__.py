"""Data: sources, partitions over agents, and draws by class."""

from ross_flwr.data.draws import class_balanced, draw_classes, most_balanced, top_up
from ross_flwr.data.examples import Examples, Place, Source, normalize, tuning_split
from ross_flwr.data.partitions import PARTITIONS, partition
from ross_flwr.data.records import Records, tuning_records
from ross_flwr.data.series import SERIES, read_series
from ross_flwr.data.sources import SOURCES, load
from ross_flwr.data.tables import TABLES, read_table
from ross_flwr.data.texts import TEXTS, read_text

__all__ = [
    "PARTITIONS",
    "SERIES",
    "SOURCES",
    "TABLES",
    "TEXTS",
    "Examples",
    "Place",
    "Records",
    "Source",
    "class_balanced",
    "draw_classes",
    "load",
    "most_balanced",
    "normalize",
    "partition",
    "read_series",
    "read_table",
    "read_text",
    "top_up",
    "tuning_records",
    "tuning_split",
]
