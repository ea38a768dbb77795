"""Broden, the data set of Network Dissection (Bau et al., CVPR 2017): images and their tables."""

import csv

from wwwlib.images import ImageSet
from wwwlib.images.files import Place, existing, open_files


def images(root: str | Place, split: str | None = None, **options) -> ImageSet:
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
    paths = [row["image"] for row in rows(root, split)]
    options = {"name": root.name, **options}
    return open_files(existing(root / "images"), paths, [None] * len(paths), (), **options)


def rows(root: str | Place, split: str | None = None) -> list[dict[str, str]]:
    """Return the rows of ``index.csv``, by column; errors are those of `images`."""
    found = table(existing(root) / "index.csv", ["image", "split", "sh", "sw"])
    chosen = [row for row in found if split in (None, row["split"])]
    if not chosen:
        splits = ", ".join(sorted({row["split"] for row in found}))
        raise ValueError(f"Broden has no image of the split {split!r}; its splits are {splits}.")
    return chosen


def table(path: Place, columns: list[str]) -> list[dict[str, str]]:
    """Read one of Broden's CSV files and check that it has the given columns."""
    if not path.is_file():
        raise FileNotFoundError(f"There is no {str(path)!r}; give the folder of Broden.")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [column for column in columns if column not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"{str(path)!r} has no column {missing[0]!r}; unpack Broden again.")
        return list(reader)
