"""Optional packages, imported only when needed."""

from contextlib import suppress
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from types import ModuleType

from packaging.requirements import Requirement

from ross_flwr.config import ConfigError

__all__ = ["import_extra", "install_line", "lacking"]


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
        raise lacking(error.name or module, extra) from error


def lacking(package: str, extra: str) -> ConfigError:
    """Return the error that a package is not installed, which names its extra and how to install it."""
    return ConfigError(f"the package {package} is not installed: {install_line(extra)} brings it (the extra {extra})")


def install_line(extra: str) -> str:
    """Return the command that installs what an extra brings.

    It names the packages themselves, because pip finds ``ross-flwr[plots]`` only where ross-flwr is on an index, and
    ``.[plots]`` only in a clone. The extra is named only where nothing is known of what it brings. torchvision comes
    with the torch that is there, which pip would else replace.
    """
    try:
        wanted = [Requirement(each) for each in requires("ross-flwr") or ()]
    except PackageNotFoundError:
        wanted = []
    brought = [each for each in wanted if each.marker and each.marker.evaluate({"extra": extra})]
    for each in brought:
        each.marker = None
    if any(each.name == "torchvision" for each in brought):
        with suppress(PackageNotFoundError):
            brought.append(Requirement(f"torch=={version('torch').partition('+')[0]}"))
    return " ".join(["pip install", *(f'"{each}"' for each in brought or [Requirement(f"ross-flwr[{extra}]")])])
