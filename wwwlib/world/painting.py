"""Painting of the concept world: a canvas that records concepts, shapes, finishes, and sceneries.

Every stroke carries the concepts that its pixels show. Later strokes hide earlier ones, so the
masks of the finished canvas are exactly what is visible. Painting happens at twice the final
size; integer averaging reduces pixels and masks, so that the same scene is the same bytes on
every machine.
"""

import tomllib
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from wwwlib.world.vocabulary import COLOURS

SIZE = 64
SCALE = 2
FINE = SIZE * SCALE

_Y, _X = np.mgrid[0:FINE, 0:FINE]
_EVERYWHERE = np.ones((FINE, FINE), bool)


class Canvas:
    """Pixels and a map of strokes, both FINE x FINE."""

    def __init__(self):
        self.pixels = np.zeros((FINE, FINE, 3), np.uint8)
        self.strokes = np.zeros((FINE, FINE), np.uint8)
        self.concepts = [frozenset()]

    def paint(self, where, fill, concepts):
        """Paint `fill` (a colour or FINE x FINE x 3 pixels) on the boolean mask `where`."""
        fill = np.asarray(fill, np.uint8)
        if fill.ndim == 1:
            self.pixels[where] = fill
        else:
            np.copyto(self.pixels, fill, where=where[..., None])
        self.strokes[where] = len(self.concepts)
        self.concepts.append(frozenset(concepts))

    def image(self):
        """Return the picture as a SIZE x SIZE RGB image."""
        return Image.fromarray((_block_sums(self.pixels) // SCALE**2).astype(np.uint8))

    def masks(self):
        """Return {concept: SIZE x SIZE bool}, true where at least half of a pixel shows it."""
        masks = {}
        for concept in sorted(frozenset().union(*self.concepts)):
            visible = np.array([concept in stroke for stroke in self.concepts])[self.strokes]
            mask = _block_sums(visible) * 2 >= SCALE**2
            if mask.any():
                masks[concept] = mask
        return masks


def _block_sums(fine):
    """(FINE, FINE, ...) integers -> (SIZE, SIZE, ...) sums over SCALE x SCALE blocks."""
    fine = fine.astype(np.uint16)
    rows = sum(fine[i::SCALE] for i in range(SCALE))
    return sum(rows[:, i::SCALE] for i in range(SCALE))


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


# Shapes. `shapes.toml` says how each class is built from parts.


class Stroke(NamedTuple):
    """Outlines of one paint that belong to one part.

    Attributes
    ----------
    part : str or None
        The concept that the pixels carry besides the class; None for the class alone.
    outlines : list of (shape, coordinates)
        As `shape_mask` takes them.
    paint : str
        "body" for the object's own colour and finish, or one of `PAINTS`.
    chance : float in [0, 1]
        Share of images that show the part.
    """

    part: str | None
    outlines: list
    paint: str
    chance: float


def _stroke(part=None, paint="body", chance=1.0, rects=(), ovals=(), circles=(), polygons=()):
    """Return a stroke of `shapes.toml`, where its keys are explained."""
    boxes = [*ovals, *((x - r, y - r, x + r, y + r) for x, y, r in circles)]
    corners = [((x0, y0), (x1, y0), (x1, y1), (x0, y1)) for x0, y0, x1, y1 in rects]
    outlines = [("ellipse", ((x0, y0), (x1, y1))) for x0, y0, x1, y1 in boxes]
    outlines += [("polygon", points) for points in (*corners, *polygons)]
    return Stroke(part, outlines, paint, chance)


_FILE = tomllib.loads(Path(__file__).with_name("shapes.toml").read_text(encoding="utf-8"))
PAINTS = _FILE["paints"]
SHAPES, THING_SHAPES = (
    {name: [_stroke(**own) for own in strokes] for name, strokes in _FILE[kind].items()}
    for kind in ("classes", "things")
)


# Finishes. A texture is a pattern between the colour and a lighter or darker one; a material also
# shifts the colour towards its own tint (a wooden blue boat is a brownish blue). The patterns are
# fixed tiles that start at a random place, so no two objects show the same pixels.

_MATERIALS = _FILE["materials"]


def _noise(coarseness):
    """Return FINE x FINE values in [0, 1] that vary over `coarseness` fine pixels."""
    coarse = np.random.RandomState(coarseness).random_sample((FINE // coarseness,) * 2)
    return np.kron(coarse, np.ones((coarseness, coarseness)))


def _brick():
    row = _Y // 8
    mortar = (_Y % 8 < 2) | ((_X + 8 * (row % 2)) % 16 < 2)
    return np.where(mortar, 1.0, 0.1)


_PATTERNS = {
    "plain": lambda: np.zeros((FINE, FINE)),
    "checkered": lambda: ((_X // 8 + _Y // 8) % 2) * 1.0,
    "dotted": lambda: ((_X % 10 - 4.5) ** 2 + (_Y % 10 - 4.5) ** 2 < 9) * 1.0,
    "gridded": lambda: ((_X % 10 < 3) | (_Y % 10 < 3)) * 1.0,
    "speckled": lambda: (_noise(2) > 0.78) * 1.0,
    "striped": lambda: (_X % 12 < 6) * 1.0,
    "zigzagged": lambda: ((_Y + abs(_X % 16 - 8)) % 12 < 6) * 1.0,
    "brick": _brick,
    "glass": lambda: ((_X + _Y) % 40 < 8) * 0.9,
    "metal": lambda: 0.5 + 0.5 * np.sin((_X + _Y) / 9),
    "stone": lambda: 0.65 * _noise(8) + 0.35 * _noise(4),
    "wood": lambda: 0.5 + 0.5 * np.sin(_Y * 1.1 + 1.6 * np.sin(_X / 14)),
    "wool": lambda: _noise(2),
}


@cache
def _pattern(finish):
    """Return the FINE x FINE tile of a finish, in [0, 1]."""
    return _PATTERNS[finish]()


def _partner(colour):
    """Return the colour a pattern alternates with: lighter for dark colours, darker for light."""
    bright = colour.mean() > 140
    return colour * 0.45 if bright else colour + (255 - colour) * 0.62


def surface(colour, finish, shift=(0, 0), light=1.0):
    """Paint a coloured finish.

    Parameters
    ----------
    colour : str
        A word of `COLOURS`.
    finish : str
        One of `FINISHES`.
    shift : (int, int)
        Where the tile starts, in fine pixels.
    light : float
        Brightness of the whole, 1 for daylight.

    Returns
    -------
    ndarray of uint8, shape (FINE, FINE, 3)
    """
    base = np.array(COLOURS[colour], float)[:, None, None]  # channels first, which is faster
    material = _MATERIALS.get(finish, {})
    if share := material.get("share"):
        base = base * (1 - share) + np.array(material["tint"])[:, None, None] * share
    amount = np.roll(_pattern(finish), shift, (0, 1)) * material.get("strength", 1.0)
    pixels = base * (1 - amount) + _partner(base) * amount
    return np.moveaxis(np.clip(pixels * light, 0, 255).astype(np.uint8), 0, -1)


# Sceneries: sky or wall above, ground below, things in between.

_GROUNDS = _FILE["grounds"]
_TRIANGLE = ((0.5, 0.0), (1.0, 1.0), (0.0, 1.0))
_DISC = ((0, 0), (1, 1))


def paint_scene(canvas, scene, rng):
    """Fill the canvas with a scenery; `rng` decides horizons, clouds and the like."""
    getattr(_Scenery(canvas, scene, rng), scene)()


def _blend(top, bottom, amount):
    """Mix two colours by an (H, W) amount in [0, 1] into (H, W, 3) pixels."""
    top, bottom = (np.array(colour, float)[:, None, None] for colour in (top, bottom))
    return np.moveaxis((top + (bottom - top) * amount).astype(np.uint8), 0, -1)


def _below(height):
    """Return the mask of what lies below a height, in final pixels from the top."""
    return SCALE * height <= _Y


class _Scenery:
    """One method for each of `SCENES`.

    Sky and wall pixels carry the scene's name alone; grounds also carry their material; sun, moon,
    stars and clouds also carry their own names.
    """

    def __init__(self, canvas, name, rng):
        self.canvas, self.name, self.rng = canvas, name, rng

    def _paint(self, where, fill, *concepts):
        self.canvas.paint(where, fill, {self.name, *concepts})

    def _shape(self, shape, coordinates, box, colour, *concepts):
        self._paint(shape_mask(shape, coordinates, box), colour, *concepts)

    def _sky(self, top, bottom):
        self._paint(_EVERYWHERE, _blend(top, bottom, _Y / FINE))

    def _ground(self, material, horizon):
        ground = _GROUNDS[material]
        tile = np.roll(_pattern(ground["pattern"]), self.rng.randint(0, FINE, 2), (0, 1))
        fill = _blend(ground["first"], ground["second"], tile)
        self._paint(_below(horizon), fill, material)

    def _disc(self, thing, colour, x, y, radius):
        self._shape("ellipse", _DISC, (x - radius, y - radius, 2 * radius), colour, thing)

    def _cloud(self):
        if self.rng.random_sample() < 0.6:
            left, top = self.rng.randint(0, SIZE - 20), self.rng.randint(2, 12)
            for x, y, right in ((0, 0.3, 0.6), (0.3, 0.1, 0.9), (0.5, 0.3, 1.0)):
                corners = ((x, y), (right, 0.6))
                self._shape("ellipse", corners, (left, top, 18), (250, 250, 252), "cloud")

    def beach(self):
        horizon = self.rng.randint(24, 32)
        self._sky((112, 190, 240), (214, 238, 250))
        if self.rng.random_sample() < 0.6:
            self._disc("sun", (255, 226, 92), self.rng.randint(8, 56), 9, 5)
        self._ground("water", horizon)
        self._ground("sand", horizon + self.rng.randint(8, 14))

    def city(self):
        self._sky((170, 190, 210), (222, 226, 228))
        self._cloud()
        horizon, left = self.rng.randint(46, 52), 0
        while left < SIZE:
            width, height = self.rng.randint(8, 15), self.rng.randint(12, 36)
            grey = int(self.rng.randint(112, 176))
            where = (2 * left <= _X) & (2 * (left + width) > _X) & _below(horizon - height)
            lit = ((_X - 2 * left) % 8 < 3) & (_Y % 10 < 4)
            self._paint(where, np.where(lit[..., None], (236, 226, 170), (grey, grey, grey + 10)))
            left += width
        self._ground("asphalt", horizon)

    def desert(self):
        rng = self.rng
        self._sky((246, 190, 120), (252, 224, 168))
        self._disc("sun", (255, 244, 190), rng.randint(8, 56), rng.randint(7, 14), 6)
        horizon, phase = rng.randint(32, 40), rng.random_sample() * 6
        dune = 2 * (horizon - 5) + 8 * np.sin(_X / 16 + phase)
        self._paint(dune <= _Y, (214, 150, 84), "sand")
        self._ground("sand", horizon + 8)

    def forest(self):
        self._sky((52, 92, 64), (84, 124, 78))
        for left in range(-6, SIZE, 9):
            top, shade = self.rng.randint(0, 18), self.rng.randint(-14, 14)
            colour = (24 + shade // 2 + 14, 74 + shade, 44 + shade // 2)
            for step in (0, 9, 18):
                self._shape("polygon", _TRIANGLE, (left, top + step, 18), colour)
        self._ground("grass", self.rng.randint(44, 50))

    def meadow(self):
        self._sky((126, 196, 246), (222, 242, 250))
        self._cloud()
        if self.rng.random_sample() < 0.5:
            self._disc("sun", (255, 226, 92), self.rng.randint(8, 56), 8, 5)
        self._ground("grass", self.rng.randint(26, 36))

    def mountain(self):
        tip = ((0.5, 0.0), (0.68, 0.36), (0.5, 0.28), (0.32, 0.36))
        self._sky((150, 186, 222), (226, 234, 242))
        self._cloud()
        for left in (-14, 12, 34):
            box = (left + self.rng.randint(-4, 5), self.rng.randint(4, 16), 46)
            self._shape("polygon", _TRIANGLE, box, (112, 112, 128))
            self._shape("polygon", tip, box, (246, 250, 254), "snow")
        self._ground("snow", self.rng.randint(42, 50))

    def night(self):
        rng = self.rng
        self._sky((10, 14, 42), (34, 42, 84))
        for _ in range(rng.randint(4, 10)):
            self._disc("star", (250, 246, 214), *rng.randint(3, (61, 34)), 1.2)
        if rng.random_sample() < 0.7:
            self._disc("moon", (240, 238, 214), rng.randint(8, 56), rng.randint(8, 16), 6)
        self._paint(_below(rng.randint(42, 50)), (24, 44, 40), "grass")

    def reef(self):
        weed = ((0.4, 0.0), (0.7, 0.5), (0.6, 1.0), (0.4, 1.0), (0.2, 0.5))
        water = _blend((36, 134, 186), (12, 62, 116), _Y / FINE)
        self._paint(_EVERYWHERE, water, "water")
        for _ in range(5):
            left, top = self.rng.randint(0, SIZE - 8), self.rng.randint(26, 44)
            self._shape("polygon", weed, (left, top, 26), (206, 74, 108))
        for _ in range(self.rng.randint(3, 8)):
            x, y = self.rng.randint(4, 60, 2)
            self._shape("ellipse", _DISC, (x, y, 3), (170, 220, 240), "water")
        self._ground("sand", self.rng.randint(52, 58))

    def road(self):
        horizon = self.rng.randint(24, 30)
        self._sky((158, 206, 236), (224, 238, 244))
        self._cloud()
        self._ground("grass", horizon)
        self._ground("asphalt", horizon + 8)
        dashes = (abs(_Y - 2 * (horizon + 22)) < 3) & ((_X + self.rng.randint(0, 24)) % 24 < 14)
        self._paint(dashes, (248, 244, 226))

    def room(self):
        wall = np.array([(232, 214, 190), (206, 222, 214), (224, 206, 222)][self.rng.randint(3)])
        self._sky(wall, wall)
        self._paint((_X + self.rng.randint(0, 14)) % 14 < 3, wall * 0.88)
        boards = ((_X // 2 + 9 * (_Y // 10)) % 18 < 1) * 1.0
        horizon = self.rng.randint(42, 50)
        floor = _blend((172, 122, 74), (142, 96, 54), boards)
        self._paint(_below(horizon), floor, "wood")
        self._paint(_below(horizon) & ~_below(horizon + 2), (250, 246, 238))

    def sea(self):
        self._sky((120, 186, 236), (216, 234, 246))
        self._cloud()
        self._ground("water", self.rng.randint(24, 34))

    def sunset(self):
        self._sky((92, 52, 120), (252, 150, 70))
        self._disc("sun", (255, 200, 74), self.rng.randint(12, 52), 42, 9)
        self._paint(_below(self.rng.randint(43, 49)), (58, 34, 60))
