"""The concept world: small scenes drawn from code, whose every pixel is known by name.

`sample` describes image i of a seed, `render` paints it with its masks, `caption` writes about
it. Twenty-four classes share parts, wear colours, textures and materials, and stand away from the
centre of twelve scenes. It is a Broden in miniature: what a neuron sees, and where it looks, can
be checked against the truth, which no real data set allows.
"""

from wwwlib.world.captions import caption, training_captions
from wwwlib.world.extension import encoder_folder, image_set, target
from wwwlib.world.masks import WorldMasks, image_set_with_masks
from wwwlib.world.networks import NETWORKS, preprocess
from wwwlib.world.scenes import Picture, Scene, Thing, render, render_image, sample
from wwwlib.world.vocabulary import (
    CATEGORIES,
    CLASSES,
    DATA,
    HOME,
    SCENES,
    SEEN,
    SYNONYMS,
    UNSEEN,
    VOCABULARY,
)

__all__ = [
    "CATEGORIES", "CLASSES", "DATA", "HOME", "NETWORKS", "SCENES", "SEEN", "SYNONYMS", "UNSEEN",
    "VOCABULARY", "Picture", "Scene", "Thing", "WorldMasks", "caption", "encoder_folder",
    "image_set", "image_set_with_masks", "preprocess", "render", "render_image", "sample", "target",
    "training_captions",
]  # fmt: skip
