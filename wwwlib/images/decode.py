"""From bytes to an RGB image, or to one sentence on why not.

Files and uploads pass the same checks, in the order of their cost: size on disk, header, pixels.
What Pillow would read with a silent loss (16-bit images are clipped to white) or at any price
(decompression bombs) is refused here.
"""

import io
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from wwwlib.images.roots import Place, place

MAX_PIXELS = 64_000_000  # 192 MB as RGB; below the size at which Pillow itself starts to warn
MAX_BYTES = 256 * 2**20
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_FRACTIONS = (8, 4, 2)  # of its size, at which libjpeg decodes at a fraction of the cost
_PLAIN_MODES = {"1", "L", "LA", "P", "PA", "RGB", "RGBA"}


def decode(
    source: str | Path | bytes, *, max_pixels: int = MAX_PIXELS, convert: Collection[str] = ()
) -> Image.Image:
    """Decode a file or an upload as torchvision does: to RGB, alpha dropped, EXIF ignored.

    Parameters
    ----------
    source : path or bytes
        The image, at most 256 MiB, in one of `FORMATS`.
    max_pixels : int
        Most pixels (width x height) to decode; checked on the header.
    convert : collection of str
        Further Pillow modes to accept, such as ``"CMYK"``; Pillow decides what they look like.

    Returns
    -------
    PIL.Image.Image
        In mode RGB, fully loaded.

    Raises
    ------
    ValueError
        If the image cannot be used; the sentence names it and the reason.
    """
    is_path = isinstance(source, str | Path)
    with naming(source if is_path else "upload"):
        data = read(source) if is_path else bytes(source)
        return unpack(data, max_pixels, convert)


@contextmanager
def naming(source: str | Path) -> Iterator[None]:
    """Turn a ValueError that gives a reason into a sentence that names the source, too."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"The image {str(source)!r} cannot be used: {error}.") from error


def read(path: str | Place) -> bytes:
    """Return a regular file's bytes; a ValueError gives the reason why not."""
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


def unpack(
    data: bytes, max_pixels: int, convert: Collection[str], least_side: int | None = None
) -> Image.Image:
    """Decode bytes to RGB; a ValueError gives the reason why not.

    A JPEG is decoded at a fraction of its size if `least_side` allows it, see `open_files`.
    """
    image = _header(data, max_pixels, convert)
    divisor = _divisor(image, least_side)
    if divisor > 1:
        image.draft(None, (image.width // divisor, image.height // divisor))
    return _loaded(image).convert("RGB")


def is_plain_jpeg(
    data: bytes, max_pixels: int, convert: Collection[str], least_side: int | None = None
) -> bool:
    """Whether bytes are a grey or YCbCr JPEG shown whole, which other decoders read likewise.

    A ValueError gives the reason if the header shows that `unpack` would refuse them.
    """
    image = _header(data, max_pixels, convert)
    as_rgb = image.info.get("adobe_transform") == 0  # three channels stored as they are: rare
    usual = image.mode == "L" or (image.mode == "RGB" and not as_rgb)
    return image.format == "JPEG" and usual and _divisor(image, least_side) == 1


def _divisor(image: Image.Image, least_side: int | None) -> int:
    """Return by how much to divide both sides of a JPEG, with no remainder; 1: not at all.

    A remainder would be rounded up, and the smaller image be of another shape: resizing and
    cropping it moves everything by up to a pixel, far more than decoding it small changes.
    """
    if least_side is None or image.format != "JPEG":
        return 1
    width, height = image.size
    fit = (d for d in _FRACTIONS if width % d == height % d == 0)
    return next((d for d in fit if min(width, height) // d >= least_side), 1)


def check(data: bytes, max_pixels: int, convert: Collection[str]) -> None:
    """Raise as `unpack` would, at a fraction of its cost for JPEG files."""
    image = _header(data, max_pixels, convert)
    image.draft(None, (1, 1))  # an eighth of the size, but the whole stream is read
    _loaded(image)


def _header(data: bytes, max_pixels: int, convert: Collection[str]) -> Image.Image:
    """Open an image without decoding its pixels, and refuse what should not be decoded."""
    if not data:
        raise ValueError("the file is empty")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"it has more pixels than the {max_pixels:,} allowed") from error
    except Exception as error:  # Pillow's readers raise nearly anything on foreign bytes
        raise ValueError(f"it is no intact {', '.join(FORMATS[:-1])} or {FORMATS[-1]}") from error
    width, height = image.size
    if width * height > max_pixels:
        raise ValueError(
            f"its {width} x {height} pixels are more than the {max_pixels:,} allowed; scale it down"
        )
    if image.mode not in _PLAIN_MODES and image.mode not in convert:
        raise ValueError(_mode_reason(image.mode))
    return image


def _mode_reason(mode: str) -> str:
    if mode.startswith(("I", "F")):
        return f"its pixels have more than 8 bits (mode {mode}) and would be clipped; save as 8 bit"
    return f"its colour mode is {mode}; save it as RGB, or accept it with convert=({mode!r},)"


def _loaded(image: Image.Image) -> Image.Image:
    try:
        image.load()
    except Exception as error:  # as above: OSError, SyntaxError, struct.error, zlib.error, ...
        raise ValueError(f"its pixels are truncated or damaged ({error})") from error
    return image
