"""Activation maps, contribution maps, concept regions and heatmaps at the size of the image.

An activation map is clamped at zero and resized bilinearly. A concept region is what lies above a
percentile of it; a heatmap is the weighted sum of the maps of the neurons with the largest weights
(WWW, Eq. 4). A contribution map shows where a neuron contributed to the decision, not merely where
it was active; in transformers only contribution maps localise. Since resizing is linear, a heatmap
is summed at the size of the maps and resized once. Values that would blank a map (nan, infinity, no
positive weight) raise an error or a warning.
"""

import math
import warnings
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from wwwlib.contributions import Classes, Contributions, contribute
from wwwlib.registry import whole_number
from wwwlib.targets import LOGITS, Target
from wwwlib.targets.examine import fixed_batch, run

Size = int | tuple[int, int] | None  # rows and columns; None keeps the size of a map

ACTIVATION, CONTRIBUTION = "activation", "contribution"
_UNINFORMATIVE = (nn.Identity, nn.Dropout)  # modules whose output is that of the layer before
_ROWS, _COLUMNS = ("upper", "middle", "lower"), ("left", "centre", "right")


def resize(a: Tensor, size: Size) -> Tensor:
    """Clamp activation maps at zero and resize them bilinearly.

    Parameters
    ----------
    a : Tensor
        (B, N, h, w) activation maps.
    size : int, (int, int) or None
        Rows and columns of the image, one number for a square.

    Returns
    -------
    Tensor
        (B, N, H, W), non-negative; nan and infinity are kept.

    Raises
    ------
    ValueError
        If `a` is not four-dimensional or has no cells.
    """
    _check_maps(a)
    return _resized(a.clamp(min=0), size)


def region(a: Tensor, percentile: float = 90.0, size: Size = None) -> Tensor:
    """Compute concept regions: what lies strictly above a percentile of each activation map.

    The percentile is a nearest-rank percentile, the smallest value that at least so many percent
    of the cells do not exceed. If it equals the maximum, the region is where the maximum is
    reached. The region of a constant map is empty.

    Parameters
    ----------
    a : Tensor
        (B, N, h, w) activation maps.
    percentile : float
        In [0, 100); over all cells of the resized map, zeros included.
    size : int, (int, int) or None
        See `resize`.

    Returns
    -------
    Tensor
        (B, N, H, W) bool.

    Raises
    ------
    ValueError
        If a map is not finite, `a` has another shape, or the percentile is out of range.

    References
    ----------
    WWW, section 3.3.
    """
    if not 0 <= percentile < 100:
        raise ValueError(f"percentile is {percentile}; give 0 <= percentile < 100, such as 90.")
    m = resize(a, size)
    check_finite(a)
    cells = m.flatten(2)
    rank = max(1, math.ceil(percentile / 100 * cells.shape[2] - 1e-9))
    level = cells.kthvalue(rank, 2).values[..., None, None]
    top, low = m.amax((2, 3), keepdim=True), m.amin((2, 3), keepdim=True)
    return torch.where(level < top, m > level, (m == top) & (low < top))


def strongest(w: Tensor, top: int = 5) -> tuple[Tensor, Tensor]:
    """Select the neurons with the largest weights and normalise their weights.

    Parameters
    ----------
    w : Tensor
        (B, N) or (N,) weights, such as contributions. Negative ones (against the class) count as
        zero, so that they do not invert a map.
    top : int
        Number of neurons, at least 1; at most N are returned.

    Returns
    -------
    index : Tensor
        (B, k) or (k,) neurons, largest weight first, ties by index.
    share : Tensor
        Their weights divided by the sum over these k, in [0, 1]; all 0 if no weight is positive.

    Raises
    ------
    ValueError
        If a weight is not finite, or `top` is less than 1.
    """
    top = whole_number("top", top)
    if w.ndim not in (1, 2) or w.shape[-1] == 0:
        raise ValueError(f"w has shape {tuple(w.shape)}; expected (B, N) or (N,), with N >= 1.")
    if not (finite := w.isfinite()).all():
        at = (~finite).nonzero()[0].tolist()
        raise ValueError(
            f"The weight of neuron {at[-1]}{f' for image {at[0]}' if w.ndim == 2 else ''} is "
            f"{w[tuple(at)].item()}; leave out images and classes without finite contributions."
        )
    value, index = w.sort(dim=-1, descending=True, stable=True)
    value, index = value[..., :top].clamp(min=0), index[..., :top]
    value = value / value[..., :1].where(value[..., :1] > 0, 1)  # before the sum can overflow
    total = value.sum(-1, keepdim=True)
    return index, value / total.where(total > 0, 1)


def heatmap(a: Tensor, w: Tensor, top: int = 5, size: Size = None, weighted: bool = True) -> Tensor:
    """Compute the heatmap: the weighted sum of the maps of the top k neurons.

    Parameters
    ----------
    a : Tensor
        (B, N, h, w) activation maps, or contribution maps.
    w : Tensor
        (B, N) weights per image, or (N,) for all images.
    top : int
        Number of neurons k, see `strongest`; the paper's figures use 3.
    size : int, (int, int) or None
        See `resize`.
    weighted : bool
        False sums the maps of the top k unweighted, for contribution maps: they are in units of the
        logit already.

    Returns
    -------
    Tensor
        (B, H, W), non-negative. An image without a positive weight has a map of zeros and causes
        a warning.

    Raises
    ------
    ValueError
        If a weight, or the map of a neuron with positive weight, is not finite, or the shapes do
        not match.

    References
    ----------
    WWW, Eq. 4.
    """
    _check_maps(a)
    if w.shape not in ((a.shape[1],), tuple(a.shape[:2])):
        raise ValueError(f"w is {tuple(w.shape)}; give {tuple(a.shape[:2])} or ({a.shape[1]},).")
    index, share = strongest(w.to(a.device).expand(a.shape[:2]), top)
    if empty := (share[:, 0] == 0).nonzero()[:, 0].tolist():
        warnings.warn(
            f"No neuron has a positive weight for {len(empty)} of {len(a)} images (first: "
            f"{empty[0]}); their heatmaps are zero.",
            stacklevel=2,
        )
    if not weighted:
        share = (share > 0).to(share)
    chosen = a[torch.arange(len(a), device=a.device)[:, None], index]
    chosen = chosen.where(share[..., None, None] > 0, 0)
    check_finite(chosen, index)
    m = torch.einsum("bk,bkhw->bhw", share.to(a.dtype), chosen.clamp(min=0))
    return _resized(m[:, None], size)[:, 0]


def contribution(target: Target, x: Tensor, layer: str, classes: Classes = None) -> Tensor:
    """Compute contribution maps ``a_i * d f_c / d a_i``: where neurons contributed to a logit.

    Parameters
    ----------
    target, x, layer, classes
        As for `contributions.contribute`.

    Returns
    -------
    Tensor
        (B, N, h, w), signed, in units of the logit; the sum of a map is the signed contribution of
        `contributions.taylor`. What class and register tokens contribute has no position, and is
        spread evenly over the map.

    Raises
    ------
    ValueError
        As `contributions.contribute`, and if the logits depend on no position of the layer, such
        as behind the last attention of a transformer with a class token.
    """
    found = contribute(target, x, layer, classes, signed=True, linear=False)
    c = found.maps
    if not _reaches(found):
        raise ValueError(unreached(target, layer))
    return c + ((found.w - c.sum((2, 3))) / c[0, 0].numel())[..., None, None]


def unreached(target: Target, layer: str) -> str:
    """Return the message for a layer whose positions do not reach the logits."""
    return (
        f"The logits of {target.name} depend on no position of {layer!r}, so its maps explain no "
        f"decision (behind the last attention only the class token counts); take "
        f"{last_spatial_layer(target)!r}."
    )


def default_kinds(target: Target, layers: Iterable[str]) -> dict[str, str | None]:
    """Choose activation or contribution maps for each layer.

    Contribution maps for tokens, where activation maps do not localise; activation maps, those of
    the paper, for convolutions, where neither kind localises better in every layer.

    Returns
    -------
    dict of str to {"activation", "contribution"} or None
        None for a layer whose positions do not reach the logits.
    """
    x = fixed_batch(target.preprocess, target.name).to(target.device)
    found: dict[str, str | None] = dict.fromkeys(layers, ACTIVATION)
    for layer in found:
        with suppress(ValueError, RuntimeError):  # no gradient: activation maps at least
            one = contribute(target, x, layer, linear=False)
            if one.activations.layout == "BTN":
                found[layer] = CONTRIBUTION if _reaches(one) else None
    return found


def last_spatial_layer(target: Target) -> str:
    """Return the last block, in order of execution, whose positions reach the logits.

    Networks without blocks have a last layer instead.

    Raises
    ------
    ValueError
        If no layer has an output of several positions.
    """
    order: list[str] = []
    x = fixed_batch(target.preprocess, target.name).to(target.device)
    with ExitStack() as stack, torch.no_grad():
        for name in target.layers():
            note = partial(lambda name, *_: order.append(name), name)
            stack.enter_context(target.module(name).register_forward_hook(note))
        run(target.model, x, target.name)
    order = [name for name in reversed(order) if name != LOGITS]
    modules = {name: target.module(name) for name in order}
    blocks = [name for name, module in modules.items() if any(module.children())]
    leaves = [name for name, module in modules.items() if not isinstance(module, _UNINFORMATIVE)]
    for name in (*blocks, *leaves):
        with suppress(ValueError, RuntimeError):
            found = contribute(target, x, name, linear=False)
            if found.maps[0, 0].numel() > 1 and _reaches(found):
                return name
    raise ValueError(
        f"No layer of {target.name} has an output of maps or tokens; give layers=, such as "
        f"{', '.join(map(repr, order[3::-1]))}."
    )


def similarity(m1: Tensor, m2: Tensor) -> Tensor:
    """Compute the cosine similarity r of heatmaps, which are neither centred nor normalised.

    Parameters
    ----------
    m1, m2 : Tensor
        (B, H, W) heatmaps.

    Returns
    -------
    Tensor
        (B,) in [-1, 1]; in [0, 1] for non-negative heatmaps. nan if a map is zero everywhere or
        not finite.

    Raises
    ------
    ValueError
        If the shapes differ or are not (B, H, W).

    References
    ----------
    WWW, section 3.4.

    Examples
    --------
    >>> similarity(torch.tensor([[[3.0, 4.0]]]), torch.tensor([[[4.0, 3.0]]]))
    tensor([0.9600])
    """
    if m1.shape != m2.shape or m1.ndim != 3:
        raise ValueError(f"{tuple(m1.shape)} and {tuple(m2.shape)} need the same shape (B, H, W).")
    u, v = _unit(m1), _unit(m2)
    product, chord = (u * v).sum(1), (u - v).square().sum(1)
    # Both are the cosine, but near 1 the product rounds: equal maps would differ by chance.
    return torch.where(product > 0.5, 1 - chord / 2, product).clamp(-1, 1).to(m1.dtype)


def position(m: Tensor) -> str | None:
    """Describe in words where most of a region or heatmap lies.

    Rows and columns are divided into thirds; a third is named if it holds more than half of the
    mass: "upper left", "left", "centre", "lower centre", or "whole image" if none does.

    Parameters
    ----------
    m : Tensor
        (H, W) bool or non-negative.

    Returns
    -------
    str or None
        None for an empty region or a map of zeros.

    Raises
    ------
    ValueError
        If `m` is not (H, W), or not finite.
    """
    if m.ndim != 2 or not (m := m.double()).isfinite().all():
        raise ValueError(f"Expected a finite (H, W) region or heatmap, got {tuple(m.shape)}.")
    m = m.clamp(min=0)
    if not m.any():
        return None
    row, column = _third(m.sum(1), _ROWS), _third(m.sum(0), _COLUMNS)
    if row == "middle":
        return column or "middle"
    return " ".join(filter(None, (row, column))) or "whole image"


def _reaches(found: Contributions) -> bool:
    """Whether positions contribute, or nothing does, such as before a head of zeros."""
    return bool(found.maps.any() or not found.w.any())


def _third(mass: Tensor, words: tuple[str, str, str]) -> str | None:
    """Return the word for the third of an axis with more than half of the mass, if there is one."""
    third = ((torch.arange(len(mass), device=mass.device) + 0.5) * 3 / len(mass)).long()
    share = mass.new_zeros(3).index_add(0, third, mass) / mass.sum()
    return words[int(share.argmax())] if share.max() > 0.5 else None


def _unit(m: Tensor) -> Tensor:
    """Flatten to (B, H * W) with norm 1; division by the maximum comes first against underflow."""
    flat = m.flatten(1).double()
    flat = flat / flat.abs().amax(1, keepdim=True)
    return flat / flat.norm(dim=1, keepdim=True)


def _resized(m: Tensor, size: Size) -> Tensor:
    if size is None:
        return m
    size = (size, size) if isinstance(size, int) else size
    return functional.interpolate(m, size, mode="bilinear", align_corners=False)


def _check_maps(a: Tensor) -> None:
    if a.ndim != 4 or 0 in a.shape[1:]:
        raise ValueError(f"The maps are {tuple(a.shape)}; expected (B, N, h, w) with N, h, w >= 1.")


def check_finite(a: Tensor, neurons: Tensor | None = None, of: str = "") -> None:
    """Raise where a map (B, N, h, w) is not finite; `neurons` (B, N) are their indices."""
    bad = ~a.isfinite().all(3).all(2)
    if bad.any():
        image, place = bad.nonzero()[0].tolist()
        neuron = place if neurons is None else neurons[image, place].item()
        raise ValueError(
            f"The map of neuron {neuron}{of} for image {image} of the batch is not finite, so it "
            "cannot be drawn; leave that image out, take another layer, or run in float32."
        )
