"""The atlas: everything precomputed about one network, so that any image is explained in a moment.

`build` asks what every neuron sees and which classes it carries; `Atlas.explain` then tells what,
where and why for an image and for its class, and how far the two agree (WWW, Figure 2). `survey`
asks the last of a whole set of images.
"""

from wwwlib.atlas.atlas import Atlas
from wwwlib.atlas.build import build
from wwwlib.atlas.explain import Look, look, tell
from wwwlib.atlas.probing import Found, find
from wwwlib.atlas.record import Explanation, LayerRecord, Neuron, Thumbnails, Track

__all__ = [
    "Atlas",
    "Explanation",
    "Found",
    "LayerRecord",
    "Look",
    "Neuron",
    "Thumbnails",
    "Track",
    "build",
    "find",
    "look",
    "tell",
]
