"""Which part of its exemplars excites a neuron: what exceeds its .99 quantile, as MILAN cuts it.

The quantile is over all positions of all probe images. An exemplar that nowhere exceeds it (the
exemplars of a token network are ranked by the class token, whose maps lie elsewhere), and layers
without maps, such as the logits, show the whole image.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from wwwlib.activations import capture
from wwwlib.baselines.thresholds import thresholds
from wwwlib.exemplars import OK, Exemplars, stream
from wwwlib.images import ImageSet, subset
from wwwlib.store import Store
from wwwlib.targets import Target

Options = tuple[int, int, bool]  # batch size, workers and progress of `exemplars.stream`


@dataclass(frozen=True)
class Alive:
    """The neurons of a layer that have exemplars.

    Attributes
    ----------
    index : Tensor of int64, shape (n, k)
        Their exemplars, best first.
    live : Tensor of bool, shape (N,)
        Which of the layer's neurons they are.
    """

    index: Tensor
    live: Tensor


@dataclass(frozen=True)
class Plan:
    """The distinct images among exemplars, and where each of them stands.

    Attributes
    ----------
    images : tuple of int
        In ascending order.
    places : tuple of Tensor
        For each of them its positions in the flattened (n, k) exemplars.
    """

    images: tuple[int, ...]
    places: tuple[Tensor, ...]

    def of(self, images: ImageSet) -> ImageSet:
        """Return these images only."""
        return subset(images, self.images)


def alive(exemplars: Exemplars, images: ImageSet, k: int) -> Alive:
    """Return the first k exemplars of the neurons that have as many.

    Raises
    ------
    ValueError
        If fewer were collected, or from another probe set.
    """
    if not 1 <= k <= exemplars.index.shape[1]:
        raise ValueError(
            f"k is {k}, but {exemplars.index.shape[1]} exemplars were collected; give 1 to that, "
            "or collect more."
        )
    if exemplars.images != len(images):
        raise ValueError(
            f"The exemplars were collected from {exemplars.images} images, but {images.name!r} has "
            f"{len(images)}; give the probe set that they come from."
        )
    index = exemplars.index[:, :k].cpu()
    live = (exemplars.status.cpu() == OK) & (index >= 0).all(1)
    return Alive(index[live], live)


def plan(index: Tensor) -> Plan:
    """Sort exemplars (n, k) by image, so that each image is read once."""
    distinct, inverse, counts = index.flatten().unique(return_inverse=True, return_counts=True)
    places = inverse.argsort(stable=True).split(counts.tolist())
    return Plan(tuple(distinct.tolist()), places)


def levels(
    target: Target,
    layer: str,
    images: ImageSet,
    exemplars: Alive,
    quantile: float,
    options: Options = (64, 0, True),
    store: Store | None = None,
) -> Tensor | None:
    """Return the quantile (N,) of each neuron of a layer; None for a layer without maps.

    Parameters
    ----------
    target : Target
    layer : str
    images : ImageSet
    exemplars : Alive
        Of the same layer.
    quantile : float
        In (0, 1).
    options : (int, int, bool)
        Batch size, workers and progress of `exemplars.stream`.
    store : Store, optional
        Keeps the quantiles.

    Raises
    ------
    ValueError
        If the quantile is out of range, or the layer has another number of neurons.
    """
    if not 0 < quantile < 1:
        raise ValueError(f"quantile is {quantile}; it must lie between 0 and 1, as .99 does.")
    neurons, cells = _shape(target, images, layer)
    if neurons != len(exemplars.live):
        raise ValueError(
            f"There are exemplars of {len(exemplars.live)} neurons, but {layer!r} of "
            f"{target.name} has {neurons}; give the exemplars of that layer."
        )
    if cells == 1:
        return None
    batch_size, workers, progress = options
    share = round(1 - quantile, 12)  # 1 - .99 is a little more than .01
    return thresholds(target, images, [layer], share, batch_size, workers, store, progress)[layer]


@torch.inference_mode()
def masked(
    target: Target,
    layer: str,
    images: ImageSet,
    exemplars: Alive,
    level: Tensor | None,
    size: tuple[int, int],
    options: Options = (64, 0, True),
) -> Tensor:
    """Return the mask of every exemplar, each image passing the network once.

    Parameters
    ----------
    target, layer, images, options
        As for `levels`.
    exemplars : Alive
        Of n neurons, k each.
    level : Tensor or None
        As `levels` returns it.
    size : (int, int)
        H and W of the masks.

    Returns
    -------
    Tensor
        (n, k, H, W) bool, on the CPU; none of them empty.
    """
    where, (n, k) = plan(exemplars.index), exemplars.index.shape
    if level is None or not n:
        return torch.ones(n, k, 1, 1, dtype=torch.bool).expand(-1, -1, *size)
    number = exemplars.live.nonzero()[:, 0]  # among all neurons of the layer

    def step(state: dict, indices: Tensor, x: Tensor) -> dict:
        with capture(target, [layer]) as taken:
            target.model(x)
        kept = state.setdefault("masks", torch.zeros(n * k, *size, dtype=torch.bool))
        for row, i in enumerate(indices.tolist()):
            own = where.places[i]
            neurons = number[own // k]
            a = taken[layer].maps[row].float().cpu()[neurons]
            kept[own] = cut(a, level[neurons], size)
        return state

    state = stream(target, where.of(images), step, None, None, *options, label="MILAN's masks")
    return state["masks"].unflatten(0, (n, k))


@torch.inference_mode()
def _shape(target: Target, images: ImageSet, layer: str) -> tuple[int, int]:
    """Return how many neurons a layer has, and how many cells their maps."""
    with capture(target, [layer]) as taken:
        target.model(target.preprocess(images.image(0))[None].to(target.device))
    maps = taken[layer].maps
    return maps.shape[1], maps[0, 0].numel()


def cut(a: Tensor, threshold: Tensor, size: tuple[int, int]) -> Tensor:
    """Keep what exceeds the threshold once a map is enlarged; the whole image where nothing does.

    Parameters
    ----------
    a : Tensor
        (R, h, w) maps.
    threshold : Tensor
        (R,) one for each.
    size : (int, int)
        H and W.

    Returns
    -------
    Tensor
        (R, H, W) bool, none of them empty.
    """
    large = functional.interpolate(a[None], size, mode="bilinear", align_corners=False)[0]
    masks = large > threshold[:, None, None]
    return masks | ~masks.any(2, keepdim=True).any(1, keepdim=True)
