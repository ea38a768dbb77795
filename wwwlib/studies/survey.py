"""Explanations of many images at once: how evidence for image and class agrees, and its names.

r, the paper's measure, compares two heatmaps. The other readings compare what heatmaps are made of:
the neurons that both share, the two contribution vectors, and the share of the strongest neurons.
"""

import warnings
from collections.abc import Mapping, Sequence
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from wwwlib import maps
from wwwlib.contributions import contribute_all, head
from wwwlib.distributed import Pass, State, concatenate, run
from wwwlib.images import ImageSet, image_set, subset
from wwwlib.scores import Words
from wwwlib.store import tensor_digest
from wwwlib.targets import Target

READINGS = ("r", "r_sample", "r_class", "overlap", "correlation", "carried")
Readings = dict[str, Tensor]  # (B,) each


@torch.no_grad()
def readings(a: Tensor, w: Tensor, general: Tensor, top: int, size: maps.Size = None) -> Readings:
    """Compare the contributions of images with those of their classes: high is agreement.

    Parameters
    ----------
    a : Tensor
        (B, N, h, w) activation maps.
    w : Tensor
        (B, N) contributions to the prediction.
    general : Tensor
        (B, N) class contributions of the predicted classes; rows that are not finite are unknown.
    top : int
        Neurons per heatmap, k.
    size : int, (int, int) or None
        Of the heatmaps; see `maps.resize`.

    Returns
    -------
    dict of str to Tensor
        (B,) float64 each, nan where there is nothing to compare: no images of that class, or no
        positive contribution. "r": cosine of the sample's heatmap and the class's, each of its own
        top k, in [0, 1]; "r_sample", "r_class": the same with both heatmaps over the sample's top
        k, and over the class's; "overlap": share of the two top-k sets that is common, in [0, 1];
        "correlation": Pearson's, of the two contribution vectors over all N neurons; "carried":
        share of the sample's whole contribution that its top k carry.

    References
    ----------
    WWW, section 3.4 and Figure 4: heatmap similarity.
    """
    w, general = w.to(a.device), general.to(a.device)
    known = (general.isfinite() & w.isfinite()).all(1) & a.flatten(1).isfinite().all(1)
    known &= (general > 0).any(1) & (w > 0).any(1)
    every = a.new_full((len(READINGS), len(a)), torch.nan, dtype=torch.float64)
    # In float64: most r are so near to 1 that float32 would tie them.
    a, w, general = (one[known].double() for one in (a, w, general))
    mine, theirs = _members(w, top), _members(general, top)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of zero maps, whose r is nan
        sample, cls = maps.heatmap(a, w, top, size), maps.heatmap(a, general, top, size)
        cls_here = maps.heatmap(a, general * mine, top, size)
        sample_there = maps.heatmap(a, w * theirs, top, size)
    pairs = (sample, cls), (sample, cls_here), (sample_there, cls)
    overlap = (mine & theirs).sum(1).double() / mine.sum(1)
    carried = (w.abs() * mine).sum(1) / w.abs().sum(1)
    agree = [maps.similarity(*pair) for pair in pairs]
    centred = [v - v.mean(1, keepdim=True) for v in (w, general)]
    every[:, known] = torch.stack([*agree, overlap, torch.cosine_similarity(*centred), carried])
    return dict(zip(READINGS, every.cpu(), strict=True))


def _members(w: Tensor, top: int) -> Tensor:
    """Return (B, N) bool: the strongest `top` neurons of each row."""
    index, _ = maps.strongest(w, top)
    return torch.zeros_like(w, dtype=torch.bool).scatter(1, index, True)


class Surveyed(NamedTuple):
    """Predictions of n images and the readings of their explanations.

    Attributes
    ----------
    logits : Tensor of float32, shape (n, C)
    predicted : Tensor of int64, shape (n,)
    readings : dict of (layer, k) to dict of str to Tensor
        (n,) each, see the function `readings`.
    """

    logits: Tensor
    predicted: Tensor
    readings: dict[tuple[str, int], Readings]

    def at(self, chosen: Tensor) -> "Surveyed":
        """Return the results of some images: a mask (n,) or indices."""
        read = {k: {n: v[chosen] for n, v in one.items()} for k, one in self.readings.items()}
        return Surveyed(self.logits[chosen], self.predicted[chosen], read)


def survey(
    target: Target, images: ImageSet, class_w: Mapping[str, Tensor], tops: Sequence[int], **options
) -> Surveyed:
    """Compute the readings of every image of a set, in one pass.

    Parameters
    ----------
    target : Target
    images : ImageSet
        The tested images, none of them behind `class_w`; see `check_apart`.
    class_w : mapping of str to Tensor
        For each layer the class contributions (C, N); rows of nan for unknown classes.
    tops : sequence of int
        Neurons per heatmap, k; results are computed for each.
    **options
        Fields of `distributed.Options`.

    Returns
    -------
    Surveyed
    """
    heads = {layer: head(target, layer) or False for layer in class_w}

    def step(names: list[str], indices: Tensor, x: Tensor) -> dict[str, State]:
        found = contribute_all(target, x, class_w, linear=heads)
        one = next(iter(found.values()))
        state = {"logits": one.logits.float().cpu(), "predicted": one.classes.cpu()}
        for layer, seen in found.items():
            general = class_w[layer].cpu()[seen.classes.cpu()]
            for top in tops:
                read = readings(seen.activations.maps, seen.w, general, top, tuple(x.shape[-2:]))
                state |= {f"{layer}|{top}|{name}": v for name, v in read.items()}
        return {name: state for name in names}

    key = {"class_w": tensor_digest(dict(class_w)), "layers": list(class_w), "tops": list(tops)}
    reading = Pass(target, images, ["survey"], step, concatenate, "survey", key, label="survey")
    state = run(reading, **options)["survey"]
    keys = product(class_w, tops)
    read = {(at, k): {name: state[f"{at}|{k}|{name}"] for name in READINGS} for at, k in keys}
    return Surveyed(state["logits"], state["predicted"], read)


# Names ---------------------------------------------------------------------------------------


class NamedTracks(NamedTuple):
    """The names in the explanations of B images.

    Attributes
    ----------
    predicted : Tensor of int64, shape (B,)
        The predicted classes.
    sample, cls : list of list of str
        For each image the major concepts of the neurons of its sample track, and of its predicted
        class's track, the most important neuron's first. Names may be repeated.
    """

    predicted: Tensor
    sample: list[list[str]]
    cls: list[list[str]]


def named_tracks(
    target: Target, images: ImageSet, layer: str, names: Words, w: Tensor, top: int = 5, **options
) -> NamedTracks:
    """Name the neurons of both tracks of every image, as `Atlas.explain` does.

    Parameters
    ----------
    target : Target
    images : ImageSet
        The B images.
    layer : str
        A layer of N neurons.
    names : sequence of sequence of str
        The major concepts of its neurons, as `concepts.discover` finds them.
    w : Tensor
        (C, N) class contributions, as `LayerRecord.class_w`.
    top : int
        Neurons per track.
    **options
        Fields of `distributed.Options`.

    Returns
    -------
    NamedTracks

    Raises
    ------
    ValueError
        If a predicted class has no class contributions, or the network's output is not finite.
    """
    heads = {layer: head(target, layer) or False}

    def step(layers: list[str], indices: Tensor, x: Tensor) -> dict[str, State]:
        found = contribute_all(target, x, layers, linear=heads)
        return {name: {"w": one.w, "predicted": one.classes} for name, one in found.items()}

    found = run(Pass(target, images, [layer], step, concatenate, "contributions"), **options)[layer]
    # The strongest neurons of every image, by its own contributions and by those of its class.
    both = [maps.strongest(one, top)[0].tolist() for one in (found["w"], w[found["predicted"]])]
    named = ([[name for i in row for name in names[i]] for row in rows] for rows in both)
    return NamedTracks(found["predicted"], *named)


def distinct(images: ImageSet) -> ImageSet:
    """Remove images whose content equals that of an earlier image with another name."""
    kept = sorted({image_set.content(images, i): i for i in reversed(range(len(images)))}.values())
    return images if len(kept) == len(images) else subset(images, kept)
