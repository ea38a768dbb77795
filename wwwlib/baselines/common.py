"""Shared by the baselines: tables of names, layers on a probe set, and visible parts of images."""

from collections.abc import Iterable, Mapping, Sequence
from math import floor

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from wwwlib.concepts import ConceptTable
from wwwlib.contributions import forward
from wwwlib.distributed import Pass, State, run
from wwwlib.images import ImageSet
from wwwlib.images.image_set import Box, crop_mask
from wwwlib.targets import Target, denormalize


def concept_table(found: Sequence[Mapping[str, float]]) -> ConceptTable:
    """Build a table from the scores of N neurons by name; neurons without names abstain."""
    names, scores = [list(own) for own in found], [list(own.values()) for own in found]
    lowest = torch.tensor([min(own, default=0.0) for own in scores], dtype=torch.float64)
    return ConceptTable(names, scores, lowest, torch.tensor([not own for own in names]))


def ranked_table(
    value: Tensor, index: Tensor, words: Iterable[Sequence[str]], minimum: float = -torch.inf
) -> ConceptTable:
    """Build a table from the best concepts of N neurons, leaving out those of low scores.

    Parameters
    ----------
    value, index : Tensor
        (N, k) as `best_of_blocks` returns them.
    words : iterable of sequence of str
        For each neuron the concepts that `index` refers to.
    minimum : float
        The score that a name must exceed.
    """
    found = []
    for own, row, texts in zip(value.tolist(), index.tolist(), words, strict=True):
        pairs = reversed([*zip(row, own, strict=True)])  # of equal texts the first, which is best
        found.append(dict(reversed({texts[j]: s for j, s in pairs if s > minimum}.items())))
    return concept_table(found)


def best_of_blocks(blocks: Iterable[Tensor], k: int) -> tuple[Tensor, Tensor]:
    """Return the k highest scores of each row over blocks of columns, and their columns.

    Parameters
    ----------
    blocks : iterable of Tensor
        (N, b) scores of consecutive columns.
    k : int
        At most the number of columns.

    Returns
    -------
    value : Tensor, shape (N, k)
        Highest first; among equals the lower column first.
    index : Tensor of int64, shape (N, k)
        Their columns, counted over all blocks.
    """
    value, index, start = None, None, 0
    for s in blocks:
        columns = torch.arange(start, start + s.shape[1], device=s.device).expand(s.shape)
        start += s.shape[1]
        if value is not None:
            s, columns = torch.cat([value, s], 1), torch.cat([index, columns], 1)
        value, order = s.sort(dim=1, descending=True, stable=True)
        value, index = value[:, :k], columns.gather(1, order[:, :k])
    return value, index


@torch.inference_mode()
def layer_maps(target: Target, layers: Sequence[str], x: Tensor) -> dict[str, Tensor]:
    """Return the maps (B, N, h, w) of layers for images x (B, 3, H, W), at least in float32."""
    captured = forward(target, x.to(target.device), layers)[1]
    maps = {layer: captured[layer].maps for layer in layers}
    return {layer: a.to(torch.promote_types(a.dtype, torch.float32)) for layer, a in maps.items()}


def thresholds(
    target: Target, images: ImageSet, layers: Sequence[str], share: float, **options
) -> dict[str, Tensor]:
    """Find for each neuron the lowest value that at most a share of all positions exceeds, exactly.

    With P positions in all images together it is the (floor(share P) + 1)-th highest value; a pass
    keeps a list of that many for each neuron. Network Dissection and MILAN threshold maps there.

    Parameters
    ----------
    target : Target
    images : ImageSet
    layers : sequence of str
        Names from ``target.layers()``; all are captured in one pass.
    share : float
        In (0, 1).
    **options
        Fields of `distributed.Options`.

    Returns
    -------
    dict of str to Tensor
        (N,) of each layer, on the CPU. NaN counts as the lowest value.
    """

    def step(layers: list[str], indices: Tensor, x: Tensor) -> dict[str, State]:
        states = {}
        for layer, a in layer_maps(target, layers, x).items():
            positions = len(images) * a.shape[2] * a.shape[3]
            count = floor(share * positions + 1e-9) + 1  # .005 * 200 is a little less than 1
            values = a.transpose(0, 1).flatten(1).nan_to_num(-torch.inf, torch.inf, -torch.inf)
            states[layer] = _highest(values, count)
        return states

    def merge(first: State, second: State) -> State:
        return _highest(torch.cat([first["highest"], second["highest"]], 1), int(first["count"]))

    key, finish = {"share": share}, lambda state: {"threshold": state["highest"][:, -1]}
    found = run(Pass(target, images, layers, step, merge, "thresholds", key, finish), **options)
    return {layer: found[layer]["threshold"] for layer in layers}


def _highest(values: Tensor, count: int) -> State:
    highest = values.topk(min(count, values.shape[1]), 1).values
    return {"highest": highest, "count": torch.tensor(count)}


def above(a: Tensor, threshold: Tensor, size: tuple[int, int]) -> Tensor:
    """Return where maps (N, h, w), resized to (N, H, W), exceed the threshold (N,) of each.

    A map of one cell is spread, since interpolation rounds and may lift it above its own value;
    in larger maps, too, positions equal to the threshold may come out above it.
    Maps are first made contiguous: with channels last, interpolation takes ten times as long.
    """
    if a.shape[1:] != (1, 1):
        a = F.interpolate(a[None].contiguous(), size, mode="bilinear")[0]
    return a.expand(-1, *size) > threshold[:, None, None]


# The visible part of an image -------------------------------------------------------------------


def visible_box(target: Target, size: tuple[int, int]) -> Box:
    """Return the part of an image that remains after the target's preprocessing.

    Two images whose brightness increases from left to right and from top to bottom are
    preprocessed; the brightness of an output pixel is its position in the original.

    Parameters
    ----------
    target : Target
    size : (int, int)
        Width and height of the images.

    Returns
    -------
    (left, top, right, bottom)
        As fractions of width and height, in [0, 1].

    Raises
    ------
    ValueError
        If preprocessing changes positions other than by resizing and cropping.
    """
    (left, right), (top, bottom) = (_visible_span(target, size, axis) for axis in (0, 1))
    return left, top, right, bottom


def visible_masks(
    target: Target, masks: Mapping[str, np.ndarray], boxes: dict[tuple[int, int], Box]
) -> dict[str, np.ndarray]:
    """Crop an image's masks to what the target's preprocessing keeps, without those it cuts off.

    `boxes` keeps `visible_box` of each size (H, W), from image to image.
    """
    for height, width in {mask.shape for mask in masks.values()} - boxes.keys():
        boxes[height, width] = visible_box(target, (width, height))
    found = {word: crop_mask(mask, boxes[mask.shape]) for word, mask in masks.items()}
    return {word: mask for word, mask in found.items() if mask.any()}


def _visible_span(target: Target, size: tuple[int, int], axis: int) -> tuple[float, float]:
    """Return where the visible part starts and ends along the width (axis 0) or the height (1)."""
    length, across = size[axis], size[1 - axis]
    ramp = (np.arange(length) + 0.5) * 255 / length
    dither = (np.arange(across) % 16 + 0.5) / 16  # so that lines average to more than 8 bits
    pixels = np.uint8(np.floor(ramp + dither[:, None]))
    image = Image.fromarray(pixels.T if axis else pixels).convert("RGB")
    output = np.asarray(denormalize(target, image, target.preprocess(image)), float).mean(2) / 255
    output = output.T if axis else output
    places = (np.arange(output.shape[1]) + 0.5) / output.shape[1]
    edge = output.shape[1] // 8  # there interpolation repeats the border
    inner = slice(edge, output.shape[1] - edge)
    slope, start = np.polyfit(places[inner], output.mean(0)[inner], 1)
    tolerance = 0.02 + 1 / length  # a few levels of 8 bits, and one pixel
    ends = start, start + slope
    error = np.abs(output - (start + slope * places))[:, inner].max()
    if error > tolerance or slope <= 0 or ends[0] < -tolerance or ends[1] > 1 + tolerance:
        raise ValueError(
            f"The preprocessing of {target.name} does more to an image of {size[0]} x {size[1]} "
            "pixels than to resize and crop it, so that masks cannot be aligned with it; give a "
            "target whose preprocessing only resizes and crops."
        )
    return max(0.0, float(ends[0])), min(1.0, float(ends[1]))
