"""Scores: agreement with ground truth in names and places, its ceilings, paired comparisons."""

from wwwlib.scores import ceilings
from wwwlib.scores.agreement import (
    Score,
    by_synset,
    f1,
    hit_rate,
    shared_words,
    text_cosine,
)
from wwwlib.scores.localization import by_group, iou, iou_ceiling, pointing_game
from wwwlib.scores.paired import Comparison, compare, holm

__all__ = [
    "Comparison",
    "Score",
    "by_group",
    "by_synset",
    "ceilings",
    "compare",
    "f1",
    "hit_rate",
    "holm",
    "iou",
    "iou_ceiling",
    "pointing_game",
    "shared_words",
    "text_cosine",
]
