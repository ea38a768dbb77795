"""What things are made of: colours under textures and materials.

A texture is a pattern between the colour and a lighter or darker partner; a material also pulls
the colour towards its own (a wooden blue boat is a brownish blue). Patterns are small fixed tiles
that start at a random place, so no two objects show the same pixels.
"""

from functools import cache

import numpy as np

from wwwlib.world.canvas import FINE
from wwwlib.world.vocabulary import COLOURS, MATERIALS, TEXTURES

FINISHES = ("plain", *TEXTURES, *MATERIALS)
_Y, _X = np.mgrid[0:FINE, 0:FINE]
_TINTS = {
    "brick": ((178, 84, 58), 0.45),
    "glass": ((206, 234, 246), 0.55),
    "metal": ((176, 184, 196), 0.5),
    "stone": ((142, 138, 130), 0.5),
    "wood": ((150, 100, 52), 0.5),
    "wool": ((236, 228, 214), 0.3),
}


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
_STRENGTH = {"metal": 0.6, "stone": 0.5, "wood": 0.4, "wool": 0.4, "glass": 0.8}


@cache
def pattern(finish):
    """Return the FINE x FINE tile in [0, 1] of a finish."""
    return _PATTERNS[finish]()


def _partner(colour):
    """Return the colour a pattern alternates with: lighter for dark colours, darker for light."""
    bright = colour.mean() > 140
    return colour * 0.45 if bright else colour + (255 - colour) * 0.62


def surface(colour, finish, shift=(0, 0), light=1.0):
    """Return FINE x FINE x 3 pixels of a coloured finish.

    Parameters
    ----------
    colour : str or (int, int, int)
        A word of `COLOURS`, or the RGB value itself.
    finish : str
        "plain", a texture or a material.
    shift : (int, int)
        Where the tile starts, in fine pixels.
    light : float
        Brightness of the whole, 1 for daylight.
    """
    base = np.array(COLOURS.get(colour, colour), float)
    if finish in _TINTS:
        tint, share = _TINTS[finish]
        base = base * (1 - share) + np.array(tint) * share
    amount = np.roll(pattern(finish), shift, (0, 1))[..., None] * _STRENGTH.get(finish, 1.0)
    pixels = base * (1 - amount) + _partner(base) * amount
    return np.clip(pixels * light, 0, 255).astype(np.uint8)
