"""A sheet of paper measured in inches, on which pictures and words are put where they belong.

Figures made of pictures are laid out by hand: everything stands in one coordinate system, x to
the right and y *down* from the upper left corner, and every line of words is measured before it
is set. So nothing overlaps and nothing is cut, whatever the names are.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from PIL import Image

from wwwlib.plots.style import DPI, GREY, HEAD, INK, RULE, SMALL, WIDTH

MARGIN = 0.18
_LEADING = 1.32  # distance of two lines, in font sizes


def leading(size: float = SMALL) -> float:
    """Return the height of a line of words in inches."""
    return size * _LEADING / 72


def pixels(picture) -> np.ndarray:
    """Return a picture as (H, W, 3) uint8.

    Parameters
    ----------
    picture : PIL image, or (3, H, W) uint8 tensor, or (H, W, 3) uint8 array
    """
    if isinstance(picture, Image.Image):
        return np.asarray(picture.convert("RGB"))
    array = np.asarray(picture)
    if array.ndim == 3 and array.shape[0] == 3 != array.shape[2]:
        array = array.transpose(1, 2, 0)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise ValueError(
            f"A picture has shape {array.shape} and type {array.dtype}; expected a PIL image or "
            "uint8 of shape (H, W, 3) or (3, H, W)."
        )
    return array


class Sheet:
    """A figure of `width` x `height` inches and the means to write on it."""

    def __init__(self, height: float, width: float = WIDTH):
        self.figure = Figure(figsize=(width, height))
        self.axes = self.figure.add_axes((0, 0, 1, 1))
        self.axes.set(xlim=(0, width), ylim=(height, 0))
        self.axes.set_axis_off()
        self.axes.autoscale(False)

    def write(
        self,
        x: float,
        y: float,
        lines: str | Sequence[str],
        size: float = SMALL,
        bold: bool = False,
        ha: str = "left",
        colour: str = INK,
        **kwargs,
    ) -> float:
        """Set lines of words, the first one's top at `y`; return where the next line starts."""
        for line in [lines] if isinstance(lines, str) else lines:
            self.axes.text(
                x, y + 0.78 * leading(size), line, size=size, color=colour,
                weight="bold" if bold else "normal", ha=ha, va="baseline", **kwargs,
            )  # fmt: skip
            y += leading(size)
        return y

    def heading(self, x: float, y: float, words: str, size: float = HEAD) -> float:
        """Set a heading."""
        return self.write(x, y, words, size, bold=True)

    def picture(self, x: float, y: float, side: float, picture, smooth: bool = True) -> None:
        """Put a picture into a square of `side` inches, centred, its proportions kept."""
        array = pixels(picture)
        left, top, width, height = placed(x, y, side, array.shape[:2])
        self.axes.imshow(
            _shrunk(array, width, height),
            extent=(left, left + width, top + height, top),
            aspect="auto",
            interpolation="hanning" if smooth else "nearest",
        )
        self.frame(left, top, width, height)

    def frame(self, x, y, width, height, colour=GREY, line=0.5, **kwargs) -> None:
        """Draw the outline of a box."""
        self.axes.add_patch(
            Rectangle((x, y), width, height, fill=False, ec=colour, lw=line, zorder=3, **kwargs)
        )

    def empty(self, x: float, y: float, side: float) -> None:
        """Mark a place where a picture would stand if there were one."""
        self.frame(x, y, side, side, RULE, linestyle=(0, (2, 2)))

    def bar(self, x, y, width, height, fraction, colour) -> None:
        """Draw a bar filled to a fraction in [0, 1], in a frame of the full width."""
        fraction = min(max(fraction, 0.0), 1.0)
        self.axes.add_patch(Rectangle((x, y), width * fraction, height, fc=colour, ec="none"))
        self.frame(x, y, width, height)

    def line(self, x, y, colour=RULE, width=0.8, style="-", **kwargs) -> None:
        """Draw a line through the points (x, y)."""
        self.axes.add_line(
            Line2D(x, y, color=colour, linewidth=width, linestyle=style, zorder=4, **kwargs)
        )

    def rule(self, y: float, left: float, right: float) -> None:
        """Draw a thin line across."""
        self.line((left, right), (y, y))


def placed(x, y, side, shape) -> tuple[float, float, float, float]:
    """Return (left, top, width, height) of a picture of `shape` (H, W) within a square."""
    height, width = shape
    scale = side / max(height, width)
    width, height = width * scale, height * scale
    return x + (side - width) / 2, y + (side - height) / 2, width, height


def _shrunk(array: np.ndarray, width: float, height: float) -> np.ndarray:
    """Return a large picture at twice the printed resolution: files stay small."""
    w, h = max(1, round(2 * DPI * width)), max(1, round(2 * DPI * height))
    if array.shape[1] <= w and array.shape[0] <= h:
        return array
    return np.asarray(Image.fromarray(array).resize((w, h), Image.Resampling.LANCZOS))
