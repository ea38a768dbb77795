"""Image files: reading and decoding them, and folders of them as image sets.

Files and uploads pass the same checks, in the order of their cost: size on disk, header, pixels.
Images that Pillow would read with a loss (16-bit images are clipped to white) or at any cost
(decompression bombs) are rejected.

Opening a folder reads every file once: files are hashed and decoded cheaply, in threads. Those that
cannot be used are skipped and listed; if too many are, opening fails. Reading an image later
verifies its SHA-256, so that the fingerprint always describes the content.
"""

import hashlib
import io
import os
import unicodedata
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, Union

from PIL import Image
from tqdm import tqdm

from wwwlib.images.image_set import ImageSet, Skipped
from wwwlib.registry import expanded, require, whole_number
from wwwlib.store import digest

if TYPE_CHECKING:
    from upath import UPath

Place = Union[Path, "UPath"]  # a local path, or one behind a URL
How = tuple[int, Collection[str], int | None]  # max_pixels, convert and least_side
Found = TypeVar("Found")
MAX_PIXELS = 64_000_000  # 192 MB as RGB; below the size at which Pillow itself starts to warn
MAX_BYTES = 256 * 2**20
MAX_RATIO = 50  # of the sides: networks resize the shorter one to hundreds of pixels
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_DIVISORS = (8, 4, 2)  # libjpeg decodes at these fractions of the size at a fraction of the cost
_PLAIN_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA"}
# What operating systems put beside files.
_NOT_IMAGES = {"__MACOSX", "lost+found", "@eaDir", "Thumbs.db", "ehthumbs.db", "desktop.ini"}
_NOT_IMAGES |= {"$RECYCLE.BIN", "System Volume Information"}
_MANY = 1000  # images from which on a progress bar is shown


# Paths and URLs -------------------------------------------------------------------------------


def place(where: str | Place) -> Place:
    """Return a local path, or for a URL a path that reads through fsspec.

    ``s3://bucket/val``, ``gs://``, ``https://``, ``hf://datasets/...``, ``memory://`` and others
    need their own package (s3fs, gcsfs, ...). Keys, endpoints and other options come from fsspec's
    configuration: ``FSSPEC_S3_ANON=true`` in the environment, or files in ``~/.config/fsspec``.
    Make it anew in each process, since connections do not survive a fork.

    Raises
    ------
    ValueError
        If no installed package reads this kind of URL.
    """
    if "://" not in str(where):
        return expanded(str(where))
    upath = require("upath", "notebooks")
    try:
        found = upath.UPath(str(where))
        found.fs  # noqa: B018  raises if the package of this protocol is missing
        return found
    except (ImportError, ValueError) as error:
        raise ValueError(f"{str(where)!r} cannot be read; install its package: {error}") from error


def existing(root: str | Place) -> Place:
    """Return the absolute path of a folder.

    Raises
    ------
    NotADirectoryError
        If there is no such folder.
    """
    root = place(root).absolute()
    if not root.is_dir():
        raise NotADirectoryError(f"There is no folder {str(root)!r}; give one that holds images.")
    return root


def list_files(root: Place) -> list[str]:
    """Return the paths of all files below a folder, relative to it, in order of name.

    Hidden entries and folders of operating systems are ignored. The order is the same for URLs and
    for decomposed names, so that a copy has the fingerprint of the original.
    """
    if isinstance(root, Path):
        found = _walk(root)
    else:
        start = root.path.rstrip("/") + "/"
        found = (path.removeprefix(start) for path in root.fs.find(start))
    kept = (path for path in found if not any(map(_ignored, path.split("/"))))
    return sorted(kept, key=lambda path: shown(path).split("/"))


def _ignored(name: str) -> bool:
    return name.startswith(".") or name in _NOT_IMAGES


def _walk(root: Path) -> Iterator[str]:
    """Yield the paths of the files below a folder; each folder is listed once.

    Links to folders inside `root` are not followed, since these are listed where they are.
    """
    top = os.path.realpath(root)
    seen, left = {top}, [("", top)]
    while left:
        below, folder = left.pop()
        try:
            names = sorted(os.listdir(folder))
        except OSError as error:
            raise ValueError(f"{folder!r} cannot be listed: {error.strerror}.") from error
        for name in names:
            path = os.path.join(folder, name)
            if not os.path.isdir(path):
                yield below + name
                continue
            real = os.path.realpath(path) if os.path.islink(path) else path
            inside = real != path and real.startswith(os.path.join(top, ""))
            if not (inside or real in seen or _ignored(name)):
                seen.add(real)
                left.append((f"{below}{name}/", real))


# One image ------------------------------------------------------------------------------------


def decode(
    source: str | bytes | Place | Image.Image,
    *,
    max_pixels: int = MAX_PIXELS,
    convert: Collection[str] = (),
) -> Image.Image:
    """Decode a file or an upload as torchvision does: to RGB, without alpha, ignoring EXIF.

    Parameters
    ----------
    source : path, bytes or PIL.Image.Image
        A file or its bytes, at most 256 MiB, in one of `FORMATS`; or an image that is already
        decoded.
    max_pixels : int
        Maximum number of pixels (width x height), checked on the header.
    convert : collection of str
        Further Pillow modes to accept, such as ``"CMYK"``; Pillow converts them.

    Returns
    -------
    PIL.Image.Image
        In mode RGB, fully loaded.

    Raises
    ------
    ValueError
        If the image cannot be used; the message gives its name and the reason.
    TypeError
        If `source` is none of these.
    """
    if isinstance(source, Image.Image):
        with naming(getattr(source, "filename", "") or "in memory"):
            return _allowed(source, max_pixels, convert).convert("RGB")
    data = bytes(source) if isinstance(source, bytes | bytearray) else source
    if not (isinstance(data, str | bytes) or hasattr(data, "read_bytes")):
        raise TypeError(f"The image is a {type(source).__name__}; give a PIL image, path or bytes.")
    with naming("upload" if isinstance(data, bytes) else data):
        return unpack(data if isinstance(data, bytes) else read(data), (max_pixels, convert, None))


@contextmanager
def naming(source: object) -> Iterator[None]:
    """Prepend the name of an image to the reason in a ValueError or MemoryError."""
    try:
        yield
    except (ValueError, MemoryError) as error:
        reason = error if isinstance(error, ValueError) else "it does not fit into memory"
        raise ValueError(f"The image {str(source)!r} cannot be used: {reason}.") from error


def read(path: str | Place) -> bytes:
    """Return the bytes of a regular file; a ValueError gives the reason if that fails."""
    path = place(path)
    try:
        if not path.is_file():
            raise ValueError("it is missing or no regular file")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise ValueError(f"its {size >> 20} MiB are more than the {MAX_BYTES >> 20} MiB read")
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"it cannot be read ({error.strerror or error})") from error


def unchanged(path: Place, sha256: str) -> bytes:
    """Return the bytes of a file, after a check that they are those of a SHA-256."""
    if hashlib.sha256(data := read(path)).hexdigest() != sha256:
        raise ValueError("it changed since the image set was opened; open the set again")
    return data


def unpack(data: bytes, how: How) -> Image.Image:
    """Decode bytes to RGB; a ValueError gives the reason if that fails.

    A JPEG is decoded at a fraction of its size if `least_side` allows it, see `images.folder`.
    """
    max_pixels, convert, least_side = how
    image = opened(data, max_pixels, convert)
    if (divisor := _divisor(image, least_side)) > 1:
        image.draft(None, (image.width // divisor, image.height // divisor))
    return loaded(image).convert("RGB")


def unpack_unless_jpeg(data: bytes, how: How) -> bytes | Image.Image:
    """Decode as `unpack` does, but return a grey or YCbCr JPEG to be decoded at full size as it is.

    All decoders agree on these.
    """
    max_pixels, convert, least_side = how
    image = opened(data, max_pixels, convert)
    as_rgb = image.info.get("adobe_transform") == 0  # rare: three channels stored as RGB
    plain = image.mode == "L" or (image.mode == "RGB" and not as_rgb)
    keep = plain and image.format == "JPEG" and _divisor(image, least_side) == 1
    return data if keep else unpack(data, how)


def check(data: bytes, max_pixels: int, convert: Collection[str]) -> None:
    """Raise the errors of `unpack`, at a fraction of its cost for JPEG files."""
    image = opened(data, max_pixels, convert)
    image.draft(None, (1, 1))  # an eighth of the size, but the whole stream is read
    loaded(image)


def _divisor(image: Image.Image, least_side: int | None) -> int:
    """Return the divisor of both sides of a JPEG, without remainder; 1 for full size.

    A remainder would be rounded up and change the aspect ratio: after resizing and cropping,
    everything would move by up to a pixel, far more than decoding at a fraction changes.
    """
    if least_side is None or image.format != "JPEG":
        return 1
    width, height = image.size
    fit = (d for d in _DIVISORS if width % d == height % d == 0)
    return next((d for d in fit if min(width, height) // d >= least_side), 1)


def opened(data: bytes, max_pixels: int = MAX_PIXELS, convert: Collection[str] = ()) -> Image.Image:
    """Open an image without decoding its pixels; a ValueError gives the reason if that fails."""
    if not data:
        raise ValueError("the file is empty")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"it has more pixels than the {max_pixels:,} allowed") from error
    except Exception as error:  # Pillow's readers raise nearly anything on invalid bytes
        raise ValueError(f"it is no intact {', '.join(FORMATS[:-1])} or {FORMATS[-1]}") from error
    return _allowed(image, max_pixels, convert)


def _allowed(image: Image.Image, max_pixels: int, convert: Collection[str]) -> Image.Image:
    width, height = image.size
    if width * height > max_pixels:
        raise ValueError(f"its {width} x {height} pixels exceed {max_pixels:,}; scale it down")
    if max(width, height) > MAX_RATIO * min(width, height) or not width * height:
        raise ValueError(f"its sides, {width} x {height}, have a ratio over {MAX_RATIO}; crop it")
    if image.mode not in _PLAIN_MODES and image.mode not in convert:
        raise ValueError(
            f"its mode is {image.mode}, which loses values or colours as 8-bit RGB; convert it, or "
            f"accept the loss with convert=({image.mode!r},)"
        )
    return image


def loaded(image: Image.Image) -> Image.Image:
    """Decode the pixels of an opened image; a ValueError gives the reason if that fails."""
    try:
        image.load()
    except MemoryError:
        raise
    except Exception as error:  # as above: OSError, SyntaxError, struct.error, zlib.error, ...
        raise ValueError(f"its pixels are truncated or damaged ({error})") from error
    return image


# Folders --------------------------------------------------------------------------------------


def folder(root: str | Place, **options: Any) -> ImageSet:
    """Open a folder of images; its subfolders, if any, are classes.

    Order, labels and fingerprint do not depend on the file system: names are composed (NFC) and
    sorted, hidden files ignored, and links to folders inside the folder are not followed. A class
    is a direct subfolder that holds files, with everything below it; images beside the class
    folders have no label.

    Parameters
    ----------
    root : path or str
        The folder, or a URL that fsspec reads, such as ``s3://bucket/val``.
    **options
        `name`, `tolerate`, `convert`, `max_pixels`, `least_side` and `progress`, see `open_files`.

    Raises
    ------
    NotADirectoryError
        If `root` is not a folder.
    ValueError
        If it holds no usable image, or the share of unusable files exceeds `tolerate`.
    """
    root = existing(root)
    paths = list_files(root)
    own = top_folders(paths)
    classes = sorted({name for name in own if name is not None})
    numbers: dict[str | None, int] = {name: i for i, name in enumerate(classes)}
    return open_files(root, paths, [numbers.get(name) for name in own], classes, **options)


def top_folders(paths: Sequence[str]) -> list[str | None]:
    """Return the names of the first folders of paths below a root; None beside all folders."""
    return [name.partition("/")[0] if "/" in name else None for name in map(shown, paths)]


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
    """Check files and make an image set of those that can be used.

    Parameters
    ----------
    root : path
        The folder to which `paths` are relative.
    paths : sequence of str
        The files, in the order of the set.
    labels : sequence of int or None
        Class index of each file.
    classes : sequence of str
        Class names.
    name : str, optional
        Name of the set; by default that of the folder.
    tolerate : float in [0, 1]
        Share of unusable files that are skipped with a warning; if more are, opening fails.
    convert : collection of str
        Colour modes to accept beyond the usual ones, such as ``"CMYK"``.
    max_pixels : int
        Maximum number of pixels of an image.
    least_side : int, optional
        Let libjpeg decode JPEG files at 1/2, 1/4 or 1/8 of their size where that divides both
        sides and leaves the shorter side at least so many pixels; by default all are decoded at
        full size. Crops are taken from the smaller image. Choose a multiple of the side to which
        preprocessing resizes, see Notes.
    progress : bool
        Show a progress bar if there are many files.

    Raises
    ------
    ValueError
        If no file can be used, the share of unusable files exceeds `tolerate`, or `least_side` is
        below 1.

    Notes
    -----
    Differences of resized (bilinear or bicubic, antialiased) and cropped pixels, in levels of
    0..255, for those of 640 photographs from ImageNet, shorter side at most 256, whose sides are
    divisible by 2, 4 or 8 (291, 208, 161 to 165 photographs):

    =======================  ============  =================  =======
    `least_side`             mean          99.9th percentile  maximum
    =======================  ============  =================  =======
    3 times the side         0.39 to 0.54  4                  11
    2 times the side         0.77 to 1.44  10                 19
    the side itself          2.02 to 3.16  36                 86
    =======================  ============  =================  =======

    Three times keeps the mean below one level for every divisor, twice only for a half.
    """
    if least_side is not None:
        whole_number("least_side", least_side)
    root, convert = existing(root), tuple(convert)

    def examine(i: int) -> str:
        data = read(root / paths[i])
        check(data, max_pixels, convert)
        return hashlib.sha256(data).hexdigest()

    names, where = tuple(shown(path) for path in paths), f"files in {str(root)!r}"
    found, skipped = examine_all(examine, names, where, tolerate, progress)
    names, hashes = tuple(names[i] for i in found), tuple(found.values())
    kept, classes = tuple(labels[i] for i in found), tuple(shown(name) for name in classes)
    scale = {} if least_side is None else {"least_side": least_side}
    content = {"names": names, "sha256": hashes, "labels": kept, "classes": classes, **scale}
    found_at = tuple(paths[i] for i in found)
    reader = _Files(str(root), found_at, hashes, (max_pixels, convert, least_side))
    return ImageSet(name or root.name, digest(content), names, kept, classes, reader, skipped)


@dataclass(frozen=True, eq=False)
class _Files:
    root: str
    paths: tuple[str, ...]
    hashes: tuple[str, ...]
    how: How

    def __call__(self, i: int) -> Image.Image:
        return self._read(i, unpack)

    def undecoded(self, i: int) -> bytes | Image.Image:
        return self._read(i, unpack_unless_jpeg)

    def _read(self, i: int, unpacked: Callable[[bytes, How], Found]) -> Found:
        path = place(self.root) / self.paths[i]
        with naming(path):
            return unpacked(unchanged(path, self.hashes[i]), self.how)

    def sha256(self, i: int) -> str:
        return self.hashes[i]


def examine_all(
    examine: Callable[[int], Found],
    names: Sequence[str],
    where: str,
    tolerate: float,
    progress: bool,
    threaded: bool = True,
) -> tuple[dict[int, Found], tuple[Skipped, ...]]:
    """Examine all images; return the results by index, and those that raised a ValueError."""
    if not 0 <= tolerate <= 1:
        raise ValueError(f"tolerate is {tolerate}; give a share in [0, 1].")
    if not names:
        raise ValueError(f"There are no {where}; give a folder or data set that holds images.")

    def attempt(i: int) -> Found | Skipped:
        try:
            return examine(i)
        except ValueError as error:
            return Skipped(names[i], str(error))

    quiet = not progress or len(names) < _MANY
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("ignore")  # Pillow's; the reasons are in the errors
        running = (pool.map if threaded else map)(attempt, range(len(names)))
        results = list(tqdm(running, "checking", len(names), unit="image", disable=quiet))
    found = {i: one for i, one in enumerate(results) if not isinstance(one, Skipped)}
    skipped = tuple(one for one in results if isinstance(one, Skipped))
    if not skipped:
        return found, skipped
    summary = f"{len(skipped)} of {len(names)} {where} cannot be used"
    if not found or len(skipped) > tolerate * len(names):
        raise ValueError(
            f"{summary}, more than the tolerated {tolerate:.0%} or all of them; the first is "
            f"{skipped[0]}; remove or repair them, or raise tolerate."
        )
    warnings.warn(f"{summary} and were skipped; see .skipped for the reasons.", stacklevel=4)
    return found, skipped


def shown(path: str) -> str:
    """Return a name with forward slashes in valid, composed Unicode."""
    name = os.fsencode(path).decode("utf-8", "replace").replace(os.sep, "/")
    return unicodedata.normalize("NFC", name)
