"""Pixel masks of images: files with a number or a colour for each pixel, or COCO's annotations.

`masks` opens a folder of images and masks as an `ImageSet` whose ``masks(i)`` returns the mask of
each concept that image i shows.
"""

import hashlib
import json
import re
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath

import numpy as np

from wwwlib.images import files
from wwwlib.images.image_set import ImageSet, Skipped
from wwwlib.registry import require
from wwwlib.store import digest

_DEEP = ("I", "I;16", "I;16B")  # modes of grey PNGs of 16 bits
_LINE = re.compile(r"(\d+)(?:[ ,]+(\d+)[ ,]+(\d+))?[ ,\t]+([^\t]*[^\t\s])(?:\t+(.*\S))?")
_FORMS = "'7 traffic light', '128 64 128 road', or either with a tab and a category"


@dataclass(frozen=True)
class FileMasks:
    """Masks in files, see `masks`, and what their pixels mean.

    Attributes
    ----------
    names : mapping of int to str
        The concept of each number; pixels of other numbers show none.
    categories : mapping of str to str
        The category of each concept.
    colours : mapping of (int, int, int) to int
        The number of each colour of colour files.
    numbered : bool
        Whether the pixels of grey and palette files are numbers.
    root : str
        The folder of images and masks.
    paths, hashes : tuple of str
        Path below the root, and SHA-256, of the mask of each image.
    """

    names: Mapping[int, str]
    categories: Mapping[str, str]
    colours: Mapping[tuple[int, ...], int] = field(repr=False)
    numbered: bool
    root: str = ""
    paths: tuple[str, ...] = field(default=(), repr=False)
    hashes: tuple[str, ...] = field(default=(), repr=False)

    def numbers(self, data: bytes) -> np.ndarray:
        """Decode a mask file to numbers (H, W); a ValueError gives the reason if that fails."""
        image = files.loaded(files.opened(data, convert=_DEEP))
        if image.format in ("JPEG", "WEBP"):
            raise ValueError(f"it is a {image.format}, which changes numbers; save masks as PNG")
        if image.mode in ("1", "L", "P", *_DEEP) and self.numbered:
            return np.asarray(image).astype(np.int64)
        pixels = np.asarray(image.convert("RGB"), np.int64)
        found, place = np.unique(pixels @ (65536, 256, 1), return_inverse=True)
        colours = [(code >> 16, code >> 8 & 255, code & 255) for code in found.tolist()]
        if unknown := [colour for colour in colours if colour not in self.colours]:
            kind = "Pascal VOC's colours" if self.numbered else "the colours in labels.txt"
            raise ValueError(
                f"its pixels have the colour {unknown[0]}, which is none of {kind}; save numbers "
                "as a grey or palette PNG, or list colours, such as '128 64 128 road'"
            )
        return np.array([self.colours[c] for c in colours])[place.reshape(pixels.shape[:2])]

    @property
    def fingerprint(self) -> str:
        """SHA-256, equal for equal masks."""
        named = [[*own.items()] for own in (self.names, self.categories)]
        colours = sorted(self.colours.items())
        return digest({"masks": self.hashes, "labels": named, "colours": colours})

    def __call__(self, i: int) -> dict[str, np.ndarray]:
        """Return the (H, W) bool mask of each concept that image i shows."""
        path = files.place(self.root) / self.paths[i]
        with files.naming(path):
            numbers = self.numbers(files.unchanged(path, self.hashes[i]))
        found: dict[str, np.ndarray] = {}
        for number in np.unique(numbers).tolist():
            if name := self.names.get(number):
                found[name] = found.get(name, False) | (numbers == number)
        return found


@dataclass(frozen=True)
class CocoMasks:
    """Masks from COCO's annotations, which the extra ``masks`` decodes.

    Attributes
    ----------
    entries : tuple of (height, width, shapes)
        Of each image; shapes are pairs of a concept and its polygons or run lengths.
    """

    entries: tuple[tuple[int, int, tuple], ...] = field(repr=False)
    categories: Mapping[str, str]
    fingerprint: str

    def __call__(self, i: int) -> dict[str, np.ndarray]:
        """Return the (H, W) bool mask of each concept that image i shows."""
        coco, found = require("pycocotools.mask", "masks"), dict[str, np.ndarray]()
        height, width, shapes = self.entries[i]
        for name, shape in shapes:
            if isinstance(shape, list) or isinstance(shape["counts"], list):
                shape = coco.frPyObjects(shape, height, width)
            shape = coco.merge(shape) if isinstance(shape, list) else shape
            found[name] = found.get(name, False) | coco.decode(shape).astype(bool)
        return {name: mask for name, mask in found.items() if mask.any()}


def masks(
    root: str | files.Place,
    *,
    ignore: Collection[int] = (255,),
    tolerate: float = 0.05,
    name: str | None = None,
    **options: object,
) -> ImageSet:
    """Open images with pixel masks.

    Parameters
    ----------
    root : path
        Holds ``images/`` and either ``masks/``, with files of the same paths but for the suffix,
        and ``labels.txt``; or one JSON file of COCO's annotations, for which the extra ``masks`` is
        needed. Masks are grey or palette PNGs of 8 or 16 bits with a number for each pixel, or
        colour PNGs. A line of ``labels.txt`` is ``7 traffic light``, with a category after a tab if
        there are several; for colours ``128 64 128 road``. Where lines have numbers and masks have
        colours, these are Pascal VOC's.
    ignore : collection of int
        Numbers of unlabelled pixels.
    tolerate, name, **options
        As for `images.folder`. Images without a mask and masks without an image are left out and
        listed in `skipped`, whatever their share.

    Returns
    -------
    ImageSet
        Without labels. ``masks(i)`` returns ``{concept: (H, W) bool}`` at the size of the mask.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If a part of the layout is missing.
    ValueError
        If no image has a mask, a line of ``labels.txt`` or an annotation has another form, or more
        masks than tolerated cannot be used.

    Warns
    -----
    UserWarning
        If images or masks have no partner, or pixels have a number without a name; they count as
        unlabelled.
    """
    root, how = files.existing(root), {"tolerate": tolerate, **options}
    how["name"] = name or root.name
    annotations = sorted(p for p in root.iterdir() if p.suffix == ".json" and p.name[0] != ".")
    if annotations and not (root / "masks").is_dir():
        if len(annotations) > 1:
            listed = ", ".join(repr(path.name) for path in annotations)
            raise ValueError(f"{str(root)!r} holds {listed}; keep the annotations of its images.")
        return _coco(root, annotations[0], how)
    if not (root / "labels.txt").is_file():
        raise FileNotFoundError(f"No 'labels.txt' in {str(root)!r}; give the names of numbers.")
    labels = _read_labels(root / "labels.txt", ignore)

    def examine(mask: str) -> tuple[tuple[int, int], tuple]:
        data = files.read(root / "masks" / mask)
        numbers = labels.numbers(data)
        found = np.unique(numbers).tolist()
        return numbers.shape, (f"masks/{mask}", hashlib.sha256(data).hexdigest(), found)

    drawn = _by_stem(files.list_files(files.existing(root / "masks")))
    images, found = _matched(root, drawn, examine, "masks/a.png", how)
    unnamed = Counter(n for *_, own in found for n in own if n not in labels.names)
    for number in sorted({*unnamed} - {*ignore}):
        warnings.warn(
            f"The number {number} has no name in labels.txt, so its pixels in {unnamed[number]} of "
            f"{len(found)} masks count as unlabelled; name it, or give ignore=({number},).",
            stacklevel=2,
        )
    paths, hashes, _ = zip(*found, strict=True)
    return replace(images, masks=replace(labels, root=str(root), paths=paths, hashes=hashes))


def _by_stem(paths: Iterable[str]) -> dict[str, str]:
    """Return paths by what precedes their suffix; a ValueError if two have the same."""
    found: dict[str, str] = {}
    for path in paths:
        stem = str(PurePosixPath(files.shown(path)).with_suffix(""))
        if stem in found:
            raise ValueError(f"{found[stem]!r} and {path!r} have one name; remove one of them.")
        found[stem] = path
    return found


def _matched(
    root: files.Place, drawn: Mapping[str, str], examine: Callable, example: str, how: dict
) -> tuple[ImageSet, list]:
    """Open the images that have usable masks, and return them with what `examine` found.

    ``examine(mask)`` returns the size (height, width) of a mask of `drawn`, by stem, and a result;
    a ValueError gives the reason why it cannot be used.
    """
    paths = _by_stem(files.list_files(files.existing(root / "images")))
    pairs = [(path, drawn[stem]) for stem, path in paths.items() if stem in drawn]
    bare = [path for stem, path in paths.items() if stem not in drawn]
    unpaired = [Skipped(f"images/{path}", "it has no mask") for path in bare]
    unpaired += [Skipped(f"mask of {s}", "it has no image") for s in drawn if s not in paths]
    if not pairs:
        raise ValueError(
            f"No image in {str(root)!r} has a mask: {len(paths)} images and {len(drawn)} masks "
            f"have no name in common; images/a.jpg belongs to {example}."
        )
    if unpaired:
        warnings.warn(
            f"{len(bare)} of {len(paths)} images in {str(root)!r} have no mask and "
            f"{len(unpaired) - len(bare)} of {len(drawn)} masks no image, such as "
            f"{unpaired[0].path!r}; they are left out, see .skipped.",
            stacklevel=3,
        )

    def usable(i: int) -> object:
        path, mask = pairs[i]
        size, result = examine(mask)
        _check_sides(root / "images" / path, size, how)
        return result

    names, progress = [f"mask of {path}" for path, _ in pairs], how.get("progress", True)
    where = f"masks in {str(root)!r}"
    found, bad = files.examine_all(usable, names, where, how["tolerate"], progress)
    used = [pairs[i][0] for i in found]
    made = files.open_files(root / "images", used, [None] * len(used), (), **how)
    results = dict(zip(map(files.shown, used), found.values(), strict=True))
    made = replace(made, skipped=(*unpaired, *bad, *made.skipped))
    return made, [results[name] for name in made.names]


def _check_sides(path: files.Place, size: tuple[int, int], how: Mapping) -> None:
    """Raise an error unless a mask has the proportions of its image, up to a pixel or 2 %."""
    limits = how.get("max_pixels", files.MAX_PIXELS), how.get("convert", ())
    try:
        width, height = files.opened(files.read(path), *limits).size
    except ValueError:
        return  # a damaged image is found, and named, when images are opened
    down, across = size
    if abs(across - width * down / height) > 1 + 0.02 * across:
        pixels = f"its {across} x {down} pixels are not in the proportions of its image"
        raise ValueError(f"{pixels}, {width} x {height}; masks cover whole images")


def _read_labels(path: files.Place, ignore: Collection[int]) -> FileMasks:
    """Read ``labels.txt``, see `masks`; files are still to be found."""
    names, categories, kinds = dict[int, str](), dict[str, str](), set[bool]()
    colours: dict[tuple[int, ...], int] = {}
    lines = enumerate(path.read_text("utf-8-sig").splitlines(), start=1)
    for place, line in ((n, line) for n, line in lines if line.strip()):
        found = _LINE.fullmatch(line.strip())
        if not found:
            raise ValueError(f"Line {place} of {str(path)!r} is {line!r}; expected {_FORMS}.")
        red, green, blue, name, category = found.groups()
        kinds.add(green is None)
        number = int(red) if green is None else len(colours)
        colour = _voc_colour(number) if green is None else (int(red), int(green), int(blue))
        if colour in colours:
            raise ValueError(f"Line {place} of {str(path)!r} repeats another's pixels: {line!r}.")
        colours[colour] = number
        if green is not None or number not in ignore:
            names[number] = name
            categories.setdefault(name, category or "object")
    if len(kinds) != 1:
        what = "lines with numbers and with colours" if kinds else "no lines"
        raise ValueError(f"{str(path)!r} has {what}; give {_FORMS}.")
    numbered = kinds == {True}
    colours |= {_voc_colour(n): n for n in ignore} if numbered else {}
    return FileMasks(names, categories, colours, numbered)


def _voc_colour(number: int) -> tuple[int, ...]:
    """Return the colour of a number in Pascal VOC: bits 0, 3, 6 make red, and so on."""
    bits = [number >> place & 1 for place in range(24)]
    return tuple(sum(bits[3 * i + c] << 7 - i for i in range(8)) for c in range(3))


def _coco(root: files.Place, path: files.Place, how: dict) -> ImageSet:
    """Open images with COCO's annotations."""
    try:
        coco = json.loads(path.read_text(encoding="utf-8"))
        names = {own["id"]: own["name"] for own in coco["categories"]}
        above = {own["name"]: own.get("supercategory") or "object" for own in coco["categories"]}
        drawn = {own["id"]: (own["height"], own["width"], list[tuple]()) for own in coco["images"]}
        for own in coco["annotations"]:
            shape = names[own["category_id"]], own["segmentation"]
            drawn[own["image_id"]][2].extend([shape] if own["segmentation"] else [])
        number = {own["file_name"]: own["id"] for own in coco["images"]}
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{str(path)!r} are no annotations of COCO, which have images, categories and "
            f"annotations that refer to them: {error!r}."
        ) from error
    require("pycocotools.mask", "masks")

    def examine(name: str) -> tuple[tuple[int, int], tuple]:
        height, width, shapes = drawn[number[name]]
        if wrong := [concept for concept, one in shapes if not _fits(one, [height, width])]:
            raise ValueError(f"an annotation of {wrong[0]!r} has another size or too few points")
        return (height, width), (height, width, tuple(shapes))

    images, found = _matched(root, _by_stem(number), examine, "the file_name a.jpg", how)
    key = digest({"coco": found, "categories": above})
    return replace(images, masks=CocoMasks(tuple(found), above, key))


def _fits(shape: Mapping | list, size: list[int]) -> bool:
    """Return whether polygons have three points each, or run lengths the size of the image."""
    if isinstance(shape, list):
        return all(len(polygon) >= 6 for polygon in shape)
    counts = shape.get("counts")
    whole = not isinstance(counts, list) or sum(counts) == size[0] * size[1]
    return shape.get("size") == size and bool(counts) and whole
