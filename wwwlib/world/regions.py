"""Regions of the world's pictures, and what people would call a set of them.

MILAN learns from sets of image regions that a neuron picked and people described. Here both come
from the masks: a region is the pixels of one concept (roofs, snow, red) or of two that meet (red
roofs, boats at sea, the wheels of cars), and its phrases are what may be said of pictures that
have nothing but such a region in common.
"""

from collections.abc import Mapping
from functools import cache

import numpy as np

from wwwlib.world.canvas import SIZE
from wwwlib.world.captions import article
from wwwlib.world.scenes import Scene
from wwwlib.world.vocabulary import CATEGORIES, CLASSES, GROUNDS, PARTS, SYNONYMS

Key = tuple[str, ...]  # one concept or two, the noun that carries the mask last

LEAST = 10  # pixels: smaller regions are lost on the grid of any layer
_CATEGORY = {word: name for name, words in CATEGORIES.items() for word in words}
_IRREGULAR = {"fish": "fish", "leaf": "leaves", "grass": "grass"}
_CELLS = (8, 8, 16, 32)  # rows of the grids that neurons see the world on


def plural(noun):
    """Return the plural of a noun of the world."""
    if noun in _IRREGULAR:
        return _IRREGULAR[noun]
    if noun.endswith("y"):
        return f"{noun[:-1]}ies"
    return noun + ("es" if noun.endswith(("s", "x", "sh", "ch")) else "s")


def regions(scene: Scene, masks: Mapping[str, np.ndarray]) -> dict[Key, np.ndarray]:
    """Return the regions of a picture.

    Parameters
    ----------
    scene : Scene
    masks : mapping of str to ndarray of bool, shape (64, 64)
        Those of `render(scene)`.

    Returns
    -------
    dict of tuple of str to ndarray of bool
        For each key its pixels, at least `LEAST` of them. A pair is (colour, noun) where most of
        the noun's pixels have that colour, (finish, class), (scene, class) or (class, part).
    """
    large = {word: mask for word, mask in masks.items() if mask.sum() >= LEAST}
    found = {(word,): mask for word, mask in large.items()}
    if scene.subject in large:
        subject = large[scene.subject]
        found[scene.scene, scene.subject] = subject
        if scene.finish != "plain":
            found[scene.finish, scene.subject] = subject
        parts = [part for part in scene.parts if part in large and part in PARTS]
        found |= {(scene.subject, part): large[part] for part in parts}
    for colour in set(CATEGORIES["colour"]) & large.keys():
        for noun, mask in large.items():
            if (
                _CATEGORY[noun] in ("object", "part")
                and (mask & large[colour]).sum() > mask.sum() / 2
            ):
                found[colour, noun] = mask
    return dict(sorted(found.items()))


def phrases(key: Key) -> tuple[str, ...]:
    """Return what may be said of a set of such regions, one as likely as the other."""
    noun = key[-1]
    if len(key) == 2:
        return _pair(*key)
    if noun in CLASSES:
        return tuple(text for name in SYNONYMS[noun] for text in (plural(name), article(name)))
    if noun in GROUNDS:
        return noun, f"{noun} on the ground"
    return {
        "object": (plural(noun), article(noun)),
        "part": (plural(noun), article(noun)),
        "colour": (f"{noun} things", f"the colour {noun}"),
        "texture": (f"{noun} texture", f"{noun} things"),
        "material": (f"things of {noun}", f"texture of {noun}"),
        "scene": (f"{noun} scenes", f"the {noun}"),
    }[_CATEGORY[noun]]


def _pair(first, noun):
    if _CATEGORY[first] in ("colour", "texture"):
        return f"{first} {plural(noun)}", article(f"{first} {noun}")
    if _CATEGORY[first] == "material":
        return f"{plural(noun)} of {first}", f"{article(noun)} of {first}"
    if _CATEGORY[first] == "scene":
        return f"{plural(noun)} in {first} scenes", f"{article(noun)} in a {first} scene"
    return f"{plural(noun)} of {plural(first)}", f"the {noun} of {article(first)}"


def category(key: Key) -> str:
    """Return the category of a single concept, and "pair" of two that meet."""
    return _CATEGORY[key[0]] if len(key) == 1 else "pair"


def as_seen(masks: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Turn exact masks into what the map of a neuron makes of them: blobs, some of them partial.

    Each mask is averaged on a coarse grid, cells are dimmed at random, and what exceeds a random
    share of the brightest place is kept after enlarging.

    Parameters
    ----------
    masks : ndarray of bool, shape (R, 64, 64)
        None of them empty.
    rng : RandomState

    Returns
    -------
    ndarray of bool, shape (R, 64, 64)
        None of them empty.
    """
    cells = _CELLS[rng.randint(len(_CELLS))]
    grid = masks.reshape(len(masks), cells, SIZE // cells, cells, SIZE // cells).mean((2, 4))
    grid = grid * rng.uniform(0.3, 1, grid.shape)
    enlarge = _enlarger(cells)
    blobs = enlarge @ grid @ enlarge.T
    share = rng.uniform(0.25, 0.85, (len(masks), 1, 1))
    return blobs >= share * blobs.max((1, 2), keepdims=True)


@cache
def _enlarger(cells: int) -> np.ndarray:
    """Return the matrix (64, cells) that enlarges one axis of a grid, linearly."""
    centres = (np.arange(SIZE) + 0.5) * cells / SIZE - 0.5
    return np.stack([np.interp(centres, np.arange(cells), row) for row in np.eye(cells)], 1)
