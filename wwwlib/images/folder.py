"""A folder of images, every file of which is looked at once before it is trusted.

Opening reads each file, takes its SHA-256 and decodes it cheaply, in threads. What is bad is
skipped and listed; when too much is bad, the folder is the wrong one and opening fails. Reading
an image later checks its SHA-256 again, so that the fingerprint never lies.
"""

import hashlib
import os
import warnings
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from wwwlib.images.decode import MAX_PIXELS, check, is_plain_jpeg, naming, read, unpack
from wwwlib.images.image_set import ImageSet, Skipped
from wwwlib.images.roots import Place, existing, files, place, subfolders
from wwwlib.store import digest

_MANY = 1000  # files from which on a progress bar is worth its line


def folder(root: str | Place, **options) -> ImageSet:
    """Open a folder of images; subfolders, if there are any, are classes.

    Order, labels and fingerprint do not depend on the file system: names are sorted, hidden
    files ignored, and links that lead back up are not followed. A class is a direct subfolder
    with everything below it; images beside the class folders have no label.

    Parameters
    ----------
    root : path or str
        The folder, or a URL that fsspec reads, such as ``s3://bucket/val``; see `images.roots`.
    **options
        `name`, `tolerate`, `convert`, `max_pixels`, `least_side` and `progress`, as `open_files`
        takes them.

    Raises
    ------
    NotADirectoryError
        If `root` is no folder.
    ValueError
        If nothing in it can be used, or more than the tolerated share cannot.
    """
    classes = subfolders(root)
    return labelled(root, {name: i for i, name in enumerate(classes)}, classes, **options)


def labelled(
    root: str | Place, numbers: Mapping[str, int], classes: Sequence[str], **options
) -> ImageSet:
    """Open a folder whose direct subfolders have the class indices `numbers` into `classes`."""
    root = existing(root)
    paths = files(root)
    labels = [numbers.get(Path(path).parts[0]) for path in paths]
    return open_files(root, paths, labels, classes, **options)


def open_files(
    root: str | Place,
    paths: Sequence[str],
    labels: Sequence[int | None],
    classes: Sequence[str],
    *,
    name: str | None = None,
    tolerate: float = 0.05,
    convert: Collection[str] = (),
    max_pixels: int = MAX_PIXELS,
    least_side: int | None = None,
    progress: bool = True,
) -> ImageSet:
    """Check the given files and make an image set of the good ones.

    Parameters
    ----------
    root : path
        The folder to which `paths` are relative.
    paths : sequence of str
        The files, in the order that the set shall have.
    labels : sequence of int or None
        Class index of each file.
    classes : sequence of str
        Class names.
    name : str, optional
        Name of the set; default: that of the folder.
    tolerate : float in [0, 1]
        Share of bad files up to which they are skipped, with a warning; beyond it, opening fails.
    convert : collection of str
        Colour modes to accept beyond the usual ones, such as ``"CMYK"``.
    max_pixels : int
        Most pixels that an image may have.
    least_side : int, optional
        Let libjpeg decode JPEG files at 1/2, 1/4 or 1/8 of their size where that divides both
        sides and leaves the shorter at least so many pixels; by default all are decoded whole.
        Crops are cut from the smaller image. Give a multiple of the side to which preprocessing
        resizes: the gap decides how much the pixels that it gives change, see below.
    progress : bool
        Show a bar when there are many files.

    Raises
    ------
    ValueError
        If no file can be used, or more than the tolerated share cannot, or `least_side` is
        below 1.

    Notes
    -----
    How far pixels move, once a shorter side of `least_side` is resized (bilinear or bicubic, with
    a filter) and cropped, in levels of 0..255; on those of 640 photographs from ImageNet, shorter
    side 256 or less, whose sides half, a quarter or an eighth divides (291, 208, 161 to 165):

    =======================  ============  ===============  =======
    `least_side`             mean          99.9th centile   maximum
    =======================  ============  ===============  =======
    3 times the side         0.39 to 0.54  4                11
    2 times the side         0.77 to 1.44  10               19
    the side itself          2.02 to 3.16  36               86
    =======================  ============  ===============  =======

    Three times keeps the mean below one level at every fraction, twice only at a half.
    """
    if least_side is not None and least_side < 1:
        raise ValueError(f"least_side is {least_side}; it must be at least 1 pixel, or None.")
    root = existing(root)
    examine = partial(_examine, root, max_pixels=max_pixels, convert=tuple(convert))
    quiet = not progress or len(paths) < _MANY
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("ignore")  # Pillow's: the reasons below say it all
        bar = tqdm(pool.map(examine, paths), "checking", len(paths), unit="file", disable=quiet)
        found = list(bar)
    good = [i for i, result in enumerate(found) if isinstance(result, str)]
    skipped = tuple(result for result in found if isinstance(result, Skipped))
    _judge(root, len(found), skipped, tolerate)
    names, hashes = tuple(_shown(paths[i]) for i in good), tuple(found[i] for i in good)
    kept, classes = tuple(labels[i] for i in good), tuple(_shown(name) for name in classes)
    content = {"names": names, "sha256": hashes, "labels": kept, "classes": classes}
    if least_side is not None:
        content["least_side"] = least_side
    found_at = tuple(paths[i] for i in good)
    reader = _Files(str(root), found_at, hashes, max_pixels, tuple(convert), least_side)
    return ImageSet(name or root.name, digest(content), names, kept, classes, reader, skipped)


@dataclass(frozen=True, eq=False)
class _Files:
    root: str
    paths: tuple[str, ...]
    hashes: tuple[str, ...]
    max_pixels: int
    convert: tuple[str, ...]
    least_side: int | None

    def __call__(self, i: int) -> Image.Image:
        return self._read(i, undecoded=False)

    def undecoded(self, i: int) -> bytes | Image.Image:
        return self._read(i, undecoded=True)

    def _read(self, i: int, undecoded: bool) -> bytes | Image.Image:
        path = place(self.root) / self.paths[i]
        how = (self.max_pixels, self.convert, self.least_side)
        with naming(path):
            data = read(path)
            if hashlib.sha256(data).hexdigest() != self.hashes[i]:
                raise ValueError("it changed since the image set was opened; open the set again")
            return data if undecoded and is_plain_jpeg(data, *how) else unpack(data, *how)

    def sha256(self, i: int) -> str:
        return self.hashes[i]


def _examine(root: Place, path: str, max_pixels: int, convert: tuple[str, ...]) -> str | Skipped:
    """Return the SHA-256 of a file that decodes, or why it does not."""
    try:
        data = read(root / path)
        check(data, max_pixels, convert)
    except ValueError as error:
        return Skipped(_shown(path), str(error))
    return hashlib.sha256(data).hexdigest()


def _judge(root: Place, count: int, skipped: tuple[Skipped, ...], tolerate: float) -> None:
    """Pass, warn or raise, depending on the share of bad files."""
    if not 0 <= tolerate <= 1:
        raise ValueError(f"tolerate is {tolerate}; give a share in [0, 1].")
    if not count:
        raise ValueError(f"The folder {str(root)!r} holds no files; give one that holds images.")
    if not skipped:
        return
    summary = f"{len(skipped)} of {count} files in {str(root)!r} cannot be used"
    if len(skipped) == count or len(skipped) > tolerate * count:
        raise ValueError(
            f"{summary}, more than the tolerated {tolerate:.0%} or all of them; the first is "
            f"{skipped[0]}; remove or repair them, or raise tolerate."
        )
    warnings.warn(f"{summary} and were skipped; see .skipped for the reasons.", stacklevel=3)


def _shown(path: str) -> str:
    """Return a name with forward slashes that any terminal and JSON can take."""
    return os.fsencode(path).decode("utf-8", "replace").replace(os.sep, "/")
