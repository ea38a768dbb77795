"""Where each concept is to be seen, pixel by pixel: the ground truth of Network Dissection.

A `Masks` is a callable from an image's index to its masks: those of Broden in its published folder
layout, or the exact ones of `world.image_set_with_masks`. Each comes together with its image set,
so that index i is the same image in both.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from wwwlib import images as image_sets
from wwwlib.images import ImageSet, decode
from wwwlib.images.broden import listed, table
from wwwlib.images.roots import existing
from wwwlib.store import digest, file_digest


class Masks(Protocol):
    """Pixel masks of the images of a set.

    Attributes
    ----------
    categories : mapping of str to str
        Each concept and its category, such as "object"; the order is that of the IoU's columns.
    fingerprint : str
        SHA-256: equal masks, equal fingerprints.
    """

    categories: Mapping[str, str]
    fingerprint: str

    def __call__(self, i: int) -> Mapping[str, np.ndarray]:
        """Return the (H, W) bool mask of each concept that image i shows, all of one size."""
        ...


@dataclass(frozen=True)
class BrodenMasks:
    """Broden's masks; made by `broden`.

    Attributes
    ----------
    root : Path
        The folder that holds ``index.csv``.
    rows : tuple of (height, width, cells)
        For each image the size of its masks, and its labels: numbers of labels that hold for the
        whole image, and names of files whose pixels hold ``number = red + 256 green``.
    labels : mapping of int to str
        The concept of each label number.
    """

    root: Path
    rows: tuple[tuple[int, int, tuple[str, ...]], ...] = field(repr=False)
    labels: Mapping[int, str] = field(repr=False)
    categories: Mapping[str, str] = field(repr=False)
    fingerprint: str

    def __call__(self, i: int) -> Mapping[str, np.ndarray]:
        """Return the masks of image i; a label that several layers show has their union."""
        height, width, cells = self.rows[i]
        masks: dict[str, np.ndarray] = {}
        for cell in cells:
            numbers = (
                np.full((height, width), int(cell))
                if cell.isdecimal()
                else _decoded(self.root / "images" / cell)
            )
            for number in set(np.unique(numbers).tolist()) - {0}:
                if number not in self.labels:
                    raise ValueError(
                        f"{cell!r} holds the label {number}, which label.csv in "
                        f"{str(self.root)!r} does not list; unpack Broden again."
                    )
                word = self.labels[number]
                masks[word] = masks.get(word, False) | (numbers == number)
        return masks


def broden(root: str | Path, split: str | None = None, **options) -> tuple[ImageSet, BrodenMasks]:
    """Open Broden as Network Dissection published it.

    The folder holds ``index.csv`` (image, split, ih, iw, sh, sw, then a column for each category
    with mask files or label numbers, separated by semicolons), ``label.csv`` (number, name,
    category with frequencies such as ``material(36);object(3)``, ...) and ``images/``. A label
    belongs to the category in which it is most frequent.

    Parameters
    ----------
    root : path
        Such as ``broden1_224``.
    split : {None, "train", "val"}
        Which images; None takes all.
    **options
        `tolerate`, `convert`, `max_pixels` and `progress`, as `images.folder` takes them.

    Returns
    -------
    images : ImageSet
        Without labels; `names` are paths below ``images/``.
    masks : BrodenMasks
        In the same order, without the images that could not be read.

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If a part of the layout is missing.
    ValueError
        If a table lacks a column, no image has the split, or too many images cannot be read.
    """
    images = image_sets.broden(root, split, **options)
    root = existing(root)
    readable = set(images.names)
    rows = tuple(_row(row) for row in listed(root, split) if row["image"] in readable)
    entries = table(root / "label.csv", ["number", "name", "category"])
    labels = {int(row["number"]): row["name"] for row in entries}
    categories = {row["name"]: _main_category(row["category"]) for row in entries}
    tables = [file_digest(root / name) for name in ("index.csv", "label.csv")]
    fingerprint = digest({"broden": tables, "images": images.fingerprint})
    return images, BrodenMasks(root, rows, labels, categories, fingerprint)


def _row(row: Mapping[str, str]) -> tuple[int, int, tuple[str, ...]]:
    """Return the size of an image's masks, and the cells of all its category columns."""
    columns = list(row)
    labelled = columns[columns.index("sw") + 1 :]
    cells = [cell for column in labelled for cell in (row[column] or "").split(";") if cell]
    return int(row["sh"]), int(row["sw"]), tuple(cells)


def _main_category(entry: str) -> str:
    """Return the most frequent category of an entry such as ``material(36);object(3)``."""
    found = re.findall(r"([^;()]+)\((\d+)\)", entry)
    if not found:
        raise ValueError(f"The category {entry!r} in label.csv is not like 'material(36)'.")
    return max(found, key=lambda pair: int(pair[1]))[0]


def _decoded(path: Path) -> np.ndarray:
    """Read the label numbers (H, W) of a mask file."""
    pixels = np.asarray(decode(path), np.int64)
    return pixels[..., 0] + 256 * pixels[..., 1]
