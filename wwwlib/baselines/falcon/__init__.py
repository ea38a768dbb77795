"""FALCON: groups of features that are on together, told in words (Kalibhat et al., ICML 2023).

`groups` finds sets of features that many images share, `regions` cuts those images to what the
group looked at, `corpora` look up sentences for the cuts and for counter-examples, `terms` boils
sentences down to words, and `pipeline` puts them together: `falcon(...)` returns a `Falcon`.
"""

from wwwlib.baselines.falcon.corpora import (
    Captions,
    Shards,
    captions,
    shards,
    text_file,
)
from wwwlib.baselines.falcon.groups import Group, counter_examples, groups
from wwwlib.baselines.falcon.pipeline import Explained, Falcon, falcon
from wwwlib.baselines.falcon.regions import cohesion, group_cam, largest_region
from wwwlib.baselines.falcon.terms import contrast, terms, word_scores

__all__ = [
    "Captions",
    "Explained",
    "Falcon",
    "Group",
    "Shards",
    "captions",
    "cohesion",
    "contrast",
    "counter_examples",
    "falcon",
    "group_cam",
    "groups",
    "largest_region",
    "shards",
    "terms",
    "text_file",
    "word_scores",
]
