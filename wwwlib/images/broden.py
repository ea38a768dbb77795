"""Broden's images, as Network Dissection published them: those that its index lists.

Beside them in the same folders lie mask files, which are images, too: a plain folder would take
them for photographs.
"""

import csv

from wwwlib.images.folder import open_files
from wwwlib.images.image_set import ImageSet
from wwwlib.images.roots import Place, existing


def broden(root: str | Place, split: str | None = None, **options) -> ImageSet:
    """Open Broden's images; for its masks see `baselines.masks`.

    Parameters
    ----------
    root : path
        Such as ``broden1_224``, with ``index.csv`` and ``images/``.
    split : {None, "train", "val"}
        Which images; None takes all.
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
    paths = [row["image"] for row in listed(root, split)]
    options = {"name": root.name, **options}
    return open_files(existing(root / "images"), paths, [None] * len(paths), (), **options)


def listed(root: str | Place, split: str | None = None) -> list[dict[str, str]]:
    """Return the rows of ``index.csv``, by column; errors are those of `broden`."""
    rows = table(existing(root) / "index.csv", ["image", "split", "sh", "sw"])
    chosen = [row for row in rows if split in (None, row["split"])]
    if not chosen:
        splits = ", ".join(sorted({row["split"] for row in rows}))
        raise ValueError(f"Broden has no image of the split {split!r}; its splits are {splits}.")
    return chosen


def table(path: Place, columns: list[str]) -> list[dict[str, str]]:
    """Read one of Broden's CSV files, which has at least the given columns."""
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no {path.name} in {str(path.parent)!r}; give the folder of an unpacked "
            "Broden, such as broden1_224."
        )
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        missing = [column for column in columns if column not in (reader.fieldnames or ())]
        if missing:
            raise ValueError(f"{str(path)!r} has no column {missing[0]!r}; unpack Broden again.")
        return list(reader)
