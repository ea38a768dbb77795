"""Pictures side by side: a probe set's images, and the world's images with their masks."""

from collections.abc import Sequence
from pathlib import PurePath

import numpy as np
from matplotlib.figure import Figure

from wwwlib.images import ImageSet
from wwwlib.plots.sheet import MARGIN, Sheet, leading, pixels
from wwwlib.plots.style import BLUE, BODY, WIDTH, fit, styled
from wwwlib.plots.where import outline
from wwwlib.world import CATEGORIES, Picture


@styled
def samples(
    images: ImageSet,
    which: Sequence[int],
    titles: Sequence[str] | None = None,
    columns: int = 6,
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
    """
    which = list(which)
    titles = [_title(images, i) for i in which] if titles is None else list(titles)
    if not which or len(titles) != len(which):
        raise ValueError(
            f"There are {len(titles)} titles for {len(which)} images; give one title for each of "
            "at least one image."
        )
    gap, lines = 0.12, 2
    side = (WIDTH - 2 * MARGIN + gap) / columns - gap
    broken = [fit(title, side, lines=lines) for title in titles]
    row = side + leading() * max(map(len, broken)) + 0.14
    sheet = Sheet(2 * MARGIN + row * -(-len(which) // columns) - 0.1)
    for place, (i, title) in enumerate(zip(which, broken, strict=True)):
        x, y = MARGIN + place % columns * (side + gap), MARGIN + place // columns * row
        sheet.picture(x, y, side, images.image(i))
        sheet.write(x + side / 2, y + side + 0.04, title, ha="center")
    return sheet.figure


def _title(images: ImageSet, i: int) -> str:
    label = images.label(i)
    return PurePath(images.names[i]).name if label is None else images.classes[label]


@styled
def masks(picture: Picture, columns: int = 7) -> Figure:
    """Draw an image of the world and, category by category, what can be seen in it and where.

    Parameters
    ----------
    picture : Picture
        As `world.render` makes it.
    columns : int
        Masks per row.

    Returns
    -------
    Figure
        In each small picture the concept's pixels keep their colour inside an outline; the rest
        fades to light grey.
    """
    seen = {word for word, mask in picture.masks.items() if mask.any()}
    groups = {category: [w for w in words if w in seen] for category, words in CATEGORIES.items()}
    whole, gap, left = 1.5, 0.1, MARGIN + 1.75
    side = (WIDTH - MARGIN - left + gap) / columns - gap
    row, head = side + leading() + 0.1, leading(BODY) + 0.04
    spots = _flow({category: len(words) for category, words in groups.items() if words}, columns)
    height = 1 + max(line for places in spots.values() for line, _ in places)
    sheet = Sheet(2 * MARGIN + max(height * (row + head) - 0.1, whole + 2 * leading()))
    sheet.picture(MARGIN, MARGIN, whole, picture.image, smooth=False)
    sheet.write(MARGIN, MARGIN + whole + 0.06, ["the image, and on the", "right its masks"])
    for category, places in spots.items():
        for word, (line, column) in zip(groups[category], places, strict=True):
            x, y = left + column * (side + gap), MARGIN + line * (row + head)
            if word == groups[category][0] or not column:
                sheet.write(x, y, category, BODY, bold=True)
            _mask(sheet, x, y + head, side, picture, word)
    return sheet.figure


def _flow(counts, columns) -> dict[str, list[tuple[int, int]]]:
    """Place groups of pictures in (line, column) one after another; none breaks without need."""
    spots, cell = {}, 0
    for group, count in counts.items():
        if cell % columns and cell % columns + max(count, 2) > columns:
            cell += columns - cell % columns
        spots[group] = [divmod(cell + i, columns) for i in range(count)]
        cell += max(count, 2)  # a heading is wider than one picture
    return spots


def _mask(sheet, x, y, side, picture, word) -> None:
    """Draw one mask: the concept in colour, all else faded."""
    seen, image = picture.masks[word], pixels(picture.image)
    faded = image.mean(-1, keepdims=True) * 0.25 + 185
    shown = np.where(seen[..., None], image, faded).astype(np.uint8)
    sheet.picture(x, y, side, shown, smooth=False)
    outline(sheet, x, y, side, seen, BLUE, width=0.6, halo=0)
    sheet.write(x + side / 2, y + side + 0.02, fit(word, side + 0.08), ha="center")
