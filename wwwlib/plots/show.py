"""Save a figure for print and for the page, and show it with words for who cannot see it."""

import base64
import html
import io
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure
from PIL import Image, ImageChops, ImageStat

from wwwlib.plots.style import DPI, in_style

_SEEN = 4.0  # mean difference of the colours, of 255, from which a smaller palette is not used
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Shown:
    """A saved figure, which a notebook displays as one image with a text in its place.

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
    _data: bytes = field(repr=False, compare=False)

    def __repr__(self) -> str:
        return f"{self.png.name}: {self.alt}"

    def _repr_html_(self) -> str:
        alt = html.escape(" ".join(self.alt.split()), quote=True)
        data = base64.b64encode(_lighter(self._data)).decode("ascii")
        return f'<img alt="{alt}" style="max-width:100%" src="data:image/png;base64,{data}">'


def save(figure: Figure, folder: str | Path, name: str, alt: str) -> Shown:
    """Write a figure as `name`.png (150 dpi) and `name`.pdf; equal figures give equal bytes.

    Parameters
    ----------
    figure : Figure
        Is closed where pyplot holds it, so that no notebook shows it twice.
    folder : path
        Made if it does not exist.
    name : str
        File name without ending: letters, digits, ``.``, ``_`` and ``-``.
    alt : str
        What the figure shows, for readers who do not see it; may hold foreign strings.

    Returns
    -------
    Shown
        Displays as an image in a notebook.

    Raises
    ------
    ValueError
        If the name is no plain file name, or the alternative text is empty.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"The figure's name {name!r} is no plain file name: use letters, digits, '.', '_' and "
            "'-', and give the folder apart."
        )
    if not alt.strip():
        raise ValueError(
            f"The figure {name!r} has no alternative text: say in a sentence what it shows."
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    png, pdf = folder / f"{name}.png", folder / f"{name}.pdf"
    if said := os.environ.get("WWW_DRY_RUN"):  # the runner's, where figures mean nothing
        where = {"ha": "center", "va": "center", "rotation": 20, "alpha": 0.6, "zorder": 1000}
        figure.text(0.5, 0.5, said, color="red", fontsize=14, wrap=True, **where)
        alt = f"{said}: {alt}"
    with in_style():
        data = _rendered(figure, "png")
        png.write_bytes(data)
        pdf.write_bytes(_rendered(figure, "pdf", metadata={"CreationDate": None}))
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close(figure)
    return Shown(png, pdf, alt, data)


def _lighter(data: bytes) -> bytes:
    """Return a PNG in 256 colours of its own, a third of the size, unless one would see that.

    The file that was saved stays as it is: this one is for the notebook, which carries it inside.
    """
    full = Image.open(io.BytesIO(data)).convert("RGB")
    palette = full.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=1)
    few = full.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    seen = max(ImageStat.Stat(ImageChops.difference(full, few.convert("RGB"))).mean)
    buffer = io.BytesIO()
    few.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue() if seen < _SEEN and len(buffer.getvalue()) < len(data) else data


def _rendered(figure: Figure, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=DPI, **options)
    return buffer.getvalue()
