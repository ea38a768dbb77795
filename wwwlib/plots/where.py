"""WHERE, drawn: regions with an outline of their own line style, and heatmaps over the image."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from wwwlib.plots.sheet import MARGIN, Sheet, leading, pixels, placed
from wwwlib.plots.style import HEAT, LINES, SERIES, WIDTH, fit, styled


def look(place: int) -> tuple:
    """Return the colour and line style of the neuron in `place`: no two of the first 36 agree."""
    return SERIES[place % len(SERIES)], LINES[(place + place // len(SERIES)) % len(LINES)]


@styled
def where(image, maps, names: Sequence[str]) -> Figure:
    """Draw an image with the regions of some neurons, together and one by one.

    Parameters
    ----------
    image : PIL image of W x H pixels
    maps : array of bool, shape (k, H, W)
        Concept regions (WWW, section 3.3).
    names : sequence of str
        What to call each, such as its concepts.

    Returns
    -------
    Figure
        Each region has a colour and a line style; the small pictures show it alone.
    """
    regions = np.asarray(maps)
    if regions.dtype != bool or regions.ndim != 3 or len(regions) != len(names) or not len(names):
        raise ValueError(
            f"Regions of shape {regions.shape} and type {regions.dtype} for {len(names)} names; "
            "expected bool of shape (k, H, W) and k names, k at least 1. `maps.region` makes them."
        )
    whole, side, gap = 2.7, 0.8, 0.14
    left = MARGIN + whole + 0.25
    rows = -(-len(names) // 2)
    width = (WIDTH - MARGIN - left - gap) / 2
    sheet = Sheet(2 * MARGIN + max(whole, rows * (side + gap) - gap))
    sheet.picture(MARGIN, MARGIN, whole, image)
    for place, (region, name) in enumerate(zip(regions, names, strict=True)):
        colour, style = look(place)
        outline(sheet, MARGIN, MARGIN, whole, region, colour, style)
        x = left + place // rows * (width + gap)
        y = MARGIN + place % rows * (side + gap)
        spot(sheet, x, y, side, image, region, place)
        swatch(sheet, x + side + 0.08, y + 0.08, place)
        text = fit(name, width - side - 0.1, lines=int((side - 0.16) / leading()))
        sheet.write(x + side + 0.08, y + 0.16, text)
    return sheet.figure


def spot(sheet: Sheet, x, y, side, image, region, place: int) -> None:
    """Draw the image, paled, with one region filled lightly and outlined."""
    colour, style = look(place)
    shown = pixels(image).astype(float)
    region = np.asarray(region, bool)
    pale = shown.mean(-1, keepdims=True) * 0.45 + 255 * 0.5
    tinted = 0.82 * shown + 0.18 * 255 * np.array(to_rgb(colour))
    shown = np.where(region[..., None], tinted, 0.65 * pale + 0.35 * shown)
    sheet.picture(x, y, side, shown.round().astype(np.uint8))
    outline(sheet, x, y, side, region, colour, style, width=1.3)


def swatch(sheet: Sheet, x: float, y: float, place: int, length: float = 0.3) -> None:
    """Draw a short piece of a neuron's line, as a key."""
    colour, style = look(place)
    sheet.line((x, x + length), (y, y), colour, 2, style)


def outline(sheet: Sheet, x, y, side, region, colour, style="-", width=1.6, halo=1.4) -> None:
    """Draw the border of a region (H, W) over a picture placed at (x, y), with a white halo.

    Widths of line and halo are in points.
    """
    region = np.asarray(region, float)
    left, top, w, h = placed(x, y, side, region.shape)
    rows, columns = region.shape
    framed = np.pad(region, 1)  # closes a border that runs along the picture's edge
    across = (left + ((np.arange(-1, columns + 1) + 0.5) / columns).clip(0, 1) * w,
              top + ((np.arange(-1, rows + 1) + 0.5) / rows).clip(0, 1) * h)  # fmt: skip
    if not region.any():
        return
    strokes = ((width + halo, "white", "-"), (width, colour, style))
    for line, paint, dashes in strokes if halo else strokes[1:]:
        sheet.axes.contour(
            *across, framed, levels=[0.5], colors=[paint], linewidths=line, linestyles=[dashes],
            zorder=5,
        )  # fmt: skip


def heated(image, heatmap) -> np.ndarray:
    """Return the image in grey under a heatmap, its zero dark and its maximum bright."""
    m = np.nan_to_num(np.asarray(heatmap, float)).clip(0)
    m = m / m.max() if m.max() > 0 else m
    grey = pixels(image).astype(float).mean(-1, keepdims=True)
    colours = matplotlib.colormaps[HEAT](m)[..., :3] * 255
    return (0.35 * grey + 0.65 * colours).round().astype(np.uint8)


def heat_key(sheet: Sheet, x: float, y: float, width: float) -> None:
    """Draw the key of a heatmap: from none to the most."""
    ramp = np.linspace(0, 1, 64)[None]
    sheet.axes.imshow(
        ramp, extent=(x, x + width, y + 0.1, y), aspect="auto", cmap=HEAT, vmin=0, vmax=1
    )
    sheet.frame(x, y, width, 0.1)
    sheet.write(x, y + 0.12, "none")
    sheet.write(x + width, y + 0.12, "most", ha="right")
