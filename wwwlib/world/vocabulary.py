"""The words of the concept world, and the captions that are made of them.

Every painted word belongs to one of Broden's six categories (object, part, colour, texture,
material, scene), so that a neuron's name can be right or wrong *and* of the right kind.
`UNSEEN` holds ordinary WordNet nouns that no image or caption of the world contains: a method
that names a neuron with one of them is wrong whatever the neuron responds to.
"""

import tomllib
from pathlib import Path
from typing import Any

import numpy as np

_HERE = Path(__file__).resolve().parent
# The weights: inside an installed wheel, or in the checkout.
DATA = _HERE / "data" if (_HERE / "data").is_dir() else _HERE.parents[1] / "data" / "world"

_WORDS = tomllib.loads((_HERE / "words.toml").read_text(encoding="utf-8"))
_SCENES, _SYNONYMS, COLOURS = _WORDS["scenes"], _WORDS["synonyms"], _WORDS["colours"]
TEXTURES, MATERIALS, GROUNDS, THINGS, PARTS = map(tuple, _WORDS["words"].values())
FINISHES = ("plain", *TEXTURES, *MATERIALS)
HOME = {name: scene for scene, own in _SCENES.items() for name in own["classes"]}
CLASSES = tuple(sorted(HOME))
SCENES = tuple(sorted(_SCENES))
SYNONYMS = {name: (name, _SYNONYMS[name]) if name in _SYNONYMS else (name,) for name in CLASSES}

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

_OPENINGS = ("", "", "", "there is ", "here we see ", "a drawing of ", "a photo of ")


def article(phrase: str) -> str:
    """Put "a" or "an" before a phrase."""
    return f"an {phrase}" if phrase[0] in "aeiou" else f"a {phrase}"


def caption(scene: Any, variant: int = 0) -> str:
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
        return _sentence(scene, scene.subject)
    rng = np.random.RandomState([*scene.seed, 2, variant])
    noun = SYNONYMS[scene.subject][rng.randint(len(SYNONYMS[scene.subject]))]
    roll = rng.random_sample()
    if roll < 0.2:  # one word that describes the scene
        words = [scene.subject, scene.colour, scene.scene, *scene.parts]
        words += [] if scene.finish == "plain" else [scene.finish]
        words += [scene.thing.name] if scene.thing else []
        return tag(words[rng.randint(len(words))], rng)
    opening = _OPENINGS[rng.randint(len(_OPENINGS))]
    return opening + (article(noun) if roll < 0.4 else _sentence(scene, noun, rng))


def _sentence(scene, noun, rng=None):
    """Mention a random choice of properties, or all of them."""
    chances = (0.5, 0.5, 0.4, 0.4, 0.6)
    colour, finish, parts, thing, place = rng.random_sample(5) < chances if rng else [True] * 5
    words = [scene.finish] if finish and scene.finish in TEXTURES else []
    words += [scene.colour, noun] if colour else [noun]
    text = article(" ".join(words))
    text += f" of {scene.finish}" if finish and scene.finish in MATERIALS else ""
    if parts and scene.parts:
        chosen = rng.permutation(scene.parts)[: rng.randint(1, 3)] if rng else scene.parts
        text += " with " + " and ".join(article(str(part)) for part in chosen)
    if thing and scene.thing:
        text += f" beside {article(f'{scene.thing.colour} {scene.thing.name}')}"
    return f"{text} {_SCENES[scene.scene]['place']}" if place else text


def tag(word: str, rng: np.random.RandomState) -> str:
    """Return a short caption of one word, in one of four forms."""
    forms = (word, article(word), f"something {word}", f"a photo of {article(word)}")
    return forms[rng.randint(len(forms))]
