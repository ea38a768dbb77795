"""Figures of explanations: the tracks of named neurons, and their heatmaps.

A track is one answer to WHY: the neurons that contributed to a class, in general or in one image.
Both tracks are drawn with the regions of the explained image, and a neuron that is in both has the
same colour and line.
"""

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from wwwlib.plots import page, style
from wwwlib.plots.page import MARGIN, draw, leading, rule, write
from wwwlib.plots.style import BODY, GREY, HEAD, WIDTH, fit, listing, share, styled

_GUTTER = 0.26  # inches between two tracks, and the parts of a track
_COLUMN = (WIDTH - 2 * MARGIN - _GUTTER) / 2
_SIDE, _EXAMPLE, _GAP = 0.94, 0.31, 0.03
_EXAMPLES, _LINES = 3, 2  # example images, and lines of names below the word "major" or "minor"
_WORDS = _COLUMN - _SIDE - _EXAMPLES * _EXAMPLE - 5 * _GAP - 0.06
_BLOCK = (_LINES + 1) * leading() + 0.04
_HEAT = 1.3
SAMPLE = "SAMPLE: this prediction"


@styled
def two_tracks(explanation: Any, atlas: Any) -> Figure:
    """Draw an explanation: the class track on the left, the sample track on the right.

    Parameters
    ----------
    explanation : Explanation
    atlas : Atlas
        The atlas that made it, which holds the pictures of exemplars and crops.

    Returns
    -------
    Figure
        WWW, Figure 5. Each neuron: its region on the image, its index and share, its major and
        minor concepts with example images; below, both heatmaps and their similarity. Without a
        class track, the sample track alone.
    """
    cls, sample = explanation.cls, explanation.sample
    count = int(atlas.class_count[cls.class_index])
    source = f" in {count:,} image{'' if count == 1 else 's'}"
    source = ", by its weights in the head" if cls.by_weights else source
    title = f"CLASS: {cls.class_name}{source}"
    heats, similarities = {"class": cls, "sample": sample}, {"class and sample": explanation}
    return tracks(explanation, atlas, [{title: cls, SAMPLE: sample}], heats, similarities)


def _columns(tracks: Any) -> list[tuple[str, Sequence]]:
    """Return titles and neurons of two columns; one track alone fills both."""
    columns = [(title, track.neurons) for title, track in tracks.items() if track.neurons]
    if len(columns) == 1:
        [(title, own)] = columns
        half = (len(own) + 1) // 2
        columns = [(title, own[:half]), ("", own[half:])]
    return columns


def tracks(explanation: Any, atlas: Any, bands: Any, heats: Any, similarities: Any) -> Figure:
    """Draw tracks by title, a band below the other, heatmaps of tracks, and similarities.

    `similarities` maps what r compares to the explanation that has it.
    """
    bands = [columns for columns in map(_columns, bands) if columns]
    tall, heights = leading(BODY) + _GAP + 2 * _BLOCK, [1.0]
    for columns in bands:
        heights += [leading(HEAD), *[tall] * max(len(own) for _, own in columns)]
    figure, grid = page.grid(
        [_COLUMN] * 2, [*heights, leading(BODY) + _HEAT], (_GUTTER, 0.12), foot=0.28
    )
    _header(figure, grid[0, :], explanation)
    indices = dict.fromkeys(n.index for columns in bands for _, own in columns for n in own)
    places, first = {index: place for place, index in enumerate(indices)}, 1
    for columns in bands:
        for side, (title, own) in enumerate(columns):
            axes, left = page.blank(figure, grid[first, side]), MARGIN + side * (_COLUMN + _GUTTER)
            write(axes, fit(title, _COLUMN, BODY + 0.5, bold=True), size=BODY + 0.5, bold=True)
            rule(axes, leading(HEAD) + 0.04, left, left + _COLUMN)
            for row, n in enumerate(own, start=first + 1):
                _neuron(figure, grid[row, side], n, places[n.index], explanation.image, atlas)
        first += 1 + max(len(own) for _, own in columns)
    _heatmaps(figure, grid[-1, :], explanation, heats, similarities)
    return figure


def _header(figure: Figure, spec: Any, explanation: Any) -> None:
    """Draw the image, what was predicted, and whether that is right."""
    width = WIDTH - 2 * MARGIN - 1.15
    pair = page.cells(spec, [1.0, width], [1.0], (0.15, 0))
    draw(figure.add_subplot(pair[0, 0]), explanation.image)
    axes = page.blank(figure, pair[0, 1])
    title = f"predicted: {explanation.predicted_name}, {share(explanation.probability)}"
    if explanation.instead_of is not None:
        title += f", rather than {explanation.instead_of}, {share(explanation.instead_probability)}"
    y = write(axes, fit(title, width, HEAD, bold=True, lines=2), 0.04, size=HEAD, bold=True)
    if explanation.label is None:
        truth = "the true class is not known"
    elif explanation.label == explanation.predicted_name:
        truth = "which is right"
    else:
        truth = f"which is wrong: it is {explanation.label}"
    y = write(axes, fit(truth, width, BODY, lines=2), y + 0.02, size=BODY)
    layer = f"{explanation.layer}: {explanation.sample.share_words}"
    if explanation.instead_of is not None:
        layer += f" to the difference from {explanation.instead_of}"
    if explanation.where == "contribution":
        layer += "; regions are where they contribute"
    y = write(axes, fit(layer, width, lines=2), y + 0.02, colour=GREY)
    write(axes, fit(explanation.warning, width, lines=2), y + 0.02, bold=True)


def _neuron(figure: Figure, spec: Any, neuron: Any, place: int, image: Any, atlas: Any) -> None:
    """Draw one neuron: region, index, share, and both kinds of concepts with examples."""
    widths = [_SIDE, _GAP, _WORDS, *[_EXAMPLE] * _EXAMPLES]
    parts = page.cells(spec, widths, [leading(BODY), _BLOCK, _BLOCK], (_GAP, 0.015))
    page.spot(figure.add_subplot(parts[:, 0]), image, neuron.region, place)
    axes = page.blank(figure, parts[:, 2:])
    page.swatch(axes, 0.5 * leading(BODY), place)
    write(axes, f"neuron {neuron.index}", x=0.37, size=BODY, bold=True)
    width = _COLUMN - _SIDE - 2 * _GAP - 0.03
    write(axes, f"share {share(neuron.contribution)}", x=width, ha="right")
    kinds = (
        ("major", neuron.names, neuron.exemplars, atlas.thumbnails),
        ("minor", neuron.minor, neuron.minor_exemplars, atlas.minor_thumbnails),
    )
    for row, (kind, names, exemplars, pictures) in enumerate(kinds):
        y = leading(BODY) + _GAP + row * _BLOCK
        first = kind == "major" and names
        test, _, _ = neuron.test.partition(",")  # without the rank, which does not fit
        y = write(axes, f"{kind}, {test}" if first else kind, y, colour=GREY)
        ink = GREY if first and neuron.supported is False else style.INK
        write(axes, listing(names, _WORDS, _LINES) if names else "no concept", y, colour=ink)
        for column, i in enumerate([i for i in exemplars if i in pictures][:_EXAMPLES], start=3):
            draw(figure.add_subplot(parts[row + 1, column]), pictures[i])


def _heatmaps(figure: Figure, spec: Any, explanation: Any, heats: Any, similarities: Any) -> None:
    """Draw the heatmaps and, beside them, their similarities."""
    heats = {title: track for title, track in heats.items() if track.neurons}
    room = WIDTH - 2 * MARGIN - len(heats) * (_HEAT + 0.3)
    widths = [*[_HEAT] * len(heats), room]
    parts = page.cells(spec, widths, [leading(BODY) - 0.02, _HEAT], (0.3, 0.02))
    rule(page.blank(figure, parts[0, 0]), -0.06)
    for column, (title, track) in enumerate(heats.items()):
        shown = page.heated(explanation.image, track.heatmap)
        axes = draw(figure.add_subplot(parts[1, column]), shown)
        title = fit(title, _HEAT, BODY, bold=True)
        write(axes, title, -leading(BODY) - 0.02, size=BODY, bold=True)
        if not column:
            page.heat_key(axes, _HEAT + 0.06, _HEAT)
    axes, y = page.blank(figure, parts[1, -1]), 0.0
    for between, one in similarities.items():
        if one.cls.neurons:
            first, _, place = one.r_words.partition(", ")
            y = write(axes, fit(first, room, HEAD, bold=True), y, size=HEAD, bold=True)
            words = f"{between}{place and '; '}{place}"
        else:
            words = f"{between}: there are no images of {one.cls.class_name}"
        y = write(axes, fit(words, room, lines=3), y) + 0.06
    write(axes, fit("r is the cosine of two heatmaps", room, lines=3), y, colour=GREY)
