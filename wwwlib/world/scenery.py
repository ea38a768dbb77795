"""The twelve scenes that objects stand in: sky or wall above, ground below, things in between.

Each scene is a function of a canvas and a random state. Sky and wall pixels carry the scene's
name alone; grounds also carry their material; sun, moon, stars and clouds carry themselves.
"""

import numpy as np

from wwwlib.world.canvas import FINE, SIZE, shape_mask
from wwwlib.world.surfaces import pattern

_Y, _X = np.mgrid[0:FINE, 0:FINE]
_GROUNDS = {
    "asphalt": ((96, 98, 104), (112, 114, 120), "speckled"),
    "grass": ((92, 168, 68), (68, 138, 50), "speckled"),
    "sand": ((230, 206, 142), (212, 184, 118), "speckled"),
    "snow": ((242, 246, 252), (218, 228, 242), "stone"),
    "water": ((52, 124, 190), (104, 172, 220), "wood"),
}


def _blend(top, bottom, amount):
    top, bottom = np.array(top, float), np.array(bottom, float)
    return (top + (bottom - top) * amount[..., None]).astype(np.uint8)


def _sky(canvas, name, top, bottom):
    everywhere = np.ones((FINE, FINE), bool)
    canvas.paint(everywhere, _blend(top, bottom, _Y / FINE), {name})


def _ground(canvas, rng, name, material, horizon):
    light, dark, texture = _GROUNDS[material]
    tile = np.roll(pattern(texture), rng.randint(0, FINE, 2), (0, 1))
    canvas.paint(2 * horizon <= _Y, _blend(light, dark, tile), {name, material})


def _disc(canvas, name, thing, colour, x, y, radius):
    box = (x - radius, y - radius, 2 * radius)
    canvas.paint(shape_mask("ellipse", ((0, 0), (1, 1)), box), colour, {name, thing})


def _cloud(canvas, rng, name):
    if rng.random_sample() < 0.6:
        left, top = rng.randint(0, SIZE - 20), rng.randint(2, 12)
        for x, y, w, h in ((0, 0.3, 0.6, 0.6), (0.3, 0.1, 0.9, 0.6), (0.5, 0.3, 1.0, 0.6)):
            canvas.paint(
                shape_mask("ellipse", ((x, y), (w, h)), (left, top, 18)),
                (250, 250, 252),
                {name, "cloud"},
            )


def _beach(canvas, rng):
    horizon = rng.randint(24, 32)
    _sky(canvas, "beach", (112, 190, 240), (214, 238, 250))
    if rng.random_sample() < 0.6:
        _disc(canvas, "beach", "sun", (255, 226, 92), rng.randint(8, 56), 9, 5)
    _ground(canvas, rng, "beach", "water", horizon)
    _ground(canvas, rng, "beach", "sand", horizon + rng.randint(8, 14))


def _city(canvas, rng):
    _sky(canvas, "city", (170, 190, 210), (222, 226, 228))
    _cloud(canvas, rng, "city")
    horizon, left = rng.randint(46, 52), 0
    while left < SIZE:
        width, height = rng.randint(8, 15), rng.randint(12, 36)
        grey = int(rng.randint(112, 176))
        where = (2 * left <= _X) & (2 * (left + width) > _X) & (2 * (horizon - height) <= _Y)
        lit = ((_X - 2 * left) % 8 < 3) & (_Y % 10 < 4)
        fill = np.where(lit[..., None], (236, 226, 170), (grey, grey, grey + 10)).astype(np.uint8)
        canvas.paint(where, fill, {"city"})
        left += width
    _ground(canvas, rng, "city", "asphalt", horizon)


def _desert(canvas, rng):
    _sky(canvas, "desert", (246, 190, 120), (252, 224, 168))
    _disc(canvas, "desert", "sun", (255, 244, 190), rng.randint(8, 56), rng.randint(7, 14), 6)
    horizon, phase = rng.randint(32, 40), rng.random_sample() * 6
    dune = 2 * (horizon - 5) + 8 * np.sin(_X / 16 + phase)
    canvas.paint(dune <= _Y, (214, 150, 84), {"desert", "sand"})
    _ground(canvas, rng, "desert", "sand", horizon + 8)


def _forest(canvas, rng):
    _sky(canvas, "forest", (52, 92, 64), (84, 124, 78))
    for left in range(-6, SIZE, 9):
        top, shade = rng.randint(0, 18), rng.randint(-14, 14)
        for step in (0, 9, 18):
            spruce = ((0.5, 0.0), (1.0, 1.0), (0.0, 1.0))
            colour = (24 + shade // 2 + 14, 74 + shade, 44 + shade // 2)
            canvas.paint(shape_mask("polygon", spruce, (left, top + step, 18)), colour, {"forest"})
    _ground(canvas, rng, "forest", "grass", rng.randint(44, 50))


def _meadow(canvas, rng):
    _sky(canvas, "meadow", (126, 196, 246), (222, 242, 250))
    _cloud(canvas, rng, "meadow")
    if rng.random_sample() < 0.5:
        _disc(canvas, "meadow", "sun", (255, 226, 92), rng.randint(8, 56), 8, 5)
    _ground(canvas, rng, "meadow", "grass", rng.randint(26, 36))


def _mountain(canvas, rng):
    _sky(canvas, "mountain", (150, 186, 222), (226, 234, 242))
    _cloud(canvas, rng, "mountain")
    for left in (-14, 12, 34):
        left, top = left + rng.randint(-4, 5), rng.randint(4, 16)
        peak = ((0.5, 0.0), (1.0, 1.0), (0.0, 1.0))
        tip = ((0.5, 0.0), (0.68, 0.36), (0.5, 0.28), (0.32, 0.36))
        canvas.paint(shape_mask("polygon", peak, (left, top, 46)), (112, 112, 128), {"mountain"})
        canvas.paint(
            shape_mask("polygon", tip, (left, top, 46)), (246, 250, 254), {"mountain", "snow"}
        )
    _ground(canvas, rng, "mountain", "snow", rng.randint(42, 50))


def _night(canvas, rng):
    _sky(canvas, "night", (10, 14, 42), (34, 42, 84))
    for _ in range(rng.randint(4, 10)):
        _disc(canvas, "night", "star", (250, 246, 214), *rng.randint(3, (61, 34)), 1.2)
    if rng.random_sample() < 0.7:
        _disc(canvas, "night", "moon", (240, 238, 214), rng.randint(8, 56), rng.randint(8, 16), 6)
    horizon = rng.randint(42, 50)
    canvas.paint(2 * horizon <= _Y, (24, 44, 40), {"night", "grass"})


def _reef(canvas, rng):
    _sky(canvas, "reef", (36, 134, 186), (12, 62, 116))
    canvas.paint(np.ones((FINE, FINE), bool), canvas.pixels.copy(), {"reef", "water"})
    for _ in range(5):
        left, top = rng.randint(0, SIZE - 8), rng.randint(26, 44)
        weed = ((0.4, 0.0), (0.7, 0.5), (0.6, 1.0), (0.4, 1.0), (0.2, 0.5))
        canvas.paint(shape_mask("polygon", weed, (left, top, 26)), (206, 74, 108), {"reef"})
    for _ in range(rng.randint(3, 8)):
        x, y = rng.randint(4, 60, 2)
        where = shape_mask("ellipse", ((0, 0), (1, 1)), (x, y, 3))
        canvas.paint(where, (170, 220, 240), {"reef", "water"})
    _ground(canvas, rng, "reef", "sand", rng.randint(52, 58))


def _road(canvas, rng):
    horizon = rng.randint(24, 30)
    _sky(canvas, "road", (158, 206, 236), (224, 238, 244))
    _cloud(canvas, rng, "road")
    _ground(canvas, rng, "road", "grass", horizon)
    _ground(canvas, rng, "road", "asphalt", horizon + 8)
    dashes = (abs(_Y - 2 * (horizon + 22)) < 3) & ((_X + rng.randint(0, 24)) % 24 < 14)
    canvas.paint(dashes, (248, 244, 226), {"road"})


def _room(canvas, rng):
    wall = np.array([(232, 214, 190), (206, 222, 214), (224, 206, 222)][rng.randint(3)])
    _sky(canvas, "room", wall, wall)
    canvas.paint((_X + rng.randint(0, 14)) % 14 < 3, (wall * 0.88).astype(np.uint8), {"room"})
    floor = _blend((172, 122, 74), (142, 96, 54), ((_X // 2 + 9 * (_Y // 10)) % 18 < 1) * 1.0)
    horizon = rng.randint(42, 50)
    canvas.paint(2 * horizon <= _Y, floor, {"room", "wood"})
    canvas.paint((2 * horizon <= _Y) & (2 * horizon + 4 > _Y), (250, 246, 238), {"room"})


def _sea(canvas, rng):
    _sky(canvas, "sea", (120, 186, 236), (216, 234, 246))
    _cloud(canvas, rng, "sea")
    _ground(canvas, rng, "sea", "water", rng.randint(24, 34))


def _sunset(canvas, rng):
    _sky(canvas, "sunset", (92, 52, 120), (252, 150, 70))
    _disc(canvas, "sunset", "sun", (255, 200, 74), rng.randint(12, 52), 42, 9)
    canvas.paint(2 * rng.randint(43, 49) <= _Y, (58, 34, 60), {"sunset"})


PAINTERS = {
    "beach": _beach,
    "city": _city,
    "desert": _desert,
    "forest": _forest,
    "meadow": _meadow,
    "mountain": _mountain,
    "night": _night,
    "reef": _reef,
    "road": _road,
    "room": _room,
    "sea": _sea,
    "sunset": _sunset,
}


def paint_scene(canvas, scene, rng):
    """Fill the canvas with a scene; `rng` decides horizons, clouds and the like."""
    PAINTERS[scene](canvas, rng)
