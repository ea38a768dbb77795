"""A canvas that remembers what was painted where.

Every stroke carries the concepts that its pixels stand for. Later strokes hide earlier ones, so
the masks read off at the end are exactly what can be seen. Painting happens at twice the final
size; integer averaging brings pixels and masks down, so that the same scene is the same bytes on
every machine.
"""

import numpy as np
from PIL import Image, ImageDraw

SIZE = 64
SCALE = 2
FINE = SIZE * SCALE


def _halve(fine):
    """(FINE, FINE, ...) integers -> (SIZE, SIZE, ...) sums over SCALE x SCALE blocks."""
    shape = (SIZE, SCALE, SIZE, SCALE, *fine.shape[2:])
    return fine.astype(np.uint16).reshape(shape).sum(axis=(1, 3))


class Canvas:
    """Pixels and a map of strokes, both FINE x FINE."""

    def __init__(self):
        self.pixels = np.zeros((FINE, FINE, 3), np.uint8)
        self.strokes = np.zeros((FINE, FINE), np.uint8)
        self.concepts = [frozenset()]

    def paint(self, where, fill, concepts):
        """Paint `fill` (a colour or FINE x FINE x 3 pixels) on the boolean mask `where`."""
        fill = np.asarray(fill, np.uint8)
        self.pixels[where] = fill if fill.ndim == 1 else fill[where]
        self.strokes[where] = len(self.concepts)
        self.concepts.append(frozenset(concepts))

    def image(self):
        """Return the picture as a SIZE x SIZE RGB image."""
        return Image.fromarray((_halve(self.pixels) // SCALE**2).astype(np.uint8))

    def masks(self):
        """Return {concept: SIZE x SIZE bool}, true where at least half of a pixel shows it."""
        masks = {}
        for concept in sorted(frozenset().union(*self.concepts)):
            visible = np.array([concept in stroke for stroke in self.concepts])[self.strokes]
            mask = _halve(visible) * 2 >= SCALE**2
            if mask.any():
                masks[concept] = mask
        return masks


def shape_mask(shape, coordinates, box, flip=False):
    """Rasterise a unit-square shape into a box of the canvas.

    Parameters
    ----------
    shape : {"polygon", "ellipse"}
        An ellipse is given by the two corners of its bounding box.
    coordinates : sequence of (float, float)
        Points in the unit square.
    box : (left, top, size)
        Where the unit square lies, in final pixels.
    flip : bool
        Mirror left and right.

    Returns
    -------
    ndarray of bool, shape (FINE, FINE)
    """
    left, top, size = (SCALE * value for value in box)
    points = [(left + size * (1 - x if flip else x), top + size * y) for x, y in coordinates]
    if shape == "ellipse":
        (x0, y0), (x1, y1) = points
        points = [(min(x0, x1), y0), (max(x0, x1), y1)]
    sheet = Image.new("L", (FINE, FINE))
    getattr(ImageDraw.Draw(sheet), shape)(points, fill=1)
    return np.asarray(sheet, bool)
