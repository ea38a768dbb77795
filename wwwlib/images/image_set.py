"""Ordered sets of images with a fingerprint of their content, and sets derived from other sets.

An `ImageSet` consists of names, labels, a fingerprint, and a *reader*: a picklable object that
returns the RGB image of an index. Subsets and crops wrap another set; pixels are neither copied
nor kept.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from operator import index as as_index
from typing import Protocol, cast

import numpy as np
import torch
from PIL import Image

from wwwlib.store import digest

Reader = Callable[[int], Image.Image]
Box = tuple[float, float, float, float]

# (left, top, right, bottom) as fractions of width and height: four corners, then the centre.
FIVE_CROPS: tuple[Box, ...] = tuple(
    (left, top, left + 0.5, top + 0.5)
    for left, top in ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (0.5, 0.5), (0.25, 0.25))
)


@dataclass(frozen=True)
class Skipped:
    """An image that an image set left out, and the reason."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path!r}: {self.reason}"


class Masks(Protocol):
    """Pixel masks of the images of a set, by index, in the proportions of the images."""

    @property
    def categories(self) -> Mapping[str, str]:
        """The category of each concept, such as "object"; their order is that of results."""

    @property
    def fingerprint(self) -> str:
        """SHA-256, equal for equal masks."""

    def __call__(self, i: int) -> Mapping[str, np.ndarray]:
        """Return the (H, W) bool mask of each concept that image i shows, all of one size."""


@dataclass(frozen=True, eq=False, repr=False)
class ImageSet:
    """A probe set (the paper's D_probe).

    Attributes
    ----------
    name : str
        Used in tables and messages; keys of artifacts use the fingerprint.
    fingerprint : str
        SHA-256 of the names, labels, classes and content.
    names : tuple of str
        One name for each image. Escape them before display: they come from file names.
    labels : tuple of int or None
        Index into `classes`, None for images without a label.
    classes : tuple of str
        Class names, including classes without images.
    reader : callable
        ``reader(i)`` returns image i as PIL RGB. It must be picklable. It may also have the
        methods ``undecoded(i)`` and ``sha256(i)``, see the methods of this class.
    skipped : tuple of Skipped
        Images that were found but cannot be used.
    masks : Masks or None
        ``masks(i)`` returns the pixel mask of each concept that image i shows; None where no masks
        are known.
    """

    name: str
    fingerprint: str
    names: tuple[str, ...]
    labels: tuple[int | None, ...]
    classes: tuple[str, ...]
    reader: Reader
    skipped: tuple[Skipped, ...] = ()
    masks: Masks | None = None

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        rest = f"{len(self.classes)} classes, {len(self.skipped)} files skipped"
        return f"ImageSet({self.name!r}: {len(self)} images, {rest})"

    def image(self, i: int) -> Image.Image:
        """Return image `i`, 0 <= i < len(self), in RGB.

        Raises
        ------
        IndexError
            If there is no image `i`.
        ValueError
            If the image changed or was removed since the set was opened; the message names it.
        """
        return self.reader(self._checked(i))

    @property
    def known_masks(self) -> Masks:
        """The masks; a ValueError says how to get some where there are none."""
        if self.masks is None:
            raise ValueError(f"{self.name!r} has no pixel masks; open a set with images.masks.")
        return self.masks

    def undecoded(self, i: int) -> bytes | Image.Image:
        """Return the bytes of image `i` if it is a plain JPEG file, otherwise the image itself.

        This is the input of decoders other than Pillow. The bytes are verified against the
        fingerprint; errors are those of `image`.
        """
        return getattr(self.reader, "undecoded", self.reader)(self._checked(i))

    def sha256(self, i: int) -> str | None:
        """Return the SHA-256 of the content of image `i`; None for generated images and crops."""
        found = getattr(self.reader, "sha256", None)
        return found and found(self._checked(i))

    def label(self, i: int) -> int | None:
        """Return the class index of image `i`, or None if it has no label."""
        return self.labels[self._checked(i)]

    def _checked(self, i: int) -> int:
        i = as_index(i)
        if not 0 <= i < len(self):
            raise IndexError(f"There is no image {i} in {self.name!r}, which has {len(self)}.")
        return i


# Subsets and crops ----------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Subset:
    images: ImageSet
    indices: tuple[int, ...]

    def __call__(self, i: int) -> Image.Image:
        return self.images.image(self.indices[i])

    def undecoded(self, i: int) -> bytes | Image.Image:
        return self.images.undecoded(self.indices[i])

    def sha256(self, i: int) -> str | None:
        return self.images.sha256(self.indices[i])


@dataclass(frozen=True)
class _MaskParts:
    """Masks of images, or of a box of each, among those of another set."""

    whole: Masks
    parts: tuple[tuple[int, Box | None], ...]

    @property
    def categories(self) -> Mapping[str, str]:
        return self.whole.categories

    @property
    def fingerprint(self) -> str:
        return digest({"part of": self.whole.fingerprint, "parts": self.parts})

    def __call__(self, i: int) -> Mapping[str, np.ndarray]:
        index, box = self.parts[i]
        found = self.whole(index).items()
        parts = {name: crop_mask(mask, box) if box else mask for name, mask in found}
        return {name: mask for name, mask in parts.items() if mask.any()}


def subset(images: ImageSet, indices: Sequence[int]) -> ImageSet:
    """Return the images at `indices`, in that order (repetition is allowed).

    Raises
    ------
    IndexError
        If an index is outside the set.
    """
    indices = tuple(images._checked(i) for i in indices)
    return replace(
        images,
        name=f"{images.name} ({len(indices)} of {len(images)})",
        fingerprint=digest({"subset of": images.fingerprint, "indices": indices}),
        names=tuple(images.names[i] for i in indices),
        labels=tuple(images.labels[i] for i in indices),
        reader=_Subset(replace(images, masks=None), indices),
        masks=images.masks and _MaskParts(images.masks, tuple((i, None) for i in indices)),
    )


@dataclass(frozen=True, eq=False)
class _Crops:
    images: ImageSet
    boxes: tuple[Box, ...]

    def __call__(self, i: int) -> Image.Image:
        whole = _last_read(self.images, i // len(self.boxes))
        return whole.crop(box_pixels(self.boxes[i % len(self.boxes)], *whole.size))


@lru_cache(maxsize=1)
def _last_read(images: ImageSet, i: int) -> Image.Image:
    """Keep the image read last: its crops follow one another, and decoding is the largest cost."""
    return images.image(i)


def box_pixels(box: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """Return the sides of a box in pixels, at least one apart; halves round up."""
    left, right = _ends(box[0], box[2], width)
    top, bottom = _ends(box[1], box[3], height)
    return left, top, right, bottom


def crop_mask(mask: np.ndarray, box: Box) -> np.ndarray:
    """Crop an array (H, W) over a whole image to a box, see `box_pixels`."""
    left, top, right, bottom = box_pixels(box, mask.shape[1], mask.shape[0])
    return mask[top:bottom, left:right]


def _ends(low: float, high: float, length: int) -> tuple[int, int]:
    start = min(int(low * length + 0.5), length - 1)
    return start, max(int(high * length + 0.5), start + 1)


def crops(images: ImageSet, boxes: Sequence[Box] = FIVE_CROPS) -> ImageSet:
    """Crop every image, for the naming of minor concepts (WWW, 3.2).

    Parameters
    ----------
    images : ImageSet
        The whole images; labels are inherited.
    boxes : sequence of (left, top, right, bottom)
        Fractions of width and height in [0, 1]; by default the four corners and the centre, each
        of half the width and height.

    Returns
    -------
    ImageSet
        Crop j of image i has the index ``i * len(boxes) + j``.

    Raises
    ------
    ValueError
        If there is no box, or one that is empty or exceeds the image.
    """
    boxes = tuple(cast(Box, tuple(float(side) for side in box)) for box in boxes)
    for box in boxes:
        if len(box) != 4 or not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
            expected = "0 <= left < right <= 1 and 0 <= top < bottom <= 1"
            raise ValueError(f"The crop box {box} must have {expected}.")
    if not boxes:
        raise ValueError("There is no crop box; give at least one (left, top, right, bottom).")
    parts = tuple((i, box) for i in range(len(images)) for box in boxes)
    return replace(
        images,
        name=f"crops of {images.name}",
        fingerprint=digest({"crops of": images.fingerprint, "boxes": boxes}),
        names=tuple(f"{name} [crop {j}]" for name in images.names for j in range(len(boxes))),
        labels=tuple(label for label in images.labels for _ in boxes),
        reader=_Crops(replace(images, masks=None), boxes),
        masks=images.masks and _MaskParts(images.masks, parts),
    )


# Disjoint sets --------------------------------------------------------------------------------


def halves(labels: Sequence[int | None], seed: int = 0) -> tuple[list[int], list[int]]:
    """Split images into two halves with nearly equal numbers of each class.

    What is estimated is tested on other images: one that is part of its class's mean, for instance,
    agrees with the mean for that reason alone.

    Parameters
    ----------
    labels : sequence of int or None
        The class of each image.
    seed : int
        Seed of the random split.

    Returns
    -------
    first, second : list of int
        Indices in ascending order. A class with one image is in one half only.
    """
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed)).tolist()
    order = sorted(shuffled, key=lambda i: -1 if labels[i] is None else labels[i])
    return sorted(order[::2]), sorted(order[1::2])


def check_apart(known: ImageSet, tested: ImageSet) -> None:
    """Raise an error if two sets share an image.

    Images are the same if their files have equal bytes, under any name, or if they have the same
    name and equal pixels. One picture in two encodings is not recognised.

    Parameters
    ----------
    known : ImageSet
        The images from which names or class contributions are estimated.
    tested : ImageSet
        The images on which they are tested.

    Raises
    ------
    ValueError
        If they share an image; the message names it.
    """
    index = {name: i for i, name in enumerate(known.names)}
    contents = {content(known, i): name for name, i in index.items()}
    for j, name in enumerate(tested.names):
        i = index.get(name)
        same = i is not None and np.array_equal(np.array(known.image(i)), np.array(tested.image(j)))
        twin = name if same else contents.get(content(tested, j))
        if twin:
            raise ValueError(
                f"The tested image {name!r} is also in {known.name!r}, as {twin!r}, which would "
                "leak into the test; take other images, or another seed."
            )


def content(images: ImageSet, i: int) -> str | tuple[str, int]:
    """Return what identifies the content of an image: its hash, or else its set and index."""
    return images.sha256(i) or (images.fingerprint, i)
