"""FALCON's groups of features that are active together, and the image regions behind them.

Features are the neuron activations of one layer, normalised per image so that one threshold serves
all. Images that share the same set of active features form a group; a Grad-CAM of the group's
features locates the region of each image that is cropped.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from wwwlib import maps
from wwwlib.activations import Activations
from wwwlib.baselines.grad_cam import depends_on, gradient_heatmap
from wwwlib.images import ImageSet, subset
from wwwlib.registry import whole_number
from wwwlib.store import digest
from wwwlib.targets import Target, denormalize

SIGMAS, LEAST = 5.0, 11  # FALCON's: standard deviations above the mean; images of a group
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Group:
    """Features that are active together, and the images in which exactly these are active.

    Attributes
    ----------
    features : tuple of int
        Neurons of the layer, ascending.
    images : tuple of int
        Indices into the probe set, by descending sum of the features' values.
    """

    features: tuple[int, ...]
    images: tuple[int, ...]


def normalized(z: Tensor) -> Tensor:
    """Scale the activations (I, N) of each image to unit length; NaN and infinities count as 0."""
    return F.normalize(z.nan_to_num(0.0, 0.0, 0.0), dim=1)


def find_groups(z: Tensor, sigmas: float = SIGMAS, least: int = LEAST) -> list[Group]:
    """Find the groups of a layer.

    Parameters
    ----------
    z : Tensor
        (I, N) neuron activations of I images.
    sigmas : float
        A feature is active above the mean plus this many standard deviations of the whole matrix
        of normalised features. FALCON uses 5; layers with few neurons rarely reach it.
    least : int
        Smallest number of images of a group, at least 2.

    Returns
    -------
    list of Group
        By descending number of images, then by features.

    Raises
    ------
    ValueError
        If `z` is not a matrix, or `least` is below 2.
    """
    if z.ndim != 2 or not z.numel():
        raise ValueError(f"z has shape {tuple(z.shape)}; expected (images, neurons), both above 0.")
    whole_number("least", least, 2)
    f = normalized(z)
    members: dict[tuple[int, ...], list[int]] = {}
    for i, row in enumerate(f > f.mean() + sigmas * f.std(correction=0)):
        if row.any():
            members.setdefault(tuple(row.nonzero()[:, 0].tolist()), []).append(i)
    found = []
    for features, images in members.items():
        if len(images) >= least:
            strength = f[images][:, list(features)].sum(1)
            order = strength.argsort(descending=True, stable=True).tolist()
            found.append(Group(features, tuple(images[i] for i in order)))
    return sorted(found, key=lambda group: (-len(group.images), group.features))


def counter_examples(z: Tensor, group: Group, count: int = 10, cosine: float = 0.3) -> list[int]:
    """Find images that resemble a group in all features but the group's own.

    Parameters
    ----------
    z : Tensor
        (I, N) neuron activations.
    group : Group
    count : int
        Largest number of images.
    cosine : float
        Lowest cosine between an image's other features and the mean of the group's.

    Returns
    -------
    list of int
        Images in which all of the group's features lie below the mean of the whole matrix, by
        descending cosine.
    """
    f, own = normalized(z), list(group.features)
    inactive = (f[:, own] < f.mean()).all(1)
    rest = f.index_fill(1, torch.tensor(own), 0.0)
    centre = F.normalize(rest[list(group.images)].mean(0), dim=0)
    found = torch.where(inactive, F.normalize(rest, dim=1) @ centre, -torch.inf)
    order = found.argsort(descending=True, stable=True)[:count]
    return [i for i in order.tolist() if found[i] >= cosine]


def group_cam(
    target: Target, x: Tensor, layer: str, features: Sequence[int], cam_layer: str | None = None
) -> Tensor:
    """Compute the Grad-CAM heatmap of the sum of a group's features.

    Parameters
    ----------
    target : Target
    x : Tensor
        (B, 3, H, W) preprocessed images.
    layer : str
        The layer of the features.
    features : sequence of int
        Neurons of that layer.
    cam_layer : str, optional
        The layer whose maps are used; `layer` by default.

    Returns
    -------
    Tensor
        (B, h, w), non-negative.

    Raises
    ------
    ValueError
        If the layer has no maps.
    """

    def strength(output: Activations) -> Tensor:
        return output.z[:, list(features)].sum()

    cam = gradient_heatmap(target, x, cam_layer or layer, layer, strength)
    if cam.shape[1:] == (1, 1):
        raise ValueError(
            f"The layer {cam_layer or layer!r} of {target.name} has no maps; name one that has as "
            "cam_layer."
        )
    return cam


def find_cam_layer(
    target: Target, x: Tensor, layer: str, cam_layer: str | None = None
) -> str | None:
    """Find the last layer, up to `cam_layer`, on whose maps the features of a layer depend.

    In a transformer, features are read from the class token, which depends on the patch tokens of
    earlier blocks but not on those of the same output. So blocks of the same type before
    `cam_layer` are tried as well.

    Parameters
    ----------
    target : Target
    x : Tensor
        (B, 3, H, W), images to try it on.
    layer, cam_layer
        As for `group_cam`.

    Returns
    -------
    str, or None if the features depend on no such layer's maps
    """
    cam_layer = cam_layer or layer
    layers = target.layers()
    before = layers[: layers.index(cam_layer)] if cam_layer in layers else ()
    kind = type(target.module(cam_layer))
    blocks = (name for name in reversed(before) if type(target.module(name)) is kind)
    return next((name for name in (cam_layer, *blocks) if depends_on(target, x, layer, name)), None)


def largest_region(cam: Tensor, size: tuple[int, int], threshold: float = 0.6) -> Box:
    """Return the bounding box of the largest connected region above a threshold.

    Parameters
    ----------
    cam : Tensor
        (h, w), non-negative.
    size : (int, int)
        Height and width of the image, to which the heatmap is resized.
    threshold : float
        In [0, 1), as a share of the maximum.

    Returns
    -------
    (left, top, right, bottom)
        In pixels, right and bottom exclusive; the whole image if the heatmap is zero.
    """
    from scipy import ndimage

    if not 0 <= threshold < 1:
        raise ValueError(f"threshold is {threshold}; give a share of the maximum in [0, 1).")
    m = maps.resize(cam[None, None].float(), size)[0, 0]
    if not m.max() > 0:
        return 0, 0, size[1], size[0]
    labels, count = ndimage.label((m > threshold * m.max()).cpu().numpy())
    areas = ndimage.sum_labels(labels > 0, labels, range(1, count + 1))
    rows, columns = ndimage.find_objects(labels)[int(areas.argmax())]
    return columns.start, rows.start, columns.stop, rows.stop


def crop_to_boxes(
    target: Target, images: ImageSet, indices: Sequence[int], boxes: Sequence[Box]
) -> ImageSet:
    """Return preprocessed images as pictures, each cropped to its box.

    Parameters
    ----------
    target : Target
        Boxes are in pixels of its input.
    images : ImageSet
    indices : sequence of int
        Which images.
    boxes : sequence of (left, top, right, bottom)
        One for each index.
    """
    own, boxes = subset(images, indices), tuple(boxes)
    content = {"regions of": own.fingerprint, "preprocess": target.key()["preprocess"]}
    fingerprint, name = digest({**content, "boxes": boxes}), f"regions of {images.name}"
    reader = partial(_cropped, target, own.reader, boxes)
    return replace(own, name=name, fingerprint=fingerprint, reader=reader, masks=None)


def _cropped(target: Target, reader: Callable, boxes: Sequence[Box], i: int) -> Image.Image:
    image = reader(i)
    return denormalize(target, image, target.preprocess(image)).crop(boxes[i])


def cohesion(v: Tensor) -> float:
    """Return the mean cosine, in [-1, 1], of all pairs of unit-norm features (n, D), n >= 2."""
    n = len(v)
    return ((v.double().sum(0).square().sum() - n) / (n * (n - 1))).item()
