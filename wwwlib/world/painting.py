"""Painting of the concept world: a canvas that records concepts, shapes, finishes, and sceneries.

Every stroke carries the concepts that its pixels show. Later strokes hide earlier ones, so the
masks of the finished canvas are exactly what is visible. Painting happens at twice the final
size; integer averaging reduces pixels and masks, so that the same scene is the same bytes on
every machine.
"""

import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from wwwlib.world.vocabulary import COLOURS

SIZE, SCALE = 64, 2
FINE = SIZE * SCALE

_Y, _X = np.mgrid[0:FINE, 0:FINE]


class Canvas:
    """Pixels and a map of strokes, both FINE x FINE."""

    def __init__(self):
        self.pixels = np.zeros((FINE, FINE, 3), np.uint8)
        self.strokes = np.zeros((FINE, FINE), np.uint8)
        self.concepts = [frozenset()]

    def paint(self, where: np.ndarray, fill: Any, concepts: Any) -> None:
        """Paint `fill` (a colour or FINE x FINE x 3 pixels) on the boolean mask `where`."""
        np.copyto(self.pixels, np.asarray(fill, np.uint8), where=where[..., None])
        self.strokes[where] = len(self.concepts)
        self.concepts.append(frozenset(concepts))

    def paint_stroke(
        self, stroke: Any, box: tuple, concepts: Any,
        body: Any = None, light: float = 1.0, flip: bool = False,
    ) -> None:  # fmt: skip
        """Paint a `Stroke` in a box (left, top, size); `body` is the object's own fill."""
        if stroke.paint != "body":
            body = [int(value * light) for value in PAINTS[stroke.paint]]
        for shape, points in stroke.outlines:
            self.paint(shape_mask(shape, points, box, flip), body, concepts)

    def image(self) -> Image.Image:
        """Return the picture as a SIZE x SIZE RGB image."""
        return Image.fromarray((_block_sums(self.pixels) // SCALE**2).astype(np.uint8))

    def masks(self) -> dict[str, np.ndarray]:
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


def shape_mask(shape: str, coordinates: Any, box: tuple, flip: bool = False) -> np.ndarray:
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
SHAPES, THING_SHAPES, FORMS = (
    {name: [_stroke(**own) for own in strokes] for name, strokes in _FILE[kind].items()}
    for kind in ("classes", "things", "forms")
)


# Finishes. A texture is a pattern between the colour and a lighter or darker one; a material also
# shifts the colour towards its own tint (a wooden blue boat is a brownish blue). The patterns are
# fixed tiles in [0, 1] that start at a random place, so no two objects show the same pixels.


def _noise(coarseness):
    """Return FINE x FINE values in [0, 1] that vary over `coarseness` fine pixels."""
    coarse = np.random.RandomState(coarseness).random_sample((FINE // coarseness,) * 2)
    return np.kron(coarse, np.ones((coarseness, coarseness)))


_PATTERNS = {
    "plain": np.zeros((FINE, FINE)),
    "checkered": ((_X // 8 + _Y // 8) % 2) * 1.0,
    "dotted": ((_X % 10 - 4.5) ** 2 + (_Y % 10 - 4.5) ** 2 < 9) * 1.0,
    "gridded": ((_X % 10 < 3) | (_Y % 10 < 3)) * 1.0,
    "speckled": (_noise(2) > 0.78) * 1.0,
    "striped": (_X % 12 < 6) * 1.0,
    "zigzagged": ((_Y + abs(_X % 16 - 8)) % 12 < 6) * 1.0,
    "brick": np.where((_Y % 8 < 2) | ((_X + 8 * (_Y // 8 % 2)) % 16 < 2), 1.0, 0.1),
    "glass": ((_X + _Y) % 40 < 8) * 0.9,
    "metal": 0.5 + 0.5 * np.sin((_X + _Y) / 9),
    "stone": 0.65 * _noise(8) + 0.35 * _noise(4),
    "wood": 0.5 + 0.5 * np.sin(_Y * 1.1 + 1.6 * np.sin(_X / 14)),
    "wool": _noise(2),
}


def surface(colour: str, finish: str, shift: Any = (0, 0), light: float = 1.0) -> np.ndarray:
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
    material = _FILE["materials"].get(finish, {})
    if share := material.get("share"):
        base = base * (1 - share) + np.array(material["tint"])[:, None, None] * share
    # A pattern makes dark colours lighter, and light ones darker.
    partner = base * 0.45 if base.mean() > 140 else base + (255 - base) * 0.62
    amount = np.roll(_PATTERNS[finish], shift, (0, 1)) * material.get("strength", 1.0)
    pixels = base * (1 - amount) + partner * amount
    return np.moveaxis(np.clip(pixels * light, 0, 255).astype(np.uint8), 0, -1)


# Sceneries: sky or wall above, ground below, things in between; `shapes.toml` lists their parts.

_TRIANGLE = ((0.5, 0.0), (1.0, 1.0), (0.0, 1.0))


def paint_scene(canvas: Canvas, scene: str, rng: np.random.RandomState) -> None:
    """Fill the canvas with a scenery; `rng` decides horizons, clouds and the like."""
    scenery = _Scenery(canvas, scene, rng)
    for part in _FILE["sceneries"][scene]:
        scenery.add(**part)


def _blend(top, bottom, amount):
    """Mix two colours by an (H, W) amount in [0, 1] into (H, W, 3) pixels."""
    top, bottom = (np.array(colour, float)[:, None, None] for colour in (top, bottom))
    return np.moveaxis((top + (bottom - top) * amount).astype(np.uint8), 0, -1)


def _below(height):
    """Return the mask of what lies below a height, in final pixels from the top."""
    return SCALE * height <= _Y


class _Scenery:
    """One method for each kind of part in `shapes.toml`, whose other keys are its arguments.

    Sky and wall pixels carry the scene's name alone; grounds also carry their material; sun, moon,
    stars and clouds also carry their own names.
    """

    def __init__(self, canvas, name, rng):
        self.canvas, self.name, self.rng, self.horizon = canvas, name, rng, 0

    def add(self, kind: str, chance: float = 1.0, **how: Any) -> None:
        """Paint a part, or leave it out by chance."""
        if chance == 1 or self.rng.random_sample() < chance:
            getattr(self, f"_{kind}")(**how)

    def _paint(self, where, fill, *concepts):
        self.canvas.paint(where, fill, {self.name, *concepts})

    def _drawn(self, value):
        """Return a number, or for a pair one that is drawn from this range."""
        return self.rng.randint(*value) if isinstance(value, list) else value

    def _sky(self, top, bottom, concepts=()):
        self._paint(_below(0), _blend(top, bottom, _Y / FINE), *concepts)

    def _horizon(self, drop):
        self.horizon += self._drawn(drop)

    def _ground(self, material):
        ground = _FILE["grounds"][material]
        tile = np.roll(_PATTERNS[ground["pattern"]], self.rng.randint(0, FINE, 2), (0, 1))
        self._paint(_below(self.horizon), _blend(ground["first"], ground["second"], tile), material)

    def _plain(self, colour, concepts=()):
        self._paint(_below(self.horizon), colour, *concepts)

    def _form(self, name, left, top, size, count=1):
        for _ in range(self._drawn(count)):
            box = self._drawn(left), self._drawn(top), size
            for stroke in FORMS[name]:
                self.canvas.paint_stroke(stroke, box, {self.name, stroke.part} - {None})

    def _houses(self):
        left = 0
        while left < SIZE:
            width, height = self.rng.randint(8, 15), self.rng.randint(12, 36)
            grey = int(self.rng.randint(112, 176))
            where = (2 * left <= _X) & (2 * (left + width) > _X) & _below(self.horizon - height)
            lit = ((_X - 2 * left) % 8 < 3) & (_Y % 10 < 4)
            self._paint(where, np.where(lit[..., None], (236, 226, 170), (grey, grey, grey + 10)))
            left += width

    def _dune(self):
        top = 2 * (self.horizon - 5) + 8 * np.sin(_X / 16 + self.rng.random_sample() * 6)
        self._paint(top <= _Y, (214, 150, 84), "sand")

    def _trees(self):
        for left in range(-6, SIZE, 9):
            top, shade = self.rng.randint(0, 18), self.rng.randint(-14, 14)
            colour = (24 + shade // 2 + 14, 74 + shade, 44 + shade // 2)
            for step in (0, 9, 18):
                self._paint(shape_mask("polygon", _TRIANGLE, (left, top + step, 18)), colour)

    def _dashes(self):
        line = abs(_Y - 2 * (self.horizon + 14)) < 3
        self._paint(line & ((_X + self.rng.randint(0, 24)) % 24 < 14), (248, 244, 226))

    def _room(self):
        wall = np.array([(232, 214, 190), (206, 222, 214), (224, 206, 222)][self.rng.randint(3)])
        self._paint(_below(0), wall)
        self._paint((_X + self.rng.randint(0, 14)) % 14 < 3, wall * 0.88)
        boards = ((_X // 2 + 9 * (_Y // 10)) % 18 < 1) * 1.0
        horizon = self.rng.randint(42, 50)
        self._paint(_below(horizon), _blend((172, 122, 74), (142, 96, 54), boards), "wood")
        self._paint(_below(horizon) & ~_below(horizon + 2), (250, 246, 238))
