"""The report of an audit: what attacks found, and images beside what was made of their gradients."""

import base64
import json
from html import escape
from io import BytesIO
from pathlib import Path

from torch import Tensor

from ross_flwr.config import ConfigError
from ross_flwr.extras import import_extra
from ross_flwr.files import fresh
from ross_flwr.report.page import STYLE
from ross_flwr.runs.audit import Audit

__all__ = ["write_audit"]

READ = (
    "An inversion is measured by the correlation of images, whose sign does not count: 1 is the image itself, and 0 "
    "nothing of it. Membership is measured by the area under the ROC curve: 1 finds every example, ½ is a guess. The "
    "accuracy is that of the best threshold, which is chosen with the truth at hand."
)


def write_audit(found: Audit, folder: Path) -> Path:
    """Write ``audit.html`` and ``audit.json`` into `folder`, and return the page.

    Raises
    ------
    ConfigError
        When nothing can be written there, or the extra ``plots`` is not installed.
    """
    rows = [f"<tr><th>{'</th><th>'.join(['attack', 'run', 'found', 'accuracy', ''])}</th></tr>"]
    for row in found.rows:
        accuracy = "" if row["accuracy"] is None else f"{row['accuracy']:.1%}"
        cells = [row["attack"], row["run"], f"{row['found']:.2f}", accuracy, "succeeds" if row["succeeds"] else "fails"]
        rows.append(f"<tr><td>{'</td><td>'.join(map(escape, cells))}</td></tr>")
    titles = ("image", "from its gradient without noise", "from its gradient with noise")
    images = [
        f"<tr><td>{titles[k]}</td>{''.join(_image(each[k], titles[k]) for each in found.pictures)}</tr>"
        for k in range(3)
    ]
    title = "What neighbours find out"
    page = [
        f'<!DOCTYPE html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{title}</title>',
        f"<style>{STYLE} img {{ width: 96px; image-rendering: pixelated }}</style></head>\n<body>",
        f"<h1>{title}</h1><p>{escape(found.promise)}</p><p>{escape(READ)}</p>",
        f'<div class="wide"><table>{"".join(rows)}</table></div>',
        f'<h2>Images made of gradients</h2><div class="wide"><table>{"".join(images)}</table></div>',
        "</body></html>\n",
    ]
    told = {"promise": found.promise, "epsilon": found.epsilon, "rows": found.rows}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fresh(folder / "audit.json").write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
        fresh(folder / "audit.html").write_text("\n".join(page), encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{folder} cannot take an audit: {error.strerror or error}") from None
    return folder / "audit.html"


def _image(picture: Tensor, title: str) -> str:
    """Return an image, shape [C, H, W], as a cell of a table; its darkest value is black, its brightest white."""
    shown = (picture - picture.min()) / (picture.max() - picture.min()).clamp(min=1e-12)
    pixels = shown[0] if len(shown) == 1 else shown.permute(1, 2, 0)
    png = BytesIO()
    import_extra("matplotlib.image", "plots").imsave(png, pixels.cpu().numpy(), cmap="gray", format="png")
    return f'<td><img alt="{title}" src="data:image/png;base64,{base64.b64encode(png.getvalue()).decode()}"></td>'
