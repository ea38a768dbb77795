"""The concept world: small scenes painted from code, with an exact mask for every concept.

`sample` describes image i of a seed, `render` paints it with its masks, `caption` writes about
it. Twenty-four classes share parts, have colours, textures and materials, and stand away from the
centre of twelve scenes. It is a small Broden: which concepts a neuron responds to, and where, can
be compared with the truth, which no real data set allows.
"""

from wwwlib.world.networks import NETWORKS, encoder_folder, preprocess, target
from wwwlib.world.scenes import (
    Scene,
    WorldMasks,
    draw,
    image_set,
    render,
    render_image,
    sample,
    training_captions,
    truth,
)
from wwwlib.world.vocabulary import (
    CATEGORIES,
    CLASSES,
    DATA,
    FINISHES,
    HOME,
    SCENES,
    SEEN,
    SYNONYMS,
    UNSEEN,
    VOCABULARY,
    caption,
)
