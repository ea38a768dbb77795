"""How each class of the concept world is built from parts.

A class is a list of strokes, painted in order, whose coordinates lie in the unit square of a box
as large as the object, x to the right and y down. A stroke with chance below 1 is missing from
some images, so that no part is equivalent to the class itself. Parts are shared between classes
on purpose: a part of one class only could not be distinguished from that class.
"""

from typing import NamedTuple

PAINTS = {
    "dark": (44, 44, 52),
    "light": (250, 246, 226),
    "pane": (176, 222, 246),
    "timber": (112, 70, 38),
    "leafy": (58, 132, 44),
    "glow": (255, 236, 130),
    "rose": (226, 110, 136),
    "stony": (120, 118, 116),
}


class Stroke(NamedTuple):
    """Outlines of one paint that belong to one part.

    Attributes
    ----------
    part : str or None
        The concept that the pixels carry besides the class; None for the class alone.
    outlines : tuple of (kind, points)
        Kind is "polygon" or "ellipse", the latter given by two corners of its bounding box.
    paint : str
        "body" for the object's own colour and finish, or one of `PAINTS`.
    chance : float in [0, 1]
        Share of images that show the part.
    """

    part: str | None
    outlines: tuple
    paint: str
    chance: float


def _stroke(part, *outlines, paint="body", chance=1.0):
    return Stroke(part, outlines, paint, chance)


def _rect(left, top, right, bottom):
    return "polygon", ((left, top), (right, top), (right, bottom), (left, bottom))


def _oval(left, top, right, bottom):
    return "ellipse", ((left, top), (right, bottom))


def _circle(x, y, radius):
    return _oval(x - radius, y - radius, x + radius, y + radius)


def _poly(*points):
    return "polygon", points


def _wheels(y, radius, *centres):
    tyres = [_circle(x, y, radius) for x in centres]
    hubs = [_circle(x, y, radius / 2) for x in centres]
    return [_stroke("wheel", *tyres, paint="dark"), _stroke("wheel", *hubs, paint="light")]


def _windows(*boxes):
    return _stroke("window", *(_rect(*box) for box in boxes), paint="pane", chance=0.85)


def _door(left, top, right, bottom):
    return _stroke("door", _rect(left, top, right, bottom), paint="timber", chance=0.85)


def _eyes(*centres, radius=0.05):
    return _stroke("eye", *(_circle(x, y, radius) for x, y in centres), paint="dark", chance=0.9)


def _flag(x, y):
    triangle = _poly((x, y), (x + 0.24, y + 0.08), (x, y + 0.16))
    return _stroke("flag", triangle, paint="rose", chance=0.6)


SHAPES = {
    "airplane": [
        _stroke("tail", _poly((0.0, 0.18), (0.14, 0.18), (0.28, 0.5), (0.06, 0.5))),
        _stroke(None, _oval(0.0, 0.4, 1.0, 0.66)),
        _stroke("wing", _poly((0.4, 0.52), (0.62, 0.52), (0.36, 0.98), (0.2, 0.98)),
                _poly((0.44, 0.44), (0.6, 0.44), (0.42, 0.12), (0.3, 0.12))),
        _windows((0.72, 0.44, 0.86, 0.53), (0.54, 0.44, 0.62, 0.53), (0.36, 0.44, 0.44, 0.53)),
    ],
    "bicycle": [
        *_wheels(0.7, 0.22, 0.22, 0.78),
        _stroke(None, _poly((0.2, 0.66), (0.36, 0.36), (0.44, 0.36), (0.28, 0.72)),
                _poly((0.36, 0.36), (0.7, 0.34), (0.72, 0.42), (0.38, 0.46)),
                _poly((0.44, 0.68), (0.66, 0.36), (0.74, 0.4), (0.52, 0.74)),
                _poly((0.66, 0.26), (0.74, 0.24), (0.84, 0.7), (0.75, 0.72))),
        _stroke("handle", _rect(0.58, 0.16, 0.88, 0.25), paint="dark", chance=0.85),
        _stroke("saddle", _rect(0.24, 0.26, 0.5, 0.36), paint="dark", chance=0.85),
    ],
    "bird": [
        _stroke("leg", _rect(0.42, 0.74, 0.48, 0.98), _rect(0.54, 0.74, 0.6, 0.98),
                paint="dark", chance=0.9),
        _stroke("tail", _poly((0.0, 0.36), (0.28, 0.46), (0.24, 0.66), (0.02, 0.6))),
        _stroke(None, _oval(0.18, 0.36, 0.78, 0.8)),
        _stroke("head", _oval(0.6, 0.14, 0.92, 0.48)),
        _stroke("beak", _poly((0.88, 0.24), (1.0, 0.33), (0.88, 0.4)), paint="glow", chance=0.9),
        _stroke("wing", _poly((0.26, 0.46), (0.62, 0.5), (0.34, 0.74)), paint="light", chance=0.9),
        _eyes((0.78, 0.28)),
    ],
    "boat": [
        _stroke("mast", _rect(0.47, 0.02, 0.54, 0.72), paint="timber"),
        _stroke("sail", _poly((0.56, 0.06), (0.94, 0.6), (0.56, 0.6)),
                _poly((0.44, 0.16), (0.44, 0.6), (0.12, 0.6)), paint="light", chance=0.9),
        _flag(0.54, 0.0),
        _stroke("hull", _poly((0.02, 0.66), (0.98, 0.66), (0.8, 0.98), (0.2, 0.98))),
    ],
    "bus": [
        _stroke(None, _rect(0.0, 0.2, 1.0, 0.8)),
        _windows((0.06, 0.28, 0.24, 0.5), (0.29, 0.28, 0.47, 0.5), (0.52, 0.28, 0.7, 0.5)),
        _door(0.77, 0.3, 0.93, 0.78),
        *_wheels(0.82, 0.14, 0.24, 0.66),
        _stroke("lamp", _oval(0.93, 0.6, 1.0, 0.72), paint="glow", chance=0.8),
    ],
    "butterfly": [
        _stroke("wing", _oval(0.0, 0.14, 0.46, 0.62), _oval(0.54, 0.14, 1.0, 0.62),
                _oval(0.1, 0.5, 0.46, 0.94), _oval(0.54, 0.5, 0.9, 0.94)),
        _stroke(None, _oval(0.44, 0.2, 0.56, 0.92), paint="dark"),
        _stroke("antenna", _poly((0.46, 0.24), (0.28, 0.0), (0.34, 0.0), (0.5, 0.22)),
                _poly((0.54, 0.24), (0.72, 0.0), (0.66, 0.0), (0.5, 0.22)),
                paint="dark", chance=0.9),
    ],
    "car": [
        _stroke(None, _poly((0.2, 0.5), (0.34, 0.26), (0.68, 0.26), (0.84, 0.5)),
                _rect(0.0, 0.46, 1.0, 0.74)),
        _windows((0.32, 0.32, 0.49, 0.47), (0.54, 0.32, 0.7, 0.47)),
        *_wheels(0.74, 0.15, 0.24, 0.76),
        _stroke("lamp", _oval(0.9, 0.5, 1.0, 0.62), paint="glow", chance=0.8),
    ],
    "castle": [
        _stroke("tower", _rect(0.0, 0.26, 0.28, 0.98), _rect(0.72, 0.26, 1.0, 0.98),
                *(_rect(x, 0.16, x + 0.08, 0.28) for x in (0.0, 0.2, 0.72, 0.92))),
        _stroke(None, _rect(0.26, 0.5, 0.74, 0.98),
                *(_rect(x, 0.4, x + 0.1, 0.52) for x in (0.3, 0.45, 0.6))),
        _door(0.4, 0.66, 0.6, 0.98),
        _windows((0.09, 0.4, 0.19, 0.56), (0.81, 0.4, 0.91, 0.56)),
        _flag(0.12, 0.0),
    ],
    "cat": [
        _stroke("tail", _poly((0.02, 0.2), (0.12, 0.2), (0.24, 0.62), (0.12, 0.66))),
        _stroke("leg", _rect(0.18, 0.7, 0.28, 0.98), _rect(0.56, 0.7, 0.66, 0.98)),
        _stroke(None, _oval(0.12, 0.44, 0.74, 0.82)),
        _stroke("ear", _poly((0.54, 0.1), (0.7, 0.26), (0.54, 0.36)),
                _poly((0.98, 0.1), (0.98, 0.36), (0.82, 0.26))),
        _stroke("head", _oval(0.52, 0.2, 1.0, 0.62)),
        _eyes((0.67, 0.38), (0.86, 0.38)),
    ],
    "church": [
        _stroke("tower", _rect(0.04, 0.36, 0.34, 0.98)),
        _stroke("roof", _poly((0.0, 0.38), (0.19, 0.14), (0.38, 0.38)), paint="rose"),
        _stroke("cross", _rect(0.17, 0.0, 0.22, 0.18), _rect(0.11, 0.04, 0.28, 0.09),
                paint="glow", chance=0.85),
        _stroke(None, _rect(0.34, 0.62, 0.98, 0.98)),
        _stroke("roof", _poly((0.3, 0.64), (0.42, 0.42), (0.9, 0.42), (1.0, 0.64)), paint="rose"),
        _door(0.56, 0.74, 0.74, 0.98),
        _windows((0.14, 0.48, 0.25, 0.64)),
    ],
    "fish": [
        _stroke("tail", _poly((0.0, 0.26), (0.26, 0.5), (0.0, 0.76))),
        _stroke("fin", _poly((0.42, 0.32), (0.66, 0.1), (0.74, 0.34)),
                _poly((0.46, 0.68), (0.56, 0.9), (0.68, 0.68)), paint="rose", chance=0.9),
        _stroke(None, _oval(0.18, 0.26, 1.0, 0.76)),
        _eyes((0.82, 0.44), radius=0.06),
    ],
    "flower": [
        _stroke("stem", _rect(0.46, 0.46, 0.54, 0.98), paint="leafy"),
        _stroke("leaf", _oval(0.54, 0.66, 0.84, 0.82), _oval(0.16, 0.74, 0.46, 0.9),
                paint="leafy", chance=0.9),
        _stroke("petal", _circle(0.5, 0.15, 0.15), _circle(0.71, 0.3, 0.15),
                _circle(0.63, 0.54, 0.15), _circle(0.37, 0.54, 0.15), _circle(0.29, 0.3, 0.15)),
        _stroke(None, _oval(0.38, 0.24, 0.62, 0.48), paint="glow"),
    ],
    "house": [
        _stroke("chimney", _rect(0.7, 0.08, 0.84, 0.4), paint="dark", chance=0.7),
        _stroke(None, _rect(0.1, 0.46, 0.9, 0.98)),
        _stroke("roof", _poly((0.0, 0.48), (0.5, 0.04), (1.0, 0.48)), paint="rose"),
        _door(0.42, 0.64, 0.6, 0.98),
        _windows((0.18, 0.58, 0.34, 0.74), (0.68, 0.58, 0.84, 0.74)),
    ],
    "lighthouse": [
        _stroke("tower", _poly((0.36, 0.3), (0.64, 0.3), (0.74, 0.98), (0.26, 0.98))),
        _stroke("lamp", _rect(0.36, 0.14, 0.64, 0.3), paint="glow"),
        _stroke("roof", _poly((0.3, 0.15), (0.5, 0.0), (0.7, 0.15)), paint="rose"),
        _door(0.43, 0.8, 0.57, 0.98),
        _windows((0.45, 0.42, 0.56, 0.54)),
    ],
    "mushroom": [
        _stroke("stem", _poly((0.38, 0.46), (0.62, 0.46), (0.68, 0.98), (0.32, 0.98)),
                paint="light"),
        _stroke("cap", _poly((0.02, 0.54), (0.1, 0.28), (0.32, 0.08), (0.68, 0.08), (0.9, 0.28),
                             (0.98, 0.54))),
    ],
    "rabbit": [
        _stroke("ear", _oval(0.52, 0.0, 0.66, 0.4), _oval(0.72, 0.0, 0.86, 0.4)),
        _stroke("tail", _oval(0.02, 0.54, 0.22, 0.74), paint="light", chance=0.9),
        _stroke(None, _oval(0.12, 0.46, 0.72, 0.92)),
        _stroke("head", _oval(0.48, 0.28, 0.94, 0.66)),
        _stroke("leg", _oval(0.22, 0.82, 0.5, 0.98), _oval(0.54, 0.82, 0.8, 0.98)),
        _eyes((0.76, 0.42)),
    ],
    "rocket": [
        _stroke("fin", _poly((0.34, 0.6), (0.34, 0.9), (0.1, 0.98)),
                _poly((0.66, 0.6), (0.66, 0.9), (0.9, 0.98)), paint="rose"),
        _stroke(None, _poly((0.34, 0.88), (0.32, 0.34), (0.5, 0.0), (0.68, 0.34), (0.66, 0.88))),
        _stroke("window", _oval(0.41, 0.34, 0.59, 0.52), paint="pane", chance=0.85),
    ],
    "ship": [
        _stroke("chimney", _rect(0.3, 0.1, 0.42, 0.44), _rect(0.52, 0.1, 0.64, 0.44),
                paint="dark", chance=0.9),
        _stroke(None, _rect(0.18, 0.4, 0.82, 0.62), paint="light"),
        _windows((0.26, 0.45, 0.36, 0.55), (0.45, 0.45, 0.55, 0.55), (0.64, 0.45, 0.74, 0.55)),
        _stroke("mast", _rect(0.86, 0.16, 0.91, 0.62), paint="timber", chance=0.7),
        _stroke("hull", _poly((0.0, 0.6), (1.0, 0.6), (0.88, 0.94), (0.12, 0.94))),
    ],
    "snail": [
        _stroke("antenna", _poly((0.84, 0.62), (0.8, 0.34), (0.85, 0.34), (0.9, 0.62)),
                _poly((0.9, 0.62), (0.95, 0.34), (1.0, 0.34), (0.95, 0.62)),
                paint="dark", chance=0.9),
        _stroke("head", _oval(0.76, 0.56, 1.0, 0.86), paint="light"),
        _stroke("tail", _poly((0.0, 0.94), (0.3, 0.78), (0.9, 0.78), (0.9, 0.94)), paint="light"),
        _stroke("shell", _oval(0.16, 0.2, 0.8, 0.86)),
        _stroke("shell", _oval(0.34, 0.38, 0.62, 0.68), paint="timber"),
        _eyes((0.9, 0.68), radius=0.04),
    ],
    "train": [
        _stroke("chimney", _rect(0.66, 0.06, 0.8, 0.44), paint="dark", chance=0.9),
        _stroke(None, _rect(0.04, 0.14, 0.42, 0.76)),
        _stroke("roof", _rect(0.0, 0.1, 0.46, 0.19), paint="rose", chance=0.9),
        _stroke(None, _rect(0.42, 0.4, 0.92, 0.76)),
        _windows((0.13, 0.26, 0.33, 0.46)),
        _stroke("lamp", _oval(0.88, 0.44, 1.0, 0.58), paint="glow", chance=0.8),
        *_wheels(0.82, 0.14, 0.18, 0.5, 0.8),
    ],
    "tree": [
        _stroke("trunk", _rect(0.42, 0.56, 0.58, 0.98), paint="timber"),
        _stroke(None, _oval(0.04, 0.22, 0.56, 0.7), _oval(0.44, 0.22, 0.96, 0.7),
                _oval(0.2, 0.0, 0.8, 0.56)),
        _stroke("leaf", _oval(0.26, 0.2, 0.4, 0.3), _oval(0.56, 0.34, 0.7, 0.44),
                _oval(0.34, 0.46, 0.48, 0.56), paint="leafy", chance=0.9),
    ],
    "turtle": [
        _stroke("leg", _oval(0.14, 0.64, 0.34, 0.96), _oval(0.52, 0.64, 0.72, 0.96),
                paint="leafy"),
        _stroke("tail", _poly((0.0, 0.74), (0.16, 0.6), (0.18, 0.76)), paint="leafy"),
        _stroke("head", _oval(0.74, 0.36, 1.0, 0.64), paint="leafy"),
        _stroke("shell", _poly((0.06, 0.74), (0.14, 0.44), (0.34, 0.24), (0.54, 0.24), (0.74, 0.44),
                               (0.82, 0.74))),
        _eyes((0.9, 0.46), radius=0.04),
    ],
    "umbrella": [
        _stroke("handle", _rect(0.47, 0.4, 0.54, 0.94), paint="timber"),
        _stroke("handle", _poly((0.47, 0.86), (0.66, 0.86), (0.7, 0.74), (0.76, 0.76), (0.7, 0.96),
                                (0.47, 0.96)), paint="timber", chance=0.9),
        _stroke("cap", _poly((0.0, 0.5), (0.1, 0.24), (0.32, 0.08), (0.68, 0.08), (0.9, 0.24),
                             (1.0, 0.5), (0.83, 0.42), (0.67, 0.5), (0.5, 0.42), (0.33, 0.5),
                             (0.17, 0.42))),
    ],
    "windmill": [
        _stroke("tower", _poly((0.36, 0.36), (0.64, 0.36), (0.74, 0.98), (0.26, 0.98))),
        _stroke("roof", _poly((0.32, 0.38), (0.5, 0.2), (0.68, 0.38)), paint="rose"),
        _door(0.42, 0.76, 0.58, 0.98),
        _windows((0.44, 0.54, 0.56, 0.66)),
        _stroke("sail", _poly((0.48, 0.36), (0.02, 0.1), (0.12, 0.0), (0.52, 0.3)),
                _poly((0.5, 0.3), (0.88, 0.0), (0.98, 0.1), (0.54, 0.36)),
                _poly((0.52, 0.32), (0.98, 0.6), (0.9, 0.7), (0.48, 0.38)),
                _poly((0.48, 0.32), (0.02, 0.6), (0.1, 0.7), (0.52, 0.38)), paint="light"),
    ],
}  # fmt: skip

# Distractors: small objects that are never the class of an image.
THING_SHAPES = {
    "ball": [_stroke("ball", _oval(0.1, 0.1, 0.9, 0.9))],
    "balloon": [
        _stroke("balloon", _poly((0.46, 0.66), (0.54, 0.66), (0.58, 1.0), (0.42, 1.0)),
                paint="dark"),
        _stroke("balloon", _oval(0.16, 0.0, 0.84, 0.72)),
    ],
    "box": [
        _stroke("box", _rect(0.06, 0.2, 0.94, 0.96)),
        _stroke("box", _rect(0.0, 0.08, 1.0, 0.28), paint="dark"),
    ],
    "bush": [
        _stroke("bush", _oval(0.0, 0.34, 0.6, 0.98), _oval(0.4, 0.34, 1.0, 0.98),
                _oval(0.2, 0.06, 0.8, 0.8), paint="leafy"),
    ],
    "rock": [
        _stroke("rock", _poly((0.0, 0.94), (0.12, 0.46), (0.4, 0.2), (0.74, 0.3), (1.0, 0.94)),
                paint="stony"),
    ],
}  # fmt: skip
