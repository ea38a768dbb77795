"""Which part of an image a network sees: its preprocessing, asked with pictures of coordinates.

What is known pixel by pixel of a whole image, such as a mask, lies on the activation maps of a
network only once it is cut to the part that the network was shown.
"""

import numpy as np
from PIL import Image

from wwwlib.atlas.explain import as_seen
from wwwlib.targets import Target

Part = tuple[float, float, float, float]


def seen_part(target: Target, size: tuple[int, int]) -> Part:
    """Return the box that a network sees of images of a size.

    Two pictures whose brightness grows from left to right and from top to bottom are preprocessed;
    what comes out tells where each of its pixels comes from.

    Parameters
    ----------
    target : Target
    size : (int, int)
        Width and height of the images.

    Returns
    -------
    (left, top, right, bottom)
        As shares of width and height, in [0, 1].

    Raises
    ------
    ValueError
        If preprocessing does anything else to where pixels lie than to resize and to crop.
    """
    left, right = _span(target, size, horizontal=True)
    top, bottom = _span(target, size, horizontal=False)
    return left, top, right, bottom


def cut_to(mask: np.ndarray, part: Part) -> np.ndarray:
    """Cut an array (H, W) over a whole image to a part of it, by the nearest pixels' edges."""
    left, top, right, bottom = part
    rows, columns = _pixels(top, bottom, mask.shape[0]), _pixels(left, right, mask.shape[1])
    return mask[rows, columns]


def _pixels(start: float, stop: float, length: int) -> slice:
    """Return the pixels between two shares of a length, at least one."""
    first = min(round(start * length), length - 1)
    return slice(first, max(first + 1, round(stop * length)))


def _span(target: Target, size: tuple[int, int], horizontal: bool) -> tuple[float, float]:
    """Return where the network's view starts and ends along one side of the image."""
    width, height = size
    length, across = (width, height) if horizontal else (height, width)
    ramp = (np.arange(length) + 0.5) * 255 / length
    dither = (np.arange(across) % 16 + 0.5) / 16  # so that lines average to more than 8 bits
    pixels = np.uint8(np.floor(ramp + dither[:, None]))
    pixels = pixels if horizontal else pixels.T
    picture = Image.fromarray(np.repeat(pixels[..., None], 3, axis=2))
    shown = np.asarray(as_seen(target, picture, target.preprocess(picture)), float).mean(2) / 255
    shown = shown if horizontal else shown.T
    places = (np.arange(shown.shape[1]) + 0.5) / shown.shape[1]
    edge = shown.shape[1] // 8  # there interpolation repeats the border
    inner = slice(edge, shown.shape[1] - edge)
    slope, start = np.polyfit(places[inner], shown.mean(0)[inner], 1)
    slack = 0.02 + 1 / length  # a few levels of 8 bits, and a pixel taken for its neighbour
    ends = start, start + slope
    off = np.abs(shown - (start + slope * places))[:, inner].max()
    if off > slack or slope <= 0 or ends[0] < -slack or ends[1] > 1 + slack:
        raise ValueError(
            f"The preprocessing of {target.name} does more to an image of {width} x {height} "
            "pixels than to resize and crop it, so that nobody knows where its masks belong; give "
            "a target whose preprocessing only resizes and crops."
        )
    return max(0.0, float(ends[0])), min(1.0, float(ends[1]))
