"""The paper's Figure 3: the same neurons in everybody's words, each name marked.

A mark is a symbol before it is a colour, so that it survives a copier and any pair of eyes.
"""

from collections.abc import Sequence

from matplotlib.figure import Figure

from wwwlib.plots.sheet import MARGIN, Sheet, leading
from wwwlib.plots.style import (
    BLUE,
    BODY,
    GREY,
    INK,
    SMALL,
    VERMILION,
    WIDTH,
    fit,
    listing,
    literal,
    measure,
    styled,
)
from wwwlib.studies.qualitative import Graded, NeuronNames
from wwwlib.studies.wordnet import NEAR, RIGHT, WRONG

SYMBOLS = {RIGHT: "✓", NEAR: "≈", WRONG: "✗", None: "·"}
_COLOURS = {RIGHT: "#00704f", NEAR: BLUE, WRONG: VERMILION, None: GREY}
_SIDE, _GAP, _ACROSS = 0.52, 0.05, 4  # of exemplars
_METHODS = 1.42  # inches: the column of methods
_INDENT = 0.22  # of neurons that carry another
_SYMBOL = 0.15


@styled
def called(neurons: Sequence[NeuronNames], rule: str) -> Figure:
    """Draw a block for each neuron: exemplars, truth, and what every method calls it.

    Parameters
    ----------
    neurons : sequence of NeuronNames
        Each final neuron followed by those that carry it.
    rule : str
        How names were marked, which stands below.

    Returns
    -------
    Figure
        WWW, Figure 3. Names that do not fit are left out and counted.

    Raises
    ------
    ValueError
        If there is no neuron.
    """
    if not neurons:
        raise ValueError("There is no neuron to draw; gather at least one.")
    across = min(_ACROSS, max(2, *(len(one.pictures) for one in neurons)))
    heights = [_height(one, across) for one in neurons]
    foot = fit(f"A name is {rule}", WIDTH - 2 * MARGIN, lines=3)
    sheet = Sheet(2 * MARGIN + sum(heights) + 0.1 + (1 + len(foot)) * leading())
    y = MARGIN
    for one, height in zip(neurons, heights, strict=True):
        if y > MARGIN and not one.hidden:
            sheet.rule(y - 0.06, MARGIN, WIDTH - MARGIN)
        _block(sheet, y, one, across)
        y += height
    _key(sheet, y + 0.04, neurons)
    sheet.write(MARGIN, y + 0.06 + leading(), foot, colour=GREY)
    return sheet.figure


def _height(one: NeuronNames, across: int) -> float:
    """Return the room that a neuron takes, the distance to the next one included."""
    rows = -(-max(1, len(one.pictures)) // across)
    pictures = rows * (_SIDE + _GAP)
    return leading(BODY) + 0.06 + max(pictures, (1 + len(one.names)) * leading()) + 0.14


def _block(sheet: Sheet, y: float, one: NeuronNames, across: int) -> None:
    """Draw one neuron."""
    left = MARGIN + _INDENT * one.hidden
    width = WIDTH - MARGIN - left
    sheet.write(left, y, fit(one.title, width, BODY, bold=True), BODY, bold=True)
    y += leading(BODY) + 0.06
    for place, picture in enumerate(one.pictures):
        x = left + place % across * (_SIDE + _GAP)
        sheet.picture(x, y + place // across * (_SIDE + _GAP), _SIDE, picture)
    if not one.pictures:
        sheet.write(left, y, "no exemplars", colour=GREY)
    x = left + across * (_SIDE + _GAP) + 0.1
    names = MARGIN + _INDENT + across * (_SIDE + _GAP) + 0.1 + _METHODS
    room = WIDTH - MARGIN - names
    sheet.write(x, y, "truth", bold=True)
    truth = listing(one.truth, room)[0] if one.truth else "not known"
    sheet.write(names, y, truth, bold=bool(one.truth), colour=GREY if not one.truth else INK)
    for method, answer in one.names.items():
        y += leading()
        sheet.write(x, y, fit(method, names - x - 0.05))
        _names(sheet, names, y, answer, room)


def _names(sheet: Sheet, x: float, y: float, answer: Graded | None, room: float) -> None:
    """Write marked names in a line, as many as fit, and how many did not."""
    if not answer:
        sheet.write(x, y, "not run" if answer is None else "no concept", colour=GREY)
        return
    end, left = x + room, len(answer)
    for place, (name, mark) in enumerate(answer):
        more = measure(f" +{left - 1} more") if left > 1 else 0
        space = end - x - _SYMBOL - more
        word = literal(name)
        if place and measure(word) > space:
            break
        word = word if measure(word) <= space else fit(word, space)[0]
        sheet.write(x, y, SYMBOLS[mark], bold=True, colour=_COLOURS[mark])
        sheet.write(x + _SYMBOL, y, word)
        x += _SYMBOL + measure(word) + 0.12
        left -= 1
    if left:
        sheet.write(x - 0.06, y, f"+{left} more", colour=GREY)


def _key(sheet: Sheet, y: float, neurons: Sequence[NeuronNames]) -> None:
    """Explain the symbols that were drawn."""
    drawn = {m for one in neurons for answer in one.names.values() for _, m in answer or ()}
    x = MARGIN
    for mark, symbol in SYMBOLS.items():
        if mark in drawn:
            label = mark or "truth not known"
            sheet.write(x, y, symbol, bold=True, colour=_COLOURS[mark])
            sheet.write(x + _SYMBOL, y, label)
            x += _SYMBOL + measure(label, SMALL) + 0.25
