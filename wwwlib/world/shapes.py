"""How each class of the concept world is built from parts.

A class is a list of strokes, painted in order: `(part, shape, coordinates, paint, chance)`.
Coordinates lie in the unit square, x to the right and y down, in a box as large as the object.
`part` is the concept that the stroke's pixels carry besides the class itself (None: just the
class). `paint` is "body" (the object's own colour and finish) or one of the fixed paints below.
A stroke with chance below 1 is missing from some images, so that no part is the class itself.
Parts are shared between classes on purpose: a part found in one class only could not be told
from that class by anybody.
"""

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


def _rect(left, top, right, bottom):
    return "polygon", ((left, top), (right, top), (right, bottom), (left, bottom))


def _oval(left, top, right, bottom):
    return "ellipse", ((left, top), (right, bottom))


def _poly(*points):
    return "polygon", points


def _stroke(part, shape, paint="body", chance=1.0):
    return (part, *shape, paint, chance)


def _wheel(x, y, radius):
    return [
        _stroke("wheel", _oval(x - radius, y - radius, x + radius, y + radius), "dark"),
        _stroke("wheel", _oval(x - radius / 2, y - radius / 2, x + radius / 2, y + radius / 2),
                "light"),
    ]  # fmt: skip


def _window(left, top, right, bottom, chance=0.85):
    return _stroke("window", _rect(left, top, right, bottom), "pane", chance)


def _door(left, top, right, bottom, chance=0.85):
    return _stroke("door", _rect(left, top, right, bottom), "timber", chance)


def _eye(x, y, radius=0.05):
    return _stroke("eye", _oval(x - radius, y - radius, x + radius, y + radius), "dark", 0.9)


def _flag(x, y):
    return _stroke("flag", _poly((x, y), (x + 0.24, y + 0.08), (x, y + 0.16)), "rose", 0.6)


SHAPES = {
    "airplane": [
        _stroke("tail", _poly((0.0, 0.18), (0.14, 0.18), (0.28, 0.5), (0.06, 0.5))),
        _stroke(None, _oval(0.0, 0.4, 1.0, 0.66)),
        _stroke("wing", _poly((0.4, 0.52), (0.62, 0.52), (0.36, 0.98), (0.2, 0.98))),
        _stroke("wing", _poly((0.44, 0.44), (0.6, 0.44), (0.42, 0.12), (0.3, 0.12))),
        _window(0.72, 0.44, 0.86, 0.53),
        _window(0.54, 0.44, 0.62, 0.53),
        _window(0.36, 0.44, 0.44, 0.53),
    ],
    "bicycle": [
        *[stroke for x in (0.22, 0.78) for stroke in _wheel(x, 0.7, 0.22)],
        _stroke(None, _poly((0.2, 0.66), (0.36, 0.36), (0.44, 0.36), (0.28, 0.72))),
        _stroke(None, _poly((0.36, 0.36), (0.7, 0.34), (0.72, 0.42), (0.38, 0.46))),
        _stroke(None, _poly((0.44, 0.68), (0.66, 0.36), (0.74, 0.4), (0.52, 0.74))),
        _stroke(None, _poly((0.66, 0.26), (0.74, 0.24), (0.84, 0.7), (0.75, 0.72))),
        _stroke("handle", _rect(0.58, 0.16, 0.88, 0.25), "dark", 0.85),
        _stroke("saddle", _rect(0.24, 0.26, 0.5, 0.36), "dark", 0.85),
    ],
    "bird": [
        _stroke("leg", _rect(0.42, 0.74, 0.48, 0.98), "dark", 0.9),
        _stroke("leg", _rect(0.54, 0.74, 0.6, 0.98), "dark", 0.9),
        _stroke("tail", _poly((0.0, 0.36), (0.28, 0.46), (0.24, 0.66), (0.02, 0.6))),
        _stroke(None, _oval(0.18, 0.36, 0.78, 0.8)),
        _stroke("head", _oval(0.6, 0.14, 0.92, 0.48)),
        _stroke("beak", _poly((0.88, 0.24), (1.0, 0.33), (0.88, 0.4)), "glow", 0.9),
        _stroke("wing", _poly((0.26, 0.46), (0.62, 0.5), (0.34, 0.74)), "light", 0.9),
        _eye(0.78, 0.28),
    ],
    "boat": [
        _stroke("mast", _rect(0.47, 0.02, 0.54, 0.72), "timber"),
        _stroke("sail", _poly((0.56, 0.06), (0.94, 0.6), (0.56, 0.6)), "light", 0.9),
        _stroke("sail", _poly((0.44, 0.16), (0.44, 0.6), (0.12, 0.6)), "light", 0.9),
        _flag(0.54, 0.0),
        _stroke("hull", _poly((0.02, 0.66), (0.98, 0.66), (0.8, 0.98), (0.2, 0.98))),
    ],
    "bus": [
        _stroke(None, _rect(0.0, 0.2, 1.0, 0.8)),
        _window(0.06, 0.28, 0.24, 0.5),
        _window(0.29, 0.28, 0.47, 0.5),
        _window(0.52, 0.28, 0.7, 0.5),
        _door(0.77, 0.3, 0.93, 0.78),
        *[stroke for x in (0.24, 0.66) for stroke in _wheel(x, 0.82, 0.14)],
        _stroke("lamp", _oval(0.93, 0.6, 1.0, 0.72), "glow", 0.8),
    ],
    "butterfly": [
        _stroke("wing", _oval(0.0, 0.14, 0.46, 0.62)),
        _stroke("wing", _oval(0.54, 0.14, 1.0, 0.62)),
        _stroke("wing", _oval(0.1, 0.5, 0.46, 0.94)),
        _stroke("wing", _oval(0.54, 0.5, 0.9, 0.94)),
        _stroke(None, _oval(0.44, 0.2, 0.56, 0.92), "dark"),
        _stroke("antenna", _poly((0.46, 0.24), (0.28, 0.0), (0.34, 0.0), (0.5, 0.22)), "dark", 0.9),
        _stroke("antenna", _poly((0.54, 0.24), (0.72, 0.0), (0.66, 0.0), (0.5, 0.22)), "dark", 0.9),
    ],
    "car": [
        _stroke(None, _poly((0.2, 0.5), (0.34, 0.26), (0.68, 0.26), (0.84, 0.5))),
        _stroke(None, _rect(0.0, 0.46, 1.0, 0.74)),
        _window(0.32, 0.32, 0.49, 0.47),
        _window(0.54, 0.32, 0.7, 0.47),
        *[stroke for x in (0.24, 0.76) for stroke in _wheel(x, 0.74, 0.15)],
        _stroke("lamp", _oval(0.9, 0.5, 1.0, 0.62), "glow", 0.8),
    ],
    "castle": [
        _stroke("tower", _rect(0.0, 0.26, 0.28, 0.98)),
        _stroke("tower", _rect(0.72, 0.26, 1.0, 0.98)),
        *[_stroke("tower", _rect(x, 0.16, x + 0.08, 0.28)) for x in (0.0, 0.2, 0.72, 0.92)],
        _stroke(None, _rect(0.26, 0.5, 0.74, 0.98)),
        *[_stroke(None, _rect(x, 0.4, x + 0.1, 0.52)) for x in (0.3, 0.45, 0.6)],
        _door(0.4, 0.66, 0.6, 0.98),
        _window(0.09, 0.4, 0.19, 0.56),
        _window(0.81, 0.4, 0.91, 0.56),
        _flag(0.12, 0.0),
    ],
    "cat": [
        _stroke("tail", _poly((0.02, 0.2), (0.12, 0.2), (0.24, 0.62), (0.12, 0.66))),
        _stroke("leg", _rect(0.18, 0.7, 0.28, 0.98)),
        _stroke("leg", _rect(0.56, 0.7, 0.66, 0.98)),
        _stroke(None, _oval(0.12, 0.44, 0.74, 0.82)),
        _stroke("ear", _poly((0.54, 0.1), (0.7, 0.26), (0.54, 0.36))),
        _stroke("ear", _poly((0.98, 0.1), (0.98, 0.36), (0.82, 0.26))),
        _stroke("head", _oval(0.52, 0.2, 1.0, 0.62)),
        _eye(0.67, 0.38),
        _eye(0.86, 0.38),
    ],
    "church": [
        _stroke("tower", _rect(0.04, 0.36, 0.34, 0.98)),
        _stroke("roof", _poly((0.0, 0.38), (0.19, 0.14), (0.38, 0.38)), "rose"),
        _stroke("cross", _rect(0.17, 0.0, 0.22, 0.18), "glow", 0.85),
        _stroke("cross", _rect(0.11, 0.04, 0.28, 0.09), "glow", 0.85),
        _stroke(None, _rect(0.34, 0.62, 0.98, 0.98)),
        _stroke("roof", _poly((0.3, 0.64), (0.42, 0.42), (0.9, 0.42), (1.0, 0.64)), "rose"),
        _door(0.56, 0.74, 0.74, 0.98),
        _window(0.14, 0.48, 0.25, 0.64),
    ],
    "fish": [
        _stroke("tail", _poly((0.0, 0.26), (0.26, 0.5), (0.0, 0.76))),
        _stroke("fin", _poly((0.42, 0.32), (0.66, 0.1), (0.74, 0.34)), "rose", 0.9),
        _stroke("fin", _poly((0.46, 0.68), (0.56, 0.9), (0.68, 0.68)), "rose", 0.9),
        _stroke(None, _oval(0.18, 0.26, 1.0, 0.76)),
        _eye(0.82, 0.44, 0.06),
    ],
    "flower": [
        _stroke("stem", _rect(0.46, 0.46, 0.54, 0.98), "leafy"),
        _stroke("leaf", _oval(0.54, 0.66, 0.84, 0.82), "leafy", 0.9),
        _stroke("leaf", _oval(0.16, 0.74, 0.46, 0.9), "leafy", 0.9),
        *[
            _stroke("petal", _oval(x - 0.15, y - 0.15, x + 0.15, y + 0.15))
            for x, y in ((0.5, 0.15), (0.71, 0.3), (0.63, 0.54), (0.37, 0.54), (0.29, 0.3))
        ],
        _stroke(None, _oval(0.38, 0.24, 0.62, 0.48), "glow"),
    ],
    "house": [
        _stroke("chimney", _rect(0.7, 0.08, 0.84, 0.4), "dark", 0.7),
        _stroke(None, _rect(0.1, 0.46, 0.9, 0.98)),
        _stroke("roof", _poly((0.0, 0.48), (0.5, 0.04), (1.0, 0.48)), "rose"),
        _door(0.42, 0.64, 0.6, 0.98),
        _window(0.18, 0.58, 0.34, 0.74),
        _window(0.68, 0.58, 0.84, 0.74),
    ],
    "lighthouse": [
        _stroke("tower", _poly((0.36, 0.3), (0.64, 0.3), (0.74, 0.98), (0.26, 0.98))),
        _stroke("lamp", _rect(0.36, 0.14, 0.64, 0.3), "glow"),
        _stroke("roof", _poly((0.3, 0.15), (0.5, 0.0), (0.7, 0.15)), "rose"),
        _door(0.43, 0.8, 0.57, 0.98),
        _window(0.45, 0.42, 0.56, 0.54),
    ],
    "mushroom": [
        _stroke("stem", _poly((0.38, 0.46), (0.62, 0.46), (0.68, 0.98), (0.32, 0.98)), "light"),
        _stroke("cap", _poly((0.02, 0.54), (0.1, 0.28), (0.32, 0.08), (0.68, 0.08), (0.9, 0.28),
                             (0.98, 0.54))),
    ],
    "rabbit": [
        _stroke("ear", _oval(0.52, 0.0, 0.66, 0.4)),
        _stroke("ear", _oval(0.72, 0.0, 0.86, 0.4)),
        _stroke("tail", _oval(0.02, 0.54, 0.22, 0.74), "light", 0.9),
        _stroke(None, _oval(0.12, 0.46, 0.72, 0.92)),
        _stroke("head", _oval(0.48, 0.28, 0.94, 0.66)),
        _stroke("leg", _oval(0.22, 0.82, 0.5, 0.98)),
        _stroke("leg", _oval(0.54, 0.82, 0.8, 0.98)),
        _eye(0.76, 0.42),
    ],
    "rocket": [
        _stroke("fin", _poly((0.34, 0.6), (0.34, 0.9), (0.1, 0.98)), "rose"),
        _stroke("fin", _poly((0.66, 0.6), (0.66, 0.9), (0.9, 0.98)), "rose"),
        _stroke(None, _poly((0.34, 0.88), (0.32, 0.34), (0.5, 0.0), (0.68, 0.34), (0.66, 0.88))),
        _stroke("window", _oval(0.41, 0.34, 0.59, 0.52), "pane", 0.85),
    ],
    "ship": [
        _stroke("chimney", _rect(0.3, 0.1, 0.42, 0.44), "dark", 0.9),
        _stroke("chimney", _rect(0.52, 0.1, 0.64, 0.44), "dark", 0.9),
        _stroke(None, _rect(0.18, 0.4, 0.82, 0.62), "light"),
        _window(0.26, 0.45, 0.36, 0.55),
        _window(0.45, 0.45, 0.55, 0.55),
        _window(0.64, 0.45, 0.74, 0.55),
        _stroke("mast", _rect(0.86, 0.16, 0.91, 0.62), "timber", 0.7),
        _stroke("hull", _poly((0.0, 0.6), (1.0, 0.6), (0.88, 0.94), (0.12, 0.94))),
    ],
    "snail": [
        _stroke("antenna", _poly((0.84, 0.62), (0.8, 0.34), (0.85, 0.34), (0.9, 0.62)),
                "dark", 0.9),
        _stroke("antenna", _poly((0.9, 0.62), (0.95, 0.34), (1.0, 0.34), (0.95, 0.62)),
                "dark", 0.9),
        _stroke("head", _oval(0.76, 0.56, 1.0, 0.86), "light"),
        _stroke("tail", _poly((0.0, 0.94), (0.3, 0.78), (0.9, 0.78), (0.9, 0.94)), "light"),
        _stroke("shell", _oval(0.16, 0.2, 0.8, 0.86)),
        _stroke("shell", _oval(0.34, 0.38, 0.62, 0.68), "timber"),
        _eye(0.9, 0.68, 0.04),
    ],
    "train": [
        _stroke("chimney", _rect(0.66, 0.06, 0.8, 0.44), "dark", 0.9),
        _stroke(None, _rect(0.04, 0.14, 0.42, 0.76)),
        _stroke("roof", _rect(0.0, 0.1, 0.46, 0.19), "rose", 0.9),
        _stroke(None, _rect(0.42, 0.4, 0.92, 0.76)),
        _window(0.13, 0.26, 0.33, 0.46),
        _stroke("lamp", _oval(0.88, 0.44, 1.0, 0.58), "glow", 0.8),
        *[stroke for x in (0.18, 0.5, 0.8) for stroke in _wheel(x, 0.82, 0.14)],
    ],
    "tree": [
        _stroke("trunk", _rect(0.42, 0.56, 0.58, 0.98), "timber"),
        _stroke(None, _oval(0.04, 0.22, 0.56, 0.7)),
        _stroke(None, _oval(0.44, 0.22, 0.96, 0.7)),
        _stroke(None, _oval(0.2, 0.0, 0.8, 0.56)),
        _stroke("leaf", _oval(0.26, 0.2, 0.4, 0.3), "leafy", 0.9),
        _stroke("leaf", _oval(0.56, 0.34, 0.7, 0.44), "leafy", 0.9),
        _stroke("leaf", _oval(0.34, 0.46, 0.48, 0.56), "leafy", 0.9),
    ],
    "turtle": [
        _stroke("leg", _oval(0.14, 0.64, 0.34, 0.96), "leafy"),
        _stroke("leg", _oval(0.52, 0.64, 0.72, 0.96), "leafy"),
        _stroke("tail", _poly((0.0, 0.74), (0.16, 0.6), (0.18, 0.76)), "leafy"),
        _stroke("head", _oval(0.74, 0.36, 1.0, 0.64), "leafy"),
        _stroke("shell", _poly((0.06, 0.74), (0.14, 0.44), (0.34, 0.24), (0.54, 0.24), (0.74, 0.44),
                               (0.82, 0.74))),
        _eye(0.9, 0.46, 0.04),
    ],
    "umbrella": [
        _stroke("handle", _rect(0.47, 0.4, 0.54, 0.94), "timber"),
        _stroke("handle", _poly((0.47, 0.86), (0.66, 0.86), (0.7, 0.74), (0.76, 0.76), (0.7, 0.96),
                                (0.47, 0.96)), "timber", 0.9),
        _stroke("cap", _poly((0.0, 0.5), (0.1, 0.24), (0.32, 0.08), (0.68, 0.08), (0.9, 0.24),
                             (1.0, 0.5), (0.83, 0.42), (0.67, 0.5), (0.5, 0.42), (0.33, 0.5),
                             (0.17, 0.42))),
    ],
    "windmill": [
        _stroke("tower", _poly((0.36, 0.36), (0.64, 0.36), (0.74, 0.98), (0.26, 0.98))),
        _stroke("roof", _poly((0.32, 0.38), (0.5, 0.2), (0.68, 0.38)), "rose"),
        _door(0.42, 0.76, 0.58, 0.98),
        _window(0.44, 0.54, 0.56, 0.66),
        _stroke("sail", _poly((0.48, 0.36), (0.02, 0.1), (0.12, 0.0), (0.52, 0.3)), "light"),
        _stroke("sail", _poly((0.5, 0.3), (0.88, 0.0), (0.98, 0.1), (0.54, 0.36)), "light"),
        _stroke("sail", _poly((0.52, 0.32), (0.98, 0.6), (0.9, 0.7), (0.48, 0.38)), "light"),
        _stroke("sail", _poly((0.48, 0.32), (0.02, 0.6), (0.1, 0.7), (0.52, 0.38)), "light"),
    ],
}  # fmt: skip

# Distractors: small things that stand about and are never the class of an image.
THING_SHAPES = {
    "ball": [_stroke("ball", _oval(0.1, 0.1, 0.9, 0.9))],
    "balloon": [
        _stroke("balloon", _poly((0.46, 0.66), (0.54, 0.66), (0.58, 1.0), (0.42, 1.0)), "dark"),
        _stroke("balloon", _oval(0.16, 0.0, 0.84, 0.72)),
    ],
    "box": [
        _stroke("box", _rect(0.06, 0.2, 0.94, 0.96)),
        _stroke("box", _rect(0.0, 0.08, 1.0, 0.28), "dark"),
    ],
    "bush": [
        _stroke("bush", _oval(0.0, 0.34, 0.6, 0.98), "leafy"),
        _stroke("bush", _oval(0.4, 0.34, 1.0, 0.98), "leafy"),
        _stroke("bush", _oval(0.2, 0.06, 0.8, 0.8), "leafy"),
    ],
    "rock": [
        _stroke("rock", _poly((0.0, 0.94), (0.12, 0.46), (0.4, 0.2), (0.74, 0.3), (1.0, 0.94)),
                "stony"),
    ],
}  # fmt: skip
