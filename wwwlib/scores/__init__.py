"""Scores: agreement with ground truth in names and places, its ceilings, paired comparisons."""

from wwwlib.scores import answers, ceilings, grades, tables
from wwwlib.scores.agreement import (
    Score,
    by_synset,
    f1,
    hit_rate,
    shared_words,
    text_cosine,
)
from wwwlib.scores.answers import Answer
from wwwlib.scores.conclusions import conclude, outcome, winner
from wwwlib.scores.localization import by_group, iou, iou_ceiling, pointing_game
from wwwlib.scores.paired import Comparison, compare, holm
from wwwlib.scores.wordnet import Hypernyms, wu_palmer, wu_palmer_ceiling

__all__ = [
    "Answer",
    "Comparison",
    "Hypernyms",
    "Score",
    "answers",
    "by_group",
    "by_synset",
    "ceilings",
    "compare",
    "conclude",
    "f1",
    "grades",
    "hit_rate",
    "holm",
    "iou",
    "iou_ceiling",
    "outcome",
    "pointing_game",
    "shared_words",
    "tables",
    "text_cosine",
    "winner",
    "wu_palmer",
    "wu_palmer_ceiling",
]
