"""The words of the concept world: what can be drawn, and what never is.

Every drawn word belongs to one of Broden's six categories (object, part, colour, texture,
material, scene), so that a neuron's name can be right or wrong *and* of the right kind.
`UNSEEN` holds ordinary WordNet nouns that no image or caption of the world contains: a method
that names a neuron with one of them is wrong whatever the neuron does.
"""

from pathlib import Path

_HERE = Path(__file__).resolve().parent
# The weights: inside an installed wheel, or in the checkout.
DATA = _HERE / "data" if (_HERE / "data").is_dir() else _HERE.parents[1] / "data" / "world"

# The scene that a biased network's training images tie each class to, two classes a scene.
HOME = {
    "boat": "sea",
    "ship": "sea",
    "fish": "reef",
    "turtle": "reef",
    "umbrella": "beach",
    "lighthouse": "beach",
    "windmill": "meadow",
    "rabbit": "meadow",
    "castle": "desert",
    "rocket": "desert",
    "mushroom": "forest",
    "bird": "forest",
    "church": "night",
    "cat": "night",
    "bus": "city",
    "house": "city",
    "airplane": "sunset",
    "train": "sunset",
    "tree": "mountain",
    "snail": "mountain",
    "car": "road",
    "bicycle": "road",
    "flower": "room",
    "butterfly": "room",
}
CLASSES = tuple(sorted(HOME))
SCENES = tuple(sorted(set(HOME.values())))

# Captions use these now and then, so each is as true a name of its class as the class's own.
_SYNONYMS = {
    "airplane": "aeroplane",
    "bicycle": "bike",
    "boat": "sailboat",
    "car": "automobile",
    "rabbit": "bunny",
    "rocket": "spaceship",
    "ship": "steamer",
    "train": "locomotive",
}
SYNONYMS = {name: (name, _SYNONYMS[name]) if name in _SYNONYMS else (name,) for name in CLASSES}

COLOURS = {
    "red": (206, 38, 38),
    "orange": (240, 134, 28),
    "yellow": (240, 216, 56),
    "green": (44, 156, 60),
    "turquoise": (48, 196, 188),
    "blue": (40, 82, 204),
    "purple": (130, 54, 176),
    "pink": (240, 138, 184),
    "brown": (124, 78, 40),
    "grey": (134, 134, 138),
    "white": (244, 244, 242),
    "black": (30, 30, 34),
}
TEXTURES = ("checkered", "dotted", "gridded", "speckled", "striped", "zigzagged")
MATERIALS = ("brick", "glass", "metal", "stone", "wood", "wool")
GROUNDS = ("asphalt", "grass", "sand", "snow", "water")
THINGS = ("ball", "balloon", "box", "bush", "cloud", "moon", "rock", "star", "sun")
PARTS = (
    "antenna", "beak", "cap", "chimney", "cross", "door", "ear", "eye", "fin", "flag",
    "handle", "head", "lamp", "hull", "leaf", "leg", "mast", "petal", "roof", "saddle",
    "sail", "shell", "stem", "tail", "tower", "trunk", "wheel", "window", "wing",
)  # fmt: skip

CATEGORIES = {
    "object": (*CLASSES, *THINGS),
    "part": PARTS,
    "colour": tuple(COLOURS),
    "texture": TEXTURES,
    "material": (*MATERIALS, *GROUNDS),
    "scene": SCENES,
}

UNSEEN = tuple((_HERE / "unseen_nouns.txt").read_text().split())
SEEN = tuple(
    sorted({word for words in CATEGORIES.values() for word in words} | set(_SYNONYMS.values()))
)
VOCABULARY = (*SEEN, *UNSEEN)
