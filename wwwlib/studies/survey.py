"""Explanations of many images at once: how evidence for image and class agrees, and its names.

r, the paper's measure, compares two heatmaps. The other readings compare what heatmaps are made of:
the neurons that both share, the two contribution vectors, and the share of the strongest neurons.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from wwwlib import maps
from wwwlib.contributions import contribute_all, head
from wwwlib.distributed import Pass, State, concatenate, run
from wwwlib.images import ImageSet, subset
from wwwlib.images.image_set import content
from wwwlib.store import tensor_digest
from wwwlib.targets import Target


@dataclass(frozen=True, eq=False)
class Readings:
    """How an image's explanation agrees with that of its predicted class; high is agreement.

    All are (B,) float64, nan where there is nothing to compare: no images of that class, or no
    positive contribution.

    Attributes
    ----------
    r : Tensor
        Cosine of the sample's heatmap and the class's, each of its own top k, in [0, 1].
    r_sample, r_class : Tensor
        The same with both heatmaps over the sample's top k, and over the class's.
    overlap : Tensor
        Share of the two top-k sets that is common, in [0, 1].
    correlation : Tensor
        Pearson's, of the two contribution vectors over all N neurons.
    carried : Tensor
        Share of the sample's whole contribution that its top k carry.
    """

    r: Tensor
    r_sample: Tensor
    r_class: Tensor
    overlap: Tensor
    correlation: Tensor
    carried: Tensor


@torch.no_grad()
def readings(
    a: Tensor, w: Tensor, general: Tensor, top: int = 5, size: maps.Size = None
) -> Readings:
    """Compare the contributions of images with those of their classes.

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
    Readings

    References
    ----------
    WWW, section 3.4 and Figure 4: heatmap similarity.
    """
    general = general.to(a.device)
    known = (general.isfinite() & w.isfinite()).all(1) & a.flatten(1).isfinite().all(1)
    known &= (general > 0).any(1) & (w > 0).any(1)
    found = _compare(a[known], w[known].to(a.device), general[known], top, size)
    filled = []
    for values in found:
        every = torch.full((len(a),), torch.nan, dtype=torch.float64, device=a.device)
        every[known] = values
        filled.append(every.cpu())
    return Readings(*filled)


def _compare(a, w, general, top, size) -> tuple[Tensor, ...]:
    """Return the readings of images all of whose values are known.

    In float64: most r are so near to 1 that float32 would tie them.
    """
    a, w, general = a.double(), w.double(), general.double()
    mine, theirs = _members(w, top), _members(general, top)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of zero maps, whose r is nan
        sample, cls = maps.heatmap(a, w, top, size), maps.heatmap(a, general, top, size)
        cls_here = maps.heatmap(a, general * mine, top, size)
        sample_there = maps.heatmap(a, w * theirs, top, size)
    return (
        maps.similarity(sample, cls),
        maps.similarity(sample, cls_here),
        maps.similarity(sample_there, cls),
        (mine & theirs).sum(1).double() / mine.sum(1),
        _correlation(w, general),
        (w.abs() * mine).sum(1) / w.abs().sum(1),
    )


def _members(w: Tensor, top: int) -> Tensor:
    """Return (B, N) bool: the strongest `top` neurons of each row."""
    index, _ = maps.strongest(w, top)
    return torch.zeros_like(w, dtype=torch.bool).scatter(1, index, True)


def _correlation(u: Tensor, v: Tensor) -> Tensor:
    u, v = (x - x.mean(1, keepdim=True) for x in (u, v))
    return (u * v).sum(1) / (u.norm(dim=1) * v.norm(dim=1))


@dataclass(frozen=True, eq=False)
class Surveyed:
    """Predictions of n images and the readings of their explanations.

    Attributes
    ----------
    logits : Tensor of float32, shape (n, C)
    predicted : Tensor of int64, shape (n,)
    readings : dict of (layer, k) to Readings
        (n,) each.
    """

    logits: Tensor
    predicted: Tensor
    readings: dict[tuple[str, int], Readings]

    def at(self, chosen: Tensor) -> "Surveyed":
        """Return the results of some images: a mask (n,) or indices."""
        read = {
            key: Readings(*(getattr(one, each.name)[chosen] for each in fields(one)))
            for key, one in self.readings.items()
        }
        return Surveyed(self.logits[chosen], self.predicted[chosen], read)


def survey(
    target: Target,
    images: ImageSet,
    class_w: Mapping[str, Tensor],
    tops: Sequence[int],
    signed: bool = False,
    **options: object,
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
    signed : bool
        Whether contributions keep their sign, as those of the classes did.
    **options
        Fields of `distributed.Options`.

    Returns
    -------
    Surveyed
    """
    heads = {layer: head(target, layer) or False for layer in class_w}

    def step(names: list[str], indices: Tensor, x: Tensor) -> dict[str, State]:
        found = contribute_all(target, x, class_w, signed=signed, linear=heads)
        one = next(iter(found.values()))
        state = {"logits": one.logits.float().cpu(), "predicted": one.classes.cpu()}
        for layer, seen in found.items():
            a = seen.activations.maps.double()
            general = class_w[layer].cpu()[seen.classes.cpu()]
            for top in tops:
                read = readings(a, seen.w, general, top, tuple(x.shape[-2:]))
                for each in fields(read):
                    state[f"{layer}|{top}|{each.name}"] = getattr(read, each.name)
        return {name: state for name in names}

    key = {"class_w": tensor_digest(dict(class_w)), "layers": list(class_w)}
    key |= {"tops": list(tops), "signed": signed}
    reading = Pass(target, images, ["survey"], step, concatenate, "survey", key, label="survey")
    state = run(reading, **options)["survey"]
    read = {
        (layer, top): Readings(*(state[f"{layer}|{top}|{each.name}"] for each in fields(Readings)))
        for layer in class_w
        for top in tops
    }
    return Surveyed(state["logits"], state["predicted"], read)


# Names ---------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class NamedTracks:
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
    target: Target,
    images: ImageSet,
    layer: str,
    names: Sequence[Sequence[str]],
    class_w: Tensor,
    top: int = 5,
    **options: object,
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
    class_w : Tensor
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

    contributions = Pass(target, images, [layer], step, concatenate, "contributions")
    found = run(contributions, **options)[layer]
    return NamedTracks(
        predicted=found["predicted"],
        sample=_named(found["w"], names, top),
        cls=_named(class_w[found["predicted"]], names, top),
    )


def _named(w: Tensor, names: Sequence[Sequence[str]], top: int) -> list[list[str]]:
    """Return the names of the neurons with the largest w (B, N), row by row."""
    rows = maps.strongest(w, top)[0].tolist()
    return [[name for i in row for name in names[i]] for row in rows]


def distinct(images: ImageSet) -> ImageSet:
    """Remove images whose content equals that of an earlier image with another name."""
    first = {content(images, i): i for i in reversed(range(len(images)))}
    kept = sorted(first.values())
    return images if len(kept) == len(images) else subset(images, kept)
