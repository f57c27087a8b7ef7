"""For all tests. That this file is here also lets tests import the modules beside it."""

import os

# Read when torch is loaded, in all threads and in the processes that tests start. Threads without a core only wait.
os.environ["OMP_NUM_THREADS"] = "1"
for name in ("COLUMNS", "FORCE_COLOR", "NO_COLOR"):
    os.environ.pop(name, None)

import pytest  # noqa: E402
from hypothesis import HealthCheck, settings  # noqa: E402

settings.register_profile(
    "the same everywhere", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("the same everywhere")

from ross_flwr.config import keys  # noqa: E402

keys()  # imports all that declares keys, before a test forgets what was declared in it


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Draw no pictures, which take seconds. A module's fixtures are made before this one, and do draw."""
    monkeypatch.setattr("ross_flwr.report.png.FORMATS", {})
