"""Rivals: other ways to name neurons, which return the same `ConceptTable`, and to draw heatmaps.

`clip_dissect` compares a neuron's activations with an image-text encoder's similarities,
`network_dissection` compares its activation maps with pixel masks (`masks` says where those come
from), and `published` reads the labels that the authors of three methods released. `line_up` sets
them beside WWW on equal terms, and `paper` knows the figures that the paper reports. `grad_cam` is
the rival of heatmaps, and names nothing.
"""

from wwwlib.baselines import (
    clip_dissect,
    grad_cam,
    line_up,
    masks,
    network_dissection,
    paper,
    published,
)

__all__ = [
    "clip_dissect",
    "grad_cam",
    "line_up",
    "masks",
    "network_dissection",
    "paper",
    "published",
]
