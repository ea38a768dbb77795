"""MILAN's exemplars: which images, the masks of the regions that excite a neuron, their features.

A mask is where a neuron's map exceeds its .99 quantile over all positions of all probe images. An
exemplar whose map nowhere exceeds it (exemplars of a token network are ranked by the class token)
has a mask of the whole image, and so have all exemplars of layers without maps, such as the logits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from wwwlib.baselines.common import first, layer_maps, thresholds
from wwwlib.baselines.milan.networks import pool
from wwwlib.distributed import Pass, State, concatenate, run
from wwwlib.exemplars import OK, Exemplars
from wwwlib.images import ImageSet, subset
from wwwlib.targets import Target


@dataclass(frozen=True)
class Chosen:
    """The exemplars of the n live neurons among the N of a layer.

    Attributes
    ----------
    index : Tensor of int64, shape (n, k)
        Their exemplars, best first.
    live : Tensor of bool, shape (N,)
        Which neurons they are.
    """

    index: Tensor
    live: Tensor


def choose(exemplars: Exemplars, images: ImageSet, k: int) -> Chosen:
    """Return the first k exemplars of the neurons that have as many.

    Raises
    ------
    ValueError
        If fewer were collected, or from another probe set.
    """
    if exemplars.images != len(images):
        raise ValueError(
            f"The exemplars were collected from {exemplars.images} images, but {images.name!r} has "
            f"{len(images)}; give the probe set that they come from."
        )
    index = first(exemplars, k).index.cpu()
    live = (exemplars.status.cpu() == OK) & (index >= 0).all(1)
    return Chosen(index[live], live)


def quantiles(
    target: Target, layer: str, images: ImageSet, chosen: Chosen, quantile: float, **options
) -> Tensor | None:
    """Return the quantile of each neuron of a layer over all positions.

    Parameters
    ----------
    target : Target
    layer : str
    images : ImageSet
    chosen : Chosen
        Of the same layer.
    quantile : float
        In (0, 1).
    **options
        Fields of `distributed.Options`.

    Returns
    -------
    Tensor, shape (N,), or None for a layer without maps

    Raises
    ------
    ValueError
        If the quantile is out of range, or the layer has another number of neurons.
    """
    if not 0 < quantile < 1:
        raise ValueError(f"quantile is {quantile}; it must lie between 0 and 1, as .99 does.")
    x = target.preprocess(images.image(0))[None]
    _, neurons, *grid = layer_maps(target, [layer], x)[layer].shape
    if neurons != len(chosen.live):
        raise ValueError(
            f"There are exemplars of {len(chosen.live)} neurons, but {layer!r} of "
            f"{target.name} has {neurons}; give the exemplars of that layer."
        )
    if grid == [1, 1]:
        return None
    share = round(1 - quantile, 12)  # 1 - .99 is a little more than .01
    return thresholds(target, images, [layer], share, **options)[layer]


def masks(
    target: Target,
    layer: str,
    images: ImageSet,
    chosen: Chosen,
    level: Tensor | None,
    size: tuple[int, int],
    **options,
) -> Tensor:
    """Compute the mask of every exemplar; each distinct image passes the network once.

    Parameters
    ----------
    target, layer, images, **options
        As for `quantiles`; results are not stored.
    chosen : Chosen
        Of n neurons, k each.
    level : Tensor or None
        As `quantiles` returns it.
    size : (int, int)
        H and W of the masks.

    Returns
    -------
    Tensor
        (n, k, H, W) bool, on the CPU; none of them empty.
    """
    n, k = chosen.index.shape
    if level is None or not n:
        return torch.ones(n, k, 1, 1, dtype=torch.bool).expand(-1, -1, *size)
    neurons = chosen.live.nonzero().expand(n, k).flatten()  # of each exemplar

    def of_exemplars(maps: list[Tensor], places: Tensor) -> Tensor:
        own = neurons[places]
        return threshold(maps[0][0].cpu()[own], level[own], size)

    index, label = chosen.index, "MILAN's masks"
    return _per_exemplar(target, [layer], images, index, of_exemplars, label, options)


def threshold(a: Tensor, level: Tensor, size: tuple[int, int]) -> Tensor:
    """Return where resized maps exceed a level; the whole image if they nowhere do.

    Parameters
    ----------
    a : Tensor
        (R, h, w) maps.
    level : Tensor
        (R,) one for each.
    size : (int, int)
        H and W.

    Returns
    -------
    Tensor
        (R, H, W) bool, none of them empty.
    """
    large = functional.interpolate(a[None], size, mode="bilinear", align_corners=False)[0]
    found = large > level[:, None, None]
    return found | ~found.any(2, keepdim=True).any(1, keepdim=True)


def features(
    encoder: Target,
    stages: Sequence[str],
    images: ImageSet,
    index: Tensor,
    masks: Tensor,
    **options,
) -> Tensor:
    """Compute the encoder's features of exemplars, pooled over their masks.

    Parameters
    ----------
    encoder : Target
    stages : sequence of str
        Layers of the encoder.
    images : ImageSet
    index : Tensor of int64
        (n, k) exemplars.
    masks : Tensor
        (n, k, H, W) bool.
    **options
        Fields of `distributed.Options`; results are not stored.

    Returns
    -------
    Tensor
        E (n, k, F), on the CPU. Each distinct image passes the encoder once.
    """
    flat = masks.flatten(0, 1)

    def of_exemplars(maps: list[Tensor], places: Tensor) -> Tensor:
        return pool(maps, flat[places][None])[0].cpu()

    return _per_exemplar(encoder, stages, images, index, of_exemplars, "MILAN's features", options)


def _per_exemplar(
    target: Target,
    layers: Sequence[str],
    images: ImageSet,
    index: Tensor,
    of_exemplars: Callable[[list[Tensor], Tensor], Tensor],
    label: str,
    options: dict,
) -> Tensor:
    """Compute a tensor for each of the (n, k) exemplars in one pass over their distinct images.

    `of_exemplars` takes the layers' maps (1, N, h, w) for an image and its places among the
    flattened exemplars, p in number, and returns (p, ...).
    """
    distinct, number = index.flatten().unique(return_inverse=True)

    @torch.inference_mode()
    def step(_: list[str], indices: Tensor, x: Tensor) -> dict[str, State]:
        maps = layer_maps(target, layers, x).values()
        places = [(number == i).nonzero()[:, 0] for i in indices]
        values = [of_exemplars([a[[row]] for a in maps], own) for row, own in enumerate(places)]
        return {label: {"places": torch.cat(places), "values": torch.cat(values)}}

    shown = subset(images, distinct.tolist())
    p = Pass(target, shown, [label], step, concatenate, "milan-exemplars", label=label)
    found = run(p, **{**options, "store": None, "actors": 0})
    places, values = found[label]["places"], found[label]["values"]
    return values[places.argsort()].unflatten(0, index.shape)
