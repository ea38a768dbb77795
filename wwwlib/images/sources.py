"""Image sets from published layouts and from torch data sets, and the matching of their labels.

Labels are the class indices of the data set: a folder with ten of ImageNet's classes keeps
ImageNet's indices. They become indices of a network's classes by the names of the classes, one by
one. A folder numbers its classes in order of their names, a network in another order; neither the
position of a class nor the number of classes shows that two lists mean the same.
"""

import hashlib
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from wwwlib.images.files import Place, decode, examine_all, folder, naming, place
from wwwlib.images.image_set import ImageSet
from wwwlib.images.pixel_masks import masks
from wwwlib.registry import EXTENSIONS, extension, one_of
from wwwlib.store import digest

_SEPARATORS = re.compile(r"[\s_/-]+")  # of the words of a class name
_LISTED = 8  # classes without a partner that a message lists

# Published data sets --------------------------------------------------------------------------


@cache
def imagenet_synsets() -> Mapping[str, tuple[str, ...]]:
    """Return ImageNet-1k's 1,000 synsets in class order: WordNet identifier to lemmas.

    The table comes with timm. Two classes are called "crane" alone, and a dozen lemmas belong to
    two classes: match classes by identifier, not by name.
    """
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return {w: tuple(info.label_name_to_description(w).split(", ")) for w in info.label_names()}


def places365_scenes(path: str | Place) -> list[str]:
    """Return the scenes of ``categories_places365.txt``, in order of their class index.

    The line ``/a/arena/hockey 19`` makes "arena/hockey" class 19.

    Raises
    ------
    ValueError
        If a line is of another form; the message gives its number.
    """
    scenes = {}
    lines = place(path).read_text(encoding="utf-8-sig").split("\n")
    for number, line in enumerate(lines, start=1):
        found = re.fullmatch(r"/\w/(\S+) (\d+)", line.strip())
        if found:
            scenes[found[1]] = int(found[2])
        elif line.strip():
            here = f"Line {number} of {str(path)!r} is {line.strip()!r}"
            raise ValueError(f"{here}; expected a scene: '/a/bar 5'.")
    return sorted(scenes, key=scenes.__getitem__)


LAYOUTS: Mapping[str, Callable[..., ImageSet]] = {"folder": folder, "masks": masks}


def load(kind: str, root: str | Place | None = None, **options: object) -> ImageSet:
    """Open images by the name of their layout.

    Parameters
    ----------
    kind : str
        "folder" (`folder`), "masks" (`masks`), or an extension such as "world".
    root : path, optional
        The folder; extensions make their images.
    **options
        Arguments of the function behind the name.

    Raises
    ------
    ValueError
        If there is no such layout, or the folder is not given.
    """
    provided = extension(kind)
    one_of("The image set", kind, (*LAYOUTS, *EXTENSIONS))
    if bool(root) == bool(provided):
        needs = "needs no folder: leave root out" if root else "needs a folder: give root"
        raise ValueError(f"The image set {kind!r} {needs}.")
    return provided.image_set(**options) if provided else LAYOUTS[kind](root, **options)


# Torch data sets ------------------------------------------------------------------------------


def dataset(
    data: torch.utils.data.Dataset,
    name: str | None = None,
    classes: Sequence[str] | None = None,
    *,
    tolerate: float = 0.05,
    progress: bool = True,
) -> ImageSet:
    """Make an image set of a torch data set of (image, label) pairs.

    Parameters
    ----------
    data : torch.utils.data.Dataset
        With a length. Images are PIL images, or tensors (3, H, W) of uint8 or of floats in [0, 1],
        before normalisation; the target preprocesses them. Labels are integers or None.
    name : str, optional
        Name of the set; by default that of the data set's class.
    classes : sequence of str, optional
        Class names; by default ``data.classes``, or else the numbers of the classes.
    tolerate : float in [0, 1]
        Share of unusable items that are skipped with a warning; if more are, opening fails.
    progress : bool
        Show a progress bar if there are many items.

    Returns
    -------
    ImageSet
        The fingerprint is computed from pixels, labels and class names. The set is picklable if
        the data set is.

    Raises
    ------
    TypeError
        If the data set has no length.
    ValueError
        If no item can be used, or the share of unusable items exceeds `tolerate`.
    """
    if not hasattr(data, "__len__"):
        raise TypeError(f"{type(data).__name__} has no length; give a map-style data set.")
    name = name or type(data).__name__
    names, where = [f"{i:06d}" for i in range(len(data))], f"items of {name}"
    classes = classes if classes is not None else getattr(data, "classes", None)
    classes = None if classes is None else class_names(classes)
    count = None if classes is None else len(classes)

    def examine(i: int) -> tuple[str, int | None]:
        image, label = _item(data, i)
        if label is not None and not 0 <= label < (count or label + 1):
            raise ValueError(f"its label is {label}, but there are {count} classes")
        return _pixel_hash(image), label

    found, skipped = examine_all(examine, names, where, tolerate, progress, threaded=False)
    hashes, labels = zip(*found.values(), strict=True)
    if classes is None:
        classes = [*map(str, range(1 + max((n for n in labels if n is not None), default=-1)))]
    classes = tuple(classes)
    kept = tuple(names[i] for i in found)
    content = {"items": kept, "sha256": hashes, "labels": labels, "classes": classes}
    reader = _Items(data, tuple(found), hashes)
    return ImageSet(name, digest(content), kept, labels, classes, reader, skipped)


@dataclass(frozen=True, eq=False)
class _Items:
    data: torch.utils.data.Dataset
    indices: tuple[int, ...]
    hashes: tuple[str, ...]

    def __call__(self, i: int) -> Image.Image:
        with naming(f"item {self.indices[i]} of {type(self.data).__name__}"):
            image, _ = _item(self.data, self.indices[i])
            if _pixel_hash(image) != self.hashes[i]:
                raise ValueError("it changed since the set was made; remove random augmentation")
            return image

    def sha256(self, i: int) -> str:
        return self.hashes[i]


def _item(data: torch.utils.data.Dataset, i: int) -> tuple[Image.Image, int | None]:
    """Return an item as RGB image and label; a ValueError gives the reason if that fails."""
    try:
        image, label = data[i]
        label = None if label is None else int(label)
    except Exception as error:  # data sets may raise anything on a bad item
        raise ValueError(f"it is no pair of image and label: {error!r}") from error
    if isinstance(image, Tensor):
        image = _from_tensor(image)
    if not isinstance(image, Image.Image):
        raise ValueError(f"its image is a {type(image).__name__}, not a PIL image or a tensor")
    return decode(image), label


def _from_tensor(x: Tensor) -> Image.Image:
    if x.ndim != 3 or len(x) != 3 or not (x.dtype == torch.uint8 or x.is_floating_point()):
        raise ValueError(f"its tensor is {x.dtype} {tuple(x.shape)}; give (3, H, W), uint8/float")
    if x.is_floating_point():
        if not (x.min() >= 0 and x.max() <= 1):
            raise ValueError(f"its values are {x.min():.3g} to {x.max():.3g}; give them in [0, 1]")
        x = (x * 255).round().byte()
    return Image.fromarray(np.ascontiguousarray(x.cpu().permute(1, 2, 0).numpy()))


def _pixel_hash(image: Image.Image) -> str:
    return hashlib.sha256(b"%d %d " % image.size + image.tobytes()).hexdigest()


# Labels as classes of a network ---------------------------------------------------------------


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
    if isinstance(names, tuple | list) and names and all(isinstance(n, str) for n in names):
        return names[0]
    return names


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
    count = Counter(label for label in images.labels if label is not None)
    lost = {images.classes[i]: n for i, n in sorted(count.items()) if partner[i] is None}
    if warn and lost:
        listed = ", ".join(map(repr, [*lost][:_LISTED])) + (", ..." if len(lost) > _LISTED else "")
        warnings.warn(
            f"{len(lost)} of the {len({*images.labels} - {None})} classes of {images.name!r} have "
            f"no single class of that name in {target.name}, so {sum(lost.values())} of "
            f"{len(images)} images have no label: {listed}; predicted classes are used.",
            stacklevel=3,
        )
    content = {"labels of": images.fingerprint, "are now": labels, "of": target.classes}
    return replace(images, classes=target.classes, labels=labels, fingerprint=digest(content))


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
    composed = [[unicodedata.normalize("NFC", name) for name in names] for names in lists]
    plain = [[" ".join(_SEPARATORS.split(name)) for name in names] for names in composed]
    merged = any(len({*new}) < len({*old}) for new, old in zip(plain, composed, strict=True))
    return composed if merged else plain
