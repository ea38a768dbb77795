"""Compare two networks: concepts that both or only one have names for, and neurons that match."""

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor

from wwwlib.atlas import Atlas
from wwwlib.concepts import ConceptTable
from wwwlib.evaluation import activations
from wwwlib.images import ImageSet

_LISTED = 60  # matching neurons, at most


def compare(books: Mapping[str, Atlas], probe: ImageSet, **options: object) -> dict:
    """Compare the last hidden layers of two networks on the same images and words.

    Parameters
    ----------
    books : mapping of str to Atlas
        Two networks, whose neurons were named with the same words.
    probe : ImageSet
        Images on which activations are correlated.
    **options
        Fields of `distributed.Options`.

    Returns
    -------
    dict
        JSON values: "layers", their titles; "concepts", first names that do not fail their test,
        "shared" or of the "first" or "second" network only; "matches", rows of (neuron, neuron,
        correlation, name, name) for neurons that are nearest to each other, highest correlation
        first. The page adds the pictures that the networks decide differently.

    Raises
    ------
    ValueError
        If there are not two networks, or their words differ.
    """
    if len(books) != 2:
        raise ValueError(f"There are {len(books)} networks; give two with names of their own.")
    if len({book.words for book in books.values()}) > 1:
        raise ValueError("The networks were named with different words; use one list for both.")
    records = [book.layer() for book in books.values()]
    z = [
        activations(book.target, probe, [record.name], **options)[record.name]
        for book, record in zip(books.values(), records, strict=True)
    ]
    named = [first_names(record.major) for record in records]
    first, second = ({*names} - {""} for names in named)
    concepts = {"shared": first & second, "first": first - second, "second": second - first}
    return {
        "layers": [f"{n} · {record.name}" for n, record in zip(books, records, strict=True)],
        "concepts": {whose: sorted(words) for whose, words in concepts.items()},
        "matches": _matches(z, named),
    }


def first_names(table: ConceptTable) -> list[str]:
    """Return the first name of every neuron; empty if it has none, or one that fails its test."""
    return [
        "" if not names or table.supported(i) is False else names[0]
        for i, names in enumerate(table.names)
    ]


def _matches(z: list[Tensor], names: list[list[str]]) -> list[list]:
    u, v = (F.normalize((one - one.mean(0)).double(), dim=0) for one in z)
    r = (u.T @ v).nan_to_num(-1)
    (best, there), back = r.max(1), r.argmax(0)
    mutual = [i for i, j in enumerate(there.tolist()) if back[j] == i]
    rows = sorted(([i, int(there[i]), best[i].item()] for i in mutual), key=lambda row: -row[2])
    both = [[one or "no name" for one in own] for own in names]
    return [[i, j, r, both[0][i], both[1][j]] for i, j, r in rows[:_LISTED]]
