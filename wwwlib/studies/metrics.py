"""Metrics of the paper's tables: true names, upper bounds for a concept set, a sentence encoder.

As ground truth each class is the list of its synonyms, and a name is right if it is among them.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from wwwlib.images import sources
from wwwlib.language.concept_sets import class_synonyms, places365
from wwwlib.registry import expanded, require
from wwwlib.scores import Encode, Score, Words, distinct, f1, hit_rate, word_features
from wwwlib.targets import Target

# True names -----------------------------------------------------------------------------------


def places365_truth(path: str | Path, reading: str = "paper") -> list[list[str]]:
    """Return the ground truth of the 365 scenes.

    The paper's code keeps only what follows the last slash, "exterior" for
    ``/b/balcony/exterior``, which is not in its own concept set: 75 scenes cannot be named
    correctly, and perfect names score a hit rate of .7945. In the "clean" reading truth and concept
    set agree.
    """
    if reading != "paper":
        return [[scene] for scene in places365(path, reading).words]
    return [[scene.rpartition("/")[2]] for scene in sources.places365_scenes(path)]


def truth(spec: str, target: Target) -> list[list[str]]:
    """Return the true names of a target's final-layer neurons, the synonyms of each class.

    Parameters
    ----------
    spec : str
        "classes" for the target's own class names, "imagenet" for WordNet's synonyms of ImageNet's
        classes in their order, "places365:path" for the paper's reading of the scenes.
    target : Target

    Raises
    ------
    ValueError
        If there is no such truth, or its number or order of classes is not that of the target.
    """
    kind, _, path = spec.partition(":")
    if kind in ("classes", "imagenet"):
        found = class_synonyms(kind, target)
    elif kind == "places365" and path:
        found = places365_truth(path)
    else:
        raise ValueError(f"The truth is {spec!r}; use classes, imagenet or places365:path.")
    if len(found) != len(target.classes):
        raise ValueError(
            f"{spec!r} names {len(found)} classes, but {target.name} has {len(target.classes)}; "
            "take the names of the data set that the network was trained on."
        )
    places = sources.partners([names[0] for names in found], target.classes)
    for i, place in enumerate(places if kind == "imagenet" else []):
        if place not in (i, None):
            raise ValueError(
                f"{spec!r} has {found[i][0]!r} as class {i}, but {target.name} as class {place}; "
                "take 'classes', the network's own names."
            )
    return found


# Upper bounds ---------------------------------------------------------------------------------


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


def f1_upper_bound(truth: Words, words: Iterable[str], size: int | None = None) -> Score:
    """Return the best F1 that names from a concept set can reach; see `best_names`.

    With a `size` every neuron is given exactly so many names, as by methods that do not choose
    their number; those that are no synonyms are wrong.
    """
    best = best_names(truth, words, size)
    return f1([[*own, *(f"\0{i}" for i in range(len(own), size or 0))] for own in best], truth)


def text_cosine_upper_bound(truth: Words, words: Sequence[str], encode: Encode) -> Score:
    """Return the best mean cosine to the synonyms, which a single word of the set reaches.

    Parameters
    ----------
    truth : list of list of str
        The synonyms of N neurons.
    words : sequence of str
        The concept set.
    encode : callable
        M strings -> (M, D) features.

    Returns
    -------
    Score
        Values in [-1, 1].
    """
    known, right = distinct(words), [distinct(names) for names in truth]
    features = word_features([known, *right], encode)
    centres, t = torch.stack([features(names).mean(0) for names in right]), features(known)
    values = torch.cat([(part @ t.T).amax(1) for part in centres.split(256)])
    return Score("text cosine", values.double(), torch.ones(len(truth), dtype=torch.int64))


def sentence_encoder(model: str | Path, device: str = "cpu") -> Callable[[list[str]], Tensor]:
    """Return a function from M strings to (M, D) unit-norm sentence features.

    Parameters
    ----------
    model : str or Path
        A sentence-transformers folder, read offline, or a name to download. The paper's "mpnet
        cos" uses sentence-transformers/all-mpnet-base-v2 (WWW, 4.1).
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
        local = Path(name).is_dir()
        network = library.SentenceTransformer(name, device=device, local_files_only=local)
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"The sentence encoder {str(model)!r} is neither a folder here nor could it be "
            "downloaded; put all-mpnet-base-v2 (about 440 MB) into a folder and give its path."
        ) from error

    settings = {"normalize_embeddings": True, "convert_to_tensor": True, "show_progress_bar": False}
    return lambda texts: network.encode(list(texts), **settings).clone()
