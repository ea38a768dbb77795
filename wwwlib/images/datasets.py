"""Data sets in the layout in which they are published.

Labels always are the data set's own class indices: a folder with ten of ImageNet's thousand
classes keeps the indices that an ImageNet network predicts.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from wwwlib.images.folder import labelled, open_files
from wwwlib.images.image_set import ImageSet
from wwwlib.images.roots import Place, existing, place, subfolders

_IMAGENETTE = {"full": "imagenette2", "320px": "imagenette2-320", "160px": "imagenette2-160"}
_PLACES_CLASSES = "categories_places365.txt"


@cache
def imagenet_synsets() -> Mapping[str, tuple[str, ...]]:
    """Return ImageNet-1k's synsets in class order: wnid to lemmas, from the table timm ships."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo("imagenet-1k")
    return {w: tuple(info.label_name_to_description(w).split(", ")) for w in info.label_names()}


def imagenet(root: str | Place, **options) -> ImageSet:
    """Open a folder of ImageNet images: one subfolder a class, named by wnid.

    Parameters
    ----------
    root : path
        For example ``ILSVRC2012/val``, sorted into class folders; any subset of the classes will
        do, and each keeps its index 0..999.
    **options
        As for `folder`. CMYK files are accepted by default: the originals contain some.

    Returns
    -------
    ImageSet
        `classes` holds the first lemma of all 1000 synsets; two pairs share one.

    Raises
    ------
    NotADirectoryError, ValueError
        As for `folder`; also if a subfolder is named by no ImageNet-1k wnid.
    """
    synsets = imagenet_synsets()
    numbers = {wnid: i for i, wnid in enumerate(synsets)}
    found = subfolders(root)
    foreign = [name for name in found if name not in numbers]
    if foreign or not found:
        what = f"the subfolder {foreign[0]!r} is none" if foreign else "there is no subfolder"
        raise ValueError(
            f"The folder {str(root)!r} should hold one subfolder a class, named by ImageNet-1k "
            f"wnid (such as n01440764), but {what}; give the folder right above those."
        )
    classes = [lemmas[0] for lemmas in synsets.values()]
    return labelled(root, numbers, classes, **{"convert": ("CMYK",), **options})


def imagenette(
    root: str | Place,
    split: str = "val",
    size: str = "320px",
    *,
    download: bool = False,
    **options,
) -> ImageSet:
    """Open Imagenette, ten easy classes of ImageNet, as torchvision stores it.

    Parameters
    ----------
    root : path
        The folder above ``imagenette2-320`` (or ``imagenette2``, ``imagenette2-160``).
    split : {"val", "train"}
        Which half.
    size : {"320px", "full", "160px"}
        Which edition.
    download : bool
        Fetch it through torchvision if it is not there (340 MB for 320px, 1.6 GB in full).
    **options
        As for `folder`.

    Returns
    -------
    ImageSet
        Labels are ImageNet's class indices, `classes` its 1000 names.

    Raises
    ------
    FileNotFoundError
        If it is not there and `download` is False.
    ValueError
        If split or size is unknown, or as for `folder`.
    """
    if size not in _IMAGENETTE or split not in ("train", "val"):
        raise ValueError(
            f"Imagenette has the splits 'train' and 'val' and the sizes {', '.join(_IMAGENETTE)}; "
            f"you asked for {split!r} and {size!r}."
        )
    home = _home(root) / _IMAGENETTE[size]
    if not home.exists():
        if not download:
            raise FileNotFoundError(
                f"Imagenette is not in {str(home)!r}; unpack {home.name}.tgz there, or pass "
                "download=True."
            )
        from torchvision.datasets import Imagenette

        Imagenette(Path(root).expanduser(), split, size, download=True)
    return imagenet(home / split, **{"name": f"imagenette-{split}", **options})


def places365(
    root: str | Place,
    split: str = "val",
    *,
    small: bool = True,
    download: bool = False,
    **options,
) -> ImageSet:
    """Open Places365, either as torchvision stores it or as folders of classes.

    Parameters
    ----------
    root : path
        With torchvision's file lists in it (``places365_val.txt``, ...), or with class folders
        ``<split>/<class>/`` and ``categories_places365.txt``, which numbers the classes; a class
        folder is named like ``arch`` or ``bar`` or, for ``/a/arena/hockey``, ``arena-hockey``.
    split : {"val", "train-standard", "train-challenge", "test", ...}
        Which part; in a folder layout, the name of the subfolder.
    small : bool
        torchvision's layout: the images of 256 x 256 pixels.
    download : bool
        Fetch it through torchvision (525 MB for the small validation images).
    **options
        As for `folder`.

    Raises
    ------
    FileNotFoundError
        If neither layout is there and `download` is False.
    ValueError
        If a class folder is not in the list of classes, or as for `folder`.
    """
    root = _home(root)
    options = {"name": f"places365-{split}", **options}
    if isinstance(root, Path) and (download or any(root.glob("places365_*.txt"))):
        return _torchvision_places(root, split, small, download, options)
    if not (root / _PLACES_CLASSES).is_file() or not (root / split).is_dir():
        raise FileNotFoundError(
            f"Places365 is not in {str(root)!r}: put {_PLACES_CLASSES} there beside torchvision's "
            f"file lists or beside {split}/<class>/ folders, or pass download=True."
        )
    places = _places_classes(root)
    numbers = {place.replace("/", "-"): i for place, i in places.items()}
    foreign = [name for name in subfolders(root / split) if name not in numbers]
    if foreign:
        raise ValueError(
            f"The folder {foreign[0]!r} in {str(root / split)!r} is no class of {_PLACES_CLASSES}; "
            "write /a/arena/hockey as arena-hockey."
        )
    return labelled(root / split, numbers, sorted(places, key=places.get), **options)


def _home(root: str | Place) -> Place:
    root = place(root)
    return root.expanduser() if isinstance(root, Path) else root


def _places_classes(root: Place) -> dict[str, int]:
    """Read lines such as ``/a/airfield 0`` to ``{"airfield": 0}``."""
    lines = (root / _PLACES_CLASSES).read_text(encoding="utf-8").split("\n")
    pairs = (line.rsplit(maxsplit=1) for line in lines if line.strip())
    return {path.lstrip("/").split("/", 1)[1]: int(number) for path, number in pairs}


def _torchvision_places(
    root: Path, split: str, small: bool, download: bool, options: dict
) -> ImageSet:
    from torchvision.datasets import Places365

    try:
        places = Places365(root, split, small, download)
    except RuntimeError as error:
        raise FileNotFoundError(f"Places365 in {str(root)!r} is incomplete: {error}") from error
    folder = existing(places.images_dir)
    paths = [str(Path(path).relative_to(places.images_dir)) for path, _ in places.imgs]
    classes = sorted(places.class_to_idx, key=places.class_to_idx.get)
    names = [path.lstrip("/").split("/", 1)[1] for path in classes]
    return open_files(folder, paths, places.targets, names, **options)
