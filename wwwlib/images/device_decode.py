"""JPEG files decoded by torchvision, and preprocessed as tensors, where the network computes.

On CUDA that is nvJPEG, and the processor is left with reading and checking bytes; elsewhere it is
libjpeg, as in Pillow. Whatever torchvision may read otherwise, or not at all, Pillow still decodes.
Preprocessing written for PIL images need not do the same to tensors, so it is tried beforehand.
"""

import io
import warnings
from collections.abc import Callable, Sequence
from functools import cache, partial

import torch
from PIL import Image
from torch import Tensor
from torchvision import io as torchvision_io
from torchvision import transforms
from torchvision.transforms.functional import convert_image_dtype, pil_to_tensor

from wwwlib.images.decode import decode
from wwwlib.images.image_set import ImageSet

DECODERS = ("pillow", "torchvision")
_AGREE = 0.02  # of the spread of the values; measured: below 0.004 for equal preprocessing

Preprocess = Callable[[Image.Image], Tensor]
OfTensors = Callable[[Tensor], Tensor]


def check_decoder(decoder: str) -> None:
    """Raise a ValueError for a decoder that does not exist."""
    if decoder not in DECODERS:
        raise ValueError(f"decoder is {decoder!r}; use one of {', '.join(DECODERS)}.")


def pixels(
    images: ImageSet, parts: Sequence[tuple[int, bytes | Image.Image]], device: torch.device
) -> list[Tensor]:
    """Decode what `ImageSet.undecoded` gave, all JPEG files in one call.

    Parameters
    ----------
    images : ImageSet
        Reads files again, through Pillow, that torchvision refuses.
    parts : sequence of (int, bytes or PIL.Image.Image)
        Indices into `images`, and what they hold there.
    device : torch.device
        Where the pixels shall be.

    Returns
    -------
    list of Tensor of uint8, shape (3, H, W)
        Like `ImageSet.image`, EXIF ignored: equal to the last bit where `device` is no CUDA device.

    Raises
    ------
    ValueError
        If Pillow cannot decode a file either; the sentence names it.
    """
    files = [(i, data) for i, data in parts if isinstance(data, bytes)]
    decoded = _decoded([data for _, data in files], device)
    found = {i: x for (i, _), x in zip(files, decoded, strict=True) if x is not None}
    for i, data in parts:
        if i not in found:
            image = images.image(i) if isinstance(data, bytes) else data
            found[i] = pil_to_tensor(image).to(device)
    return [found[i] for i, _ in parts]


def of_tensors(preprocess: Preprocess, device: torch.device) -> OfTensors:
    """Return what does to tensors (3, H, W) of uint8 on a device as `preprocess` does to images.

    That is `preprocess` itself for the transforms of torchvision's weights; in a `Compose` such as
    timm's, `ToTensor` is told to scale tensors, too. Both are tried on a test card, next to Pillow.

    Raises
    ------
    ValueError
        If neither does the same, or the device does not decode JPEG files.
    """
    card = _card()
    try:
        [x] = _torchvision([card], device)
    except RuntimeError as error:
        raise ValueError(
            f"torchvision cannot decode JPEG files on {device} ({_first_line(error)}); use "
            "decoder='pillow'."
        ) from error
    expected, why = preprocess(decode(card)), "the result differs"
    for candidate in (preprocess, _scaling(preprocess)):
        try:
            if _agree(candidate(x), expected):
                return candidate
        except Exception as error:  # a foreign callable raises anything on what it does not expect
            why = f"{type(error).__name__}: {_first_line(error)}"
    raise ValueError(
        "The preprocessing does not do to a tensor (3, H, W) of uint8 what it does to a PIL image "
        f"({why}); use decoder='pillow'."
    )


def _decoded(files: list[bytes], device: torch.device) -> list[Tensor | None]:
    """Decode files, one by one if it is refused for all together; None where it still is."""
    if not files:
        return []
    try:
        return _torchvision(files, device)
    except RuntimeError:
        if len(files) == 1:
            return [None]
        return [x for one in files for x in _decoded([one], device)]


def _torchvision(files: list[bytes], device: torch.device) -> list[Tensor]:
    """Decode JPEG files to (3, H, W) on a device, or raise a RuntimeError for the first bad one."""
    data = [torch.frombuffer(bytearray(one), dtype=torch.uint8) for one in files]
    place = device if device.type == "cuda" else torch.device("cpu")
    with warnings.catch_warnings():
        # It points to TorchCodec, for a later release of torchvision than the one that is pinned.
        warnings.simplefilter("ignore", DeprecationWarning)
        found = torchvision_io.decode_jpeg(data, torchvision_io.ImageReadMode.RGB, place)
    return [x.to(device) for x in found]


def _scaling(preprocess: Preprocess) -> Preprocess:
    """Let `ToTensor` in a Compose scale a tensor to [0, 1], as it does a PIL image.

    Earlier would be wrong: a cubic resize of floats overshoots, and that of bytes is clipped.
    """
    if not isinstance(preprocess, transforms.Compose):
        return preprocess
    scale = partial(convert_image_dtype, dtype=torch.float32)
    steps = preprocess.transforms
    return transforms.Compose([scale if isinstance(s, transforms.ToTensor) else s for s in steps])


def _agree(x: object, expected: object) -> bool:
    """Whether two results of preprocessing are one, up to the rounding of a resize."""
    if not all(isinstance(one, Tensor) and one.is_floating_point() for one in (x, expected)):
        return False
    if x.shape != expected.shape or x.dtype != expected.dtype:
        return False
    return bool((x.cpu() - expected).abs().mean() <= _AGREE * expected.std())


@cache
def _card() -> bytes:
    """Return a JPEG of coloured rings, ever finer: resized without a filter, they turn to noise."""
    y, x = torch.meshgrid(torch.arange(480.0), torch.arange(640.0), indexing="ij")
    rings = [((y - v) ** 2 + (x - u) ** 2) / 500 for v, u in ((0, 0), (480, 320), (240, 640))]
    values = (torch.stack(rings, 2).cos() * 127 + 128).to(torch.uint8)
    file = io.BytesIO()
    Image.fromarray(values.numpy()).save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
