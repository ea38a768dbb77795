"""Partial credit for names by WordNet's hypernyms: Wu-Palmer similarity, and grades for figures.

Neither is a score of the paper. The Wu-Palmer similarity (1994) of two synsets is
``2 depth(c) / (2 depth(c) + links up to c)``, with c a common hypernym. WordNet is a graph, not a
tree: of several common hypernyms the one with the highest similarity counts.

A grade is "right" for a synonym of the truth, "near" if any synset of the name lies within two
hypernym links (up or down) of any true synset, and else "wrong": "vessel" and "ship" are near
"boat", but "dog" is three links from "beagle".
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from math import inf

import torch

from wwwlib.language import Synset, fold
from wwwlib.scores import Score, Words, distinct, score_names, word_sets

RIGHT, NEAR, WRONG, NO_NAME = "right", "near", "wrong", "no name"
GRADES = (RIGHT, NEAR, WRONG, NO_NAME)  # from the best to none
LINKS = 2


class Hypernyms:
    """WordNet's nouns as a graph of synsets.

    Parameters
    ----------
    synsets : mapping of str to Synset
        From `language.read_synsets`.
    """

    def __init__(self, synsets: Mapping[str, Synset]):
        self._synsets = synsets
        self._senses: dict[str, list[str]] = {}
        for wnid, synset in synsets.items():
            for lemma in synset.lemmas:
                self._senses.setdefault(fold(lemma), []).append(wnid)
        self.above = cache(self._above)
        self.depth = cache(self._depth)

    def senses(self, words: Iterable[str]) -> tuple[str, ...]:
        """Return the synsets of some words; none for an unknown word."""
        return tuple(wnid for word in words for wnid in self._senses.get(fold(word), ()))

    def similarity(self, a: str, b: str) -> float:
        """Return the Wu-Palmer similarity of two synsets, in (0, 1]; 0 without a common root."""
        return max((_closeness(self.depth(h), n) for h, n in self._common(a, b)), default=0.0)

    def steps(self, a: str, b: str) -> float:
        """Return the fewest hypernym links between two synsets, up and down; inf without a path."""
        return min((links for _, links in self._common(a, b)), default=inf)

    def _common(self, a: str, b: str) -> list[tuple[str, int]]:
        """Return the common hypernyms of two synsets, with the links up to each from both."""
        one, two = self.above(a), self.above(b)
        return [(h, one[h] + two[h]) for h in one.keys() & two.keys()]

    def _above(self, wnid: str) -> Mapping[str, int]:
        """Return every hypernym of a synset, itself included, with the fewest links up to it."""
        steps, level = {wnid: 0}, [wnid]
        while level:
            above = {h for one in level for h in self._synsets[one].hypernyms} - steps.keys()
            steps.update(dict.fromkeys(above, steps[level[0]] + 1))
            level = list(above)
        return steps

    def _depth(self, wnid: str) -> int:
        """Return the length of the longest way down to a synset: 1 for a root."""
        return 1 + max(map(self.depth, self._synsets[wnid].hypernyms), default=0)


# Wu-Palmer similarity -------------------------------------------------------------------------


def wu_palmer(pred: Words, truth: Words, hypernyms: Hypernyms) -> Score:
    """Mean over a neuron's names of their highest Wu-Palmer similarity to its truth.

    Of several synsets of a word the most similar one counts; an unknown word scores 0.

    Parameters
    ----------
    pred : list of list of str
        The names of N neurons; empty where a neuron abstains, which scores 0.
    truth : list of list of str
        The synonyms of each neuron.
    hypernyms : Hypernyms

    Returns
    -------
    Score
        Values in [0, 1].

    Raises
    ------
    ValueError
        If the lists differ in length, or a neuron has no truth.
    """
    pairs = word_sets(pred, truth)

    def best(name: str, true: Iterable[str]) -> float:
        synsets = hypernyms.senses([name])
        return max((hypernyms.similarity(a, b) for a in synsets for b in true), default=0.0)

    values = [
        sum(best(name, true) for name in names) / max(1, len(names))
        for (names, _), true in zip(pairs, map(hypernyms.senses, truth), strict=True)
    ]
    return score_names("Wu-Palmer", pairs, values)


def wu_palmer_upper_bound(truth: Words, words: Iterable[str], hypernyms: Hypernyms) -> Score:
    """Best score that names from a concept set can reach, which a single word does.

    Parameters are those of `wu_palmer`, and the concept set. For each hypernym only the nearest
    synset of the words matters, so that words and truth are not compared pair by pair.
    """
    below: dict[str, int] = {}  # every hypernym of the words, with the fewest links down to one
    for wnid in dict.fromkeys(hypernyms.senses(words)):
        for h, links in hypernyms.above(wnid).items():
            below[h] = min(links, below.get(h, links))

    def nearest(wnid: str) -> float:
        common = ((h, up + below[h]) for h, up in hypernyms.above(wnid).items() if h in below)
        return max((_closeness(hypernyms.depth(h), links) for h, links in common), default=0.0)

    values = [max(map(nearest, true), default=0.0) for true in map(hypernyms.senses, truth)]
    return Score("Wu-Palmer", torch.tensor(values).double(), torch.ones(len(values)).long())


def _closeness(depth: int, links: int) -> float:
    return 2 * depth / (2 * depth + links)


# Grades ---------------------------------------------------------------------------------------


def grade(
    name: str, truth: Sequence[str], hypernyms: Hypernyms | None = None, links: int = LINKS
) -> str:
    """Grade one name.

    Parameters
    ----------
    name : str
        Case and white space do not count.
    truth : sequence of str
        The synonyms of the neuron's true concept.
    hypernyms : Hypernyms, optional
        Without WordNet no name is near.
    links : int
        Maximum number of hypernym links of a near name.

    Returns
    -------
    {"right", "near", "wrong"}
    """
    if fold(name) in distinct(truth):
        return RIGHT
    if hypernyms is None:
        return WRONG
    pairs = ((a, b) for a in hypernyms.senses([name]) for b in hypernyms.senses(truth))
    return NEAR if any(hypernyms.steps(a, b) <= links for a, b in pairs) else WRONG


def graded(
    names: Sequence[str], truth: Sequence[str], hypernyms: Hypernyms | None = None
) -> tuple[tuple[str, str], ...]:
    """Return a neuron's distinct names, in their own spelling, with their grades."""
    kept = {fold(name): name for name in reversed(names)}
    return tuple((kept[one], grade(one, truth, hypernyms)) for one in distinct(names))


def count_grades(pred: Words, truth: Words, hypernyms: Hypernyms | None = None) -> dict[str, int]:
    """Count neurons by the best grade of their names.

    Parameters
    ----------
    pred, truth : list of list of str
        The names and the synonyms of N neurons.
    hypernyms : Hypernyms, optional
        As for `grade`.

    Returns
    -------
    dict of grade to int
        All four grades, the best first; "no name" for neurons that abstain.
    """
    word_sets(pred, truth)
    count = Counter(
        min((g for _, g in graded(names, right, hypernyms)), key=GRADES.index, default=NO_NAME)
        for names, right in zip(pred, truth, strict=True)
    )
    return {one: count[one] for one in GRADES}


def grading_rule(hypernyms: Hypernyms | None) -> str:
    """Return the rule of the grades in a sentence, as applied with or without WordNet."""
    if hypernyms is None:
        return "right: a synonym of the truth; wrong: any other. No name is near without WordNet."
    return f"right: a synonym of the truth; near: within {LINKS} hypernym links; wrong: any other."
