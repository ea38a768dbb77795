"""The paper's Figures 5 and 6: two tracks of named neurons side by side, and their heatmaps.

A track is one answer to WHY: the neurons that carried a class, in general or in this image. Both
are drawn with this image's regions, and a neuron that is in both has the same colour and line.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from wwwlib.atlas import Atlas, Explanation, Neuron, Track
from wwwlib.maps import agreement
from wwwlib.plots.sheet import MARGIN, Sheet, leading
from wwwlib.plots.style import BODY, GREY, HEAD, WIDTH, fit, listing, number, share, styled
from wwwlib.plots.where import heat_key, heated, spot, swatch

_GUTTER = 0.26
_COLUMN = (WIDTH - 2 * MARGIN - _GUTTER) / 2
_SIDE = 0.94  # of the picture with the region
_EXAMPLE, _GAP = 0.35, 0.03
_EXAMPLES = 3
_WORDS = _COLUMN - _SIDE - 0.09 - _EXAMPLES * (_EXAMPLE + _GAP) - 0.04
_LINES = 2  # of names, below the word "major" or "minor"
_HEAT = 1.3


@styled
def two_tracks(explanation: Explanation, atlas: Atlas) -> Figure:
    """Draw an explanation: the class track on the left, the sample track on the right.

    Parameters
    ----------
    explanation : Explanation
    atlas : Atlas
        Which made it; gives the pictures of exemplars and crops.

    Returns
    -------
    Figure
        WWW, Figure 5. Each neuron: its region on the image, its index and share, its major and
        minor concepts with example images; below, both heatmaps and how similar they are.
    """
    cls = explanation.cls
    count = int(atlas.class_count[cls.class_index])
    general = f"CLASS: {cls.class_name} in {count:,} image{'' if count == 1 else 's'}"
    return _draw(
        explanation,
        atlas,
        [(cls, general),
         (explanation.sample, "SAMPLE: this prediction")],
        [_Heat(explanation.cls, "class"), _Heat(explanation.sample, "sample")],
        [_similarity(explanation.r, "class and sample")],
    )  # fmt: skip


@styled
def failure(explanation: Explanation, explanation_true: Explanation, atlas: Atlas) -> Figure:
    """Draw a misprediction: the predicted class on the left, the true class on the right.

    Parameters
    ----------
    explanation : Explanation
        Of the image, its class track being the predicted class's.
    explanation_true : Explanation
        Of the same image and layer, its class track being the true class's, as
        ``atlas.explain(image, cls=...)`` makes it.
    atlas : Atlas
        Which made both.

    Returns
    -------
    Figure
        WWW, Figure 6: both tracks, and below them the heatmaps of the predicted class, of this
        sample, and of the true class.
    """
    guessed, true = explanation.cls, explanation_true.cls
    return _draw(
        explanation,
        atlas,
        [(guessed, f"PREDICTED CLASS, {share(guessed.probability)}: {guessed.class_name}"),
         (true, f"TRUE CLASS, {share(true.probability)}: {true.class_name}")],
        [_Heat(guessed, "predicted class"), _Heat(explanation.sample, "sample"),
         _Heat(true, "true class")],
        [_similarity(explanation.r, "predicted class and sample"),
         _similarity(explanation_true.r, "true class and sample")],
    )  # fmt: skip


@dataclass(frozen=True)
class _Heat:
    track: Track
    title: str


def _similarity(r: float, between: str) -> tuple[str, str]:
    """Return the similarity of two heatmaps as a number and in words."""
    if math.isnan(r):
        return "r: none", f"{between} cannot be compared"
    return f"r = {number(r)}", f"{between} {agreement(r)}"


def _draw(explanation, atlas, tracks, heats, similarities) -> Figure:
    looks = _looks([track for track, _ in tracks])
    rows = max(1, *(len(track.neurons) for track, _ in tracks))
    row = leading(BODY) + 2 * ((_LINES + 1) * leading() + 0.04) + 0.12
    top = 1.18
    below = MARGIN + top + leading(HEAD) + 0.1 + rows * row
    sheet = Sheet(below + leading(BODY) + 0.16 + _HEAT + 0.28 + MARGIN)
    _header(sheet, explanation)
    for side, (track, title) in enumerate(tracks):
        x = MARGIN + side * (_COLUMN + _GUTTER)
        y = sheet.write(
            x, MARGIN + top, fit(title, _COLUMN, BODY + 0.5, bold=True), BODY + 0.5, bold=True
        )
        sheet.rule(y + 0.03, x, x + _COLUMN)
        if not track.neurons:
            nothing = f"no images, so nothing is known in general of {track.class_name}"
            sheet.write(x, y + 0.15, fit(nothing, _COLUMN, lines=3), colour=GREY)
        for place, neuron in enumerate(track.neurons):
            look = looks[neuron.index]
            _neuron(sheet, x, y + 0.12 + place * row, neuron, look, explanation.image, atlas)
    sheet.rule(below, MARGIN, WIDTH - MARGIN)
    _heatmaps(sheet, below + 0.08, explanation, heats, similarities)
    return sheet.figure


def _looks(tracks: Sequence[Track]) -> dict[int, int]:
    """Return a number for each neuron of the tracks, in the order of appearance."""
    order = dict.fromkeys(neuron.index for track in tracks for neuron in track.neurons)
    return {index: place for place, index in enumerate(order)}


def _header(sheet: Sheet, explanation: Explanation) -> None:
    """Draw the image, what was predicted, and whether that is right."""
    sheet.picture(MARGIN, MARGIN, 1.0, explanation.image)
    x, width = MARGIN + 1.15, WIDTH - 2 * MARGIN - 1.15
    said = f"predicted: {explanation.predicted_name}"
    sure = f", {share(explanation.probability)}"
    lines = fit(said + sure, width, HEAD, bold=True, lines=2)
    y = sheet.write(x, MARGIN + 0.04, lines, HEAD, bold=True)
    if explanation.label is None:
        truth = "the true class is not known"
    elif explanation.label == explanation.predicted_name:
        truth = "which is right"
    else:
        truth = f"which is wrong: it is {explanation.label}"
    y = sheet.write(x, y + 0.02, fit(truth, width, BODY, lines=2), BODY)
    layer = f"{explanation.layer}; shares are of the contributions of all its neurons"
    sheet.write(x, y + 0.02, fit(layer, width), colour=GREY)


def _neuron(sheet: Sheet, x, y, neuron: Neuron, look: int, image, atlas: Atlas) -> None:
    """Draw one neuron: region, index, share, and both kinds of concepts with examples."""
    left = x + _SIDE + 0.09
    spot(sheet, x, y, _SIDE, image, neuron.region, look)
    if not neuron.region.any():
        _say_silent(sheet, x, y)
    swatch(sheet, left, y + 0.5 * leading(BODY), look)
    sheet.write(left + 0.37, y, f"neuron {neuron.index}", BODY, bold=True)
    sheet.write(x + _COLUMN, y, f"carries {share(neuron.contribution)}", ha="right")
    y += leading(BODY) + 0.03
    kinds = (
        ("major", neuron.names, neuron.exemplars, atlas.thumbnails),
        ("minor", neuron.minor, neuron.minor_exemplars, atlas.minor_thumbnails),
    )
    for kind, names, exemplars, pictures in kinds:
        doubt = ", not sure" if kind == "major" and not neuron.sure else ""
        below = sheet.write(left, y, kind + doubt, colour=GREY)
        sheet.write(left, below, listing(names, _WORDS, _LINES) if names else "no concept")
        shown = [i for i in exemplars if i in pictures][:_EXAMPLES]
        for place, i in enumerate(shown):
            at = x + _COLUMN - (_EXAMPLES - place) * (_EXAMPLE + _GAP) + _GAP
            sheet.picture(at, y + 0.02, _EXAMPLE, pictures[i])
        y += (_LINES + 1) * leading() + 0.04


def _say_silent(sheet: Sheet, x: float, y: float) -> None:
    """Say on the picture why there is no outline on it."""
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    middle = y + (_SIDE - leading()) / 2
    sheet.write(x + _SIDE / 2, middle, "silent here", ha="center", bbox=paper, zorder=5)


def _heatmaps(sheet: Sheet, y, explanation, heats, similarities) -> None:
    """Draw the heatmaps and, beside them, their similarities in number and in words."""
    width = _HEAT + 0.3
    for place, heat in enumerate(heats):
        x = MARGIN + place * width
        sheet.write(x, y, fit(heat.title, _HEAT, BODY, bold=True), BODY, bold=True)
        sheet.picture(
            x, y + leading(BODY) + 0.04, _HEAT, heated(explanation.image, heat.track.heatmap)
        )
    x = MARGIN + len(heats) * width
    room = WIDTH - MARGIN - x
    below = y + leading(BODY) + 0.04
    for value, words in similarities:
        below = sheet.write(x, below, value, HEAD, bold=True)
        below = sheet.write(x, below, fit(words, room, lines=2)) + 0.06
    note = "r is the cosine of two heatmaps: a low one means doubt"
    sheet.write(x, below, fit(note, room, lines=3), colour=GREY)
    heat_key(sheet, MARGIN, y + leading(BODY) + 0.1 + _HEAT, _HEAT)
