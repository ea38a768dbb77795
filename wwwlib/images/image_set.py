"""An ordered set of images that knows its own content, and sets made from other sets.

An `ImageSet` is names, labels, a fingerprint, and a *reader*: a small picklable object that turns
an index into an RGB image. Subsets and crops wrap the reader of another set; no pixel is copied
or kept.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from operator import index as as_index

from PIL import Image

from wwwlib.store import digest

Reader = Callable[[int], Image.Image]
Box = tuple[float, float, float, float]

# (left, top, right, bottom) as shares of width and height: four corners, then the centre.
FIVE_CROPS: tuple[Box, ...] = (
    (0.0, 0.0, 0.5, 0.5),
    (0.5, 0.0, 1.0, 0.5),
    (0.0, 0.5, 0.5, 1.0),
    (0.5, 0.5, 1.0, 1.0),
    (0.25, 0.25, 0.75, 0.75),
)


@dataclass(frozen=True)
class Skipped:
    """A file that an image set left out, and the reason why."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path!r}: {self.reason}"


@dataclass(frozen=True, eq=False, repr=False)
class ImageSet:
    """A probe set (the paper's D_probe).

    Attributes
    ----------
    name : str
        For people; keys use the fingerprint.
    fingerprint : str
        SHA-256 of the names, labels, classes and content: equal sets, equal fingerprints.
    names : tuple of str
        One a image, to be treated as a foreign string wherever it is shown.
    labels : tuple of int or None
        Index into `classes`, None where an image has no label.
    classes : tuple of str
        Class names; those without images count, too.
    reader : callable
        ``reader(i)`` returns image i as PIL RGB. It must be picklable.
    skipped : tuple of Skipped
        Files that were found but cannot be used.
    """

    name: str
    fingerprint: str
    names: tuple[str, ...]
    labels: tuple[int | None, ...]
    classes: tuple[str, ...]
    reader: Reader
    skipped: tuple[Skipped, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return (
            f"ImageSet({self.name!r}: {len(self)} images, {len(self.classes)} classes, "
            f"{len(self.skipped)} files skipped)"
        )

    def image(self, i: int) -> Image.Image:
        """Return image `i`, 0 <= i < len(self), in RGB.

        Raises
        ------
        IndexError
            If there is no image `i`.
        ValueError
            If the file changed or vanished since the set was opened; the sentence names it.
        """
        return self.reader(self._checked(i))

    def undecoded(self, i: int) -> bytes | Image.Image:
        """Return image `i` for another decoder than Pillow: a plain JPEG file's bytes, unchanged.

        What is no such file, or is not shown as it stands there, comes as from `image`, which
        raises the same errors. The bytes are those that the fingerprint knows.
        """
        return _undecoded(self.reader, self._checked(i))

    def sha256(self, i: int) -> str | None:
        """Return the SHA-256 of the file of image `i`, or None where it is not a whole file."""
        told = getattr(self.reader, "sha256", None)
        return told and told(self._checked(i))

    def label(self, i: int) -> int | None:
        """Return the class index of image `i`, or None where it has no label."""
        return self.labels[self._checked(i)]

    def _checked(self, i: int) -> int:
        i = as_index(i)
        if not 0 <= i < len(self):
            raise IndexError(
                f"Image {i} of {self.name!r} does not exist; it has {len(self)}, from 0."
            )
        return i


def _undecoded(reader: Reader, i: int) -> bytes | Image.Image:
    """Ask a reader for bytes; only those that read files whole have a method for it."""
    return getattr(reader, "undecoded", reader)(i)


@dataclass(frozen=True, eq=False)
class _Picked:
    reader: Reader
    indices: tuple[int, ...]

    def __call__(self, i: int) -> Image.Image:
        return self.reader(self.indices[i])

    def undecoded(self, i: int) -> bytes | Image.Image:
        return _undecoded(self.reader, self.indices[i])

    def sha256(self, i: int) -> str | None:
        told = getattr(self.reader, "sha256", None)
        return told and told(self.indices[i])


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
        reader=_Picked(images.reader, indices),
    )


@dataclass(frozen=True, eq=False)
class _Cropped:
    reader: Reader
    boxes: tuple[Box, ...]

    def __call__(self, i: int) -> Image.Image:
        whole = _last(self.reader, i // len(self.boxes))
        left, top, right, bottom = self.boxes[i % len(self.boxes)]
        x, y = _span(left, right, whole.width), _span(top, bottom, whole.height)
        return whole.crop((x[0], y[0], x[1], y[1]))


@lru_cache(maxsize=1)
def _last(reader: Reader, i: int) -> Image.Image:
    """Keep the image read last: its crops follow one another, and decoding costs the most."""
    return reader(i)


def _span(low: float, high: float, length: int) -> tuple[int, int]:
    """Return the pixels between two shares of a length, at least one; halves round up."""
    start = min(int(low * length + 0.5), length - 1)
    return start, max(int(high * length + 0.5), start + 1)


def crops(images: ImageSet, boxes: Sequence[Box] = FIVE_CROPS) -> ImageSet:
    """Cut every image into crops, the probe set from which minor concepts are named (WWW, 3.2).

    Parameters
    ----------
    images : ImageSet
        The whole images; labels are inherited.
    boxes : sequence of (left, top, right, bottom)
        As shares of width and height in [0, 1]; default: the four corners and the centre, each
        half as wide and half as high.

    Returns
    -------
    ImageSet
        Crop j of image i is at index ``i * len(boxes) + j``.

    Raises
    ------
    ValueError
        If there is no box, or one that is empty or leaves the image.
    """
    boxes = tuple(tuple(float(side) for side in box) for box in boxes)
    for box in boxes:
        if len(box) != 4 or not (0 <= box[0] < box[2] <= 1 and 0 <= box[1] < box[3] <= 1):
            raise ValueError(
                f"The crop box {box} is not (left, top, right, bottom) with left < right and "
                "top < bottom in [0, 1]."
            )
    if not boxes:
        raise ValueError("There is no crop box; give at least one (left, top, right, bottom).")
    return replace(
        images,
        name=f"crops of {images.name}",
        fingerprint=digest({"crops of": images.fingerprint, "boxes": boxes}),
        names=tuple(f"{name} [crop {j}]" for name in images.names for j in range(len(boxes))),
        labels=tuple(label for label in images.labels for _ in boxes),
        reader=_Cropped(images.reader, boxes),
    )
