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
)
