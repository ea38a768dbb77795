"""Language: concept sets, templates, and the encoders that compare images with words."""

from wwwlib.language.clip import OpenClipEncoder, open_clip
from wwwlib.language.concept_sets import TEMPLATE, ConceptSet, fold, from_file
from wwwlib.language.embed import embed_exemplars, image_features
from wwwlib.language.encoders import Encoder, check_encoder, load, sentence_encoder
from wwwlib.language.named import concept_set, encoder, titles, truth
from wwwlib.language.sources import (
    broden,
    classes,
    imagenet_classes,
    places365,
    places365_truth,
    synonyms,
)
from wwwlib.language.wordnet import Synset, read_synsets, wordnet_nouns

__all__ = [
    "TEMPLATE",
    "ConceptSet",
    "Encoder",
    "OpenClipEncoder",
    "Synset",
    "broden",
    "check_encoder",
    "classes",
    "concept_set",
    "embed_exemplars",
    "encoder",
    "fold",
    "from_file",
    "image_features",
    "imagenet_classes",
    "load",
    "open_clip",
    "places365",
    "places365_truth",
    "read_synsets",
    "sentence_encoder",
    "synonyms",
    "titles",
    "truth",
    "wordnet_nouns",
]
