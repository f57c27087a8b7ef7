"""Series of measurements, by the name that the key `dataset` takes with task = 'signals'.

| dataset | data-path |
|---|---|
| ``motions`` | nothing: they are drawn here, by no sensor |
| ``aeon`` | nothing: the package aeon or sktime ships them, where one is installed |
| ``file`` | a .npz file with the arrays series, [n, channels, length], and labels, and perhaps owners; or a .ts file |
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from ross_flwr.config import ConfigError, Specs, option
from ross_flwr.data.archive import read_ts, shipped
from ross_flwr.data.columns import classes_of
from ross_flwr.data.examples import Place
from ross_flwr.data.files import read_arrays
from ross_flwr.data.records import Records, records

__all__ = ["SERIES", "Series", "read_series"]

ACTIVITIES = ("standing", "lying", "walking", "running", "upstairs", "shaking")


@dataclass(frozen=True)
class Series(ABC):
    """Windows of several channels, each of one class."""

    @abstractmethod
    def read(self, place: Place) -> Records:
        """Return the windows, each channel standardised by the training data.

        Raises
        ------
        ConfigError
            When they cannot be read.
        """


@dataclass(frozen=True)
class Motions(Series):
    """Synthetic: six activities of 20 imagined people as an accelerometer might see them, drawn and not measured."""

    windows: int = option(25, "windows of each activity and person", minimum=2)
    length: int = option(64, "values in a window, at 32 in a second", minimum=8)

    def read(self, place: Place) -> Records:
        """Draw the windows: gravity, steps with overtones and noise, turned as the person wears the sensor."""
        people, draw = 20, default_rng(2012)  # the same for every run
        drawn, labels, owners = [], [], []
        for person in range(people):
            body = _Body(draw)
            for activity in range(len(ACTIVITIES)):
                for _ in range(self.windows):
                    drawn.append(body.moves(activity, self.length, draw))
                    labels.append(activity)
                    owners.append(person)
        inputs = torch.from_numpy(np.stack(drawn).astype(np.float32))
        return _standardised(records(inputs, torch.tensor(labels), ACTIVITIES, owners=torch.tensor(owners)))


class _Body:
    """How one imagined person moves, and how it wears the sensor."""

    def __init__(self, draw: Generator) -> None:
        self.pace, self.force = draw.normal(1.9, 0.2), draw.lognormal(0, 0.3)
        self.turned = np.linalg.qr(np.eye(3) + 0.3 * draw.normal(size=(3, 3)))[0]
        self.turned *= np.sign(self.turned.diagonal())

    def moves(self, activity: int, length: int, draw: Generator) -> NDArray[np.float64]:
        """Return acceleration in units of gravity, shape [3, length]."""
        seconds = np.arange(length) / 32
        # strength, steps in a second by the person's pace, and overtone of each activity
        strength, rate, overtone = (
            (0, 0, 0),
            (0, 0, 0),
            (0.25, 1, 0.3),
            (0.8, 1.5, 0.5),
            (0.3, 0.8, 0.6),
            (0.7, 2.5, 0),
        )[activity]
        angle = 2 * np.pi * self.pace * rate * draw.normal(1, 0.05) * seconds + draw.uniform(0, 2 * np.pi)
        swing = self.force * strength * (np.sin(angle) + overtone * np.sin(2 * angle + 1))
        sway = 0.5 * self.force * strength * np.sin(angle / (1 if activity == 5 else 2) + 0.5)
        down = np.array([1.0, 0.0, 0.0]) if activity == 1 else np.array([0.0, 0.1 * draw.normal(), 1.0])
        signal = down[:, None] + np.stack([sway, 0.3 * swing, swing]) + 0.08 * draw.normal(size=(3, length))
        return self.turned @ signal


@dataclass(frozen=True)
class Shipped(Series):
    """Series that the package aeon or sktime ships: four activities as a watch measured them, or another problem."""

    problem: str = option("basic-motions", "which of them, such as gun-point or italy-power-demand")

    def read(self, place: Place) -> Records:
        """Return the windows of the problem."""
        return _standardised(read_ts(shipped(self.problem)))


class SeriesFile(Series):
    """A .npz file with the arrays series, [n, channels, length] or [n, length], labels and perhaps owners; or .ts."""

    def read(self, place: Place) -> Records:
        """Return what the file holds."""
        if place.located.suffix == ".ts":
            return _standardised(read_ts(place.located))
        arrays = read_arrays(place)
        where, names = f"data-path = '{place.path}'", ", ".join(map(str, arrays)) or "no arrays"
        if not {"series", "labels"} <= set(arrays):
            raise ConfigError(f"{where} holds {names}: call them series and labels")
        series, labels = arrays["series"](), arrays["labels"]()
        if series.ndim not in (2, 3) or series.dtype.kind not in "iuf" or not np.isfinite(series).all():
            raise ConfigError(
                f"series of shape {series.shape} holds {series.dtype}: it takes finite numbers, n × channels × length"
            )
        owners = place.owner_column or "owners"
        for name, array in {"labels": labels, owners: arrays[owners]() if owners in arrays else labels}.items():
            if array.shape != series.shape[:1]:
                raise ConfigError(f"{name} has shape {array.shape}: it takes one for each of {len(series)} windows")
        targets, classes = classes_of(labels.tolist())
        inputs = torch.from_numpy(series.astype(np.float32)).reshape(len(series), -1, series.shape[-1])
        found = classes_of(arrays[owners]().tolist())[0] if owners in arrays else None
        return _standardised(records(inputs, targets, classes, owners=found))


SERIES: dict[str, type[Series]] = {"motions": Motions, "aeon": Shipped, "file": SeriesFile}
"""Series by name."""


@lru_cache(maxsize=4)
def read_series(name: str, place: Place) -> Records:
    """Return the series that a name stands for, perhaps with options, as in ``motions(windows=50)``.

    Later calls in the same process return the same object.
    """
    return Specs("dataset", name, "series", "'motions', or like 'motions(windows=50)'").one(SERIES).read(place)


def _standardised(found: Records) -> Records:
    """Return the same windows with channels of mean 0 and deviation 1 in the training data."""
    deviation, mean = torch.std_mean(found.train.inputs, dim=(0, 2), keepdim=True, correction=0)
    deviation[deviation == 0] = 1.0
    parts = (replace(each, inputs=(each.inputs - mean) / deviation) for each in (found.train, found.test))
    return replace(found, train=next(parts), test=next(parts))
