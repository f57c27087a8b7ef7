"""Who holds what, as text and as a picture."""

import sys

import pytest
from PIL import Image
from rich.console import Console

from ross_flwr.config import ConfigError
from ross_flwr.report.holdings import holdings_table, plot_holdings


def shown(counts, width=80):
    console = Console(width=width, record=True, file=open("/dev/null", "w"), color_system=None)  # noqa: SIM115
    console.print(holdings_table(counts, width))
    return console.export_text().splitlines()


def test_a_row_tells_an_agents_examples_of_every_class():
    rows = [line.split() for line in shown([[5, 0, 12], [1, 2, 3]])]
    assert ["agent", "total", "0", "1", "2"] in rows
    assert ["0", "17", "5", "0", "12"] in rows
    assert ["1", "6", "1", "2", "3"] in rows


@pytest.mark.parametrize("width", [40, 55, 60, 61, 62, 63, 64, 65, 66, 80])
def test_no_class_is_cut_off_on_a_narrow_terminal(width):
    lines = shown([[100] * 9 + [777], [1] * 10], width)
    assert any(line.split()[-1:] == ["777"] or "█" in line for line in lines)
    assert "…" not in "".join(lines)
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("classes", [40, 100, 1000])
def test_many_classes_become_shades_and_fit_the_terminal(classes):
    lines = shown([[100] + [0] * (classes - 2) + [1], [50] * classes])
    assert max(map(len, lines)) <= 80
    assert sum("█" in line for line in lines) >= 1
    assert any(line.rstrip().endswith("░") for line in lines)


def test_a_heat_map_is_written(tmp_path):
    pytest.importorskip("matplotlib", reason="needs the extra 'plots'")
    plot_holdings([[0, 5], [3, 1]], tmp_path / "map.png")
    with Image.open(tmp_path / "map.png") as picture:
        assert len(picture.convert("RGB").getcolors(10**6)) > 4
    with pytest.raises(ConfigError, match=r"--plot .*map\.txt cannot be written"):
        plot_holdings([[1]], tmp_path / "map.txt")


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match='pip install "matplotlib>='):
        plot_holdings([[1]], tmp_path / "map.png")
