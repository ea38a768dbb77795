"""WHERE, compared: heatmaps side by side, a row an image, with the truth where it is known."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from wwwlib.plots.sheet import MARGIN, Sheet, leading, placed
from wwwlib.plots.style import VERMILION, WIDTH, fit, styled
from wwwlib.plots.where import heat_key, heated, outline


@styled
def heatmaps(
    pictures: Sequence,
    maps,
    titles: Sequence[Sequence[str]],
    heads: Sequence[str],
    masks: Sequence | None = None,
) -> Figure:
    """Draw images, and beside each its heatmaps over it.

    Parameters
    ----------
    pictures : sequence of R images
        See `sheet.pixels`.
    maps : array, shape (R, C, H, W)
        Heatmaps or activation maps; each is scaled by its own maximum.
    titles : sequence of R sequences of C str
        What stands above each map, such as a method or a neuron's concepts.
    heads : sequence of R str
        What stands above each image.
    masks : sequence of R arrays of bool, shape (H, W), optional
        True pixels, drawn as an outline on every picture of the row.

    Returns
    -------
    Figure
        A cross marks each map's maximum, the first of them where several pixels share it; a map
        without contrast has none.
    """
    maps = np.asarray(maps, float)
    _check(len(pictures), maps.shape, titles, heads, masks)
    gap = 0.1
    side = min((WIDTH - 2 * MARGIN + gap) / (1 + maps.shape[1]) - gap, 1.5)
    rows = zip(heads, titles, strict=True)
    texts = [[fit(title, side, lines=2) for title in (head, *row)] for head, row in rows]
    above = leading() * max(len(text) for row in texts for text in row) + 0.04
    row = above + side + 0.12
    sheet = Sheet(2 * MARGIN + len(pictures) * row + 0.24)
    for r, picture in enumerate(pictures):
        y = MARGIN + r * row + above
        mask = None if masks is None else masks[r]
        for c, text in enumerate(texts[r]):
            x = MARGIN + c * (side + gap)
            sheet.write(x, y - 0.04 - len(text) * leading(), text)
            sheet.picture(x, y, side, picture if c == 0 else heated(picture, maps[r, c - 1]))
            if mask is not None:
                outline(sheet, x, y, side, mask, "white", width=1.2, halo=0)
            if c:
                _cross(sheet, x, y, side, maps[r, c - 1])
    heat_key(sheet, MARGIN, MARGIN + len(pictures) * row, 1.2)
    return sheet.figure


def _cross(sheet: Sheet, x: float, y: float, side: float, m: np.ndarray) -> None:
    """Mark the maximum of a map that is drawn in a square at (x, y)."""
    if m.max() == m.min():
        return
    i, j = np.unravel_index(m.argmax(), m.shape)
    left, top, width, height = placed(x, y, side, m.shape)
    at = left + (j + 0.5) / m.shape[1] * width, top + (i + 0.5) / m.shape[0] * height
    for size, line, colour in ((8, 3.2, "white"), (7, 1.6, VERMILION)):
        sheet.axes.plot(
            *at, marker="x", markersize=size, markeredgewidth=line, color=colour, zorder=6
        )


def _check(rows: int, shape: tuple[int, ...], titles, heads, masks) -> None:
    """Refuse what would be drawn in the wrong place, or not at all."""
    columns = {len(one) for one in titles}
    given = {len(heads), len(titles), rows if masks is None else len(masks)}
    if len(shape) != 4 or not shape[0] or given != {rows} or columns != {shape[1]}:
        raise ValueError(
            f"Heatmaps of shape {shape} for {rows} images, {len(heads)} heads and {len(titles)} "
            f"rows of {sorted(columns)} titles; expected (R, C, H, W), R of each and C titles a "
            "row, R at least 1."
        )
