"""The paper's Table 1 as a demonstration: what each method says of one image, beside each other."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from wwwlib.plots.sheet import MARGIN, Sheet, leading
from wwwlib.plots.style import BODY, GREY, HEAD, INK, SMALL, VERMILION, WIDTH, fit, styled
from wwwlib.plots.where import heat_key, heated, outline
from wwwlib.studies.qualitative import LocalExplanation

NOTHING, NOT_RUN = "—, does not say", "not run here"
_METHOD, _WHAT, _WHERE = 1.0, 2.5, 1.15  # inches; the rest is for WHY
_WHY = WIDTH - 2 * MARGIN - _METHOD - _WHAT - _WHERE
_SIDE, _CROP, _AIR = 0.95, 0.42, 0.12
_LINES = 3  # of one neuron's names


@styled
def demonstration(image, title: str, about: str, replies: Sequence[LocalExplanation]) -> Figure:
    """Draw a row for each method and a column for each question.

    Parameters
    ----------
    image : PIL image of W x H pixels
        As the network saw it.
    title, about : str
        What was predicted, and what the methods are asked about.
    replies : sequence of LocalExplanation
        Their heatmaps and regions are (H, W).

    Returns
    -------
    Figure
        After WWW, Table 1. A question that a method has no answer to says so.

    Raises
    ------
    ValueError
        If there is no reply, or a map does not fit the image.
    """
    _check(image, replies)
    heights = [_height(reply) for reply in replies]
    top = MARGIN + 1.25
    sheet = Sheet(top + leading(BODY) + 0.1 + sum(heights) + 0.3 + MARGIN)
    sheet.picture(MARGIN, MARGIN, 1.1, image)
    x, room = MARGIN + 1.25, WIDTH - 2 * MARGIN - 1.25
    y = sheet.write(x, MARGIN + 0.1, fit(title, room, HEAD, bold=True, lines=3), HEAD, bold=True)
    sheet.write(x, y + 0.04, fit(about, room, lines=3), colour=GREY)
    columns = _columns()
    heads = ("method", "what was seen?", "where?", "why this class?")
    for left, head in zip(columns, heads, strict=True):
        sheet.write(left, top, head, BODY, bold=True)
    y = top + leading(BODY) + 0.04
    for reply, height in zip(replies, heights, strict=True):
        sheet.rule(y, MARGIN, WIDTH - MARGIN)
        _row(sheet, columns, y + 0.06, image, reply)
        y += height
    sheet.rule(y, MARGIN, WIDTH - MARGIN)
    heat_key(sheet, columns[2], y + 0.06, _SIDE)
    return sheet.figure


def _columns() -> tuple[float, float, float, float]:
    """Return where the columns begin."""
    return (
        MARGIN,
        MARGIN + _METHOD,
        MARGIN + _METHOD + _WHAT,
        MARGIN + _METHOD + _WHAT + _WHERE,
    )


def _texts(reply: LocalExplanation) -> tuple[list[str], list[str]]:
    """Return the lines of WHAT and of WHY."""
    nothing = NOTHING if reply.ran else NOT_RUN
    what, why = reply.what or (nothing,), reply.why or (nothing,)
    return _fitted(what, _WHAT - 0.15), _fitted(why, _WHY)


def _fitted(said: Sequence[str], width: float) -> list[str]:
    """Break each line of an answer where it must be broken."""
    return [part for line in said for part in fit(line, width, lines=_LINES)]


def _height(reply: LocalExplanation) -> float:
    what, why = _texts(reply)
    said = len(what) * leading() + (_CROP + 0.08 if reply.pictures else 0)
    name = len(fit(reply.method, _METHOD - 0.1, bold=True, lines=2)) * leading()
    shown = _SIDE if reply.where is not None else leading()
    return max(said, len(why) * leading(), name, shown) + _AIR


def _row(sheet: Sheet, columns: Sequence[float], y: float, image, reply: LocalExplanation) -> None:
    """Draw what one method says."""
    what, why = _texts(reply)
    sheet.write(columns[0], y, fit(reply.method, _METHOD - 0.1, bold=True, lines=2), bold=True)
    below = sheet.write(columns[1], y, what, colour=_ink(reply.what))
    room = int((_WHAT - 0.15) / (_CROP + 0.05))
    for place, picture in enumerate(reply.pictures[:room]):
        sheet.picture(columns[1] + place * (_CROP + 0.05), below + 0.04, _CROP, picture)
    _where(sheet, columns[2], y, image, reply)
    sheet.write(columns[3], y, why, colour=_ink(reply.why))


def _where(sheet: Sheet, x: float, y: float, image, reply: LocalExplanation) -> None:
    """Draw a heatmap over the image, or the outline of a region on it."""
    if reply.where is None:
        sheet.write(x, y, fit(NOTHING if reply.ran else NOT_RUN, _WHERE), colour=GREY)
        return
    m = np.asarray(reply.where)
    if m.dtype != bool:
        sheet.picture(x, y, _SIDE, heated(image, m))
        return
    sheet.picture(x, y, _SIDE, image)
    outline(sheet, x, y, _SIDE, m, VERMILION)
    if not m.any():
        sheet.axes.text(
            x + _SIDE / 2, y + _SIDE / 2, "nowhere here", size=SMALL, ha="center", va="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1.5},
        )  # fmt: skip


def _ink(said: Sequence[str] | None) -> str:
    return GREY if said is None else INK


def _check(image, replies: Sequence[LocalExplanation]) -> None:
    """Refuse what would be drawn in the wrong place, or not at all."""
    if not replies:
        raise ValueError("There is no reply to draw; give at least one.")
    for reply in replies:
        if reply.where is not None and tuple(reply.where.shape) != (image.height, image.width):
            raise ValueError(
                f"The map of {reply.method} has shape {tuple(reply.where.shape)}, but the image is "
                f"{image.height} x {image.width}; resize it with `maps.resize`."
            )
