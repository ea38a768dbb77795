"""FALCON's captions, in memory or in embedding shards on disk, and the words in them.

A corpus is a list of sentences with text features, or a folder of embedding shards as LAION
published them, which is searched block by block. Captions are reduced to nouns, verbs, adjectives
and noun phrases: parts of speech come from TextBlob's lexicon tagger, lemmas from LemmInflect; both
ship their tables, so that nothing is downloaded.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wwwlib.baselines.common import best_of_blocks
from wwwlib.language import ConceptSet, Encoder
from wwwlib.registry import expanded, require
from wwwlib.store import Store

_BLOCK = 65_536  # rows of a shard that are in memory at once
_PARTS = {"NN": "NOUN", "VB": "VERB", "JJ": "ADJ"}
# Grammar, and words that describe any caption's picture as a picture, and therefore no feature.
_STOP_WORDS = {"be", "have", "do", "there", "something", "anything", "s", "t", "photo", "see",
               "photograph", "picture", "image", "snapshot", "drawing", "draw", "depict", "show",
               }  # fmt: skip
_NOT_LETTERS = re.compile(r"[^\w\s'-]|[\d_]")


@dataclass(frozen=True, eq=False)
class Captions:
    """M sentences in memory, and their unit-norm text features t (M, D)."""

    texts: tuple[str, ...]
    t: Tensor

    def nearest(self, v: Tensor, count: int = 5) -> tuple[list[list[str]], Tensor]:
        """Return the sentences nearest to image features (n, D), and their cosines (n, count)."""
        value, index = best_of_blocks([v @ self.t.to(v).T], count)
        return [[self.texts[j] for j in row] for row in index.tolist()], value


@dataclass(frozen=True, eq=False)
class Shards:
    """Text embeddings on disk, each file of them with a Parquet file of the sentences.

    Attributes
    ----------
    features : tuple of ndarray
        Mapped from their files, not read.
    sentences : tuple of Path
        The corresponding files.
    """

    features: tuple[np.memmap, ...]
    sentences: tuple[Path, ...]

    def nearest(self, v: Tensor, count: int = 5) -> tuple[list[list[str]], Tensor]:
        """Return the sentences nearest to image features (n, D), and their cosines (n, count).

        Raises
        ------
        ValueError
            If the shards hold features of another dimension.
        """
        value, index = best_of_blocks(self._cosines(v), count)
        texts = self._texts({i for row in index.tolist() for i in row})
        return [[texts[i] for i in row] for row in index.tolist()], value

    def _cosines(self, v: Tensor) -> Iterator[Tensor]:
        for array in self.features:
            if array.ndim != 2 or array.shape[1] != v.shape[1]:
                raise ValueError(
                    f"{Path(array.filename).name} holds features of shape {array.shape}, but the "
                    f"encoder's have {v.shape[1]} dimensions; use the encoder that made the shards."
                )
            for row in range(0, len(array), _BLOCK):
                block = torch.from_numpy(np.array(array[row : row + _BLOCK], dtype=np.float32))
                yield v @ F.normalize(block, dim=1).to(v).T

    def _texts(self, index: set[int]) -> dict[int, str]:
        """Return sentences by their number over all shards, reading each file at most once."""
        import pandas as pd

        texts, start = {}, 0
        for path, array in zip(self.sentences, self.features, strict=True):
            here = [i for i in index if start <= i < start + len(array)]
            if here:
                column = pd.read_parquet(path, columns=["caption"])["caption"]
                texts |= {i: str(column.iloc[i - start]) for i in here}
            start += len(array)
        return texts


def captions(texts: Sequence[str], encoder: Encoder, store: Store | None = None) -> Captions:
    """Encode sentences, without repetitions; a store keeps their features."""
    distinct = ConceptSet(texts, "{}", "captions")
    return Captions(distinct.words, distinct.embed(encoder, store)[0])


def shards(folder: str | Path) -> Shards:
    """Open a folder of LAION's embeddings.

    Parameters
    ----------
    folder : path
        Holds ``text_emb/text_emb_*.npy`` and ``metadata/metadata_*.parquet`` (or both side by
        side), the latter with a column ``caption``.

    Raises
    ------
    FileNotFoundError
        If there are none, or the numbers of the two kinds differ.
    ImportError
        If no reader of Parquet files is installed.
    """
    folder = expanded(folder)
    features = tuple(sorted(folder.rglob("text_emb_*.npy"), key=_number))
    sentences = tuple(sorted(folder.rglob("metadata_*.parquet"), key=_number))
    if not features or [_number(p) for p in features] != [_number(p) for p in sentences]:
        raise FileNotFoundError(
            f"{str(folder)!r} holds {len(features)} files text_emb_*.npy and {len(sentences)} "
            "files metadata_*.parquet; it must hold the same numbers of both, at least one."
        )
    require("pyarrow", "baselines")  # at once, not after an hour of search
    return Shards(tuple(np.load(path, mmap_mode="r") for path in features), sentences)


def _number(path: Path) -> tuple[int, str]:
    """Return the number in a file's name, as text that sorts like numbers behind its length."""
    digits = path.stem.rpartition("_")[2]
    return len(digits), digits


@lru_cache(maxsize=100_000)
def terms(caption: str) -> tuple[str, ...]:
    """Return the distinct words of a caption, and then its phrases, in order of appearance.

    A word is the lemma of a noun, verb or adjective. A phrase is a run of adjectives and nouns
    that ends in a noun, as in "striped red boat", its words lemmatised.

    Parameters
    ----------
    caption : str
        Lower-cased; digits and punctuation are removed.
    """
    tag = require("textblob.en", "baselines").tag
    cleaned = " ".join(_NOT_LETTERS.sub(" ", caption.lower()).split())
    tagged = [(word, _PARTS.get(part[:2], "")) for word, part in tag(cleaned)]
    lemmas = [(_lemma(word, kind), kind) for word, kind in tagged]
    kinds = "".join(kind[0] if lemma else "-" for lemma, kind in lemmas)
    words = [lemma for lemma, _ in lemmas]
    phrases = (" ".join(words[slice(*run.span())]) for run in re.finditer("[AN]+N", kinds))
    return tuple(dict.fromkeys((*filter(None, words), *phrases)))


def _lemma(word: str, kind: str) -> str:
    """Return the base form of a word, or "" if it carries no content."""
    if not kind:
        return ""
    bases = require("lemminflect", "baselines").getLemma(word, upos=kind)
    lemma = bases[0] if bases else word
    return lemma if len(lemma) > 1 and lemma not in _STOP_WORDS else ""


def word_scores(captions: Sequence[Sequence[str]], similarity: Tensor) -> dict[str, float]:
    """Score the words of the captions of n images.

    Parameters
    ----------
    captions : sequence of sequence of str
        For each image its nearest captions.
    similarity : Tensor
        (n, P) cosine of each of them with the image.

    Returns
    -------
    dict of str to float
        For each word the mean over all images of the highest similarity among those captions of
        the image that contain it; an image without such a caption counts as 0.
    """
    binarizer = require("sklearn.preprocessing", "baselines").MultiLabelBinarizer()
    holds = binarizer.fit_transform([terms(caption) for row in captions for caption in row])
    values = holds * similarity.clamp(min=0).double().cpu().numpy().reshape(-1, 1)
    best = values.reshape(*similarity.shape, len(binarizer.classes_)).max(1)
    return dict(zip(binarizer.classes_, best.mean(0).tolist(), strict=True))


def contrast(
    scores: dict[str, float], counter: dict | None = None, limit: float = 0.1, top: int = 8
) -> dict[str, float]:
    """Drop the words that counter-examples share, and keep the best of the rest.

    Parameters
    ----------
    scores, counter : dict of str to float
        `word_scores` of a group and of its counter-examples, if there are any.
    limit : float
        Words that score this much or more on the counter-examples are dropped.
    top : int
        Largest number of words.

    Returns
    -------
    dict of str to float
        Best first; equals in alphabetical order.
    """
    known = counter or {}
    left = [(term, s) for term, s in scores.items() if known.get(term, 0.0) < limit and s > 0]
    return dict(sorted(left, key=lambda pair: (-pair[1], pair[0]))[:top])
