"""Partial credit by WordNet: "dog" for "beagle" is nearer the truth than "teapot" is.

Wu and Palmer's similarity (1994) of two meanings is ``2 depth(c) / (2 depth(c) + links up to c)``,
with c a common hypernym. WordNet is no tree: of several common hypernyms, that one counts which
makes the most of the pair. It is no score of the paper's, and never stands among those.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from math import inf

import torch

from wwwlib.language import Synset, fold
from wwwlib.scores.agreement import Score, Words, distinct, word_sets


class Hypernyms:
    """WordNet's nouns as a tree of meanings, for words and synsets.

    Parameters
    ----------
    synsets : mapping of str to Synset
        From :func:`wwwlib.language.read_synsets`.
    """

    def __init__(self, synsets: Mapping[str, Synset]):
        self._synsets = synsets
        self._senses: dict[str, list[str]] = {}
        for wnid, synset in synsets.items():
            for lemma in synset.lemmas:
                self._senses.setdefault(fold(lemma), []).append(wnid)
        self._heights = cache(self._climb)
        self._depth = cache(self._measure)

    def __contains__(self, wnid: str) -> bool:
        """Tell whether a synset is known."""
        return wnid in self._synsets

    def senses(self, word: str) -> tuple[str, ...]:
        """Return the identifiers of a word's noun meanings; none for an unknown word."""
        return tuple(self._senses.get(fold(word), ()))

    def similarity(self, a: str, b: str) -> float:
        """Return Wu and Palmer's similarity of two synsets, in (0, 1]; 0 without a common root."""
        above_a, above_b = self._heights(a), self._heights(b)
        common = above_a.keys() & above_b.keys()
        pairs = ((self._depth(h), above_a[h] + above_b[h]) for h in common)
        return max((_closeness(depth, links) for depth, links in pairs), default=0.0)

    def steps(self, a: str, b: str) -> float:
        """Return the fewest hypernym links between two synsets, up and down; inf without a path."""
        above_a, above_b = self._heights(a), self._heights(b)
        common = above_a.keys() & above_b.keys()
        return min((above_a[h] + above_b[h] for h in common), default=inf)

    def above(self, wnid: str) -> Mapping[str, int]:
        """Return every hypernym of a synset, itself included, with the fewest links up to it."""
        return self._heights(wnid)

    def depth(self, wnid: str) -> int:
        """Return the depth of a synset: 1 for a root, one more for each link down from it."""
        return self._depth(wnid)

    def _climb(self, wnid: str) -> dict[str, int]:
        """Find `above`."""
        steps, level = {wnid: 0}, [wnid]
        while level:
            above = {h for one in level for h in self._synsets[one].hypernyms} - steps.keys()
            steps.update(dict.fromkeys(above, steps[level[0]] + 1))
            level = list(above)
        return steps

    def _measure(self, wnid: str) -> int:
        """Find `depth`, the longest way down."""
        return 1 + max(map(self._depth, self._synsets[wnid].hypernyms), default=0)


def wu_palmer(pred: Words, truth: Words | Sequence[str], hypernyms: Hypernyms) -> Score:
    """Score the mean over a neuron's names of their best similarity to its truth.

    A word is taken in whichever meaning suits it best; a word that WordNet does not know scores 0.

    Parameters
    ----------
    pred : list of list of str
        The names of N neurons; empty where one abstains, which scores 0.
    truth : list of list of str, or list of str
        Synonyms of each neuron; or its synset ("n02012849"), so that a bird is no machine.
    hypernyms : Hypernyms
        The tree of meanings.

    Returns
    -------
    Score
        Values in [0, 1].

    Raises
    ------
    ValueError
        If the lists differ in length, a neuron has no truth, or a synset is unknown.
    """
    meanings = right_meanings(truth, hypernyms)
    by_id = all(isinstance(one, str) for one in truth)
    names, _ = word_sets(pred, [[one] for one in truth] if by_id else truth)
    values = [
        sum(_credit(name, right, hypernyms) for name in given) / max(1, len(given))
        for given, right in zip(names, meanings, strict=True)
    ]
    return Score.of("Wu-Palmer", values, names)


def wu_palmer_ceiling(
    truth: Words | Sequence[str], words: Iterable[str], hypernyms: Hypernyms
) -> Score:
    """Return the best that any answer from a concept set could score; a single word reaches it.

    Parameters are those of `wu_palmer`, and the concept set. Through each hypernym only the nearest
    of the words' meanings matters, so that no two meanings are ever compared.
    """
    below = _by_hypernym(words, hypernyms)
    values = [_best_credit(right, below, hypernyms) for right in right_meanings(truth, hypernyms)]
    return Score("Wu-Palmer", torch.tensor(values).double(), torch.ones(len(values)).long())


def right_meanings(truth: Words | Sequence[str], hypernyms: Hypernyms) -> list[tuple[str, ...]]:
    """Return each neuron's right meanings: its synset, or all meanings of its synonyms."""
    if not all(isinstance(one, str) for one in truth):
        return [_meanings(distinct(one), hypernyms) for one in truth]
    if unknown := [one for one in truth if one not in hypernyms]:
        raise ValueError(
            f"{unknown[0]!r} is no synset of this WordNet; give identifiers such as 'n02012849', "
            "or a list of synonyms for each neuron."
        )
    return [(one,) for one in truth]


def _by_hypernym(words: Iterable[str], hypernyms: Hypernyms) -> dict[str, int]:
    """Return for every synset above any meaning of the words the fewest links down to one."""
    below: dict[str, int] = {}
    for meaning in dict.fromkeys(_meanings(distinct(words), hypernyms)):
        for h, links in hypernyms.above(meaning).items():
            below[h] = min(links, below.get(h, links))
    return below


def _best_credit(right: Iterable[str], below: Mapping[str, int], hypernyms: Hypernyms) -> float:
    """Return the best similarity of any meaning of the words to any right meaning."""
    ways = ((h, up + below[h]) for a in right for h, up in hypernyms.above(a).items() if h in below)
    return max((_closeness(hypernyms.depth(h), links) for h, links in ways), default=0.0)


def _closeness(depth: int, links: int) -> float:
    """Return Wu and Palmer's similarity through a hypernym of some depth, so many links away."""
    return 2 * depth / (2 * depth + links)


def _meanings(words: Iterable[str], hypernyms: Hypernyms) -> tuple[str, ...]:
    """Return all meanings of some words."""
    return tuple(wnid for word in words for wnid in hypernyms.senses(word))


def _credit(name: str, right: Iterable[str], hypernyms: Hypernyms) -> float:
    """Return the best similarity of any meaning of a name to any right meaning."""
    pairs = [(a, b) for a in hypernyms.senses(name) for b in right]
    return max((hypernyms.similarity(a, b) for a, b in pairs), default=0.0)
