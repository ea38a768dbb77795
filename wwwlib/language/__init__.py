"""Language: concept sets, image-text encoders, and the embedding of texts and exemplars."""

from wwwlib.language.concept_sets import (
    ConceptSet,
    Synset,
    concept_set,
    fold,
    from_file,
    places365,
    read_synsets,
    synonyms,
    wordnet_nouns,
)
from wwwlib.language.encoders import Encoder, embed_exemplars, encoder, image_features, open_clip
