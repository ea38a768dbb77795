"""The atlas of a network: everything that does not depend on the image, computed once.

`build` names the neurons of a network and computes their class contributions; `Atlas.explain` then
explains any image and its class: what, where and why (WWW, Figure 2).
"""

from wwwlib.atlas.atlas import Atlas, LayerRecord, Match, Thumbnails
from wwwlib.atlas.build import build
from wwwlib.atlas.explain import (
    Explanation,
    ModelOutput,
    Neuron,
    Track,
    make_explanation,
    quoted,
    region_words,
    run_model,
)

__all__ = [
    "Atlas",
    "Explanation",
    "LayerRecord",
    "Match",
    "ModelOutput",
    "Neuron",
    "Thumbnails",
    "Track",
    "build",
    "make_explanation",
    "quoted",
    "region_words",
    "run_model",
]
