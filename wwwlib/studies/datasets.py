"""Probe sets by name: the data sets of the paper, any folder of images, and the concept world.

Also the labels of their images, as classes of a network.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from wwwlib.baselines import network_dissection
from wwwlib.evaluation import Truth
from wwwlib.images import ImageSet, imagenet_synsets, match_labels, sources, subset
from wwwlib.images.files import Place, existing, list_files, open_files, place, top_folders
from wwwlib.images.sources import LAYOUTS
from wwwlib.registry import call, extension, one_of
from wwwlib.targets import Target

_IMAGENETTE = {"full": "imagenette2", "320px": "imagenette2-320", "160px": "imagenette2-160"}
_PLACES_CLASSES = "categories_places365.txt"


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
    classes = {wnid: lemmas[0] for wnid, lemmas in imagenet_synsets().items()}
    hint = "give the folder right above those named by ImageNet-1k wnid, such as n01440764"
    return class_folders(root, classes, hint, **{"convert": ("CMYK",), **options})


def class_folders(root: str | Place, classes: Mapping[str, str], hint: str, **options) -> ImageSet:
    """Open a folder whose subfolders stand for `classes`, a name for each in order of the indices.

    Raises
    ------
    ValueError
        If a subfolder stands for no class, or there is none; the message ends in `hint`.
    """
    root = existing(root)
    paths = list_files(root)
    own = top_folders(paths)
    if not any(own):
        raise ValueError(f"There is no subfolder with images in {str(root)!r}; {hint}.")
    if unknown := sorted({*own} - {None} - classes.keys()):
        raise ValueError(f"The subfolder {unknown[0]!r} of {str(root)!r} is no class; {hint}.")
    numbers = {name: i for i, name in enumerate(classes)}
    found = [numbers.get(name) for name in own]
    return open_files(root, paths, found, [*classes.values()], **options)


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
    one_of("size", size, _IMAGENETTE)
    one_of("split", split, ("train", "val"))
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
    classes = {s.replace("/", "-"): s for s in sources.places365_scenes(root / _PLACES_CLASSES)}
    hint = f"take those of {_PLACES_CLASSES}, /a/arena/hockey as arena-hockey"
    return class_folders(root / split, classes, hint, **options)


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


FOLDERS = {**LAYOUTS, "imagenet": imagenet, "imagenette": imagenette, "places365": places365}
FOLDERS["broden"] = network_dissection.broden


def truth(kind: str, count: int = 1_200, seed: int = 900, **options) -> Truth | None:
    """Return images of known concepts, to test names with, of a generated probe set; else None.

    Parameters
    ----------
    kind : str
        As for `load`.
    count, seed : int
        Number of images and seed, which differs from that of the probe set.
    **options
        As for `evaluation.from_masks`.
    """
    provided = extension(kind)
    return provided and provided.truth(count, seed, **options)


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
    kind : {"world", "folder", "masks", "imagenet", "imagenette", "places365", "broden"} or str
        "folder" takes any images, with subfolders as classes if there are any; "masks" any images
        with pixel masks, see `images.masks`; ``path/to/file.py:function`` is called and returns an
        `ImageSet`.
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
            raise ValueError(f"The {kind} has no files; leave least_side={least_side} out.")
        return provided.image_set(count, seed)
    if not (own := ".py:" in kind):
        one_of("The probe set", kind, ("world", *FOLDERS))
    if not (own or root):
        raise ValueError(f"The probe set {kind!r} needs a folder: give its path as root.")
    images = call(kind, "probe set") if own else FOLDERS[kind](root, least_side=least_side)
    if count is None:
        return images
    if not 1 <= count <= len(images):
        raise ValueError(f"count is {count}; give 1 to {len(images)}, those of {images.name!r}.")
    return subset(images, [i * len(images) // count for i in range(count)])


# Labels ---------------------------------------------------------------------------------------


def labelled_subset(images: ImageSet, target: Target) -> ImageSet:
    """Return the images that have a label, as indices of the network's classes.

    Raises
    ------
    ValueError
        If no image has one.
    """
    matched = match_labels(images, target, warn=False)
    labelled = [i for i, label in enumerate(matched.labels) if label is not None]
    if not labelled:
        own = [images.classes[label] for label in sorted({*images.labels} - {None})]
        listed = ", ".join(map(repr, own[:8])) + ", ..." * (len(own) > 8)
        raise ValueError(
            f"None of {len(images)} images has a label among the classes of {target.name}, since "
            f"{images.name!r} has {f'the classes {listed}' if own else 'no labels'}: put them into "
            f"one folder per class, with the network's class names, such as {target.classes[0]!r}."
        )
    return matched if len(labelled) == len(matched) else subset(matched, labelled)


def shown_classes(images: ImageSet, target: Target) -> list[int]:
    """Return the indices of the classes that occur among the labels; without labels, of all."""
    shown = {*match_labels(images, target, warn=False).labels} - {None}
    return sorted(shown) or [*range(len(target.classes))]


def class_name(images: ImageSet, i: int, known: Sequence[str]) -> str | None:
    """Return the name of the class of image `i`, spelled as among the network's classes `known`.

    A class without a partner in `known` keeps its name; None without a label.
    """
    label = images.label(i)
    if label is None:
        return None
    partner = sources.partners(images.classes, known)[label]
    return images.classes[label] if partner is None else known[partner]
