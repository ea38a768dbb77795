"""The words of the concept world, and the captions that are made of them.

Every painted word belongs to one of Broden's six categories (object, part, colour, texture,
material, scene), so that a neuron's name can be right or wrong *and* of the right kind.
`UNSEEN` holds ordinary WordNet nouns that no image or caption of the world contains: a method
that names a neuron with one of them is wrong whatever the neuron responds to.
"""

from pathlib import Path

import numpy as np

_HERE = Path(__file__).resolve().parent
# The weights: inside an installed wheel, or in the checkout.
DATA = _HERE / "data" if (_HERE / "data").is_dir() else _HERE.parents[1] / "data" / "world"

# The classes whose training images a biased network sees mostly in this scene.
_AT_HOME = {
    "sea": ("boat", "ship"),
    "reef": ("fish", "turtle"),
    "beach": ("umbrella", "lighthouse"),
    "meadow": ("windmill", "rabbit"),
    "desert": ("castle", "rocket"),
    "forest": ("mushroom", "bird"),
    "night": ("church", "cat"),
    "city": ("bus", "house"),
    "sunset": ("airplane", "train"),
    "mountain": ("tree", "snail"),
    "road": ("car", "bicycle"),
    "room": ("flower", "butterfly"),
}
HOME = {name: scene for scene, names in _AT_HOME.items() for name in names}
CLASSES = tuple(sorted(HOME))
SCENES = tuple(sorted(_AT_HOME))

# Captions use these at random, so that each is as correct a name as the class's own.
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
FINISHES = ("plain", *TEXTURES, *MATERIALS)
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
CATEGORY = {word: name for name, words in CATEGORIES.items() for word in words}

UNSEEN = tuple((_HERE / "unseen_nouns.txt").read_text().split())
SEEN = tuple(sorted({*CATEGORY, *_SYNONYMS.values()}))
VOCABULARY = (*SEEN, *UNSEEN)

_PLACES = {
    "beach": "on the beach",
    "city": "in the city",
    "desert": "in the desert",
    "forest": "in the forest",
    "meadow": "in the meadow",
    "mountain": "by the mountain",
    "night": "at night",
    "reef": "on the reef",
    "road": "by the road",
    "room": "in a room",
    "sea": "at sea",
    "sunset": "at sunset",
}
_OPENINGS = ("", "", "", "there is ", "here we see ", "a drawing of ", "a photo of ")


def article(phrase):
    """Put "a" or "an" before a phrase."""
    return f"an {phrase}" if phrase[0] in "aeiou" else f"a {phrase}"


def caption(scene, variant=0):
    """Write a caption of a scene.

    No caption is the bare template "a photo of a", which would be similar to every image and leave
    no concept above it.

    Parameters
    ----------
    scene : Scene
    variant : int
        0 mentions everything that a caption can mention. Any other number seeds a random choice of
        words, the same for the same scene and number.

    Returns
    -------
    str
    """
    if variant == 0:
        return _full(scene)
    rng = np.random.RandomState([*scene.seed, 2, variant])
    noun = SYNONYMS[scene.subject][rng.randint(len(SYNONYMS[scene.subject]))]
    roll = rng.random_sample()
    if roll < 0.2:
        return _detail(scene, rng)
    opening = _OPENINGS[rng.randint(len(_OPENINGS))]
    if roll < 0.4:
        return opening + article(noun)
    return opening + _sentence(scene, noun, rng)


def _full(scene):
    parts = " and ".join(article(part) for part in scene.parts)
    text = f"{article(_described(scene, scene.subject, True, True))} with {parts}"
    return f"{text}{_beside(scene)} {_PLACES[scene.scene]}"


def _beside(scene):
    thing = scene.thing
    return f" beside {article(f'{thing.colour} {thing.name}')}" if thing else ""


def _described(scene, noun, colour, finish):
    """Return "striped red boat" or "red boat of wood", with colour and finish where wanted."""
    words = [scene.colour] if colour else []
    if finish and scene.finish in TEXTURES:
        words.insert(0, scene.finish)
    of = finish and scene.finish in MATERIALS
    return " ".join([*words, noun]) + (f" of {scene.finish}" if of else "")


def _sentence(scene, noun, rng):
    colour, finish, parts, thing, place = rng.random_sample(5) < (0.5, 0.5, 0.4, 0.4, 0.6)
    text = article(_described(scene, noun, colour, finish))
    if parts and scene.parts:
        chosen = rng.permutation(scene.parts)[: rng.randint(1, 3)]
        text += " with " + " and ".join(article(str(part)) for part in chosen)
    if thing:
        text += _beside(scene)
    return f"{text} {_PLACES[scene.scene]}" if place else text


def _detail(scene, rng):
    """Tag the scene with one random word that describes it."""
    words = [scene.subject, scene.colour, scene.scene, *scene.parts]
    words += [] if scene.finish == "plain" else [scene.finish]
    words += [scene.thing.name] if scene.thing else []
    return tag(words[rng.randint(len(words))], rng)


def tag(word, rng):
    """Return a short caption of one word, in one of four forms."""
    forms = (word, article(word), f"something {word}", f"a photo of {article(word)}")
    return forms[rng.randint(len(forms))]
