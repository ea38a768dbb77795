"""Heatmaps of a layer, and their evaluation by pixel masks: pointing game, intersection over union.

The pointing game tests where the maximum of a heatmap lies; intersection over union tests how well
a region covers a mask. One `Score` value is one image, or one pair of a region and a mask; its
`sizes` are the numbers of pixels pointed at.
"""

from collections.abc import Hashable, Iterable, Sequence

import torch
from pandas import Series
from torch import Tensor
from torch.nn import functional

from wwwlib import maps
from wwwlib.baselines import common, grad_cam
from wwwlib.contributions import contribute
from wwwlib.images import ImageSet
from wwwlib.scores import Score
from wwwlib.targets import Target

Batch = tuple[Tensor, Tensor]  # images and classes
Size = tuple[int, int]  # rows and columns


def heatmaps(
    target: Target, batches: Iterable[Batch], layer: str, tops: Iterable[int], size: Size
) -> dict[str, Tensor]:
    """Compute heatmaps of a layer's top neurons, of both kinds of maps, and Grad-CAM.

    Parameters
    ----------
    target : Target
    batches : iterable of (Tensor, Tensor)
        Preprocessed images (B, 3, H, W), and the class (B,) that each is explained for.
    layer : str
    tops : iterable of int
        Numbers of neurons.
    size : (int, int)
        Rows and columns of the heatmaps.

    Returns
    -------
    dict of str to Tensor
        (I, H, W) for "activation, top 5", "contribution, top 5" and so on, and "Grad-CAM".
    """
    rows: dict[str, list[Tensor]] = {}
    for x, classes in batches:
        found = contribute(target, x, layer, classes.to(x.device), linear=False)
        for kind, a in (("activation", found.activations.maps), ("contribution", found.maps)):
            for k in tops:
                heat = maps.heatmap(a, found.w, k, size, kind == "activation")
                rows.setdefault(f"{kind}, top {k}", []).append(heat.cpu())
        cam = grad_cam.grad_cam(target, x, layer, classes.to(x.device))
        rows.setdefault("Grad-CAM", []).append(maps.resize(cam[:, None], size)[:, 0].cpu())
    return {name: torch.cat(own) for name, own in rows.items()}


def visible_masks(target: Target, images: ImageSet, size: Size) -> list[dict[str, Tensor]]:
    """Return the masks of what the network's preprocessing keeps of each image.

    Parameters
    ----------
    target : Target
    images : ImageSet
    size : (int, int)
        Rows and columns to which masks are resized.

    Returns
    -------
    list of dict of str to Tensor
        For each image the (H, W) bool mask of every concept that it shows; an empty list if the
        set has no masks.

    Raises
    ------
    ValueError
        If preprocessing does more than to resize and crop.
    """
    boxes, found = {}, []
    for i in range(len(images)) if images.masks else ():
        own = {}
        for word, mask in common.visible_masks(target, images.masks(i), boxes).items():
            kept = torch.from_numpy(mask)[None, None].float()
            own[word] = functional.interpolate(kept, size, mode="nearest-exact")[0, 0] > 0.5
        found.append({word: mask for word, mask in own.items() if mask.any()})
    return found


def pointing_game(m: Tensor, mask: Tensor, tolerance: float = 0) -> Score:
    """Score 1 where the maximum of a heatmap lies on the mask, else 0.

    Parameters
    ----------
    m : Tensor
        (B, H, W) heatmaps.
    mask : Tensor
        (B, H, W) bool, the true pixels, at least one for each image.
    tolerance : float
        Maxima within this distance of the mask (Euclidean, in pixels between pixel centres) also
        hit; 0 is the strict game.

    Returns
    -------
    Score
        Values in [0, 1]: where several pixels share the maximum, the share of them that hits, the
        expectation of choosing one at random. A flat map scores the area of the mask.

    Raises
    ------
    ValueError
        If the shapes differ, a heatmap is not finite, a mask is empty, or the tolerance is
        negative or not finite.

    References
    ----------
    Zhang et al., "Top-down neural attention by excitation backprop", ECCV 2016.
    """
    _check(m, mask, "heatmaps")
    if bad := (~m.isfinite()).flatten(1).any(1).nonzero()[:, 0].tolist():
        raise ValueError(f"Heatmap {bad[0]} is not finite and has no maximum; leave out its image.")
    top = m == m.amax((1, 2), keepdim=True)
    hits = (top & dilate(mask, tolerance)).sum((1, 2))
    sizes = top.sum((1, 2))
    name = f"pointing game, within {tolerance:g} px" if tolerance else "pointing game"
    return Score(name, (hits.double() / sizes).cpu(), sizes.cpu())


def iou(region: Tensor, mask: Tensor) -> Score:
    """Intersection over union of regions and masks.

    Parameters
    ----------
    region : Tensor
        (B, H, W) bool, such as concept regions.
    mask : Tensor
        (B, H, W) bool, the true pixels, at least one for each region.

    Returns
    -------
    Score
        Values in [0, 1]; an empty region scores 0 and counts as abstained. A region of a fixed
        area cannot reach 1 on a mask of another area: see `iou_upper_bound`.

    Raises
    ------
    ValueError
        If the shapes differ, either is not bool, or a mask is empty.
    """
    _check(region, mask, "regions")
    if region.dtype != torch.bool:
        raise ValueError(f"The regions are {region.dtype}; give bool, as maps.region returns.")
    both, either = (region & mask).sum((1, 2)), (region | mask).sum((1, 2))
    return Score("IoU", (both.double() / either).cpu(), region.sum((1, 2)).cpu())


def iou_upper_bound(region: Tensor, mask: Tensor) -> Score:
    """Best IoU that regions of these areas can reach: the smaller area over the larger.

    Parameters, values and errors are those of `iou`.
    """
    _check(region, mask, "regions")
    area, size = region.sum((1, 2)), mask.sum((1, 2))
    values = torch.minimum(area, size).double() / torch.maximum(area, size)
    return Score("IoU", values.cpu(), area.cpu())


def by_group(score: Score, groups: Sequence[Hashable]) -> dict[Hashable, Score]:
    """Split a score into groups, such as the categories of the concepts.

    Parameters
    ----------
    score : Score
        Of N values.
    groups : sequence
        The group of each value.

    Returns
    -------
    dict of group to Score
        In the order in which the groups first appear; every value is in exactly one.

    Raises
    ------
    ValueError
        If there is not one group for each value.
    """
    if len(groups) != len(score):
        raise ValueError(f"There are {len(groups)} groups for {len(score)} values; give as many.")
    own = Series(groups)
    return {
        group: Score(score.name, score.values[at], None if score.sizes is None else score.sizes[at])
        for group, at in own.groupby(own, sort=False).indices.items()
    }


def dilate(mask: Tensor, radius: float) -> Tensor:
    """Dilate masks by a disc.

    Parameters
    ----------
    mask : Tensor
        (B, H, W) bool.
    radius : float
        Radius of the disc in pixels, at least 0.

    Returns
    -------
    Tensor
        (B, H, W) bool, every pixel at most `radius` pixels from a true one.

    Raises
    ------
    ValueError
        If the radius is negative or not finite.
    """
    if not 0 <= radius < float("inf"):
        raise ValueError(f"The tolerance is {radius}; give a distance in pixels, 0 or more.")
    reach = min(int(radius), max(mask.shape[1:]))  # a larger disc would cover nothing more
    steps = torch.arange(-reach, reach + 1, device=mask.device)
    disc = (steps[:, None] ** 2 + steps**2 <= radius**2).float()
    return functional.conv2d(mask[:, None].float(), disc[None, None], padding=reach)[:, 0] > 0.5


def _check(given: Tensor, mask: Tensor, what: str) -> None:
    if given.ndim != 3 or given.shape != mask.shape or not given.numel():
        raise ValueError(
            f"The {what} have shape {tuple(given.shape)} and the masks {tuple(mask.shape)}; "
            "expected twice the same (B, H, W), with at least one image and one pixel."
        )
    if mask.dtype != torch.bool:
        raise ValueError(f"The masks are {mask.dtype}; give bool, true where the concept is.")
    if empty := (~mask.flatten(1).any(1)).nonzero()[:, 0].tolist():
        raise ValueError(f"Mask {empty[0]} is empty; leave out images without the concept.")
