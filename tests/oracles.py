"""Other people's code that ours is held against."""

from functools import cache
from importlib import import_module
from types import SimpleNamespace

import pytest

from ross_flwr.vision import import_torchvision

MODULES = ("aggregators.aggregators", "aggregators.preaggregators", "attacks.attacks")


@cache
def byzfl():
    """byzfl's rules and attacks; it imports torchvision, which beside some builds of torch needs a hand."""
    try:
        import_torchvision()
        modules = [import_module(f"byzfl.{name}") for name in MODULES]
    except ImportError:
        pytest.skip("byzfl is not installed: pip install byzfl")
    return SimpleNamespace(**{name: part for module in modules for name, part in vars(module).items()})
