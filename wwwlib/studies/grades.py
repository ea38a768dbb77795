"""Right, near or wrong: a mark for a single name, by a rule that one can say aloud.

A name is *right* if it is a synonym of the truth, *near* if any of its meanings lies within two
hypernym links (up or down) of any right meaning, and else *wrong*. So "vessel" is near "boat", and
"ship" through that, their common hypernym; but "dog" is three links from "beagle". It is a reading
aid for figures, and no score of the paper's.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from wwwlib.language import fold
from wwwlib.scores.agreement import Words, distinct, word_sets
from wwwlib.studies.wordnet import Hypernyms

RIGHT, NEAR, WRONG, SILENT = "right", "near", "wrong", "no name"
MARKS = (RIGHT, NEAR, WRONG, SILENT)  # from the best to none
LINKS = 2


def mark(
    name: str, truth: Sequence[str], hypernyms: Hypernyms | None = None, links: int = LINKS
) -> str:
    """Mark one name.

    Parameters
    ----------
    name : str
        As a method gave it; case and white space do not count.
    truth : sequence of str
        The synonyms of what the neuron stands for.
    hypernyms : Hypernyms, optional
        Without WordNet nobody is near.
    links : int
        How many hypernym links still are near.

    Returns
    -------
    {"right", "near", "wrong"}
    """
    if fold(name) in distinct(truth):
        return RIGHT
    if hypernyms is None:
        return WRONG
    pairs = ((a, b) for a in hypernyms.senses(name) for b in _meanings(truth, hypernyms))
    return NEAR if any(hypernyms.steps(a, b) <= links for a, b in pairs) else WRONG


def marked(
    names: Sequence[str],
    truth: Sequence[str],
    hypernyms: Hypernyms | None = None,
    links: int = LINKS,
) -> tuple[tuple[str, str], ...]:
    """Return a neuron's names, as given and each once, with their marks."""
    kept = dict(zip(map(fold, reversed(names)), reversed(names), strict=True))
    return tuple((kept[one], mark(one, truth, hypernyms, links)) for one in distinct(names))


def best_mark(
    names: Sequence[str],
    truth: Sequence[str],
    hypernyms: Hypernyms | None = None,
    links: int = LINKS,
) -> str:
    """Return the best mark of any of a neuron's names; "no name" where there is none."""
    found = {one for _, one in marked(names, truth, hypernyms, links)}
    return min(found or {SILENT}, key=MARKS.index)


def tally(
    pred: Words, truth: Words, hypernyms: Hypernyms | None = None, links: int = LINKS
) -> dict[str, int]:
    """Count neurons by the best mark of their names.

    Parameters
    ----------
    pred, truth : list of list of str
        The names of N neurons, and what each stands for.
    hypernyms, links
        As for `mark`.

    Returns
    -------
    dict of mark to int
        All four marks, the best first.
    """
    word_sets(pred, truth)
    pairs = zip(pred, truth, strict=True)
    count = Counter(best_mark(names, right, hypernyms, links) for names, right in pairs)
    return {one: count[one] for one in MARKS}


def rule(hypernyms: Hypernyms | None, links: int = LINKS) -> str:
    """Say the rule in a sentence, as it was applied."""
    if hypernyms is None:
        return "right: a synonym of the truth; wrong: any other. WordNet is missing: none is near."
    return f"right: a synonym of the truth; near: within {links} hypernym links; wrong: any other."


def _meanings(words: Iterable[str], hypernyms: Hypernyms) -> set[str]:
    return {wnid for word in words for wnid in hypernyms.senses(word)}
