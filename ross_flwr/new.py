"""A small Flower app to start from: files of `template`, with the app's name put in."""

import re
from importlib.resources import files
from importlib.util import find_spec
from keyword import iskeyword
from pathlib import Path
from string import Template

from ross_flwr.config import ConfigError

__all__ = ["write_app"]

FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "LICENSE": "LICENSE",
    "$module/__init__.py": "init.py",
    "$module/client_app.py": "client_app.py",
    "$module/server_app.py": "server_app.py",
    "$module/task.py": "task.py",
    "tests/test_app.py": "test_app.py",
}
"""The files of an app, and the template of each."""


def write_app(folder: Path) -> Path:
    """Create `folder`, write an app of its name into it, and return it.

    Raises
    ------
    ConfigError
        When the folder's name cannot be the name of an app, or the folder exists or cannot be made.
    """
    name = folder.name
    module = name.replace("-", "_")
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name) or iskeyword(module):
        raise ConfigError(f"{name} cannot be the name of an app: use lower-case letters, digits and hyphens")
    if find_spec(module):
        raise ConfigError(f"{name} would hide the package {module}, which is installed: use another name")
    try:
        folder.mkdir(parents=True)
        for target, template in FILES.items():
            text = (files("ross_flwr") / "template" / f"{template}.tpl").read_text(encoding="utf-8")
            path = folder / Template(target).substitute(module=module)
            path.parent.mkdir(exist_ok=True)
            path.write_text(Template(text).substitute(name=name, module=module), encoding="utf-8")
    except FileExistsError:
        raise ConfigError(f"{folder} exists already: name a new folder") from None
    except OSError as error:
        raise ConfigError(f"{folder} cannot be made: {error.strerror or error}") from None
    return folder
