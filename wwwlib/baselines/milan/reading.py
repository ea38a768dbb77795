"""Read descriptions as words of a concept set, so that they are scored as other methods' names."""

import re
from collections.abc import Iterable, Iterator

import torch

from wwwlib.concepts import ConceptTable

_ENDINGS = (("ies", "y"), ("ves", "f"), ("ves", "fe"), ("es", ""), ("s", ""), ("", ""))


def words(table: ConceptTable, vocabulary: Iterable[str]) -> ConceptTable:
    """Keep of each description what is in a vocabulary.

    The longest phrase that starts at a word wins, so that "hot dogs" is not a dog. Case does not
    matter, and the last word of a phrase may stand in the plural.

    Parameters
    ----------
    table : ConceptTable
        Descriptions.
    vocabulary : iterable of str
        Words and phrases.

    Returns
    -------
    ConceptTable
        The vocabulary's own spelling of what each description contains, in its order and each
        once, with the description's score. A neuron of whose description nothing is left
        abstains.
    """
    known = {_folded(word): word for word in vocabulary}
    longest = max((len(key.split()) for key in known), default=0)
    names, scores = [], []
    for texts, values in zip(table.names, table.scores, strict=True):
        found: dict[str, float] = {}
        for text, value in zip(texts, values, strict=True):
            for word in _found(_folded(text).split(), known, longest):
                found.setdefault(word, value)
        names.append(list(found))
        scores.append(list(found.values()))
    least = torch.tensor([min(own) if own else 0.0 for own in scores])
    return ConceptTable(names, scores, least, torch.tensor([not own for own in names]))


def _found(tokens: list[str], known: dict[str, str], longest: int) -> Iterator[str]:
    """Yield the known phrases among words, from left to right, none inside another."""
    start = 0
    while start < len(tokens):
        for end in range(min(start + longest, len(tokens)), start, -1):
            if word := _known(tokens[start:end], known):
                yield word
                start = end - 1
                break
        start += 1


def _known(tokens: list[str], known: dict[str, str]) -> str | None:
    """Return the vocabulary's spelling of a phrase as it stands, or else in the singular."""
    *first, last = tokens
    spellings = [last] + [last.removesuffix(e) + own for e, own in _ENDINGS if last.endswith(e)]
    texts = (" ".join([*first, spelling]) for spelling in spellings)
    return next((known[text] for text in texts if text in known), None)


def _folded(text: str) -> str:
    """Return lower-case words with single spaces, without punctuation and underscores."""
    return " ".join(re.findall(r"[^\W_]+(?:['-][^\W_]+)*", text.lower()))
