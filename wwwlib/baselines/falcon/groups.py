"""Features that are on together: the images that share the very same set of them form a group.

Features are the neurons' activations of one layer, every image's divided by their length, so that
one threshold serves all: an image's strongest features, not the strongest images, are on.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

SIGMAS, LEAST = 5.0, 11  # above the mean, in standard deviations; images: more than ten


@dataclass(frozen=True)
class Group:
    """Features that are on together, and the images in which these and no others are.

    Attributes
    ----------
    features : tuple of int
        Neurons of the layer, ascending.
    images : tuple of int
        Indices into the probe set, the image in which the features are strongest first.
    """

    features: tuple[int, ...]
    images: tuple[int, ...]


def unit(z: Tensor) -> Tensor:
    """Return activations (I, N) with every image's features at length one; nan counts as zero."""
    return F.normalize(z.nan_to_num(0.0, 0.0, 0.0), dim=1)


def groups(z: Tensor, sigmas: float = SIGMAS, least: int = LEAST) -> list[Group]:
    """Find the groups of a layer.

    Parameters
    ----------
    z : Tensor
        (I, N) neuron activations of I images.
    sigmas : float
        A feature is on above the mean plus so many standard deviations of the whole matrix of
        normalised features. FALCON takes 5; layers of few neurons reach it rarely or never.
    least : int
        Smaller groups are dropped, at least 2.

    Returns
    -------
    list of Group
        The one with the most images first, then in order of features.

    Raises
    ------
    ValueError
        If `z` is no matrix, or `least` is below 2.
    """
    if z.ndim != 2 or not z.numel():
        raise ValueError(f"z has shape {tuple(z.shape)}; expected (images, neurons), both above 0.")
    if least < 2:
        raise ValueError(f"least is {least}; a group needs at least 2 images to agree.")
    f = unit(z)
    on = f > f.mean() + sigmas * f.std(correction=0)
    members: dict[tuple[int, ...], list[int]] = {}
    for i, row in enumerate(on):
        if row.any():
            members.setdefault(tuple(row.nonzero()[:, 0].tolist()), []).append(i)
    found = [
        Group(features, _strongest_first(f, features, images))
        for features, images in members.items()
        if len(images) >= least
    ]
    return sorted(found, key=lambda group: (-len(group.images), group.features))


def _strongest_first(f: Tensor, features: tuple[int, ...], images: list[int]) -> tuple[int, ...]:
    strength = f[images][:, list(features)].sum(1)
    order = strength.argsort(descending=True, stable=True)
    return tuple(images[i] for i in order.tolist())


def counter_examples(z: Tensor, group: Group, count: int = 10, alike: float = 0.3) -> list[int]:
    """Find images that resemble a group in everything but the group's own features.

    Parameters
    ----------
    z : Tensor
        (I, N) neuron activations.
    group : Group
    count : int
        At most so many are returned.
    alike : float
        Least cosine between an image's other features and the group's mean of them.

    Returns
    -------
    list of int
        Images in which all of the group's features are below the mean of the whole matrix, the
        most similar one first.
    """
    f, own = unit(z), list(group.features)
    off = (f[:, own] < f.mean()).all(1)
    rest = f.clone()
    rest[:, own] = 0.0
    centre = F.normalize(rest[list(group.images)].mean(0), dim=0)
    cosine = torch.where(off, F.normalize(rest, dim=1) @ centre, -torch.inf)
    order = cosine.argsort(descending=True, stable=True)[:count]
    return [i for i in order.tolist() if cosine[i] >= alike]
