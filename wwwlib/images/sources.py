"""Image sets from published data sets, torch data sets, and by name.

Labels are the class indices of the data set: a folder with ten of ImageNet's classes keeps
ImageNet's indices.
"""

import csv
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from wwwlib.images.files import (
    Place,
    class_folders,
    decode,
    examine_all,
    existing,
    folder,
    naming,
    open_files,
    place,
)
from wwwlib.images.image_set import ImageSet, subset
from wwwlib.images.labels import class_names
from wwwlib.registry import extension
from wwwlib.store import digest

_IMAGENETTE = {"full": "imagenette2", "320px": "imagenette2-320", "160px": "imagenette2-160"}
_PLACES_CLASSES = "categories_places365.txt"


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


def imagenet(root: str | Place, **options) -> ImageSet:
    """Open a folder of ImageNet images with one subfolder per class, named by its wnid.

    Parameters
    ----------
    root : path
        For example ``ILSVRC2012/val``, sorted into class folders. It may hold any subset of the
        classes; each keeps its index 0..999.
    **options
        As for `folder`. CMYK files are accepted by default: the originals contain some.

    Returns
    -------
    ImageSet
        `classes` holds the first lemma of all 1,000 synsets; two pairs of classes share one.

    Raises
    ------
    NotADirectoryError, ValueError
        As for `folder`; also if a subfolder is not named by an ImageNet-1k wnid.
    """
    synsets = imagenet_synsets()
    numbers = {wnid: i for i, wnid in enumerate(synsets)}
    expected = "give the folder right above those named by ImageNet-1k wnid, such as n01440764"
    classes = [lemmas[0] for lemmas in synsets.values()]
    return class_folders(root, numbers, classes, expected, **{"convert": ("CMYK",), **options})


def imagenette(root: str | Place, split: str = "val", size: str = "320px", **options) -> ImageSet:
    """Open Imagenette, ten easily distinguished classes of ImageNet, as torchvision stores it.

    Parameters
    ----------
    root : path
        The folder above ``imagenette2-320`` (or ``imagenette2``, ``imagenette2-160``).
    split : {"val", "train"}
        Which part.
    size : {"320px", "full", "160px"}
        Which edition.
    **options
        As for `folder`.

    Returns
    -------
    ImageSet
        Labels are ImageNet's class indices, `classes` its 1,000 names.

    Raises
    ------
    FileNotFoundError
        If it is missing.
    ValueError
        If split or size is unknown, or as for `folder`.
    """
    if size not in _IMAGENETTE or split not in ("train", "val"):
        raise ValueError(
            f"Imagenette has the splits 'train' and 'val' and the sizes {', '.join(_IMAGENETTE)}; "
            f"you asked for {split!r} and {size!r}."
        )
    home = place(root) / _IMAGENETTE[size]
    if not home.exists():
        raise FileNotFoundError(
            f"Imagenette is not in {str(home)!r}; unpack {home.name}.tgz there, for example by "
            f"torchvision.datasets.Imagenette({str(home.parent)!r}, size={size!r}, download=True)."
        )
    return imagenet(home / split, **{"name": f"imagenette-{split}", **options})


def places365(root: str | Place, split: str = "val", *, small: bool = True, **options) -> ImageSet:
    """Open Places365, as torchvision stores it or as folders of classes.

    Parameters
    ----------
    root : path
        Holds torchvision's file lists (``places365_val.txt``, ...), or class folders
        ``<split>/<class>/`` and ``categories_places365.txt``, which numbers the classes. A class
        folder is named like ``arch`` or ``bar`` or, for ``/a/arena/hockey``, ``arena-hockey``.
    split : {"val", "train-standard", "train-challenge", "test", ...}
        Which part; in a folder layout, the name of the subfolder.
    small : bool
        torchvision's layout: use the images of 256 x 256 pixels.
    **options
        As for `folder`.

    Raises
    ------
    FileNotFoundError
        If neither layout is there.
    ValueError
        If a class folder is not in the list of classes, or as for `folder`.
    """
    root = place(root)
    options = {"name": f"places365-{split}", **options}
    if isinstance(root, Path) and any(root.glob("places365_*.txt")):
        return _torchvision_places(root, split, small, options)
    if not (root / _PLACES_CLASSES).is_file() or not (root / split).is_dir():
        raise FileNotFoundError(
            f"Places365 is not in {str(root)!r}: put {_PLACES_CLASSES} there beside torchvision's "
            f"file lists or beside {split}/<class>/ folders."
        )
    scenes = places365_scenes(root / _PLACES_CLASSES)
    numbers = {scene.replace("/", "-"): i for i, scene in enumerate(scenes)}
    expected = f"take those of {_PLACES_CLASSES}, /a/arena/hockey as arena-hockey"
    return class_folders(root / split, numbers, scenes, expected, **options)


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


def _torchvision_places(root, split, small, options) -> ImageSet:
    from torchvision.datasets import Places365

    try:
        places = Places365(root, split, small)
    except RuntimeError as error:
        raise FileNotFoundError(f"Places365 in {str(root)!r} is incomplete: {error}") from error
    paths = [str(Path(path).relative_to(places.images_dir)) for path, _ in places.imgs]
    classes = sorted(places.class_to_idx, key=places.class_to_idx.get)
    names = [path.lstrip("/").split("/", 1)[1] for path in classes]
    return open_files(places.images_dir, paths, places.targets, names, **options)


def broden(root: str | Place, split: str | None = None, **options) -> ImageSet:
    """Open Broden's images, those that its index lists.

    For its masks see `baselines.network_dissection`.

    Parameters
    ----------
    root : path
        Such as ``broden1_224``, with ``index.csv`` and ``images/``.
    split : {None, "train", "val"}
        Which images; None for all.
    **options
        As for `folder`.

    Returns
    -------
    ImageSet
        Without labels; `names` are paths below ``images/``.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If a part of the layout is missing.
    ValueError
        If the index lacks a column, no image has the split, or too many cannot be read.
    """
    root = existing(root)
    paths = [row["image"] for row in broden_rows(root, split)]
    options = {"name": root.name, **options}
    return open_files(existing(root / "images"), paths, [None] * len(paths), (), **options)


def broden_rows(root: str | Place, split: str | None = None) -> list[dict[str, str]]:
    """Return the rows of ``index.csv``, by column; errors are those of `broden`."""
    rows = broden_table(existing(root) / "index.csv", ["image", "split", "sh", "sw"])
    chosen = [row for row in rows if split in (None, row["split"])]
    if not chosen:
        splits = ", ".join(sorted({row["split"] for row in rows}))
        raise ValueError(f"Broden has no image of the split {split!r}; its splits are {splits}.")
    return chosen


def broden_table(path: Place, columns: list[str]) -> list[dict[str, str]]:
    """Read one of Broden's CSV files and check that it has the given columns."""
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no {path.name} in {str(path.parent)!r}; give the folder of Broden."
        )
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [column for column in columns if column not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"{str(path)!r} has no column {missing[0]!r}; unpack Broden again.")
        return list(reader)


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
                raise ValueError(
                    "it changed since the set was made; remove random augmentation, or make it anew"
                )
            return image

    def sha256(self, i: int) -> str:
        return self.hashes[i]


def _item(data, i: int) -> tuple[Image.Image, int | None]:
    """Return an item as RGB image and label; a ValueError gives the reason if that fails."""
    try:
        image, label = data[i]
        label = None if label is None else int(label)
    except Exception as error:  # data sets may raise anything on a bad item
        raise ValueError(
            f"it is no (image, label) pair ({type(error).__name__}: {error})"
        ) from error
    if isinstance(image, Tensor):
        image = _from_tensor(image)
    if not isinstance(image, Image.Image):
        raise ValueError(f"its image is a {type(image).__name__}, not a PIL image or a tensor")
    return decode(image), label


def _from_tensor(x: Tensor) -> Image.Image:
    if x.ndim != 3 or len(x) != 3 or not (x.dtype == torch.uint8 or x.is_floating_point()):
        raise ValueError(
            f"its tensor is {x.dtype} {tuple(x.shape)}, not (3, H, W) of uint8 or float"
        )
    if x.is_floating_point():
        if not (x.min() >= 0 and x.max() <= 1):
            raise ValueError(
                f"its values are {x.min():.3g} to {x.max():.3g}; give [0, 1], before normalisation"
            )
        x = (x * 255).round().byte()
    return Image.fromarray(np.ascontiguousarray(x.cpu().permute(1, 2, 0).numpy()))


def _pixel_hash(image: Image.Image) -> str:
    return hashlib.sha256(b"%d %d " % image.size + image.tobytes()).hexdigest()


# By name --------------------------------------------------------------------------------------

_OPENERS = (folder, imagenet, imagenette, places365, broden)
FOLDERS = {opener.__name__: opener for opener in _OPENERS}


def load(
    kind: str,
    root: str | Place | None = None,
    count: int | None = None,
    seed: int = 0,
    least_side: int | None = None,
) -> ImageSet:
    """Open a probe set by name.

    Parameters
    ----------
    kind : {"world", "folder", "imagenet", "imagenette", "places365", "broden"}
        "folder" takes any images, with subfolders as classes if there are any.
    root : str or Path, optional
        The folder; the world generates its images.
    count : int, optional
        Use so many images, evenly spaced over the set; by default all.
    seed : int
        Seed of the world.
    least_side : int, optional
        Decode large JPEG files at a fraction of their size, see `open_files`.

    Raises
    ------
    ValueError
        If there is no such kind, the folder is missing, or it holds fewer than `count` images, or
        `least_side` is given for the world.
    """
    if provided := extension(kind):
        if least_side is not None:
            raise ValueError(
                f"least_side is {least_side}, but the {kind} has no files; leave it out."
            )
        return provided.image_set(count, seed)
    if kind not in FOLDERS:
        raise ValueError(f"There is no probe set {kind!r}; use 'world' or one of {list(FOLDERS)}.")
    if not root:
        raise ValueError(f"The probe set {kind!r} needs a folder: give its path as root.")
    images = FOLDERS[kind](root, least_side=least_side)
    if count is None:
        return images
    if not 1 <= count <= len(images):
        raise ValueError(
            f"{str(root)!r} has {len(images)} images; count is {count}, give 1 to that number."
        )
    return subset(images, [i * len(images) // count for i in range(count)])
