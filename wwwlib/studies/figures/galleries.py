"""Pages of pictures: names of neurons, answers about one image, failures.

A mark beside a name is a symbol before it is a colour, so that it survives a grey copy.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wwwlib.plots import page, style
from wwwlib.plots.neurons import SAMPLE, tracks
from wwwlib.plots.page import MARGIN, blank, draw, inches, leading, rule, write
from wwwlib.plots.style import BODY, GREY, HEAD, WIDTH, fit, listing, share, styled

SYMBOLS = {"right": "✓", "near": "≈", "wrong": "✗", None: "·"}
_COLOURS = {"right": "#00704f", "near": style.BLUE, "wrong": style.VERMILION, None: GREY}
_SIDE, _GAP, _ACROSS = 0.52, 0.05, 4  # of exemplars, in inches
_METHODS = 1.42  # inches: the column of methods
_INDENT = 0.22  # of neurons that contribute to another
_SYMBOL = 0.15

_MISSING = {True: "— (not provided)", False: "not run here"}  # by whether the method was run
_COLUMNS = (0.9, 2.35, 1.0, 2.09)  # inches: method, what, where, why
_MAP, _CROP = 0.95, 0.42
_WIDE = WIDTH - 2 * MARGIN


# The same neurons, named by every method --------------------------------------------------------


@styled
def called(neurons: Sequence, grading: str) -> Figure:
    """Draw a block for each neuron: exemplars, truth, and every method's names.

    Parameters
    ----------
    neurons : sequence of NeuronNames
        Each final neuron followed by the hidden ones that contribute to it most.
    grading : str
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
    foot = fit(f"A name is {grading}", _WIDE, lines=3)
    heights = []
    for one in neurons:
        pictures = -(-max(1, len(one.pictures)) // across) * (_SIDE + _GAP)
        heights.append(leading(BODY) + 0.06 + max(pictures, (1 + len(one.names)) * leading()))
    figure, grid = page.grid([_WIDE], heights, (0, 0.14), foot=0.16 + (1 + len(foot)) * leading())
    for row, one in enumerate(neurons):
        axes = blank(figure, grid[row, 0])
        if row and not one.hidden:
            rule(axes, -0.07)
        _block(axes, one, across)
    _key(axes, heights[-1] + 0.12, neurons)
    write(axes, foot, heights[-1] + 0.14 + leading(), colour=GREY)
    return figure


def _block(axes: Axes, one, across: int) -> None:
    """Draw one neuron."""
    left = _INDENT * one.hidden
    y = write(axes, fit(one.title, _WIDE - left, BODY, bold=True), 0, left, size=BODY, bold=True)
    y += 0.06
    for place, picture in enumerate(one.pictures):
        row, column = divmod(place, across)
        at = left + column * (_SIDE + _GAP), -(y + _SIDE + row * (_SIDE + _GAP)), _SIDE, _SIDE
        draw(axes.inset_axes(at, transform=inches(axes)), picture)
    if not one.pictures:
        write(axes, "no exemplars", y, left, colour=GREY)
    x = left + across * (_SIDE + _GAP) + 0.1
    names = _INDENT + across * (_SIDE + _GAP) + 0.1 + _METHODS
    write(axes, "truth", y, x, bold=True)
    truth = listing(one.truth, _WIDE - names)[0] if one.truth else "not known"
    write(axes, truth, y, names, bold=bool(one.truth), colour=style.INK if one.truth else GREY)
    for method, answer in one.names.items():
        y += leading()
        write(axes, fit(method, names - x - 0.05), y, x)
        _names(axes, y, names, answer)


def _names(axes: Axes, y: float, x: float, answer) -> None:
    """Write marked names in a line, as many as fit, and how many did not."""
    if not answer:
        write(axes, "not run" if answer is None else "no concept", y, x, colour=GREY)
        return
    left = len(answer)
    for place, (name, mark) in enumerate(answer):
        space = _WIDE - x - _SYMBOL - (style.measure(f" +{left - 1} more") if left > 1 else 0)
        if place and style.measure(style.literal(name)) > space:
            break
        word = fit(name, space)[0]
        write(axes, SYMBOLS[mark], y, x, bold=True, colour=_COLOURS[mark])
        write(axes, word, y, x + _SYMBOL)
        x += _SYMBOL + style.measure(word) + 0.12
        left -= 1
    if left:
        write(axes, f"+{left} more", y, x - 0.06, colour=GREY)


def _key(axes: Axes, y: float, neurons: Sequence) -> None:
    """Explain the symbols that were drawn."""
    drawn = {m for one in neurons for answer in one.names.values() for _, m in answer or ()}
    x = 0.0
    for mark, symbol in SYMBOLS.items():
        if mark in drawn:
            label = mark or "truth not known"
            write(axes, symbol, y, x, bold=True, colour=_COLOURS[mark])
            write(axes, label, y, x + _SYMBOL)
            x += _SYMBOL + style.measure(label) + 0.25


# One image, explained by every method -----------------------------------------------------------


@styled
def demonstration(image: page.Picture, title: str, about: str, replies: Sequence) -> Figure:
    """Draw a row for each method and a column for each question.

    Parameters
    ----------
    image : PIL image of W x H pixels
        The input of the network.
    title, about : str
        What was predicted, and which neurons the methods name.
    replies : sequence of LocalExplanation
        Their heatmaps and regions are (H, W).

    Returns
    -------
    Figure
        After WWW, Table 1. A question that a method does not answer is marked so.
    """
    rows = [_texts(reply) for reply in replies]
    heights = [height for *_, height in rows]
    figure, grid = page.grid(_COLUMNS, [1.1, leading(BODY), *heights], (0.1, 0.12), foot=0.25)
    top = page.cells(grid[0, :], [1.1, _WIDE - 1.25], [1.1], (0.15, 0))
    draw(figure.add_subplot(top[0, 0]), image)
    axes = blank(figure, top[0, 1])
    y = write(axes, fit(title, _WIDE - 1.25, HEAD, bold=True, lines=3), 0.1, size=HEAD, bold=True)
    write(axes, fit(about, _WIDE - 1.25, lines=3), y + 0.04, colour=GREY)
    for column, head in enumerate(("method", "what is in it?", "where?", "why this class?")):
        write(blank(figure, grid[1, column]), head, size=BODY, bold=True)
    for row, (reply, texts) in enumerate(zip(replies, rows, strict=True), start=2):
        name, what, why = (blank(figure, grid[row, column]) for column in (0, 1, 3))
        rule(name, -0.06)
        write(name, texts[0], bold=True)
        y = write(what, texts[1], colour=GREY if reply.what is None else style.INK) + 0.04
        for place, crop in enumerate(reply.pictures[: int(_COLUMNS[1] / (_CROP + 0.05))]):
            at = place * (_CROP + 0.05), -y - _CROP, _CROP, _CROP
            draw(what.inset_axes(at, transform=inches(what)), crop)
        write(why, texts[2], colour=GREY if reply.why is None else style.INK)
        _where(figure, grid[row, 2], image, reply)
    rule(name, heights[-1] + 0.06)
    page.heat_key(blank(figure, grid[-1, 2]), heights[-1] + 0.12, _MAP)
    return figure


def _texts(reply) -> tuple[list[str], list[str], list[str], float]:
    """Return the lines of a reply's method, WHAT and WHY, and the height of its row."""
    nothing = (_MISSING[reply.ran],)
    what, why = (
        [part for line in texts or nothing for part in fit(line, width, lines=3)]
        for texts, width in ((reply.what, _COLUMNS[1]), (reply.why, _COLUMNS[3]))
    )
    name = fit(reply.method, _COLUMNS[0], bold=True, lines=2)
    sides = leading() * max(1, len(name), len(why))
    seen = leading() * len(what) + (_CROP + 0.08) * bool(reply.pictures)
    return name, what, why, max(sides, seen, 0 if reply.where is None else _MAP)


def _where(figure: Figure, spec, image, reply) -> None:
    """Draw a heatmap over the image, or the outline of a region on it."""
    if reply.where is None:
        write(blank(figure, spec), _MISSING[reply.ran], colour=GREY)
        return
    axes, m = figure.add_subplot(spec), np.asarray(reply.where)
    draw(axes, image if m.dtype == bool else page.heated(image, m))
    if m.dtype == bool:
        page.outline(axes, m, style.VERMILION)
        if not m.any():
            page.label(axes, "nowhere here")


# Mispredicted images ----------------------------------------------------------------------------


@styled
def failure(explanation: Any, explanation_true: Any, atlas: Any) -> Figure:
    """Draw a misprediction: tracks of the predicted class, the true class, and the sample.

    Parameters
    ----------
    explanation : Explanation
        Of the image, its class track being the predicted class's.
    explanation_true : Explanation
        Of the same image and layer, its class track being the true class's, as
        ``atlas.explain(image, cls=...)`` makes it.
    atlas : Atlas
        The atlas that made both.

    Returns
    -------
    Figure
        WWW, Figure 6: both tracks, the sample's below them, and the heatmaps of the predicted
        class, of this sample, and of the true class.
    """
    guess, true = explanation.cls, explanation_true.cls
    both = {f"PREDICTED CLASS, {share(guess.probability)}: {guess.class_name}": guess}
    both |= {f"TRUE CLASS, {share(true.probability)}: {true.class_name}": true}
    heats = {"predicted class": guess, "sample": explanation.sample, "true class": true}
    r = {"predicted class and sample": explanation, "true class and sample": explanation_true}
    return tracks(explanation, atlas, [both, {SAMPLE: explanation.sample}], heats, r)


@styled
def failures(rows: Sequence[tuple]) -> Figure:
    """Draw mispredictions, a row each: the image, and the heatmaps of sample and both classes.

    Parameters
    ----------
    rows : sequence of (explanation, explanation for the true class)
        Of the same image; see `failure`, which draws one in full.

    Returns
    -------
    Figure
        WWW, Figure 6, in small: heatmaps of the sample, the predicted class and the true class,
        each with the names of its strongest neurons.

    Raises
    ------
    ValueError
        If there is no pair.
    """
    if not rows:
        raise ValueError("There is no misprediction to draw; give at least one pair.")
    side, gap = 1.12, 0.14
    words, below = _WIDE - 4 * (side + gap), 2 * leading() + 0.03
    sizes = [words, *[side] * 4], [side] * len(rows)
    figure, grid = page.grid(*sizes, (gap, below + 0.17), head=2 * leading(BODY), foot=below + 0.35)
    for row, (guess, true) in enumerate(rows):
        axes = blank(figure, grid[row, 0])
        rule(axes, -0.08)
        y = 0.0
        for before, track in (("predicted", guess.cls), ("true", true.cls)):
            y = write(axes, fit(f"{before} {track.class_name}", words, bold=True), y, bold=True)
            y = write(axes, f"({share(track.probability)})", y, colour=GREY)
        write(axes, fit(guess.r_words, words, lines=3), y + 0.05)
        draw(figure.add_subplot(grid[row, 1]), guess.image)
        for column, track in enumerate((guess.sample, guess.cls, true.cls), start=2):
            axes = figure.add_subplot(grid[row, column])
            draw(axes, page.heated(guess.image, track.heatmap))
            names = dict.fromkeys(n.names[0] if n.names else "no concept" for n in track.neurons)
            write(axes, listing(names, side, lines=2), side + 0.03)
    titles = ("image", "this sample", "predicted class", "true class")
    for axes, title in zip(figure.axes[1:5], titles, strict=True):
        write(axes, title, -2 * leading(BODY), size=BODY, bold=True)
    page.heat_key(figure.axes[-3], side + below + 0.08, side)
    return figure
