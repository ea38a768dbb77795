"""Images in, batches of tensors out, always in order of index.

The order is what lets a killed pass resume at an image and end as if it had never stopped.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

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
        x = self.preprocess(image)
        if not isinstance(x, Tensor) or x.ndim != 3:
            what = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            return _Failure(
                f"Preprocessing {self.images.names[i]!r} gave {what}; it must give a tensor "
                "(3, H, W)."
            )
        return i, x


def _collate(parts: list) -> tuple[Tensor, Tensor] | _Failure:
    for part in parts:
        if isinstance(part, _Failure):
            return part
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

    Yields
    ------
    indices : Tensor of int64, shape (B,)
    x : Tensor, shape (B, 3, H, W)

    Raises
    ------
    ValueError
        If an argument is out of range, an image can no longer be read, or `preprocess` does not
        give tensors (3, H, W) of one size; the sentence names the value or the image.
    """
    for name, value, least in (("batch_size", batch_size, 1), ("workers", workers, 0)):
        if value < least:
            raise ValueError(f"{name} is {value}; it must be at least {least}.")
    if not 0 <= start <= len(images):
        raise ValueError(f"start is {start}; it must lie between 0 and {len(images)}, the end.")
    loader = DataLoader(
        _Prepared(images, preprocess),
        batch_size=batch_size,
        sampler=range(start, len(images)),
        num_workers=workers,
        pin_memory=pin_memory,
        collate_fn=_collate,
    )
    return _raising(loader)


def _raising(loader: DataLoader) -> Iterator[tuple[Tensor, Tensor]]:
    for batch in loader:
        if isinstance(batch, _Failure):
            raise ValueError(batch.reason)
        yield batch
