"""A scene is described first and painted afterwards.

`sample` draws a description from a seed, `render` turns a description into pixels and masks. The
two are apart so that one thing can be changed and everything else kept: `replace(scene,
scene="night")` is the same boat, in the same place, at night.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from wwwlib.world.canvas import SIZE, Canvas, shape_mask
from wwwlib.world.scenery import paint_scene
from wwwlib.world.shapes import PAINTS, SHAPES, THING_SHAPES
from wwwlib.world.surfaces import FINISHES, surface
from wwwlib.world.vocabulary import CLASSES, COLOURS, HOME, SCENES

_HUES = tuple(COLOURS)
_PALETTE = np.array(list(COLOURS.values()), np.int32)


@dataclass(frozen=True)
class Thing:
    """A distractor: `name` and `colour` are words, `box` is (left, top, size) in pixels."""

    name: str
    colour: str
    box: tuple[int, int, int]


@dataclass(frozen=True)
class Scene:
    """Everything that is seen in one image.

    Attributes
    ----------
    subject : str
        The class of the image, one of `CLASSES`.
    missing : tuple of str
        Parts of the subject that this image leaves out.
    colour, finish : str
        Of the subject's body; the finish is "plain", a texture or a material.
    scene : str
        What stands behind it, one of `SCENES`.
    box : (left, top, size)
        The subject's place, in pixels.
    flip : bool
        Whether it looks to the left.
    thing : Thing or None
        A distractor.
    seed : (int, int)
        Decides what no word describes: horizons, clouds, where a pattern starts.
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
        every = {part for part, *_ in SHAPES[self.subject] if part}
        return tuple(sorted(every - set(self.missing)))


@dataclass(frozen=True)
class Picture:
    """An RGB image and, for every concept that can be seen in it, a (SIZE, SIZE) bool mask."""

    image: Image.Image
    masks: dict[str, np.ndarray]


def sample(index, seed=0, context_bias=0.0, subjects=CLASSES, swap=False):
    """Describe image `index` of the world `seed`.

    Parameters
    ----------
    index : int
        Classes take turns: image i shows `subjects[i % len(subjects)]`.
    seed : int
        Which world; images of different seeds have nothing in common.
    context_bias : float in [0, 1]
        Share of images whose scene is their class's home (see `HOME`); the others draw any scene.
    subjects : sequence of str
        The classes that appear.
    swap : bool
        Draw the scene from the homes of other classes only: the context lies.

    Returns
    -------
    Scene
    """
    rng = np.random.RandomState([seed, index])
    subject = subjects[index % len(subjects)]
    home = rng.random_sample() < context_bias
    other = tuple(name for name in SCENES if name != HOME[subject])
    drawn = (other if swap else SCENES)[rng.randint(len(other) if swap else len(SCENES))]
    box = _place(rng)
    return Scene(
        subject=subject,
        missing=_missing(subject, rng),
        colour=_HUES[rng.randint(len(_HUES))],
        finish=FINISHES[rng.randint(len(FINISHES))],
        scene=HOME[subject] if home and not swap else drawn,
        box=box,
        flip=bool(rng.randint(2)),
        thing=_thing(rng, box),
        seed=(seed, index),
    )


def _place(rng):
    """Return a box away from the image's centre, where a lazy guess would look first."""
    size = int(rng.randint(24, 33))
    while True:
        left, top = (int(value) for value in rng.randint(0, SIZE - size + 1, 2))
        offset = max(abs(left + size / 2 - SIZE / 2), abs(top + size / 2 - SIZE / 2))
        if offset >= 0.42 * size:
            return left, top, size


def _missing(subject, rng):
    chances = {}
    for part, _, _, _, chance in SHAPES[subject]:
        if part and chance < 1:
            chances.setdefault(part, chance)
    return tuple(part for part, chance in chances.items() if rng.random_sample() > chance)


def _thing(rng, box):
    """Return a distractor beside the subject in half of the images, if there is room."""
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
        nearest colour in `COLOURS` it is, as Broden's colours do.
    """
    canvas = _paint(scene)
    masks = canvas.masks()
    image = canvas.image()
    masks.update(_colour_masks(np.asarray(image, np.int32)))
    return Picture(image, masks)


def render_image(scene):
    """Paint a scene without working out its masks (three times as fast)."""
    return _paint(scene).image()


def _paint(scene):
    canvas, rng = Canvas(), np.random.RandomState([*scene.seed, 1])
    paint_scene(canvas, scene.scene, rng)
    light = {"night": 0.62, "sunset": 0.85}.get(scene.scene, 1.0)
    if scene.thing:
        thing = scene.thing
        body = surface(thing.colour, "plain", light=light)
        for stroke in THING_SHAPES[thing.name]:
            _brush(canvas, stroke, thing.box, False, body, light, {thing.name}, ())
    body = surface(scene.colour, scene.finish, tuple(rng.randint(0, 40, 2)), light)
    finish = () if scene.finish == "plain" else (scene.finish,)
    for stroke in SHAPES[scene.subject]:
        if stroke[0] not in scene.missing:
            _brush(canvas, stroke, scene.box, scene.flip, body, light, {scene.subject}, finish)
    return canvas


def _brush(canvas, stroke, box, flip, body, light, names, finish):
    """Paint one stroke of a subject or thing; body strokes also show the finish."""
    part, shape, coordinates, paint, _ = stroke
    where = shape_mask(shape, coordinates, box, flip)
    fill = body if paint == "body" else [int(value * light) for value in PAINTS[paint]]
    concepts = {*names, part} - {None}
    canvas.paint(where, fill, concepts | set(finish) if paint == "body" else concepts)


def _colour_masks(pixels):
    nearest = ((pixels[:, :, None] - _PALETTE) ** 2).sum(-1).argmin(-1)
    return {hue: nearest == i for i, hue in enumerate(_HUES) if (nearest == i).any()}
