"""Whether a folder holds results to show. This imports no PyTorch, so that a wrong folder is refused at once."""

from pathlib import Path

from ross_flwr.config import ConfigError

__all__ = ["REFUSED", "is_comparison", "require_ended"]

REFUSED = "refused.txt"
"""The file in the folder of a cell that says why its method cannot run there."""


def is_comparison(folder: Path) -> bool:
    """Return whether a folder holds cells, or what runs before them."""
    return any(folder.glob("*/*/*/*/config.toml")) or any((folder / each).is_dir() for each in ("costs", "tuning"))


def require_ended(folder: Path) -> None:
    """Refuse a folder in which no run has ended.

    Raises
    ------
    ConfigError
        Saying what there is instead.
    """
    if (folder / "config.toml").is_file():
        if not any(folder.glob("summary.json")) and not any(folder.glob("*/summary.json")):
            raise ConfigError(f"the run in {folder} has not ended: `ross-flwr resume {folder}` continues it")
        return
    cells = (path.parent for path in folder.glob("*/*/*/*/summary.json"))
    if any(cell.name.isdecimal() and not (cell / REFUSED).is_file() for cell in cells):
        return
    if any(folder.glob("*/*/*/*/config.toml")):
        raise ConfigError(f"no run in {folder} has ended: the same `ross-flwr compare` command continues them")
    for stage, what in (("costs", "measuring what each method costs"), ("tuning", "tuning")):
        if (folder / stage).is_dir():
            done = sum(1 for _ in (folder / stage).rglob("summary.json"))
            raise ConfigError(
                f"the comparison in {folder} has not got beyond {what} ({done} runs of that are done): a report "
                "shows its cells, which come next; if it was stopped, the same `ross-flwr compare` command goes on"
            )
    raise ConfigError(
        f"{folder} holds no finished run: name the folder that --out gave to `ross-flwr run` or `ross-flwr compare`"
    )
