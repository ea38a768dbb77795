"""Images in, batches of tensors out, always in order of index.

The order is what lets a killed pass resume at an image and end as if it had never stopped.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wwwlib.images.device_decode import OfTensors, check_decoder, of_tensors, pixels
from wwwlib.images.image_set import ImageSet

Preprocess = Callable[[Image.Image], Tensor]


@dataclass(frozen=True, eq=False)
class _Failure:
    """A reason on its way to the main process, where it is raised without a worker's traceback."""

    reason: str


@dataclass(frozen=True, eq=False)
class _Prepared(Dataset):
    images: ImageSet
    preprocess: Preprocess

    def __getitem__(self, i: int) -> tuple[int, Tensor] | _Failure:
        try:
            image = self.images.image(i)
        except ValueError as error:
            return _Failure(str(error))
        return _checked(self.images, i, self.preprocess(image))


@dataclass(frozen=True, eq=False)
class _Undecoded(Dataset):
    images: ImageSet

    def __getitem__(self, i: int) -> tuple[int, bytes | Image.Image] | _Failure:
        try:
            return i, self.images.undecoded(i)
        except ValueError as error:
            return _Failure(str(error))


def _checked(images: ImageSet, i: int, x: object) -> tuple[int, Tensor] | _Failure:
    if isinstance(x, Tensor) and x.ndim == 3:
        return i, x
    what = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
    return _Failure(
        f"Preprocessing {images.names[i]!r} gave {what}; it must give a tensor (3, H, W)."
    )


def _listed(parts: list) -> list | _Failure:
    return next((part for part in parts if isinstance(part, _Failure)), parts)


def _collate(parts: list) -> tuple[Tensor, Tensor] | _Failure:
    parts = _listed(parts)
    if isinstance(parts, _Failure):
        return parts
    shapes = sorted({tuple(x.shape) for _, x in parts})
    if len(shapes) > 1:
        return _Failure(
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
    pin_memory: bool = False,
    decoder: str = "pillow",
    device: str | torch.device = "cpu",
) -> Iterator[tuple[Tensor, Tensor]]:
    """Read, preprocess and stack images, in order of index for any number of workers.

    Parameters
    ----------
    images : ImageSet
        The images.
    preprocess : callable
        From a PIL RGB image to a tensor (3, H, W).
    batch_size : int
        B, at least 1; the last batch may be smaller.
    workers : int
        Processes that read ahead; 0 reads in this one.
    start : int
        Index of the first image, to resume a pass.
    pin_memory : bool
        Put batches where a CUDA device can fetch them while it computes.
    decoder : {"pillow", "torchvision"}
        With "torchvision", workers only read files and check their bytes; this process decodes
        JPEG files, a batch at a time, and preprocesses tensors, both on `device`. Other images
        take part as Pillow sees them. See Notes for what that changes.
    device : str or torch.device
        Where `decoder="torchvision"` puts the pixels; nvJPEG decodes where it is a CUDA device.

    Yields
    ------
    indices : Tensor of int64, shape (B,)
    x : Tensor, shape (B, 3, H, W)
        On the CPU, or with `decoder="torchvision"` on `device`.

    Raises
    ------
    ValueError
        If an argument is out of range, an image can no longer be read, or `preprocess` does not
        give tensors (3, H, W) of one size; the sentence names the value or the image. With
        `decoder="torchvision"` also if `preprocess` does not do to tensors what it does to images.

    Notes
    -----
    On the CPU, torchvision decoded 640 photographs from ImageNet to the same pixels as Pillow, but
    resizes a tensor with other rounding than an image: over 160 of them and the preprocessing of
    ResNet-50, Swin-B and timm's ViT-B/16, x differs in the mean by 0.18 levels of 0..255 at most,
    by at most 1 in 99.9 of 100 values and, where the resize is bicubic, by at most 19. nvJPEG
    also decodes to other pixels than libjpeg, by how much was not measured.
    """
    for name, value, least in (("batch_size", batch_size, 1), ("workers", workers, 0)):
        if value < least:
            raise ValueError(f"{name} is {value}; it must be at least {least}.")
    if not 0 <= start <= len(images):
        raise ValueError(f"start is {start}; it must lie between 0 and {len(images)}, the end.")
    check_decoder(decoder)
    load = partial(
        DataLoader,
        batch_size=batch_size,
        sampler=range(start, len(images)),
        num_workers=workers,
    )
    if decoder == "torchvision":
        device = torch.device(device)
        loader = load(_Undecoded(images), collate_fn=_listed)
        return _raising(_on_device(loader, images, of_tensors(preprocess, device), device))
    return _raising(load(_Prepared(images, preprocess), pin_memory=pin_memory, collate_fn=_collate))


def _on_device(
    loader: DataLoader, images: ImageSet, preprocess: OfTensors, device: torch.device
) -> Iterator[tuple[Tensor, Tensor] | _Failure]:
    for parts in loader:
        if isinstance(parts, _Failure):
            yield parts
        else:
            each = zip(parts, pixels(images, parts, device), strict=True)
            yield _collate([_checked(images, i, preprocess(x)) for (i, _), x in each])


def _raising(found: Iterable) -> Iterator:
    for batch in found:
        if isinstance(batch, _Failure):
            raise ValueError(batch.reason)
        yield batch
