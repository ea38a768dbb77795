"""Metrics of the paper's tables: their upper bounds for a concept set, and a sentence encoder."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from wwwlib.registry import expanded, require
from wwwlib.scores import Encode, Score, Words, distinct, f1, hit_rate, word_features


def best_names(truth: Words, words: Iterable[str], size: int | None = None) -> list[list[str]]:
    """Return the best possible names of each neuron: its synonyms in a concept set.

    Of ImageNet's 1,000 classes 878 have no synonym in Broden's words, for instance.

    Parameters
    ----------
    truth : list of list of str
        The synonyms of N neurons.
    words : iterable of str
        The concept set.
    size : int, optional
        The maximum number of names; any number by default.

    Returns
    -------
    list of list of str
        Empty for a neuron that no word of the concept set names.
    """
    known = set(distinct(words))
    return [[word for word in distinct(names) if word in known][:size] for names in truth]


def hit_rate_upper_bound(truth: Words, words: Iterable[str]) -> Score:
    """Return the best hit rate that names from a concept set can reach; see `best_names`."""
    return hit_rate(best_names(truth, words), truth)


def f1_upper_bound(
    truth: Words, words: Iterable[str], size: int | None = None, fixed: bool = False
) -> Score:
    """Return the best F1 that names from a concept set can reach; see `best_names`.

    With `fixed` every neuron is given exactly `size` names, as by methods that do not choose their
    number; the others then are wrong.
    """
    best = best_names(truth, words, size)
    if fixed:
        best = [[*own, *(f"\0{i}" for i in range(size - len(own)))] for own in best]
    return f1(best, truth)


def text_cosine_upper_bound(
    truth: Words, words: Sequence[str], encode: Encode, block: int = 256
) -> Score:
    """Return the best mean cosine to the synonyms, which a single word of the set reaches.

    Parameters
    ----------
    truth : list of list of str
        The synonyms of N neurons.
    words : sequence of str
        The concept set.
    encode : callable
        M strings -> (M, D) features.
    block : int
        Number of neurons compared with all words at once.

    Returns
    -------
    Score
        Values in [-1, 1].
    """
    known, right = distinct(words), [distinct(names) for names in truth]
    features = word_features([known, *right], encode)
    centres, t = torch.stack([features(names).mean(0) for names in right]), features(known)
    values = torch.cat([(part @ t.T).amax(1) for part in centres.split(block)])
    return Score("text cosine", values.double(), torch.ones(len(truth), dtype=torch.int64))


def sentence_encoder(
    model: str | Path = "sentence-transformers/all-mpnet-base-v2", device: str = "cpu"
) -> Callable[[list[str]], Tensor]:
    """Return a function from M strings to (M, D) unit-norm sentence features.

    Parameters
    ----------
    model : str or Path
        A sentence-transformers folder, read offline, or a name to download. The paper's "mpnet
        cos" uses all-mpnet-base-v2 (WWW, 4.1).
    device : str
        Device of the network.

    Raises
    ------
    FileNotFoundError
        If there is no such folder and the name cannot be downloaded.
    ImportError
        If sentence-transformers is not installed.
    """
    library = require("sentence_transformers", "notebooks")
    name = str(expanded(model))
    try:
        network = library.SentenceTransformer(
            name, device=device, local_files_only=Path(name).is_dir()
        )
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"The sentence encoder {str(model)!r} is neither a folder here nor could it be "
            "downloaded; put all-mpnet-base-v2 (about 440 MB) into a folder and give its path."
        ) from error

    settings = {"normalize_embeddings": True, "convert_to_tensor": True, "show_progress_bar": False}
    return lambda texts: network.encode(list(texts), **settings).clone()
