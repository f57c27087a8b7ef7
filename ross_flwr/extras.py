"""Optional packages, imported only when needed."""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires
from types import ModuleType

from packaging.requirements import Requirement

from ross_flwr.config import ConfigError

__all__ = ["import_extra", "install_line"]


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
        raise ConfigError(f"the package {error.name} is not installed: {install_line(extra)} brings it") from error


def install_line(extra: str) -> str:
    """Return the command that installs what an extra brings.

    It names the packages themselves, because pip finds ``ross-flwr[plots]`` only where ross-flwr is on an index, and
    ``.[plots]`` only in a clone. The extra is named only where nothing is known of what it brings.
    """
    try:
        wanted = [Requirement(each) for each in requires("ross-flwr") or ()]
    except PackageNotFoundError:
        wanted = []
    brought = [each for each in wanted if each.marker and each.marker.evaluate({"extra": extra})]
    for each in brought:
        each.marker = None
    return " ".join(["pip install", *(f'"{each}"' for each in brought or [Requirement(f"ross-flwr[{extra}]")])])
