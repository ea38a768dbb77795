"""Shared by the baselines: tables of names, layers on a probe set, and visible parts of images."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from math import floor

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from wwwlib.concepts import ConceptTable
from wwwlib.contributions import forward
from wwwlib.distributed import Pass, State, run
from wwwlib.exemplars import Exemplars
from wwwlib.images import ImageSet
from wwwlib.targets import Target, denormalize

Box = tuple[float, float, float, float]  # left, top, right, bottom, as fractions of the sides


def concept_table(names: list[list[str]], scores: list[list[float]]) -> ConceptTable:
    """Build a table from the names of N neurons and their scores; neurons without names abstain."""
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
    names, scores = [], []
    for own, row, texts in zip(value.tolist(), index.tolist(), words, strict=True):
        kept = [(texts[j], s) for j, s in zip(row, own, strict=True) if s > minimum]
        names.append([text for text, _ in kept])
        scores.append([s for _, s in kept])
    return concept_table(names, scores)


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


def first(exemplars: Exemplars, k: int) -> Exemplars:
    """Keep each neuron's first k exemplars; ValueError if there are fewer."""
    if not 1 <= k <= exemplars.index.shape[1]:
        raise ValueError(
            f"k is {k}, but {exemplars.index.shape[1]} exemplars were collected; give 1 to that, "
            "or collect more."
        )
    return replace(exemplars, index=exemplars.index[:, :k], value=exemplars.value[:, :k])


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

    def finish(state: State) -> State:
        return {"threshold": state["highest"][:, -1]}

    found = run(
        Pass(target, images, layers, step, merge, "thresholds", {"share": share}, finish), **options
    )
    return {layer: found[layer]["threshold"] for layer in layers}


def _highest(values: Tensor, count: int) -> State:
    highest = values.topk(min(count, values.shape[1]), 1).values
    return {"highest": highest, "count": torch.tensor(count)}


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
    left, right = _visible_span(target, size, horizontal=True)
    top, bottom = _visible_span(target, size, horizontal=False)
    return left, top, right, bottom


def crop_mask(mask: np.ndarray, box: Box) -> np.ndarray:
    """Crop an array (H, W) over a whole image to a box such as `visible_box` returns.

    The box is rounded to whole pixels; at least one row and one column remain.
    """
    left, top, right, bottom = box
    rows, columns = _pixels(top, bottom, mask.shape[0]), _pixels(left, right, mask.shape[1])
    return mask[rows, columns]


def _pixels(start: float, stop: float, length: int) -> slice:
    first = min(round(start * length), length - 1)
    return slice(first, max(first + 1, round(stop * length)))


def _visible_span(target: Target, size: tuple[int, int], horizontal: bool) -> tuple[float, float]:
    """Return where the visible part starts and ends along one side of the image."""
    width, height = size
    length, across = (width, height) if horizontal else (height, width)
    ramp = (np.arange(length) + 0.5) * 255 / length
    dither = (np.arange(across) % 16 + 0.5) / 16  # so that lines average to more than 8 bits
    pixels = np.uint8(np.floor(ramp + dither[:, None]))
    pixels = pixels if horizontal else pixels.T
    image = Image.fromarray(np.repeat(pixels[..., None], 3, axis=2))
    output = np.asarray(denormalize(target, image, target.preprocess(image)), float).mean(2) / 255
    output = output if horizontal else output.T
    places = (np.arange(output.shape[1]) + 0.5) / output.shape[1]
    edge = output.shape[1] // 8  # there interpolation repeats the border
    inner = slice(edge, output.shape[1] - edge)
    slope, start = np.polyfit(places[inner], output.mean(0)[inner], 1)
    tolerance = 0.02 + 1 / length  # a few levels of 8 bits, and one pixel
    ends = start, start + slope
    error = np.abs(output - (start + slope * places))[:, inner].max()
    if error > tolerance or slope <= 0 or ends[0] < -tolerance or ends[1] > 1 + tolerance:
        raise ValueError(
            f"The preprocessing of {target.name} does more to an image of {width} x {height} "
            "pixels than to resize and crop it, so that masks cannot be aligned with it; give a "
            "target whose preprocessing only resizes and crops."
        )
    return max(0.0, float(ends[0])), min(1.0, float(ends[1]))
