"""Class contributions: the mean of w over the images of every class (WWW, section 3.4).

Before a linear head they follow from the class sums of the exemplars. Elsewhere one pass captures
all layers, with the gradient of each image's class, and adds exactly.
"""

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

import torch
from torch import Tensor

from wwwlib.contributions import contribute_all
from wwwlib.distributed import Pass, State, class_sums, class_totals, merge_class_sums, run
from wwwlib.exemplars import Exemplars
from wwwlib.images import ImageSet, subset
from wwwlib.store import digest
from wwwlib.targets import Target

_JOINS = re.compile(r"[\s_/-]+")


def in_classes_of(images: ImageSet, target: Target, warn: bool = True) -> ImageSet:
    """Return the images with their labels in the numbering of the network's classes.

    Lists of classes that say the same in the same order are taken as they are, though some names
    are others (see `_alike`); else classes are found by name, whatever joins its words. Where that
    fails for one of them, all labels are dropped, with a warning unless `warn` is false: the
    predictions will stand for them.
    """
    theirs, ours = _comparable(images.classes, target.classes)
    if _alike(theirs, ours):
        return images
    foreign = _foreign(images.classes, target.classes)
    number = [None if foreign else ours.index(name) for name in theirs]
    labels = tuple(None if label is None else number[label] for label in images.labels)
    if labels == images.labels:
        return images
    if foreign and warn:
        count = "several classes" if foreign[0] in target.classes else "no class"
        warnings.warn(
            f"The labels of {images.name!r} are dropped, since {target.name} has {count} "
            f"{foreign[0]!r}: what it predicts stands for them.",
            stacklevel=3,
        )
    content = {"labels of": images.fingerprint, "are now": labels, "of": target.classes}
    return replace(images, classes=target.classes, labels=labels, fingerprint=digest(content))


def labelled_for(images: ImageSet, target: Target) -> ImageSet:
    """Return the images whose class is known, with labels in the network's numbering.

    They are what predictions can be compared with. Unlike `in_classes_of` this leaves out what has
    no label; compare the lengths to tell how many.

    Raises
    ------
    ValueError
        If no label is left.
    """
    numbered = in_classes_of(images, target, warn=False)
    known = [i for i, label in enumerate(numbered.labels) if label is not None]
    if not known:
        foreign = [f"it has no class {n!r}" for n in _foreign(images.classes, target.classes)]
        raise ValueError(
            f"None of the {len(images)} images of {images.name!r} has a label that {target.name} "
            f"knows ({foreign[0] if foreign else 'they have none'}): put them into one folder a "
            f"class, named as the network names it, such as {target.classes[0]!r}."
        )
    return numbered if len(known) == len(numbered) else subset(numbered, known)


def shown_classes(images: ImageSet, target: Target) -> list[int]:
    """Return the classes of a network of which a set shows images, in the network's numbers.

    A set without labels that the network knows shows its classes by chance: then it is all.
    """
    labels = {*in_classes_of(images, target, warn=False).labels} - {None}
    return sorted(labels) or [*range(len(target.classes))]


def class_name(images: ImageSet, i: int, known: Sequence[str]) -> str | None:
    """Return the class of image i in a network's words, by which a prediction can be judged.

    A class that the network's list does not hold, or holds twice, keeps its own name.
    """
    label = images.label(i)
    if label is None:
        return None
    theirs, ours = _comparable(images.classes, known)
    if _alike(theirs, ours):
        return known[label]
    unique = ours.count(theirs[label]) == 1
    return known[ours.index(theirs[label])] if unique else images.classes[label]


def _foreign(classes: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return the names that do not stand in the list of known ones exactly once."""
    theirs, ours = _comparable(classes, known)
    return sorted({n for n, name in zip(classes, theirs, strict=True) if ours.count(name) != 1})


def _comparable(*lists: Sequence[str]) -> list[list[str]]:
    """Return lists of names with one blank for whatever joins words, unless two would be one.

    A list of Places365's scenes says ``arena/hockey`` and ``army_base``, a network "arena hockey"
    and "army base". Capitals stay: ImageNet has a Cardigan, a dog, and a cardigan, a garment.
    """
    plain = [[" ".join(_JOINS.split(name)) for name in names] for names in lists]
    merged = any(len({*new}) < len({*old}) for new, old in zip(plain, lists, strict=True))
    return [[*names] for names in lists] if merged else plain


def _alike(classes: Sequence[str], known: Sequence[str]) -> bool:
    """Whether two lists number the same classes alike, with a few names in other spellings.

    At least half of the names stand at the same place, and none that either list holds once
    stands elsewhere in the other: an alphabetical list with one foreign name is another order.
    """
    if tuple(classes) == tuple(known) or len(classes) != len(known):
        return len(classes) == len(known)
    same = sum(a == b for a, b in zip(classes, known, strict=True))
    here, there = _once(classes), _once(known)
    return 2 * same >= len(known) and all(there.get(name, i) == i for name, i in here.items())


def _once(names: Sequence[str]) -> dict[str, int]:
    """Return the places of the names that stand in a list once."""
    count = Counter(names)
    return {name: i for i, name in enumerate(names) if count[name] == 1}


def labelling(images: ImageSet) -> str:
    """Say what tells the class of these images: "labels", "predictions" or "mixed"."""
    missing = [label is None for label in images.labels]
    return "predictions" if all(missing) else "mixed" if any(missing) else "labels"


def from_sums(exemplars: Exemplars, head: Tensor, signed: bool) -> Tensor:
    """Return class contributions (C, N) before a linear head (C, N): W times the mean of z.

    The mean of ``|W z|`` is ``|W|`` times the mean of ``|z|``, so no image is looked at again.
    """
    count = exemplars.class_count.double().unsqueeze(1)
    if signed:
        return head.double() * exemplars.class_sum / count
    return head.double().abs() * exemplars.class_abs / count


def by_gradient(
    target: Target,
    images: ImageSet,
    layers: Sequence[str],
    signed: bool = False,
    **options: object,
) -> tuple[dict[str, Tensor], Tensor]:
    """Compute the class contributions of any layers, by one pass over labelled images.

    Parameters
    ----------
    target : Target
    images : ImageSet
        Labels in the network's numbering; an image without one counts for its prediction.
    layers : sequence of str
        All are captured in the same forward and backward pass.
    signed : bool
        Whether contributions keep their sign.
    **options
        Fields of `distributed.Options`.

    Returns
    -------
    class_w : dict of str to Tensor
        (C, N) float64 on the CPU; nan for classes without images.
    count : Tensor of int64, shape (C,)
        Images of each class.
    """
    labels = torch.tensor([-1 if label is None else label for label in images.labels])
    no_heads = dict.fromkeys(layers, False)

    def step(layers: list[str], indices: Tensor, x: Tensor) -> dict[str, State]:
        given, states = labels[indices].to(x.device), []
        for part, classes in ((given >= 0, given), (given < 0, None)):
            if part.any():
                some = None if classes is None else classes[part]
                found = contribute_all(target, x[part], layers, some, signed, no_heads)
                states.append(
                    {
                        layer: class_sums(one.w.where(one.w.isfinite(), 0), one.classes)
                        for layer, one in found.items()
                    }
                )
        first, *second = states
        return {
            layer: reduce(merge_class_sums, [state, *(other[layer] for other in second)])
            for layer, state in first.items()
        }

    def finish(state: State) -> State:
        return dict(zip(("sum", "count"), class_totals(state, len(target.classes)), strict=True))

    found = run(
        Pass(
            target,
            images,
            layers,
            step,
            merge_class_sums,
            "class-contributions",
            {"signed": signed},
            finish,
            "class contributions",
        ),
        **options,
    )
    count = found[layers[0]]["count"]
    return {layer: found[layer]["sum"] / count.double().unsqueeze(1) for layer in layers}, count
