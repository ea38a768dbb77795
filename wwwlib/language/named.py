"""Find an encoder, a concept set or the true names by the word a notebook's parameter gives."""

from collections.abc import Iterable
from pathlib import Path

from wwwlib.language.clip import open_clip
from wwwlib.language.concept_sets import TEMPLATE, ConceptSet, from_file
from wwwlib.language.encoders import Encoder, load
from wwwlib.language.sources import (
    broden,
    imagenet_classes,
    places365,
    places365_truth,
    synonyms,
)
from wwwlib.language.wordnet import wordnet_nouns
from wwwlib.registry import EXTENSIONS, extension
from wwwlib.targets import Target

CONCEPT_SETS = (*EXTENSIONS, "classes", "imagenet", "wordnet", "broden", "places365", "file")


def encoder(spec: str, device: str = "cpu") -> Encoder:
    """Load an image-text encoder.

    Parameters
    ----------
    spec : str
        "world" for the concept world's CLIP; "open_clip:ViT-B-32-quickgelu/openai" for a model and
        a tag of open_clip, "open_clip:local-dir:path" for a folder; else "module:function" or
        "file.py:function", which see `load`.
    device : str
        Where an open_clip model runs.
    """
    if provided := extension(spec):
        return open_clip(f"local-dir:{provided.encoder_folder()}", device=device)
    if spec.startswith("open_clip:local-dir:"):
        return open_clip(spec.removeprefix("open_clip:"), device=device)
    if spec.startswith("open_clip:"):
        model, slash, tag = spec.removeprefix("open_clip:").partition("/")
        if not slash:
            raise ValueError(
                f"The encoder {spec!r} names no weights: write open_clip:MODEL/TAG, such as "
                "open_clip:ViT-B-32-quickgelu/openai."
            )
        return open_clip(model, tag, device=device)
    return load(spec)


def concept_set(spec: str, target: Target, template: str = TEMPLATE) -> ConceptSet:
    """Build a concept set.

    Parameters
    ----------
    spec : str
        "world", "classes" (of the target, with synonyms), "imagenet" or "wordnet"; "broden:path",
        "places365:path", "wordnet:path" or "file:path" for lists on disk.
    target : Target
        Whose classes "classes" means.
    template : str
        A sentence with exactly one ``{}``.

    Raises
    ------
    ValueError
        If there is no such concept set, or its path is missing.
    """
    kind, _, path = spec.partition(":")
    if kind not in CONCEPT_SETS:
        raise ValueError(f"There is no concept set {spec!r}; use one of {', '.join(CONCEPT_SETS)}.")
    if kind in ("broden", "places365", "file") and not path:
        raise ValueError(f"The concept set {spec!r} needs a file: write {kind}:path/to/the/list.")
    if provided := extension(kind):
        return ConceptSet(provided.VOCABULARY, template, source=f"the concept {kind}")
    if kind == "classes":
        return ConceptSet(_flat(_own_truth(target)), template, source=f"classes of {target.name}")
    if kind == "imagenet":
        return ConceptSet(_flat(synonyms(imagenet_classes().values())), template, source="ImageNet")
    if kind == "wordnet":
        return wordnet_nouns(path or None, template=template)
    return {"broden": broden, "places365": places365, "file": from_file}[kind](
        Path(path), template=template
    )


def titles(specs: Iterable[str]) -> dict[str, str]:
    """Return a short title of each concept set, for tables and figures.

    It is the kind alone, such as "broden" of "broden:/a/path/labels.txt"; where two sets are of one
    kind, or the kind says nothing, the file's name with it, such as "file:nouns.txt"; where even
    these are alike, the text as it was given. So the kind can be told from a title, too.

    Parameters
    ----------
    specs : iterable of str
        As `concept_set` takes them.

    Returns
    -------
    dict of spec to title
        In order, each spec once; no two titles are alike.
    """
    specs = list(dict.fromkeys(specs))
    found: dict[str, str] = {}
    for shorten in (_kind, _last, str):
        short = [shorten(spec) for spec in specs]
        for spec, title in zip(specs, short, strict=True):
            if short.count(title) == 1 and title != "file":
                found.setdefault(spec, title)
    return {spec: found[spec] for spec in specs}


def _kind(spec: str) -> str:
    return spec.partition(":")[0]


def _last(spec: str) -> str:
    kind, colon, path = spec.partition(":")
    return f"{kind}{colon}{Path(path).name}"


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
        If there is no such truth, or it does not have one entry a class.
    """
    kind, _, path = spec.partition(":")
    if kind == "classes":
        found = _own_truth(target)
    elif kind == "imagenet":
        found = synonyms(imagenet_classes().values())
    elif kind == "places365" and path:
        found = places365_truth(path)
    else:
        raise ValueError(
            f"There are no true names {spec!r}; use classes, imagenet or places365:path."
        )
    if len(found) != len(target.classes):
        raise ValueError(
            f"{spec!r} names {len(found)} classes, but {target.name} has {len(target.classes)}; "
            "take the names of the data set that the network was trained on."
        )
    return found


def _own_truth(target: Target) -> list[list[str]]:
    """Return the target's class names, with the synonyms that the target's extension lists."""
    provided = extension(target.name.partition("/")[0])
    if provided and target.classes == tuple(provided.SYNONYMS):
        return [list(names) for names in provided.SYNONYMS.values()]
    return synonyms(target)


def _flat(truth_lists: list[list[str]]) -> list[str]:
    return [word for words in truth_lists for word in words]
