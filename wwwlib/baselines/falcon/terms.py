"""From captions to words: nouns, verbs and adjectives, and the phrases that they form.

Parts of speech come from TextBlob's lexicon tagger and lemmas from LemmInflect, whose tables are
part of their packages, so nothing is fetched.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

import lemminflect
from textblob.en import tag
from torch import Tensor

_PARTS = {"NN": "NOUN", "VB": "VERB", "JJ": "ADJ"}
_GRAMMAR = {"be", "have", "do", "there", "something", "anything", "s", "t"}
# Captions say of every picture that it is one, and that one sees it: no feature is on for that.
_PICTURES = {"photo", "photograph", "picture", "image", "snapshot", "drawing", "draw", "depict",
             "show", "see"}  # fmt: skip
_EMPTY = _GRAMMAR | _PICTURES
_LETTERS = re.compile(r"[^\w\s'-]|[\d_]")


@lru_cache(maxsize=100_000)
def terms(caption: str) -> tuple[str, ...]:
    """Return the distinct words and phrases of a caption, in the order of their appearance.

    A word is the lemma of a noun, verb or adjective. A phrase is a run of adjectives and nouns
    that ends in a noun, as in "striped red boat", its words lemmatised.

    Parameters
    ----------
    caption : str
        Upper case, digits and punctuation are cleaned away.
    """
    found: list[str] = []
    run: list[tuple[str, str]] = []
    for word, part in [*tag(_clean(caption)), ("", "")]:
        kind = _PARTS.get(part[:2])
        lemma = _lemma(word, kind) if kind else ""
        if kind in ("NOUN", "ADJ") and lemma:
            run.append((lemma, kind))
        else:
            found += _phrase(run)
            run = []
        if lemma:
            found.append(lemma)
    return tuple(dict.fromkeys(found))


def _clean(caption: str) -> str:
    return " ".join(_LETTERS.sub(" ", caption.lower()).split())


def _lemma(word: str, kind: str) -> str:
    """Return the base form of a word, or nothing if it carries no content."""
    bases = lemminflect.getLemma(word, upos=kind)
    lemma = bases[0] if bases else word
    return lemma if len(lemma) > 1 and lemma not in _EMPTY else ""


def _phrase(run: list[tuple[str, str]]) -> list[str]:
    """Return the phrase that a run of (lemma, part of speech) makes, if it makes one."""
    while run and run[-1][1] != "NOUN":
        run = run[:-1]
    return [" ".join(lemma for lemma, _ in run)] if len(run) > 1 else []


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
        For each word the mean over all images of the highest similarity among the image's
        captions that hold it; an image none of whose captions holds it counts as 0.
    """
    total: dict[str, float] = {}
    for row, values in zip(captions, similarity.tolist(), strict=True):
        best: dict[str, float] = {}
        for caption, value in zip(row, values, strict=True):
            for term in terms(caption):
                best[term] = max(best.get(term, 0.0), value)
        for term, value in best.items():
            total[term] = total.get(term, 0.0) + value
    return {term: value / len(captions) for term, value in total.items()}


def contrast(
    scores: dict[str, float], counter: dict[str, float], ceiling: float = 0.1, top: int = 8
) -> dict[str, float]:
    """Drop the words that counter-examples share, and keep the best of the rest.

    Parameters
    ----------
    scores, counter : dict of str to float
        `word_scores` of a group and of its counter-examples.
    ceiling : float
        A word that scores so much or more on the counter-examples is dropped.
    top : int
        At most so many are kept.

    Returns
    -------
    dict of str to float
        Best first; of equals the first in the alphabet.
    """
    left = [(term, s) for term, s in scores.items() if counter.get(term, 0.0) < ceiling and s > 0]
    return dict(sorted(left, key=lambda pair: (-pair[1], pair[0]))[:top])
