"""Sentences about a scene, as different people would write them.

One writer names everything, another only the boat, a third leaves a tag: something red. None
writes the bare template "a photo of a": as a caption it would lie close to every image and leave
no concept above it.
"""

import numpy as np

from wwwlib.world.scenes import sample
from wwwlib.world.vocabulary import SYNONYMS, TEXTURES

TRAINING_SEED = 100  # of the images that trained the world's CLIP
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

    Parameters
    ----------
    scene : Scene
    variant : int
        0 names everything that a caption can name; any other number is a writer with a taste of
        their own, always the same for the same scene and number.

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


def training_captions(count: int = 2_400) -> list[str]:
    """Return distinct captions, three variants each, of the first images that trained the CLIP.

    Parameters
    ----------
    count : int
        Number of images.
    """
    scenes = [sample(i, TRAINING_SEED) for i in range(count)]
    texts = (caption(scene, variant) for scene in scenes for variant in range(1, 4))
    return list(dict.fromkeys(texts))


def _full(scene):
    parts = " and ".join(article(part) for part in scene.parts)
    text = f"{article(_described(scene, scene.subject, True, True))} with {parts}"
    thing = f" beside {article(f'{scene.thing.colour} {scene.thing.name}')}" if scene.thing else ""
    return f"{text}{thing} {_PLACES[scene.scene]}"


def _described(scene, noun, colour, finish):
    """Return "striped red boat" or "red boat of wood", with what is asked for."""
    words = [scene.colour] if colour else []
    if finish and scene.finish in TEXTURES:
        words.insert(0, scene.finish)
    of = finish and scene.finish != "plain" and scene.finish not in TEXTURES
    return " ".join([*words, noun]) + (f" of {scene.finish}" if of else "")


def _sentence(scene, noun, rng):
    colour, finish, parts, thing, place = rng.random_sample(5) < (0.5, 0.5, 0.4, 0.4, 0.6)
    text = article(_described(scene, noun, colour, finish))
    if parts and scene.parts:
        chosen = rng.permutation(scene.parts)[: rng.randint(1, 3)]
        text += " with " + " and ".join(article(str(part)) for part in chosen)
    if thing and scene.thing:
        text += f" beside {article(f'{scene.thing.colour} {scene.thing.name}')}"
    return f"{text} {_PLACES[scene.scene]}" if place else text


def _detail(scene, rng):
    """Tag the scene with one thing that is in it and keep silent about the rest."""
    words = [scene.subject, scene.colour, scene.scene, *scene.parts]
    words += [] if scene.finish == "plain" else [scene.finish]
    words += [scene.thing.name] if scene.thing else []
    return tag(words[rng.randint(len(words))], rng)


def tag(word, rng):
    """Write a word on its own, in one of the ways that people do."""
    frames = (word, article(word), f"something {word}", f"a photo of {article(word)}")
    return frames[rng.randint(len(frames))]
