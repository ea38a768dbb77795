"""Grades of names for figures, with partial credit by WordNet's hypernyms; no score of the paper.

A grade is "right" for a synonym of the truth, "near" if any synset of the name lies within two
hypernym links (up or down) of any true synset, and else "wrong": "vessel" and "ship" are near
"boat", but "dog" is three links from "beagle".
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from math import inf

from wwwlib.language import Synset, fold
from wwwlib.scores import distinct

RIGHT, NEAR, WRONG = "right", "near", "wrong"
LINKS = 2
Graded = tuple[tuple[str, str | None], ...]  # names with their grades


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

    def senses(self, words: Iterable[str]) -> tuple[str, ...]:
        """Return the synsets of some words; none for an unknown word."""
        return tuple(wnid for word in words for wnid in self._senses.get(fold(word), ()))

    def steps(self, a: str, b: str) -> float:
        """Return the fewest hypernym links between two synsets, up and down; inf without a path."""
        one, two = self.above(a), self.above(b)
        return min((one[h] + two[h] for h in one.keys() & two.keys()), default=inf)

    def _above(self, wnid: str) -> Mapping[str, int]:
        """Return every hypernym of a synset, itself included, with the fewest links up to it."""
        steps, level = {wnid: 0}, [wnid]
        while level:
            above = {h for one in level for h in self._synsets[one].hypernyms} - steps.keys()
            steps.update(dict.fromkeys(above, steps[level[0]] + 1))
            level = list(above)
        return steps


def grade(name: str, truth: Sequence[str], hypernyms: Hypernyms | None = None) -> str:
    """Grade one name.

    Parameters
    ----------
    name : str
        Case and white space do not count.
    truth : sequence of str
        The synonyms of the neuron's true concept.
    hypernyms : Hypernyms, optional
        Without WordNet no name is near.

    Returns
    -------
    {"right", "near", "wrong"}
    """
    if fold(name) in distinct(truth):
        return RIGHT
    if hypernyms is None:
        return WRONG
    pairs = ((a, b) for a in hypernyms.senses([name]) for b in hypernyms.senses(truth))
    return NEAR if any(hypernyms.steps(a, b) <= LINKS for a, b in pairs) else WRONG


def graded(names: Sequence[str], truth: Sequence[str], hypernyms: Hypernyms | None) -> Graded:
    """Return a neuron's distinct names, in their own spelling, with their grades.

    The grades are None where the truth is not known, that is, empty.
    """
    if not truth:
        return tuple((name, None) for name in dict.fromkeys(names))
    kept = {fold(name): name for name in reversed(names)}
    return tuple((kept[one], grade(one, truth, hypernyms)) for one in distinct(names))


def grading_rule(hypernyms: Hypernyms | None) -> str:
    """Return the rule of the grades in a sentence, as applied with or without WordNet."""
    if hypernyms is None:
        return "right: a synonym of the truth; wrong: any other. No name is near without WordNet."
    return f"right: a synonym of the truth; near: within {LINKS} hypernym links; wrong: any other."
