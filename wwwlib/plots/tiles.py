"""Small pictures for pages that change as one plays: regions and heatmaps, drawn in a moment.

The figures for print take a good part of a second each; a page that follows a slider has a fifth.
So these are pictures of pixels, without a word in them: the page writes what they show beside them.
"""

import numpy as np
from matplotlib.colors import to_rgb
from PIL import Image
from scipy.ndimage import binary_dilation

from wwwlib.plots.sheet import pixels
from wwwlib.plots.where import heated, look


def region_tile(image, region, place: int = 0, side: int = 160) -> Image.Image:
    """Draw an image, paled, with a region in its own colours and an outline around it.

    Parameters
    ----------
    image : PIL image of W x H pixels
    region : array of bool, shape (H, W)
    place : int
        Which neuron's colour the outline has, see `where.look`.
    side : int
        Pixels of the longer side of the result.
    """
    shown = _enlarged(Image.fromarray(pixels(image)), side)
    inside = np.asarray(region, bool)
    scaled = Image.fromarray(inside).resize(shown.size, Image.Resampling.NEAREST)
    inside, shown = np.asarray(scaled), np.asarray(shown).astype(float)
    pale = 0.3 * shown + 0.7 * (shown.mean(-1, keepdims=True) * 0.45 + 255 * 0.5)
    drawn = np.where(inside[..., None], shown, pale)
    halo = binary_dilation(inside, iterations=4) & ~inside
    line = binary_dilation(inside, iterations=3) & ~inside
    drawn[halo] = 255
    drawn[line] = np.array(to_rgb(look(place)[0])) * 255
    return Image.fromarray(drawn.round().astype(np.uint8))


def heat_tile(image, heatmap, side: int = 160) -> Image.Image:
    """Draw an image in grey under a heatmap (H, W), its zero dark and its maximum bright."""
    return _enlarged(Image.fromarray(heated(image, heatmap)), side)


def picture_tile(image, side: int = 160) -> Image.Image:
    """Draw an image as it is."""
    return _enlarged(Image.fromarray(pixels(image)), side)


def _enlarged(image: Image.Image, side: int) -> Image.Image:
    """Return an image with a longer side of so many pixels."""
    scale = side / max(image.size)
    size = tuple(max(1, round(length * scale)) for length in image.size)
    return image.resize(size, Image.Resampling.BICUBIC)
