"""Figures of images: samples, neurons with their exemplars, heatmaps, and regions of neurons."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from wwwlib.exemplars import CONSTANT, NOT_FINITE
from wwwlib.plots import page
from wwwlib.plots.page import MARGIN, draw, leading, outline, rule, write
from wwwlib.plots.style import BODY, GREY, INK, VERMILION, WIDTH, fit, look, number, styled
from wwwlib.scores import Words

_NAMES = 1.95  # inches: the column of names
_REASONS = {CONSTANT: "the same value everywhere", NOT_FINITE: "too few finite values"}


@styled
def samples(
    images: Any, which: Sequence[int], titles: Sequence[str] | None = None, columns: int = 6
) -> Figure:
    """Draw a contact sheet of chosen images.

    Parameters
    ----------
    images : ImageSet
    which : sequence of int
        Indices of the images.
    titles : sequence of str, optional
        A title for each; by default its class, or its file name where it has none.
    columns : int
        Images per row.

    Returns
    -------
    Figure

    Raises
    ------
    ValueError
        If there is no image, or another number of titles.
    """
    which = list(which)
    titles = [_title(images, i) for i in which] if titles is None else list(titles)
    if not which or len(titles) != len(which):
        raise ValueError(f"{len(titles)} titles for {len(which)} images; give one title for each.")
    side, rows = (WIDTH - 2 * MARGIN + 0.12) / columns - 0.12, -(-len(which) // columns)
    broken = [fit(title, side, lines=2) for title in titles]
    below = leading() * max(map(len, broken)) + 0.04
    figure, grid = page.grid([side] * columns, [side] * rows, (0.12, below + 0.1), foot=below - 0.1)
    for place, (i, title) in enumerate(zip(which, broken, strict=True)):
        axes = draw(figure.add_subplot(grid[divmod(place, columns)]), images.image(i))
        write(axes, title, side + 0.04)
    return figure


def _title(images, i: int) -> str:
    label = images.label(i)
    return images.names[i].rpartition("/")[2] if label is None else images.classes[label]


@styled
def heatmaps(pictures: Any, maps: Any, titles: Words, heads: Any, masks: Any = None) -> Figure:
    """Draw images, and beside each its heatmaps over it.

    Parameters
    ----------
    pictures : sequence of R images
        See `pixels`.
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

    Raises
    ------
    ValueError
        If the numbers of images, maps, titles, heads and masks do not fit each other.
    """
    maps, counts = np.asarray(maps, float), {len(one) for one in titles}
    given = {*maps.shape[:1], len(heads), len(titles), *([] if masks is None else [len(masks)])}
    if maps.ndim != 4 or not pictures or given != {len(pictures)} or counts != {maps.shape[1]}:
        raise ValueError(
            f"Heatmaps of shape {maps.shape} for {len(pictures)} images; expected (R, C, H, W) for "
            "R images, heads and masks, and R rows of C titles, R at least 1."
        )
    columns = 1 + maps.shape[1]
    side = min((WIDTH - 2 * MARGIN + 0.1) / columns - 0.1, 1.5)
    rows = zip(heads, titles, strict=True)
    texts = [[fit(title, side, lines=2) for title in (head, *row)] for head, row in rows]
    above = leading() * max(len(text) for row in texts for text in row) + 0.04
    heights = [side] * len(pictures)
    figure, grid = page.grid([side] * columns, heights, (0.1, above + 0.12), above, 0.3)
    for r, c in np.ndindex(len(pictures), columns):
        shown = pictures[r] if c == 0 else page.heated(pictures[r], maps[r, c - 1])
        axes = draw(figure.add_subplot(grid[r, c]), shown)
        write(axes, texts[r][c], -0.04 - len(texts[r][c]) * leading())
        if masks is not None:
            outline(axes, masks[r], "white", width=1.2, halo=0)
        if c and maps[r, c - 1].max() != maps[r, c - 1].min():
            i, j = np.unravel_index(maps[r, c - 1].argmax(), maps.shape[2:])
            at = (j + 0.5) / maps.shape[3], (i + 0.5) / maps.shape[2]
            edge = {"markersize": 9, "markeredgecolor": "white", "zorder": 6, "clip_on": False}
            axes.plot(*at, "X", color=VERMILION, **edge)
    page.heat_key(figure.axes[-columns], side + 0.08, side)
    return figure


@styled
def where(image: page.Picture, maps: Any, names: Sequence[str]) -> Figure:
    """Draw an image with the regions of some neurons, the first three together and all one by one.

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

    Raises
    ------
    ValueError
        If the regions are not bool, or do not fit the names.
    """
    regions = np.asarray(maps)
    if regions.dtype != bool or regions.ndim != 3 or len(regions) != len(names) or not len(names):
        raise ValueError(
            f"Regions of shape {regions.shape} and type {regions.dtype} for {len(names)} names; "
            "expected bool of shape (k, H, W) and k names, k at least 1. `maps.region` makes them."
        )
    whole, side, gap, rows = 2.68, 0.8, 0.08, -(-len(names) // 2)
    text = (WIDTH - 2 * MARGIN - whole - 2 * side - 6 * gap) / 2
    widths = [whole, gap, side, text, side, text]
    figure, grid = page.grid(widths, [side] * max(rows, 3), (gap, 0.14))
    whole = draw(figure.add_subplot(grid[:, 0]), image)
    for place, (region, name) in enumerate(zip(regions, names, strict=True)):
        outline(whole, region & (place < 3), *look(place))
        column, row = divmod(place, rows)
        page.spot(figure.add_subplot(grid[row, 2 + 2 * column]), image, region, place)
        axes = page.blank(figure, grid[row, 3 + 2 * column])
        page.swatch(axes, 0.08, place)
        write(axes, fit(name, text, lines=int((side - 0.16) / leading())), 0.16)
    return figure


@styled
def neurons(
    table: Any, exemplars: Any, images: Any, which: Sequence[int],
    columns: int = 8, unit: str = "neuron",
) -> Figure:  # fmt: skip
    """Draw a row for each chosen neuron: index, major concepts with scores, top exemplars.

    Parameters
    ----------
    table : ConceptTable
        Of N neurons.
    exemplars : Exemplars
        Of the same neurons.
    images : ImageSet
        The probe set of the exemplars.
    which : sequence of int
        The neurons, each in [0, N).
    columns : int
        Exemplars per row; fewer are drawn where there are fewer.
    unit : str
        What stands before the index, such as "latent".

    Returns
    -------
    Figure
        As WWW, Figures 1 and 3. An abstaining neuron is marked "no concept"; beside the index
        stands the test of the first name, and names that do no better than chance are grey.

    Raises
    ------
    IndexError
        If a neuron does not exist.
    ValueError
        If there is no neuron or no column.
    """
    return _rows(table, exemplars, images, which, columns, "Major concepts", "images", unit)


@styled
def minor(table: Any, exemplars: Any, crops: Any, which: Sequence[int], columns: int = 8) -> Figure:
    """Draw the chosen neurons with their minor concepts and the crops of highest activation.

    Parameters are those of `neurons`, the table and exemplars being those of the cropped set.
    """
    return _rows(table, exemplars, crops, which, columns, "Minor concepts", "crops")


def _rows(table, exemplars, images, which, columns, title, things, unit="neuron") -> Figure:
    which = [int(neuron) for neuron in which]
    if bad := [neuron for neuron in which if not 0 <= neuron < len(table)]:
        raise IndexError(f"Neuron {bad[0]} does not exist; the layer has {len(table)}, from 0.")
    if not which or columns < 1:
        raise ValueError(f"{len(which)} neurons in {columns} columns; choose at least one each.")
    side = min((WIDTH - 2 * MARGIN - _NAMES - 0.1) / columns - 0.05, 0.75)
    lines = max(3, int((side + 0.06) / leading()) - 1)
    row = max(side, leading(BODY) + lines * leading())
    widths = [_NAMES, 0.05, *[side] * columns]
    figure, grid = page.grid(widths, [row] * len(which), (0.05, 0.14), head=0.3)
    for place, neuron in enumerate(which):
        axes = page.blank(figure, grid[place, 0])
        rule(axes, -0.06)
        below = write(axes, f"{unit} {neuron}", size=BODY, bold=True)
        if table.names[neuron]:
            test, _, _ = table.test_words(neuron).partition(",")
            write(axes, test, 0, _NAMES, colour=GREY, ha="right")
        for name, score in _names(table, exemplars, neuron, lines):
            faint = score is None or table.supported(neuron) is False
            write(axes, score or "", below, _NAMES, ha="right")
            below = write(axes, name, below, colour=GREY if faint else INK)
        for column, image in enumerate(exemplars.index[neuron][:columns].tolist(), start=2):
            if image >= 0:  # else the neuron has fewer exemplars
                draw(figure.add_subplot(grid[place, column]), images.image(image))
    first = figure.axes[0]
    write(first, f"{title}, with scores", -0.3, size=BODY, bold=True)
    title = f"{things.capitalize()} of highest activation, best first"
    write(first, title, -0.3, _NAMES + 0.15, size=BODY, bold=True)
    return figure


def _names(table, exemplars, neuron, lines) -> list[tuple[str, str | None]]:
    """Return at most `lines` lines, each with a score, "" where a name continues, or None."""
    names, scores = table.names[neuron], table.scores[neuron]
    if not names:
        reason = _REASONS.get(int(exemplars.status[neuron]))
        return [("no concept", None)] + ([(f"({reason})", None)] if reason else [])
    kept = len(names) if len(names) <= lines else lines - 1
    room, block = 1 + lines - max(kept, len(names)) if kept else 0, []
    for name, score in zip(names[:kept], scores[:kept], strict=True):
        first, *more = fit(name, _NAMES - 0.5, lines=max(1, room))
        room -= len(more)
        block += [(first, number(score, 3)), *((line, "") for line in more)]
    return block + ([(f"and {len(names) - kept} more", None)] if kept < len(names) else [])
