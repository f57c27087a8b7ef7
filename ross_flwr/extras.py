"""Optional packages, imported only when needed."""

from importlib import import_module
from types import ModuleType

from ross_flwr.config import ConfigError

__all__ = ["import_extra"]


def import_extra(module: str, extra: str) -> ModuleType:
    """Import `module`, which comes with the optional dependencies called `extra` in pyproject.toml.

    Raises
    ------
    ConfigError
        When it is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigError(
            f'the package {error.name} is not installed: pip install "ross-flwr[{extra}]" brings it'
        ) from error
