"""Labels of images as indices of a network's classes: the names of the classes decide, one by one.

A folder numbers its classes in order of their names, a network in another order; neither the
position of a class nor the number of classes shows that two lists mean the same.
"""

import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from wwwlib.images.image_set import ImageSet, subset
from wwwlib.store import digest

_SEPARATORS = re.compile(r"[\s_/-]+")
_LISTED = 8  # classes without a partner that a message lists


def class_names(given: Iterable[str | Sequence[str]] | Mapping[int, str]) -> tuple[str, ...]:
    """Return class names in the order of their indices.

    Parameters
    ----------
    given : iterable of str, or mapping of int to str
        A mapping has the keys 0 to C - 1. A class may also be a tuple or list of synonyms, of
        which the first is taken, as in torchvision's ImageNet.

    Raises
    ------
    ValueError
        If the order is not defined, or a name is no string.
    """
    if isinstance(given, Mapping) and {*given} == {*range(len(given))}:
        given = [given[i] for i in range(len(given))]
    ordered = isinstance(given, Iterable) and not isinstance(given, str | set | frozenset | Mapping)
    names = [_first_of_synonyms(one) for one in given] if ordered else []
    odd = [one for one in names if not isinstance(one, str | int)]
    if odd or not ordered:
        raise ValueError(
            f"classes contains or is {(odd or [given])[0]!r:.80}; give a list of the class "
            "names, in the order of their indices, or a dictionary from 0, 1, ... to the names."
        )
    return tuple(map(str, names))


def _first_of_synonyms(names: object) -> object:
    several = isinstance(names, tuple | list) and names and all(isinstance(n, str) for n in names)
    return names[0] if several else names


def match_labels(images: ImageSet, target: Any, warn: bool = True) -> ImageSet:
    """Return the images with labels that are indices of the network's classes.

    Each class of the images is matched by its name, whatever separates the words of it. An image
    whose class has no partner has no label; functions that need a class then use the predicted one.

    Parameters
    ----------
    images : ImageSet
    target : Target
    warn : bool
        Whether to list classes without a partner in a warning.
    """
    partner = partners(images.classes, target.classes)
    labels = tuple(None if label is None else partner[label] for label in images.labels)
    if labels == images.labels and (len(partner) == len(target.classes) or {*labels} <= {None}):
        return images
    if warn and (lost := _without_partner(images, partner)):
        warnings.warn(f"{_loss(images, target, lost)}; predicted classes are used.", stacklevel=3)
    content = {"labels of": images.fingerprint, "are now": labels, "of": target.classes}
    return replace(images, classes=target.classes, labels=labels, fingerprint=digest(content))


def labelled_subset(images: ImageSet, target: Any) -> ImageSet:
    """Return the images that have a label, as indices of the network's classes.

    Raises
    ------
    ValueError
        If no image has one.
    """
    matched = match_labels(images, target, warn=False)
    labelled = [i for i, label in enumerate(matched.labels) if label is not None]
    if not labelled:
        lost = _without_partner(images, partners(images.classes, target.classes))
        reason = _loss(images, target, lost) if lost else f"{images.name!r} has no labels"
        raise ValueError(
            f"None of {len(images)} images has a label among the classes of {target.name}, since "
            f"{reason}: put them into one folder per class, with the network's class names, such "
            f"as {target.classes[0]!r}."
        )
    return matched if len(labelled) == len(matched) else subset(matched, labelled)


def shown_classes(images: ImageSet, target: Any) -> list[int]:
    """Return the indices of the classes that occur among the labels; without labels, of all."""
    labels = {*match_labels(images, target, warn=False).labels} - {None}
    return sorted(labels) or [*range(len(target.classes))]


def class_name(images: ImageSet, i: int, known: Sequence[str]) -> str | None:
    """Return the name of the class of image `i`, spelled as among the network's classes `known`.

    A class without a partner in `known` keeps its name; None without a label.
    """
    label = images.label(i)
    if label is None:
        return None
    partner = partners(images.classes, known)[label]
    return images.classes[label] if partner is None else known[partner]


def partners(classes: Sequence[str], known: Sequence[str]) -> list[int | None]:
    """Return for each class its index in `known`, None without a partner.

    A name that occurs once in both lists is matched wherever it stands. Among 1,000 classes of
    ImageNet two are called "crane", and some networks have a "crane bird" and a "crane": a name
    that occurs several times is matched only at its own place, if the name there begins with it.
    """
    if tuple(classes) == tuple(known):
        return [*range(len(known))]
    theirs, ours = _normalised(classes, known)
    here, there = Counter(theirs), Counter(ours)
    place = {name: i for i, name in enumerate(ours)}

    def partner(i: int, name: str) -> int | None:
        if here[name] == there[name] == 1:
            return place[name]
        if not there[name] or len(theirs) != len(ours):
            return None
        longer = ours[i].startswith(f"{name} ") and not here[ours[i]]
        return i if longer or ours[i] == name else None

    return [partner(i, name) for i, name in enumerate(theirs)]


def _normalised(*lists: Sequence[str]) -> list[list[str]]:
    """Return names composed (NFC), with one blank between words unless that makes two names equal.

    Places365 has ``arena/hockey`` and ``army_base``, a network "arena hockey" and "army base". Case
    matters: ImageNet has a Cardigan, a dog, and a cardigan, a garment.
    """
    lists = [[unicodedata.normalize("NFC", name) for name in names] for names in lists]
    plain = [[" ".join(_SEPARATORS.split(name)) for name in names] for names in lists]
    merged = any(len({*new}) < len({*old}) for new, old in zip(plain, lists, strict=True))
    return lists if merged else plain


def _without_partner(images: ImageSet, partner: Sequence[int | None]) -> dict[str, int]:
    """Return the classes that have images but no partner, with their numbers of images."""
    count = Counter(label for label in images.labels if label is not None)
    return {images.classes[i]: n for i, n in sorted(count.items()) if partner[i] is None}


def _loss(images: ImageSet, target: Any, lost: Mapping[str, int]) -> str:
    listed = ", ".join(map(repr, [*lost][:_LISTED])) + (", ..." if len(lost) > _LISTED else "")
    return (
        f"{len(lost)} of the {len({*images.labels} - {None})} classes of {images.name!r} have no "
        f"single class of that name in {target.name}, so {sum(lost.values())} of {len(images)} "
        f"images have no label: {listed}"
    )
