"""Scores: agreement with ground truth, its ceilings, and paired comparisons."""

from wwwlib.scores import ceilings
from wwwlib.scores.agreement import (
    Score,
    by_synset,
    f1,
    hit_rate,
    shared_words,
    text_cosine,
)
from wwwlib.scores.paired import Comparison, compare, holm
from wwwlib.scores.wordnet import Hypernyms, wu_palmer

__all__ = [
    "Comparison",
    "Hypernyms",
    "Score",
    "by_synset",
    "ceilings",
    "compare",
    "f1",
    "hit_rate",
    "holm",
    "shared_words",
    "text_cosine",
    "wu_palmer",
]
