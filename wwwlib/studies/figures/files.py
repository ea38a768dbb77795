"""Figures as files and in notebooks, each with a description in words."""

import base64
import html
import io
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image, ImageChops, ImageStat

from wwwlib.plots.style import DPI, in_style

_PALETTE_ERROR = 4.0  # mean colour difference, of 255, from which the 256-colour PNG is not used
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Shown:
    """A saved figure, displayed in a notebook as one image with an alternative text.

    Attributes
    ----------
    png, pdf : Path
        The two files.
    alt : str
        What the figure shows, in words.
    """

    png: Path
    pdf: Path
    alt: str

    def __repr__(self) -> str:
        return f"{self.png.name}: {self.alt}"

    def _repr_html_(self) -> str:
        alt = html.escape(" ".join(self.alt.split()), quote=True)
        quick = os.environ.get("WWW_DRY_RUN")  # pictures of noise take seconds each
        data = base64.b64encode((bytes if quick else _lighter)(self.png.read_bytes())).decode()
        return f'<img alt="{alt}" style="max-width:100%" src="data:image/png;base64,{data}">'


def save(figure: Figure, folder: str | Path, name: str, alt: str) -> Shown:
    """Write a figure as `name`.png (150 dpi) and `name`.pdf; equal figures give equal bytes.

    Parameters
    ----------
    figure : Figure
        Closed if pyplot holds it, so that no notebook shows it twice.
    folder : path
        Created if it does not exist.
    name : str
        File name without extension: letters, digits, ``.``, ``_`` and ``-``.
    alt : str
        What the figure shows, for readers who do not see it; any string.

    Returns
    -------
    Shown
        Displayed as an image in a notebook.

    Raises
    ------
    ValueError
        If the name is not a plain file name, or the alternative text is empty.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no plain file name; use letters, digits, '.', '_' and '-'.")
    if not alt.strip():
        raise ValueError(f"The figure {name!r} has no alternative text: say what it shows.")
    (folder := Path(folder)).mkdir(parents=True, exist_ok=True)
    png, pdf = folder / f"{name}.png", folder / f"{name}.pdf"
    if mark := os.environ.get("WWW_DRY_RUN"):  # set by the runner where results mean nothing
        where = {"ha": "center", "va": "center", "rotation": 20, "alpha": 0.6, "zorder": 1000}
        figure.text(0.5, 0.5, mark, color="red", fontsize=14, wrap=True, **where)
        alt = f"{mark}: {alt}"
    with in_style():
        figure.savefig(png, dpi=DPI)
        figure.savefig(pdf, dpi=DPI, metadata={"CreationDate": None})
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close(figure)
    return Shown(png, pdf, alt)


def _lighter(data: bytes) -> bytes:
    """Return a PNG reduced to 256 colours, a third of the size, where the loss is invisible.

    Only the copy embedded in a notebook is reduced; the saved file is not.
    """
    full = Image.open(io.BytesIO(data)).convert("RGB")
    palette = full.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1)
    few = full.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    error = max(ImageStat.Stat(ImageChops.difference(full, few.convert("RGB"))).mean)
    buffer = io.BytesIO()
    few.save(buffer, format="PNG", optimize=True)
    small = buffer.getvalue()
    return small if error < _PALETTE_ERROR and len(small) < len(data) else data
