"""Save a figure for print and for the page, and show it with words for who cannot see it."""

import base64
import html
import io
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

from matplotlib.figure import Figure

from wwwlib.figures.style import DPI, in_style

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
        data = base64.b64encode(self._data).decode("ascii")
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
    with in_style():
        data = _rendered(figure, "png")
        png.write_bytes(data)
        pdf.write_bytes(_rendered(figure, "pdf", metadata={"CreationDate": None}))
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close(figure)
    return Shown(png, pdf, alt, data)


def _rendered(figure: Figure, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, dpi=DPI, **options)
    return buffer.getvalue()
