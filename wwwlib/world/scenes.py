"""Scenes of the concept world: descriptions, and the images and masks painted from them.

`sample` draws a description from a seed, `render` turns a description into pixels and masks. The
two are separate so that one property can be changed and all others kept: `replace(scene,
scene="night")` is the same boat, in the same place, at night. `image_set` is the data set of
sampled scenes.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from itertools import count as numbers
from itertools import islice
from typing import ClassVar

import numpy as np
from PIL import Image

from wwwlib.evaluation import Truth, from_masks
from wwwlib.images import FIVE_CROPS, ImageSet
from wwwlib.registry import whole_number
from wwwlib.store import digest
from wwwlib.world import painting, vocabulary
from wwwlib.world.painting import SHAPES, SIZE, THING_SHAPES
from wwwlib.world.vocabulary import CATEGORY, CLASSES, FINISHES, HOME, SCENES, SYNONYMS

_HUES = tuple(vocabulary.COLOURS)
_PALETTE = np.array(list(vocabulary.COLOURS.values()), np.int32)
TRAINING_SEED = 100  # of the images that trained the shipped networks


@dataclass(frozen=True)
class Thing:
    """A distractor: `name` and `colour` are words, `box` is (left, top, size) in pixels."""

    name: str
    colour: str
    box: tuple[int, int, int]


@dataclass(frozen=True)
class Scene:
    """Description of one image.

    Attributes
    ----------
    subject : str
        The class of the image, one of `CLASSES`.
    missing : tuple of str
        Parts of the subject that this image leaves out.
    colour, finish : str
        Of the subject's body; the finish is one of `FINISHES`.
    scene : str
        The background, one of `SCENES`.
    box : (left, top, size)
        The subject's place, in pixels.
    flip : bool
        Whether the subject is mirrored.
    thing : Thing or None
        A distractor.
    seed : (int, int)
        Seeds what no word describes: horizons, clouds, where a pattern starts.
    """

    subject: str
    missing: tuple[str, ...]
    colour: str
    finish: str
    scene: str
    box: tuple[int, int, int]
    flip: bool
    thing: Thing | None
    seed: tuple[int, int]

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts that the subject shows, in alphabetical order."""
        parts = {stroke.part for stroke in SHAPES[self.subject]}
        return tuple(sorted(parts - {None, *self.missing}))


@dataclass(frozen=True)
class Picture:
    """An RGB image and the (SIZE, SIZE) bool mask of every concept visible in it."""

    image: Image.Image
    masks: dict[str, np.ndarray]


def sample(index: int, seed: int = 0, context_bias: float = 0.0, swap: bool = False) -> Scene:
    """Describe image `index` of the world `seed`.

    Parameters
    ----------
    index : int
        Classes take turns: image i shows `CLASSES[i % len(CLASSES)]`.
    seed : int
        Seed of the world; images of different seeds are independent.
    context_bias : float in [0, 1]
        Share of images whose scene is their class's home (see `HOME`); the others draw any scene.
    swap : bool
        Draw the scene from the homes of other classes only, so that the context misleads.

    Returns
    -------
    Scene
    """
    rng = np.random.RandomState([seed, index])
    subject = CLASSES[index % len(CLASSES)]
    home = rng.random_sample() < context_bias
    choices = [name for name in SCENES if not swap or name != HOME[subject]]
    scene = choices[rng.randint(len(choices))]
    box = _place(rng)
    chances = {s.part: s.chance for s in SHAPES[subject] if s.part and s.chance < 1}
    return Scene(
        subject=subject,
        missing=tuple(part for part, chance in chances.items() if rng.random_sample() > chance),
        colour=_HUES[rng.randint(len(_HUES))],
        finish=FINISHES[rng.randint(len(FINISHES))],
        scene=HOME[subject] if home and not swap else scene,
        box=box,
        flip=bool(rng.randint(2)),
        thing=_thing(rng, box),
        seed=(seed, index),
    )


def _place(rng):
    """Return a box away from the image's centre, so that the centre is no good guess."""
    size = int(rng.randint(24, 33))
    while True:
        left, top = (int(value) for value in rng.randint(0, SIZE - size + 1, 2))
        if max(abs(left + size / 2 - SIZE / 2), abs(top + size / 2 - SIZE / 2)) >= 0.42 * size:
            return left, top, size


def _thing(rng, box):
    """Return a distractor beside the subject in half of the images, if there is space."""
    if rng.random_sample() < 0.5:
        return None
    name = tuple(THING_SHAPES)[rng.randint(len(THING_SHAPES))]
    colour = {"bush": "green", "rock": "grey"}.get(name, _HUES[rng.randint(len(_HUES))])
    size = int(rng.randint(10, 15))
    for left, top in rng.randint(0, SIZE - size + 1, (12, 2)):
        apart = max(left - box[0] - box[2], box[0] - left - size,
                    top - box[1] - box[2], box[1] - top - size)  # fmt: skip
        if apart >= 0:
            return Thing(name, colour, (int(left), int(top), size))
    return None


def render(scene: Scene) -> Picture:
    """Paint a scene.

    Returns
    -------
    Picture
        Masks are exact: hidden pixels do not count. A colour's mask holds the pixels whose
        nearest colour in `COLOURS` it is, as in Broden.
    """
    canvas = _paint(scene)
    image = canvas.image()
    nearest = ((np.asarray(image, np.int32)[:, :, None] - _PALETTE) ** 2).sum(-1).argmin(-1)
    colours = {hue: nearest == i for i, hue in enumerate(_HUES) if (nearest == i).any()}
    return Picture(image, canvas.masks() | colours)


def render_image(scene: Scene) -> Image.Image:
    """Paint a scene without computing its masks (three times as fast)."""
    return _paint(scene).image()


def _paint(scene):
    canvas, rng = painting.Canvas(), np.random.RandomState([*scene.seed, 1])
    painting.paint_scene(canvas, scene.scene, rng)
    light = {"night": 0.62, "sunset": 0.85}.get(scene.scene, 1.0)
    if thing := scene.thing:
        body = painting.surface(thing.colour, "plain", light=light)
        for stroke in THING_SHAPES[thing.name]:
            canvas.paint_stroke(stroke, thing.box, {thing.name}, body, light)
    body = painting.surface(scene.colour, scene.finish, tuple(rng.randint(0, 40, 2)), light)
    for stroke in SHAPES[scene.subject]:
        if stroke.part not in scene.missing:
            finish = {scene.finish} - {"plain"} if stroke.paint == "body" else set()
            names = {scene.subject, stroke.part, *finish} - {None}
            canvas.paint_stroke(stroke, scene.box, names, body, light, scene.flip)
    return canvas


@lru_cache(maxsize=5_000)  # 60 MB; painting costs more than a small network's forward pass
def _painted(seed: int, context_bias: float, swap: bool, i: int) -> Image.Image:
    return render_image(sample(i, seed, context_bias, swap=swap))


def _read(*which) -> Image.Image:
    """Return a copy of an image of a world, since the painted one is kept; see `_painted`."""
    return _painted(*which).copy()


def image_set(
    count: int | None = None, seed: int = 0, context_bias: float = 0.0, *, swap: bool = False
) -> ImageSet:
    """Return the first `count` images of the concept world `seed`.

    Image i is ``render(sample(i, seed, context_bias, swap=swap))``: the same call gives the
    caption's scene and, in ``.masks``, which pixels show which concept.

    Parameters
    ----------
    count : int, optional
        Number of images, at least 1; by default 100 per class.
    seed, context_bias, swap
        As in `sample`.

    Raises
    ------
    ValueError
        If `count` is less than 1.
    """
    count = whole_number("count", 100 * len(CLASSES) if count is None else count)
    reader = partial(_read, seed, context_bias, swap)
    labels = tuple(i % len(CLASSES) for i in range(count))
    # The arguments determine the pixels as long as the painters are the same: hash some images.
    painted = hashlib.sha256(b"".join(reader(i).tobytes() for i in range(min(count, 24))))
    content = {"world": [count, seed, float(context_bias), swap], "drawn": painted.hexdigest()}
    fingerprint, masks = digest({**content, "labels": labels}), WorldMasks(seed, context_bias, swap)
    names = tuple(f"world-{seed}/{i:06d}" for i in range(count))
    return ImageSet(f"world-{seed}", fingerprint, names, labels, CLASSES, reader, masks=masks)


@dataclass(frozen=True)
class WorldMasks:
    """Masks of the images of `image_set`, as `images.Masks` describes them.

    Parameters
    ----------
    seed, context_bias, swap
        As in `sample`.
    """

    seed: int = 0
    context_bias: float = 0.0
    swap: bool = False
    categories: ClassVar[Mapping[str, str]] = CATEGORY

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, equal for equal masks: hashes the arguments and the masks of eight images."""
        some = [self(i).items() for i in range(8)]
        hashed = [{word: np.packbits(m).tobytes().hex() for word, m in own} for own in some]
        content = [self.seed, float(self.context_bias), self.swap, self.categories, hashed]
        return digest({"world": content})

    def __call__(self, i: int) -> Mapping[str, np.ndarray]:
        """Return the (SIZE, SIZE) bool mask of each concept that image i shows."""
        return render(sample(i, self.seed, self.context_bias, swap=self.swap)).masks


def truth(count: int = 1_200, seed: int = 900, boxes: Sequence = FIVE_CROPS, **options) -> Truth:
    """Return the truth of the first `count` images of a world, to test names with.

    Parameters
    ----------
    count, seed
        As in `image_set`; the seed differs from those of the shipped networks and of probe sets.
    boxes, **options
        As in `evaluation.from_masks`.
    """
    return from_masks(image_set(count, seed), SYNONYMS, boxes=boxes, **options)


def draw(concept: str, n: int, seed: int = 901) -> list[Image.Image]:
    """Paint n scenes that show a concept, for `studies.drawn`.

    Raises
    ------
    ValueError
        If the world does not paint the concept.
    """
    word = {name: word for word, names in SYNONYMS.items() for name in names}.get(concept, concept)
    if word not in CATEGORY:
        raise ValueError(f"The world does not paint {concept!r}; its words are world.SEEN.")
    painted = (render(sample(i, seed)) for i in numbers())
    return [*islice((one.image for one in painted if word in one.masks), n)]


def training_captions(count: int = 2_400) -> list[str]:
    """Return distinct captions, three variants each, of the first images that trained the CLIP.

    Parameters
    ----------
    count : int
        Number of images.
    """
    described = [sample(i, TRAINING_SEED) for i in range(count)]
    texts = (vocabulary.caption(scene, variant) for scene in described for variant in range(1, 4))
    return list(dict.fromkeys(texts))
