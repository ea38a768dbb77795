"""WHAT a neuron sees, and whether the probe set alone decided it.

`score`, `select` and `discover` name neurons from the mean features of their exemplars; `stability`
asks whether they would keep those names on another probe set.
"""

from wwwlib.concepts.naming import (
    BLOCK,
    ConceptTable,
    cut,
    cut_together,
    discover,
    plain_alpha,
    score,
    select,
)
from wwwlib.concepts.stability import SURE, Stability, reach, stability

__all__ = [
    "BLOCK",
    "SURE",
    "ConceptTable",
    "Stability",
    "cut",
    "cut_together",
    "discover",
    "plain_alpha",
    "reach",
    "score",
    "select",
    "stability",
]
