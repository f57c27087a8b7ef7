"""Whether the installed packages fit each other."""

import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distributions, metadata, requires, version

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from ross_flwr.doctor.finding import Finding
from ross_flwr.extras import install_line
from ross_flwr.vision import import_torchvision

__all__ = ["installation"]

OPTIONAL = {
    "torchvision": f"its data sets and models need it: {install_line('vision')}",
    "ray": f"simulations through Flower need it: {install_line('simulation')}",
}
"""Packages that a node need not have, and who needs them."""


def installation() -> Iterator[Finding]:
    """Yield the version of each package that ross_flwr needs or can use, and whether they fit each other."""
    ours, python = _wanted("ross-flwr", "vision"), SpecifierSet(metadata("ross-flwr")["Requires-Python"])
    fits = platform.python_version() in python
    yield Finding("python", platform.python_version(), "" if fits else f"make a virtual environment of Python {python}")
    if sys.maxsize < 1 << 32:
        yield Finding("system", "Python is a 32-bit program", "install a 64-bit system: PyTorch has no 32-bit builds")
    others = {"flwr": _wanted("flwr", "simulation"), "torchvision": _wanted("torchvision")}
    for name in dict.fromkeys([*ours, *OPTIONAL]):
        try:
            found = version(name)
        except PackageNotFoundError:
            if name in OPTIONAL:
                yield Finding(name, f"not installed; {OPTIONAL[name]}")
            else:
                yield Finding(name, "not installed", f'pip install "{name}{ours[name]}"')
            continue
        wishes = {who: wanted[name] for who, wanted in {"ross-flwr": ours, **others}.items() if name in wanted}
        unmet = [who for who, specifier in wishes.items() if not specifier.contains(found, prereleases=True)]
        if unmet:
            everybodys = ",".join(str(wishes[who]) for who in unmet)
            yield Finding(name, f"{found} does not fit {' and '.join(unmet)}", f'pip install "{name}{everybodys}"')
        elif name == "torchvision":
            yield _torchvision(found)
        elif name == "torch":
            yield from _torch(found)
        else:
            yield Finding(name, found)


def _wanted(package: str, extra: str = "") -> dict[str, SpecifierSet]:
    """Return which versions of which packages an installed package wants."""
    try:
        wanted = map(Requirement, requires(package) or ())
    except PackageNotFoundError:
        return {}
    return {each.name: each.specifier for each in wanted if not each.marker or each.marker.evaluate({"extra": extra})}


def _torch(found: str) -> Iterator[Finding]:
    """Yield which torch there is, and which packages wait for a GPU that is not there."""
    import torch  # a 32-bit system has none

    if torch.cuda.is_available():
        yield Finding("torch", f"{found}, on {torch.cuda.get_device_name()}")
        return
    yield Finding("torch", found)
    idle = [each for each in distributions() if each.name.startswith("nvidia-")]
    size = sum(file.size or 0 for each in idle for file in each.files or ())
    if idle:
        text = f"{len(idle)} packages of {size / 1e9:.1f} GB, and torch finds no GPU on this machine"
        names = " ".join(sorted(each.name for each in idle))
        yield Finding("cuda", text, f"if it has none, install a CPU build of torch, then pip uninstall {names}")


def _torchvision(found: str) -> Finding:
    try:
        import_torchvision()
    except (ImportError, RuntimeError) as error:
        return Finding("torchvision", f"{found} does not import: {error}", "reinstall it and torch in one command")
    return Finding("torchvision", f"{found}, fits torch {version('torch')}")
