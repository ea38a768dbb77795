"""MILAN's exemplars: which images, the masks of the regions that excite a neuron, their features.

A mask is where a neuron's map exceeds its .99 quantile over all positions of all probe images. An
exemplar whose map nowhere exceeds it (exemplars of a token network are ranked by the class token)
has a mask of the whole image, and so have all exemplars of layers without maps, such as the logits.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from wwwlib.baselines.common import above, layer_maps, thresholds, visible_box
from wwwlib.baselines.milan.networks import Describer, pool
from wwwlib.distributed import Pass, State, concatenate, run
from wwwlib.exemplars import OK, Exemplars
from wwwlib.images import ImageSet, subset
from wwwlib.targets import Target

_TOLERANCE = 0.02  # of an image's side, between the views of two networks


@dataclass(frozen=True)
class Chosen:
    """The exemplars of the N neurons of a layer.

    Attributes
    ----------
    images : ImageSet
        The probe set.
    index : Tensor of int64, shape (N, k)
        Best first; the first image stands for those that are missing.
    live : Tensor of bool, shape (N,)
        Which neurons have a status of `OK` and k exemplars. The others abstain.
    """

    images: ImageSet
    index: Tensor
    live: Tensor


def choose(exemplars: Exemplars, images: ImageSet, k: int) -> Chosen:
    """Return the first k exemplars of each neuron.

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
    index = exemplars.first(k).index.cpu()
    return Chosen(images, index.clamp(min=0), (exemplars.status.cpu() == OK) & (index >= 0).all(1))


def masks(
    target: Target, layer: str, chosen: Chosen, quantile: float, encoder: Target, **options
) -> Tensor:
    """Compute the mask of every exemplar; each distinct image passes the network once.

    Parameters
    ----------
    target : Target
    layer : str
    chosen : Chosen
        Of the same layer, N neurons with k exemplars each.
    quantile : float
        In (0, 1), of all positions of a neuron's maps.
    encoder : Target
        The network to whose input, (3, H, W), masks will be applied.
    **options
        Fields of `distributed.Options`. The store keeps the quantiles.

    Returns
    -------
    Tensor
        (N, k, H, W) bool, on the CPU; none of them empty. For a layer without maps (N, k, 1, 1).

    Raises
    ------
    ValueError
        If the quantile is out of range, the layer has another number of neurons, or target and
        encoder use different parts of an image.
    """
    if not 0 < quantile < 1:
        raise ValueError(f"quantile is {quantile}; it must lie between 0 and 1, as .99 does.")
    image, (n, k) = chosen.images.image(0), chosen.index.shape
    _, neurons, *grid = layer_maps(target, [layer], target.preprocess(image)[None])[layer].shape
    if neurons != n:
        raise ValueError(
            f"There are exemplars of {n} neurons, but {layer!r} of {target.name} has {neurons}; "
            "give the exemplars of that layer."
        )
    if grid == [1, 1]:
        return torch.ones(n, k, 1, 1, dtype=torch.bool)
    _check_same_part(target, encoder, image.size)
    # 1 - .99 is a little more than .01
    level = thresholds(target, chosen.images, [layer], round(1 - quantile, 12), **options)[layer]
    size = tuple(encoder.preprocess(image).shape[1:])

    def of_exemplars(maps: list[Tensor], places: Tensor) -> Tensor:
        own = places // k
        return threshold(maps[0][0].cpu()[own], level[own], size)

    return _per_exemplar(target, [layer], chosen, of_exemplars, "MILAN's masks", options)


def _check_same_part(target: Target, encoder: Target, size: tuple[int, int]) -> None:
    own, other = (visible_box(network, size) for network in (target, encoder))
    if max(abs(a - b) for a, b in zip(own, other, strict=True)) > _TOLERANCE:
        raise ValueError(
            f"Of an image of {size[0]} x {size[1]} pixels, {target.name} uses the part "
            f"{tuple(round(share, 2) for share in own)} and the describer's {encoder.name} "
            f"{tuple(round(share, 2) for share in other)}; give the target a preprocessing that "
            "shows the same part as the describer's."
        )


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
    found = above(a, level, size)
    return found | ~found.any(2, keepdim=True).any(1, keepdim=True)


def features(describer: Describer, chosen: Chosen, masks: Tensor, **options) -> Tensor:
    """Compute the describer's features of exemplars, pooled over their masks.

    Parameters
    ----------
    describer : Describer
    chosen : Chosen
        Of N neurons, k each.
    masks : Tensor
        (N, k, H, W) bool.
    **options
        Fields of `distributed.Options`; results are not stored.

    Returns
    -------
    Tensor
        E (N, k, F), on the CPU. Each distinct image passes the encoder once.
    """
    flat, encoder, stages = masks.flatten(0, 1), describer.encoder, describer.stages

    def of_exemplars(maps: list[Tensor], places: Tensor) -> Tensor:
        return pool(maps, flat[places][None])[0].cpu()

    return _per_exemplar(encoder, stages, chosen, of_exemplars, "MILAN's features", options)


def _per_exemplar(target, layers, chosen, of_exemplars, label, options) -> Tensor:
    """Compute a tensor for each of the (N, k) exemplars in one pass over their distinct images.

    `of_exemplars` takes the layers' maps (1, N, h, w) for an image and its places among the
    flattened exemplars, p in number, and returns (p, ...).
    """
    distinct, number = chosen.index.flatten().unique(return_inverse=True)

    @torch.inference_mode()
    def step(_: list[str], indices: Tensor, x: Tensor) -> dict[str, State]:
        maps = layer_maps(target, layers, x).values()
        places = [(number == i).nonzero()[:, 0] for i in indices]
        values = [of_exemplars([a[[row]] for a in maps], own) for row, own in enumerate(places)]
        return {label: {"places": torch.cat(places), "values": torch.cat(values)}}

    shown = subset(chosen.images, distinct.tolist())
    p = Pass(target, shown, [label], step, concatenate, "milan-exemplars", label=label)
    found = run(p, **{**options, "store": None, "actors": 0})
    places, values = found[label]["places"], found[label]["values"]
    return values[places.argsort()].unflatten(0, chosen.index.shape)
