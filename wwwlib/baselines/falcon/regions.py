"""What a group looked at: its Grad-CAM, the strongest region of that, and the image cut to it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor

from wwwlib import maps
from wwwlib.baselines.grad_cam import reaches, weighted
from wwwlib.images import ImageSet
from wwwlib.store import digest
from wwwlib.targets import Target, denormalize

Box = tuple[int, int, int, int]


def group_cam(
    target: Target, x: Tensor, layer: str, features: Sequence[int], on: str | None = None
) -> Tensor:
    """Draw where features were seen: the Grad-CAM of the sum of their activations.

    Parameters
    ----------
    target : Target
    x : Tensor
        (B, 3, H, W) preprocessed images.
    layer : str
        The layer of the features.
    features : sequence of int
        Neurons of that layer.
    on : str, optional
        The layer with the maps; the features' own if left out.

    Returns
    -------
    Tensor
        (B, h, w), non-negative.
    """
    own = list(features)
    return weighted(target, x, on or layer, layer, lambda taken, _: taken.z[:, own].sum())


def drawable(target: Target, x: Tensor, layer: str, on: str | None = None) -> str | None:
    """Return the layer on whose maps features can be drawn, the nearest one to `on`.

    In a transformer features are read off the class token, which depends on the patch tokens of
    earlier blocks but not on those beside it. So the blocks before `on`, of its kind, are tried.

    Parameters
    ----------
    target : Target
    x : Tensor
        (B, 3, H, W), an image or more to try it on.
    layer, on
        As for `group_cam`.

    Returns
    -------
    str, or None if the features depend on no such layer's maps
    """
    on = on or layer
    before = target.layers()[: target.layers().index(on)] if on in target.layers() else ()
    kind = type(target.module(on))
    blocks = [name for name in before if type(target.module(name)) is kind]
    return next((one for one in (on, *blocks[::-1]) if reaches(target, x, one, layer)), None)


def largest_region(cam: Tensor, size: tuple[int, int], threshold: float = 0.6) -> Box:
    """Return the box around the largest connected region where a map is strong.

    Parameters
    ----------
    cam : Tensor
        (h, w), non-negative.
    size : (int, int)
        Height and width of the image, to which the map is resized.
    threshold : float
        In [0, 1), as a share of the map's maximum; strong is what exceeds it.

    Returns
    -------
    (left, top, right, bottom)
        In pixels, right and bottom exclusive; the whole image where the map is zero everywhere.
    """
    if not 0 <= threshold < 1:
        raise ValueError(f"threshold is {threshold}; give a share of the maximum in [0, 1).")
    m = maps.resize(cam[None, None].float(), size)[0, 0]
    if not m.max() > 0:
        return 0, 0, size[1], size[0]
    places, _ = ndimage.label((m > threshold * m.max()).cpu().numpy())
    boxes = ndimage.find_objects(places)
    areas = ndimage.sum_labels(places > 0, places, range(1, len(boxes) + 1))
    rows, columns = boxes[int(areas.argmax())]
    return columns.start, rows.start, columns.stop, rows.stop


@torch.no_grad()
def cut(target: Target, images: ImageSet, indices: Sequence[int], boxes: Sequence[Box]) -> ImageSet:
    """Return images as the network saw them, each cut to its own box (pixels of its input)."""
    indices, boxes = tuple(indices), tuple(boxes)
    content = {"cut": images.fingerprint, "seen by": target.key()["preprocess"]}
    return replace(
        images,
        name=f"regions of {images.name}",
        fingerprint=digest({**content, "indices": indices, "boxes": boxes}),
        names=tuple(images.names[i] for i in indices),
        labels=tuple(images.labels[i] for i in indices),
        reader=_Cut(target, images.reader, indices, boxes),
    )


@dataclass(frozen=True, eq=False)
class _Cut:
    target: Target
    reader: Callable[[int], Image.Image]
    indices: tuple[int, ...]
    boxes: tuple[Box, ...]

    def __call__(self, i: int) -> Image.Image:
        whole = self.reader(self.indices[i])
        return denormalize(self.target, whole, self.target.preprocess(whole)).crop(self.boxes[i])


def cohesion(v: Tensor) -> float:
    """Return the mean cosine of all pairs of unit-norm features (n, D), n at least 2."""
    n = len(v)
    return ((v.double().sum(0).square().sum() - n) / (n * (n - 1))).item()
