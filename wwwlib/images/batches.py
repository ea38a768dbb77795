"""Read image sets as batches of preprocessed tensors.

Batches come in order of index, so that an interrupted pass can be resumed at an image. JPEG files
may be decoded by torchvision, on CUDA by nvJPEG, and preprocessed as tensors on the device of the
network.
"""

import io
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Generic, TypeVar

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wwwlib.images.files import decode
from wwwlib.images.image_set import ImageSet
from wwwlib.registry import one_of

DECODERS = ("pillow", "torchvision")
_TOLERANCE = 0.02  # of the standard deviation; measured: below 0.004 for equal preprocessing

Preprocess = Callable[[Image.Image], Tensor]
TensorPreprocess = Callable[[Tensor], Tensor]
State = TypeVar("State")


@dataclass(frozen=True, eq=False)
class _Items(Dataset):
    """Images of a set: preprocessed, or undecoded if `preprocess` is None."""

    images: ImageSet
    preprocess: Preprocess | None

    def __getitem__(self, i: int) -> tuple[int, Tensor | bytes | Image.Image]:
        if self.preprocess is None:
            return i, self.images.undecoded(i)
        return i, preprocessed(self.preprocess, self.images.image(i), self.images.names[i])


def preprocessed(preprocess: Callable[..., Tensor], image: object, name: str) -> Tensor:
    """Apply a preprocessing of one's own to an image.

    Raises
    ------
    ValueError
        If it fails or does not give a tensor (3, H, W); the message names the image.
    """
    try:
        x = preprocess(image.copy() if isinstance(image, Image.Image) else image)
    except Exception as error:  # a callable may raise anything
        why = f"{type(error).__name__}: {_first_line(error)}"
        raise ValueError(f"Preprocessing {name!r} failed with {why}") from error
    if not isinstance(x, Tensor) or x.ndim != 3:
        what = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
        raise ValueError(f"Preprocessing {name!r} gave {what}; it must give a tensor (3, H, W).")
    return x


def stack(parts: list[tuple[int, Tensor]]) -> tuple[Tensor, Tensor]:
    """Stack numbered images; a ValueError if they differ in shape."""
    shapes = sorted({tuple(x.shape) for _, x in parts})
    if len(shapes) > 1:
        raise ValueError(
            f"Preprocessing gave different shapes, such as {shapes[0]} and {shapes[1]}; let it "
            "resize and crop every image to the same size."
        )
    return torch.tensor([i for i, _ in parts]), torch.stack([x for _, x in parts])


def batches(
    images: ImageSet,
    preprocess: Preprocess,
    batch_size: int = 64,
    workers: int = 0,
    start: int = 0,
    decoder: str = "pillow",
    device: str | torch.device = "cpu",
) -> Iterator[tuple[Tensor, Tensor]]:
    """Read, preprocess and stack images, in order of index for any number of workers.

    Parameters
    ----------
    images : ImageSet
        The images.
    preprocess : callable
        Maps a PIL RGB image to a tensor (3, H, W).
    batch_size : int
        B, at least 1; the last batch may be smaller.
    workers : int
        Number of processes that read ahead; 0 reads in this process.
    start : int
        Index of the first image, to resume a pass.
    decoder : {"pillow", "torchvision"}
        With "torchvision", workers only read and verify files; this process decodes JPEG files a
        batch at a time and preprocesses tensors, both on `device`. Other images are decoded by
        Pillow. See Notes for the differences.
    device : str or torch.device
        Where the batches go. `decoder="torchvision"` decodes there, with nvJPEG on a CUDA device;
        for Pillow on a CUDA device, batches lie in pinned memory, for asynchronous copies.

    Yields
    ------
    indices : Tensor of int64, shape (B,)
    x : Tensor, shape (B, 3, H, W)
        On the CPU, or with `decoder="torchvision"` on `device`.

    Raises
    ------
    ValueError
        If an argument is out of range, an image can no longer be read, or `preprocess` fails or
        does not return tensors (3, H, W) of one size; the message names the value or the image.
        With `decoder="torchvision"` also if `preprocess` treats tensors differently from images.

    Notes
    -----
    On the CPU, torchvision decoded 640 photographs from ImageNet to the same pixels as Pillow, but
    it rounds differently when it resizes tensors: over 160 of them and the preprocessing of
    ResNet-50, Swin-B and timm's ViT-B/16, x differs on average by at most 0.18 levels of 0..255,
    by at most 1 in 99.9 % of the values and, for bicubic interpolation, by at most 19. nvJPEG also
    decodes to slightly different pixels than libjpeg; that difference was not measured.
    """
    if not 0 <= start <= len(images):
        raise ValueError(f"start is {start}; it must lie between 0 and {len(images)}, the end.")
    one_of("decoder", decoder, DECODERS)
    loader = partial(
        DataLoader, batch_size=batch_size, sampler=range(start, len(images)), num_workers=workers
    )
    device, bare = torch.device(device), replace(images, masks=None)
    if decoder == "pillow":
        pinned, items = device.type == "cuda", _Items(bare, preprocess)
        return _in_one_sentence(loader(items, pin_memory=pinned, collate_fn=stack))
    on_tensors = tensor_preprocess(preprocess, device)
    decode = partial(_decoded, images, preprocess=on_tensors, device=device)
    return _in_one_sentence(map(stack, map(decode, loader(_Items(bare, None), collate_fn=list))))


def _in_one_sentence(found: Iterable) -> Iterator:
    """Strip the traceback that a worker puts before the message of its error.

    That of the error itself, and what was found, refer to the loader, whose workers would stay
    until garbage is collected, which then waits five seconds for each.
    """
    try:
        yield from found
    except ValueError as e:
        del found
        raise ValueError(str(e).strip().rpartition("\nValueError: ")[2]) from e.with_traceback(None)


class Fitting(Generic[State]):
    """Apply a step to batches, halving those that exceed the memory of the device.

    Once memory ran out, later batches are split likewise. The result does not depend on the split,
    beyond the rounding of the network.

    Parameters
    ----------
    step : callable
        ``step(state, indices, x) -> state`` for `indices` (B,) and `x` (B, 3, H, W). It must not
        modify the state that it receives: a step that ran out of memory is repeated.
    device : torch.device
        Device to which images are copied; indices stay where they are.
    """

    def __init__(self, step: Callable[[State, Tensor, Tensor], State], device: torch.device):
        self.step, self.device = step, device
        self.most: int | None = None  # images at once, set when memory runs out

    def __call__(self, state: State, indices: Tensor, x: Tensor) -> State:
        """Process a batch, in one part or in several in their order.

        Raises
        ------
        RuntimeError
            If a single image does not fit.
        """
        done = 0
        while done < len(indices):
            part = slice(done, done + (self.most or len(indices)))
            try:
                state = self.step(state, indices[part], x[part].to(self.device, non_blocking=True))
                done += len(indices[part])
                continue
            except RuntimeError as error:  # on the CPU of no class of its own
                known = isinstance(error, torch.OutOfMemoryError)
                if not known and "can't allocate memory" not in str(error):
                    raise
            self.most = len(indices[part]) // 2  # here the step's tensors are freed
            if not self.most:
                raise RuntimeError(
                    f"Not even one image (image {int(indices[done])}) fits into the memory of "
                    f"{self.device}; free some of it, read fewer layers, or use device=cpu."
                )
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()
        return state


# JPEG files decoded by torchvision ------------------------------------------------------------


def _decoded(
    images: ImageSet,
    parts: Sequence[tuple[int, bytes | Image.Image]],
    preprocess: TensorPreprocess,
    device: torch.device,
) -> list[tuple[int, Tensor]]:
    """Decode the results of `ImageSet.undecoded` on a device, JPEG files together; preprocess them.

    Files that torchvision rejects are read again through Pillow.
    """
    from torchvision.transforms.functional import pil_to_tensor

    files = {i: data for i, data in parts if isinstance(data, bytes)}
    pixels = dict(zip(files, _jpegs(list(files.values()), device), strict=True))
    found = []
    for i, data in parts:
        x = pixels.get(i)
        if x is None:
            x = pil_to_tensor(images.image(i) if i in files else data).to(device)
        found.append((i, preprocessed(preprocess, x, images.names[i])))
    return found


def _jpegs(files: list[bytes], device: torch.device) -> Sequence[Tensor | None]:
    """Decode files together, or one by one if that fails; None for those that fail alone."""
    try:
        return _decode_jpegs(files, device) if files else []
    except RuntimeError:
        return [None] if len(files) == 1 else [x for one in files for x in _jpegs([one], device)]


def _decode_jpegs(files: list[bytes], device: torch.device) -> list[Tensor]:
    """Decode JPEG files to uint8 (3, H, W) on a device; a RuntimeError if one is rejected."""
    from torchvision import io as torchvision_io

    data = [torch.frombuffer(bytearray(one), dtype=torch.uint8) for one in files]
    where = device if device.type == "cuda" else torch.device("cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # recommends TorchCodec
        found = torchvision_io.decode_jpeg(data, torchvision_io.ImageReadMode.RGB, where)
    return [x.to(device) for x in found]


def tensor_preprocess(preprocess: Callable[..., Tensor], device: torch.device) -> TensorPreprocess:
    """Return the equivalent of `preprocess` for tensors (3, H, W) of uint8 on a device.

    That is `preprocess` itself for the transforms of torchvision's weights; in a `Compose` such as
    timm's, `ToTensor` is replaced by a conversion that scales tensors, too. Both are compared with
    Pillow on a test image.

    Raises
    ------
    ValueError
        If neither is equivalent, or the device does not decode JPEG files.
    """
    data = _test_jpeg()
    try:
        [x] = _decode_jpegs([data], device)
    except RuntimeError as error:
        why = f"torchvision cannot decode JPEG files on {device} ({_first_line(error)})"
        raise ValueError(f"{why}; use decoder='pillow'.") from error
    expected, why = preprocess(decode(data)), "the result differs"
    for candidate in (preprocess, _scaling_tensors(preprocess)):
        try:
            if _agree(candidate(x), expected):
                return candidate
        except Exception as error:  # a callable for images may raise anything on a tensor
            why = f"{type(error).__name__}: {_first_line(error)}"
    raise ValueError(
        "The preprocessing does not do to a tensor (3, H, W) of uint8 what it does to a PIL image "
        f"({why}); use decoder='pillow'."
    )


def _scaling_tensors(preprocess: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Let `ToTensor` in a Compose scale a tensor to [0, 1], as it does a PIL image.

    Scaling first would be wrong: a bicubic resize of floats overshoots, that of bytes is clipped.
    """
    from torchvision import transforms
    from torchvision.transforms.functional import convert_image_dtype

    if not isinstance(preprocess, transforms.Compose):
        return preprocess
    scale = partial(convert_image_dtype, dtype=torch.float32)
    steps = preprocess.transforms
    return transforms.Compose([scale if isinstance(s, transforms.ToTensor) else s for s in steps])


def _agree(x: Tensor, expected: Tensor) -> bool:
    """Return whether two results of preprocessing agree up to the rounding of a resize."""
    alike = x.shape == expected.shape and x.dtype == expected.dtype and x.is_floating_point()
    return alike and bool((x.cpu() - expected).abs().mean() <= _TOLERANCE * expected.std())


@cache
def _test_jpeg() -> bytes:
    """Return a JPEG of ever finer coloured rings, which alias if resized without a filter."""
    y, x = torch.meshgrid(torch.arange(480.0), torch.arange(640.0), indexing="ij")
    rings = [((y - v) ** 2 + (x - u) ** 2) / 500 for v, u in ((0, 0), (480, 320), (240, 640))]
    values = (torch.stack(rings, 2).cos() * 127 + 128).to(torch.uint8)
    file = io.BytesIO()
    Image.fromarray(values.numpy()).save(file, "JPEG", quality=95, subsampling=0)
    return file.getvalue()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
