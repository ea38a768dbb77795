"""Scenes of the concept world: descriptions, and the images and masks painted from them.

`sample` draws a description from a seed, `render` turns a description into pixels and masks. The
two are separate so that one property can be changed and all others kept: `replace(scene,
scene="night")` is the same boat, in the same place, at night. `image_set` is the data set of
sampled scenes.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import count as numbers
from itertools import islice

import numpy as np
from PIL import Image

from wwwlib.evaluation import Truth, from_masks
from wwwlib.images import FIVE_CROPS, ImageSet
from wwwlib.registry import whole_number
from wwwlib.store import digest
from wwwlib.world.painting import (
    PAINTS,
    SHAPES,
    SIZE,
    THING_SHAPES,
    Canvas,
    paint_scene,
    shape_mask,
    surface,
)
from wwwlib.world.vocabulary import (
    CATEGORY,
    CLASSES,
    COLOURS,
    FINISHES,
    HOME,
    SCENES,
    SYNONYMS,
    caption,
)

_HUES = tuple(COLOURS)
_PALETTE = np.array(list(COLOURS.values()), np.int32)
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
    def parts(self):
        """The parts that the subject shows, in alphabetical order."""
        parts = {stroke.part for stroke in SHAPES[self.subject]}
        return tuple(sorted(parts - {None, *self.missing}))


@dataclass(frozen=True)
class Picture:
    """An RGB image and the (SIZE, SIZE) bool mask of every concept visible in it."""

    image: Image.Image
    masks: dict[str, np.ndarray]


def sample(index, seed=0, context_bias=0.0, swap=False):
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
    return Scene(
        subject=subject,
        missing=_missing(subject, rng),
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
        offset = max(abs(left + size / 2 - SIZE / 2), abs(top + size / 2 - SIZE / 2))
        if offset >= 0.42 * size:
            return left, top, size


def _missing(subject, rng):
    chances = {}
    for stroke in SHAPES[subject]:
        if stroke.part and stroke.chance < 1:
            chances.setdefault(stroke.part, stroke.chance)
    return tuple(part for part, chance in chances.items() if rng.random_sample() > chance)


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


def render(scene):
    """Paint a scene.

    Returns
    -------
    Picture
        Masks are exact: hidden pixels do not count. A colour's mask holds the pixels whose
        nearest colour in `COLOURS` it is, as in Broden.
    """
    canvas = _paint(scene)
    image = canvas.image()
    return Picture(image, canvas.masks() | _colour_masks(np.asarray(image, np.int32)))


def render_image(scene):
    """Paint a scene without computing its masks (three times as fast)."""
    return _paint(scene).image()


def _paint(scene):
    canvas, rng = Canvas(), np.random.RandomState([*scene.seed, 1])
    paint_scene(canvas, scene.scene, rng)
    light = {"night": 0.62, "sunset": 0.85}.get(scene.scene, 1.0)
    if thing := scene.thing:
        body = surface(thing.colour, "plain", light=light)
        for stroke in THING_SHAPES[thing.name]:
            _paint_stroke(canvas, stroke, thing.box, False, body, light, {thing.name})
    body = surface(scene.colour, scene.finish, tuple(rng.randint(0, 40, 2)), light)
    for stroke in SHAPES[scene.subject]:
        if stroke.part not in scene.missing:
            finish = {scene.finish} - {"plain"} if stroke.paint == "body" else set()
            names = {scene.subject, stroke.part, *finish} - {None}
            _paint_stroke(canvas, stroke, scene.box, scene.flip, body, light, names)
    return canvas


def _paint_stroke(canvas, stroke, box, flip, body, light, concepts):
    """Paint one stroke of a subject or thing in its box."""
    fill = body
    if stroke.paint != "body":
        fill = [int(value * light) for value in PAINTS[stroke.paint]]
    for kind, points in stroke.outlines:
        canvas.paint(shape_mask(kind, points, box, flip), fill, concepts)


def _colour_masks(pixels):
    nearest = ((pixels[:, :, None] - _PALETTE) ** 2).sum(-1).argmin(-1)
    return {hue: nearest == i for i, hue in enumerate(_HUES) if (nearest == i).any()}


@dataclass(frozen=True, eq=False)
class _World:
    """Reads image i of a world, as `ImageSet.reader`."""

    seed: int
    context_bias: float
    swap: bool

    def __call__(self, i: int) -> Image.Image:
        return _painted(self.seed, i, self.context_bias, self.swap).copy()


@lru_cache(maxsize=5_000)  # 60 MB; painting costs more than a small network's forward pass
def _painted(seed: int, i: int, context_bias: float, swap: bool) -> Image.Image:
    return render_image(sample(i, seed, context_bias, swap=swap))


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
    count = 100 * len(CLASSES) if count is None else count
    whole_number("count", count)
    reader = _World(seed, context_bias, swap)
    labels = tuple(i % len(CLASSES) for i in range(count))
    # The arguments determine the pixels as long as the painters are the same: hash some images.
    painted = hashlib.sha256(b"".join(reader(i).tobytes() for i in range(min(count, 24))))
    content = {"world": [count, seed, float(context_bias), swap], "drawn": painted.hexdigest()}
    return ImageSet(
        name=f"world-{seed}",
        fingerprint=digest({**content, "labels": labels}),
        names=tuple(f"world-{seed}/{i:06d}" for i in range(count)),
        labels=labels,
        classes=tuple(CLASSES),
        reader=reader,
    )


@dataclass(frozen=True)
class WorldMasks:
    """Masks of the images of `image_set`, as `baselines.network_dissection.Masks` describes them.

    Parameters
    ----------
    seed, context_bias, swap
        As in `sample`.
    """

    seed: int = 0
    context_bias: float = 0.0
    swap: bool = False

    @property
    def categories(self) -> Mapping[str, str]:
        """The category of each concept."""
        return CATEGORY

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256, equal for equal masks: hashes the arguments and the masks of eight images."""
        hashed = [
            {word: np.packbits(mask).tobytes().hex() for word, mask in self(i).items()}
            for i in range(8)
        ]
        content = [self.seed, float(self.context_bias), self.swap, self.categories, hashed]
        return digest({"world": content})

    def __call__(self, i: int) -> Mapping[str, np.ndarray]:
        """Return the (SIZE, SIZE) bool mask of each concept that image i shows."""
        return render(sample(i, self.seed, self.context_bias, swap=self.swap)).masks


def image_set_with_masks(
    count: int, seed: int = 0, context_bias: float = 0.0, *, swap: bool = False
) -> tuple[ImageSet, WorldMasks]:
    """Return the first `count` images of a concept world, see `image_set`, and their masks.

    Raises
    ------
    ValueError
        If `count` is less than 1.
    """
    images = image_set(count, seed, context_bias, swap=swap)
    return images, WorldMasks(seed, context_bias, swap)


def truth(count: int = 1_200, seed: int = 900, boxes: Sequence = FIVE_CROPS, **options) -> Truth:
    """Return the truth of the first `count` images of a world, to test names with.

    Parameters
    ----------
    count, seed
        As in `image_set`; the seed differs from those of the shipped networks and of probe sets.
    boxes, **options
        As in `evaluation.from_masks`.
    """
    images, masks = image_set_with_masks(count, seed)
    return from_masks(images, masks, SYNONYMS, boxes=boxes, **options)


def draw(concept: str, n: int, seed: int = 901) -> list[Image.Image]:
    """Paint n scenes that show a concept, for `evaluation.drawn`.

    Raises
    ------
    ValueError
        If the world does not paint the concept.
    """
    words = {name: word for word, names in SYNONYMS.items() for name in names}
    word = words.get(concept, concept)
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
    texts = (caption(scene, variant) for scene in described for variant in range(1, 4))
    return list(dict.fromkeys(texts))
