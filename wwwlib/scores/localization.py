"""Does a map point at what it should? The pointing game, and the overlap of regions with masks.

The pointing game asks of a heatmap only where its maximum lies; intersection over union asks of a
region how well it covers a mask. Truth is a mask per image, and one `Score` value is one image, or
one pair of a region and a mask; its `sizes` count the pixels that were pointed at.
"""

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from wwwlib.scores.agreement import Score


def pointing_game(m: Tensor, mask: Tensor, tolerance: float = 0) -> Score:
    """Score where the maximum of each heatmap lies: 1 on the mask, 0 beside it.

    Parameters
    ----------
    m : Tensor
        (B, H, W) heatmaps.
    mask : Tensor
        (B, H, W) bool, the true pixels, at least one for each image.
    tolerance : float
        A maximum that is at most so many pixels (Euclidean distance of pixels' centres) from the
        mask also hits; 0 is the strict game.

    Returns
    -------
    Score
        Values in [0, 1]: where several pixels share the maximum, the share of them that hit, which
        is what choosing one of them at random is expected to score. A flat map points everywhere,
        and so scores as a random guess.

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
        raise ValueError(
            f"Heatmap {bad[0]} is not finite, so it has no maximum; leave out its image."
        )
    top = m == m.amax((1, 2), keepdim=True)
    hits = (top & within(mask, tolerance)).sum((1, 2))
    sizes = top.sum((1, 2))
    name = f"pointing game, within {tolerance:g} px" if tolerance else "pointing game"
    return Score(name, (hits.double() / sizes).cpu(), sizes.cpu())


def iou(region: Tensor, mask: Tensor) -> Score:
    """Score how well regions cover masks: pixels in both, divided by pixels in either.

    Parameters
    ----------
    region : Tensor
        (B, H, W) bool, such as concept regions.
    mask : Tensor
        (B, H, W) bool, the true pixels, at least one for each region.

    Returns
    -------
    Score
        Values in [0, 1]; an empty region scores 0 and counts as an abstention. A region of a fixed
        area cannot reach 1 on a mask of another: see `iou_ceiling`.

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


def iou_ceiling(region: Tensor, mask: Tensor) -> Score:
    """Score the best that any regions of these areas could reach: the smaller over the larger.

    Parameters, values and errors are those of `iou`.
    """
    _check(region, mask, "regions")
    area, size = region.sum((1, 2)), mask.sum((1, 2))
    values = torch.minimum(area, size).double() / torch.maximum(area, size)
    return Score("IoU", values.cpu(), area.cpu())


def by_group(score: Score, groups: Sequence[Hashable]) -> dict[Hashable, Score]:
    """Split a score, for instance by the categories of the concepts.

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
        raise ValueError(
            f"There are {len(groups)} groups for {len(score)} values; give one for each."
        )
    places: dict[Hashable, list[int]] = {}
    for i, group in enumerate(groups):
        places.setdefault(group, []).append(i)
    return {
        group: Score(score.name, score.values[at], score.sizes[at]) for group, at in places.items()
    }


def within(mask: Tensor, tolerance: float) -> Tensor:
    """Widen masks by a disc: every pixel at most `tolerance` pixels from a true one.

    Parameters
    ----------
    mask : Tensor
        (B, H, W) bool.
    tolerance : float
        Radius of the disc in pixels, at least 0.

    Returns
    -------
    Tensor
        (B, H, W) bool.

    Raises
    ------
    ValueError
        If the tolerance is negative or not finite.
    """
    if not 0 <= tolerance < float("inf"):
        raise ValueError(f"tolerance is {tolerance}; give a distance in pixels, 0 or more.")
    reach = min(int(tolerance), max(mask.shape[1:]))  # a larger disc would cover nothing more
    steps = torch.arange(-reach, reach + 1, device=mask.device)
    disc = (steps[:, None] ** 2 + steps**2 <= tolerance**2).float()
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
        raise ValueError(
            f"Mask {empty[0]} is empty: nothing could hit it; leave out images that do not show "
            "what is looked for, and say how many."
        )
