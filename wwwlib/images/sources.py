"""Image sets from ImageNet's folders and from torch data sets.

Labels are the class indices of the data set: a folder with ten of ImageNet's classes keeps
ImageNet's indices.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from wwwlib.images.files import Place, decode, examine_all, naming, place
from wwwlib.images.image_set import ImageSet
from wwwlib.images.labels import class_names
from wwwlib.store import digest

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
            raise ValueError(
                f"Line {number} of {str(path)!r} is {line.strip()!r}; expected a scene: '/a/bar 5'."
            )
    return sorted(scenes, key=scenes.get)


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
    names = [f"{i:06d}" for i in range(len(data))]
    name = name or type(data).__name__
    classes = classes if classes is not None else getattr(data, "classes", None)
    classes = None if classes is None else class_names(classes)
    count = None if classes is None else len(classes)

    def examine(i: int) -> tuple[str, int | None]:
        image, label = _item(data, i)
        if label is not None and not 0 <= label < (count or label + 1):
            raise ValueError(f"its label is {label}, but there are {count} classes")
        return _pixel_hash(image), label

    found, skipped = examine_all(examine, names, f"items of {name}", tolerate, progress)
    hashes, labels = zip(*found.values(), strict=True)
    if classes is None:
        classes = range(max((label for label in labels if label is not None), default=-1) + 1)
    classes = tuple(map(str, classes))
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


def _item(data, i: int) -> tuple[Image.Image, int | None]:
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
