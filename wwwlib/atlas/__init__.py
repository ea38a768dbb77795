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
    as_seen,
    make_explanation,
    quoted,
    region_words,
    run_model,
)
from wwwlib.atlas.seen import cut_to, seen_part

__all__ = [
    "Atlas",
    "Explanation",
    "LayerRecord",
    "Match",
    "ModelOutput",
    "Neuron",
    "Thumbnails",
    "Track",
    "as_seen",
    "build",
    "cut_to",
    "make_explanation",
    "quoted",
    "region_words",
    "run_model",
    "seen_part",
]
