"""Ceilings: the best score that any answer from a concept set could reach.

A score says little without one: 878 of ImageNet's 1,000 classes cannot be named from Broden, and
one perfect name a class reaches an F1 of .787 only, since most classes have several synonyms.
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from wwwlib.scores.agreement import Score, WordFeatures, Words, distinct
from wwwlib.scores.agreement import f1 as f1_of
from wwwlib.scores.agreement import hit_rate as hit_rate_of


def best_names(truth: Words, words: Iterable[str], size: int | None = None) -> list[list[str]]:
    """Return each neuron's perfect answer: its synonyms that the concept set holds.

    Parameters
    ----------
    truth : list of list of str
        The synonyms of N neurons.
    words : iterable of str
        The concept set.
    size : int, optional
        The most names in one answer; ``None`` for any number.

    Returns
    -------
    list of list of str
        Empty for a neuron that cannot be named from this concept set.
    """
    held = distinct(words)
    return [[word for word in distinct(names) if word in held][:size] for names in truth]


def hit_rate(truth: Words, words: Iterable[str]) -> Score:
    """Return the share of neurons that can be named at all; see :func:`best_names`."""
    return hit_rate_of(best_names(truth, words), truth)


def f1(truth: Words, words: Iterable[str], size: int | None = None) -> Score:
    """Return the F1 of perfect answers of at most ``size`` names; see :func:`best_names`."""
    return f1_of(best_names(truth, words, size), truth)


def text_cosine(
    truth: Words, words: Sequence[str], encode: Callable[[list[str]], Tensor], block: int = 256
) -> Score:
    """Return the best mean cosine to the synonyms; a single word always reaches it.

    (A set scores the mean over its words, which is at most that of its best word.)

    Parameters
    ----------
    truth : list of list of str
        The synonyms of N neurons.
    words : sequence of str
        The concept set.
    encode : callable
        M strings -> (M, D) features.
    block : int
        How many neurons are compared with all words at once.

    Returns
    -------
    Score
        Values in [-1, 1].
    """
    held, right = list(distinct(words)), [list(distinct(names)) for names in truth]
    features = WordFeatures.of([held, *right], encode)
    centres = torch.stack([features(names).mean(0) for names in right])
    t = features(held)
    values = torch.cat([(part @ t.T).amax(1) for part in centres.split(block)])
    return Score("text cosine", values.double(), torch.ones(len(truth), dtype=torch.int64))


def reach(truth: Words, words: Iterable[str]) -> dict[str, float]:
    """Tell what a concept set puts within reach.

    Parameters
    ----------
    truth : list of list of str
        The synonyms of N classes.
    words : iterable of str
        The concept set.

    Returns
    -------
    dict
        How many classes there are and how many can be named; the hit rate, and the F1 with one
        name and with any number of names, of perfect answers.
    """
    words = list(words)
    hits = hit_rate(truth, words)
    return {
        "classes": len(truth),
        "within reach": int(hits.values.sum()),
        "hit rate": hits.mean,
        "F1, one name": f1(truth, words, size=1).mean,
        "F1, any number": f1(truth, words).mean,
    }
