"""Language: concept sets, image-text encoders, and the embedding of texts and exemplars."""

from wwwlib.language.concept_sets import (
    TEMPLATE,
    ConceptSet,
    Synset,
    concept_set,
    fold,
    from_file,
    places365,
    places365_truth,
    read_synsets,
    synonyms,
    truth,
    wordnet_nouns,
)
from wwwlib.language.embedding import embed_exemplars, image_features
from wwwlib.language.encoders import (
    Encoder,
    OpenClipEncoder,
    encoder,
    load,
    open_clip,
    sentence_encoder,
)

__all__ = [
    "TEMPLATE", "ConceptSet", "Encoder", "OpenClipEncoder", "Synset", "concept_set",
    "embed_exemplars", "encoder", "fold", "from_file", "image_features", "load", "open_clip",
    "places365", "places365_truth", "read_synsets", "sentence_encoder", "synonyms",
    "truth", "wordnet_nouns",
]  # fmt: skip
