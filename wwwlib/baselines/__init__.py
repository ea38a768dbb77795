"""Rivals: other ways to name neurons, which return the same `ConceptTable`, and to draw heatmaps.

`clip_dissect` compares a neuron's activations with an image-text encoder's similarities,
`network_dissection` compares its activation maps with pixel masks (`masks` says where those come
from), `milan` describes in words what excites it, and `falcon` what groups of neurons share.
`published` reads the labels that the authors of three methods released, and `released` makes rows
of them. `line_up` sets rivals beside WWW on equal terms, `remarks` says what is to be known of them
in a run, `side_by_side` gathers what they call the same neurons, `replies` what they say
of one image; `grid` opens what the paper's tables cover, and `paper` knows the figures that it
reports. `grad_cam` and `craft`, the rivals in where and why, name nothing.
"""

from wwwlib.baselines import (
    clip_dissect,
    craft,
    falcon,
    grad_cam,
    masks,
    milan,
    network_dissection,
    responses,
)

__all__ = [
    "clip_dissect",
    "craft",
    "falcon",
    "grad_cam",
    "masks",
    "milan",
    "network_dissection",
    "responses",
]
