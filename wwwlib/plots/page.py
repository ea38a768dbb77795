"""Pages of pictures: a grid of cells in inches, images with overlays, and measured text.

An image fills its cell from the upper left corner and has data coordinates in [0, 1], x to the
right and y down, so that overlays fit it at any resolution. Text is placed in inches from the
upper left corner of its axes.
"""

from collections.abc import Sequence
from typing import Any, cast

import matplotlib
import numpy as np
from matplotlib import transforms
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec, GridSpecFromSubplotSpec, SubplotSpec
from PIL import Image

from wwwlib.plots.style import GREY, HEAT, INK, RULE, SMALL, WIDTH, look

MARGIN = 0.18  # inches, on every side of a page
Lengths = Sequence[float]
Picture = Image.Image | np.ndarray  # (H, W, 3) uint8
_LEADING = 1.32  # distance between lines of text, in font sizes


# The page ---------------------------------------------------------------------------------------


def grid(
    widths: Lengths, heights: Lengths, gap: Lengths = (0.1, 0.1), head: float = 0, foot: float = 0
) -> tuple[Figure, GridSpec]:
    """Make a figure of the page's width with a grid of cells, in inches.

    Parameters
    ----------
    widths, heights : sequence of float
        Of the columns and rows.
    gap : (float, float)
        Between columns, and between rows.
    head, foot : float
        Additional space above and below the grid.
    """
    right = MARGIN + sum(widths) + gap[0] * (len(widths) - 1)
    height = sum(heights) + gap[1] * (len(heights) - 1) + 2 * MARGIN + head + foot
    figure = Figure(figsize=(WIDTH, height))
    spec = GridSpec(
        len(heights), len(widths), figure,
        left=MARGIN / WIDTH, right=right / WIDTH,
        bottom=(MARGIN + foot) / height, top=1 - (MARGIN + head) / height,
        **_ratios(widths, heights, gap),
    )  # fmt: skip
    return figure, spec


def cells(
    spec: SubplotSpec, widths: Lengths, heights: Lengths, gap: Lengths = (0.1, 0.1)
) -> GridSpecFromSubplotSpec:
    """Divide a cell that is as large as these widths, heights and gaps, in inches, together."""
    return spec.subgridspec(len(heights), len(widths), **_ratios(widths, heights, gap))


def _ratios(widths: Lengths, heights: Lengths, gap: Lengths) -> dict[str, Any]:
    space = {"wspace": gap[0] / np.mean(widths), "hspace": gap[1] / np.mean(heights)}
    return {"width_ratios": widths, "height_ratios": heights, **space}


def leading(size: float = SMALL) -> float:
    """Return the height of a line of text in inches."""
    return size * _LEADING / 72


def inches(axes: Axes) -> transforms.Transform:
    """Return the transform of inches from the upper left corner of axes, y pointing up."""
    corner = cast(transforms.Affine2DBase, axes.transAxes)  # it is, though declared more generally
    return axes.figure.dpi_scale_trans + transforms.ScaledTranslation(0, 1, corner)


def blank(figure: Figure, spec: SubplotSpec) -> Axes:
    """Return axes for text alone."""
    axes = figure.add_subplot(spec)
    axes.set_axis_off()
    return axes


def write(
    axes: Axes, lines: str | Sequence[str], y: float = 0.0, x: float = 0.0, size: float = SMALL,
    bold: bool = False, colour: str = INK, **kwargs: Any,
) -> float:  # fmt: skip
    """Write lines of text, the first one's top `y` inches below the top of the axes.

    Returns
    -------
    float
        Where the next line starts.
    """
    for line in [lines] if isinstance(lines, str) else lines:
        axes.text(
            x, -(y + 0.78 * leading(size)), line, size=size, color=colour, va="baseline",
            weight="bold" if bold else "normal", transform=inches(axes), **kwargs,
        )  # fmt: skip
        y += leading(size)
    return y


def rule(axes: Axes, y: float, left: float = MARGIN, right: float = WIDTH - MARGIN) -> None:
    """Draw a line across the page, between inches of it and `y` inches below the axes' top."""
    across = transforms.blended_transform_factory(axes.figure.dpi_scale_trans, inches(axes))
    axes.plot((left, right), (-y, -y), color=RULE, lw=0.8, transform=across, clip_on=False)


# Images and what is drawn on them ---------------------------------------------------------------


def pixels(picture: Picture) -> np.ndarray:
    """Return a picture as (H, W, 3) uint8.

    Parameters
    ----------
    picture : PIL image, or uint8 array of shape (H, W, 3)

    Raises
    ------
    ValueError
        If it is neither.
    """
    array = np.asarray(picture.convert("RGB") if isinstance(picture, Image.Image) else picture)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8:
        raise ValueError(f"A picture is {array.dtype} {array.shape}; give PIL or uint8 (H, W, 3).")
    return array


def draw(axes: Axes, picture: Picture) -> Axes:
    """Draw a picture into axes, its proportions kept; see `pixels`."""
    array = pixels(picture)
    axes.imshow(
        array, extent=(0, 1, 1, 0), aspect=array.shape[0] / array.shape[1], interpolation="hanning"
    )
    axes.set(xticks=[], yticks=[], anchor="NW")
    axes.spines[:].set(visible=True, color=GREY, linewidth=0.5)
    return axes


def outline(
    axes: Axes, region: Any, colour: str, style: Any = "-", width: float = 1.6, halo: float = 1.4
) -> None:
    """Draw the border of a region (H, W) over a picture, with a white halo; widths in points."""
    region = np.asarray(region, float)
    if not region.any():
        return
    y, x = (((np.arange(-1, n + 1) + 0.5) / n).clip(0, 1) for n in region.shape)
    framed = np.pad(region, 1)  # closes a border that runs along the picture's edge
    for line, paint, dashes in ((width + halo, "white", "-"), (width, colour, style)):
        axes.contour(
            x, y, framed, levels=[0.5], colors=[paint], linewidths=line, linestyles=[dashes],
            zorder=5, clip_on=False,
        )  # fmt: skip


def spot(axes: Axes, image: Picture, region: Any, place: int) -> None:
    """Draw the image, paled, with one region tinted and outlined as series number `place`."""
    colour, style = look(place)
    region = np.asarray(region, bool)
    tinted = 0.82 * pixels(image) + 0.18 * 255 * np.array(to_rgb(colour))
    draw(axes, np.where(region[..., None], tinted, paled(image, 0.35)).round().astype(np.uint8))
    outline(axes, region, colour, style, width=1.3)
    if not region.any():
        label(axes, "not active here")


def label(axes: Axes, words: str) -> None:
    """Write words on white in the middle of a picture."""
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    axes.text(0.5, 0.5, words, size=SMALL, ha="center", va="center", bbox=paper)


def swatch(axes: Axes, y: float, place: int) -> None:
    """Draw a short piece of series number `place` as a key."""
    colour, style = look(place)
    how = {"color": colour, "linestyle": style, "linewidth": 2, "clip_on": False}
    axes.plot((0, 0.3), (-y, -y), transform=inches(axes), **how)


def heated(image: Picture, heatmap: Any) -> np.ndarray:
    """Return the image in grey under a heatmap, more opaque the higher its value."""
    m = np.nan_to_num(np.asarray(heatmap, float)).clip(0)
    m = m / m.max() if m.max() > 0 else m
    grey = pixels(image).astype(float).mean(-1, keepdims=True)
    colours, opacity = matplotlib.colormaps[HEAT](m)[..., :3] * 255, 0.35 + 0.4 * m[..., None]
    return ((1 - opacity) * grey + opacity * colours).round().astype(np.uint8)


def heat_key(axes: Axes, y: float, width: float) -> None:
    """Draw the colour bar of heatmaps, `width` inches wide and `y` inches below the axes' top."""
    place = axes.inset_axes((0, -y - 0.1, width, 0.1), transform=inches(axes))
    bar = axes.figure.colorbar(ScalarMappable(cmap=HEAT), place, orientation="horizontal")
    bar.set_ticks([0, 1], labels=["none", "most"])
    bar.ax.tick_params(length=0)
    for label, side in zip(bar.ax.get_xticklabels(), ("left", "right"), strict=True):
        label.set(ha=side)


def paled(image: Picture, colourful: float) -> np.ndarray:
    """Return an image with a share of its colours over light grey."""
    shown = pixels(image).astype(float)
    return colourful * shown + (1 - colourful) * (shown.mean(-1, keepdims=True) * 0.45 + 255 * 0.5)
