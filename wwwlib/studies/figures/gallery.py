"""A gallery of failures: what carried each misprediction, beside what the classes rest on."""

from collections.abc import Sequence

from matplotlib.figure import Figure

from wwwlib.atlas import Explanation
from wwwlib.plots.sheet import MARGIN, Sheet, leading
from wwwlib.plots.style import BODY, GREY, WIDTH, fit, listing, number, share, styled
from wwwlib.plots.where import heat_key, heated


@styled
def failures(rows: Sequence[tuple[Explanation, Explanation]]) -> Figure:
    """Draw mispredictions, a row each: the image, and three heatmaps that compete for it.

    Parameters
    ----------
    rows : sequence of (explanation, explanation for the true class)
        Of the same image; see `plots.failure`, which shows one in full.

    Returns
    -------
    Figure
        WWW, Figure 6, in small: what carried the sample, the predicted class in general and the
        true class in general, each with the names of its strongest neurons.
    """
    if not rows:
        raise ValueError("There is no misprediction to draw; give at least one pair.")
    side, gap = 1.12, 0.14
    words = WIDTH - 2 * MARGIN - 4 * (side + gap)
    head, row = 2.2 * leading(BODY), side + 2 * leading() + 0.2
    sheet = Sheet(2 * MARGIN + head + len(rows) * row + 0.3)
    titles = ("image", "this sample", "predicted class", "true class")
    x = [MARGIN + words + place * (side + gap) + gap for place in range(4)]
    for left, title in zip(x, titles, strict=True):
        sheet.write(left, MARGIN, title, BODY, bold=True)
    for place, (guess, true) in enumerate(rows):
        y = MARGIN + head + place * row
        sheet.rule(y - 0.1, MARGIN, WIDTH - MARGIN)
        _verdict(sheet, y, words, guess, true)
        sheet.picture(x[0], y, side, guess.image)
        for left, track in zip(x[1:], (guess.sample, guess.cls, true.cls), strict=True):
            sheet.picture(left, y, side, heated(guess.image, track.heatmap))
            names = [n.names[0] if n.names else "no concept" for n in track.neurons]
            sheet.write(left, y + side + 0.03, listing(dict.fromkeys(names), side, lines=2))
    heat_key(sheet, x[1], MARGIN + head + len(rows) * row, side)
    return sheet.figure


def _verdict(sheet: Sheet, y: float, width: float, guess: Explanation, true: Explanation) -> None:
    """Write what was predicted, what is true, and how the two tracks agree."""
    y = sheet.write(MARGIN, y, fit(f"not {guess.cls.class_name}", width, bold=True), bold=True)
    y = sheet.write(MARGIN, y, f"({share(guess.probability)})", colour=GREY)
    y = sheet.write(MARGIN, y, fit(f"but {true.cls.class_name}", width, bold=True), bold=True)
    y = sheet.write(MARGIN, y, f"({share(true.cls.probability)})", colour=GREY)
    sheet.write(MARGIN, y + 0.05, f"r = {number(guess.r)}")
