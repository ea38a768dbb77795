"""How far the evidence for one image and for its class agree: where both look, and whose it is.

r, the paper's reading, compares two heatmaps. The others compare what the heatmaps are made of: the
neurons that both share, the two contribution vectors, and how much the strongest neurons carry.
"""

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from wwwlib import maps


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
    """Compare the contributions of images with those of their classes: pure, no image is read.

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

    In float64: most r lie so near to 1 that float32 would tie them.
    """
    a, w, general = a.double(), w.double(), general.double()
    mine, theirs = _members(w, top), _members(general, top)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of zero maps, whose r is nan
        sample, cls = maps.heatmap(a, w, top, size), maps.heatmap(a, general, top, size)
        cls_here = maps.heatmap(a, general * mine, top, size)
        sample_there = maps.heatmap(a, w * theirs, top, size)
    whole = w.abs().sum(1)
    return (
        maps.similarity(sample, cls),
        maps.similarity(sample, cls_here),
        maps.similarity(sample_there, cls),
        (mine & theirs).sum(1).double() / mine.sum(1),
        _correlation(w, general),
        (w.abs() * mine).sum(1) / whole,
    )


def _members(w: Tensor, top: int) -> Tensor:
    """Return (B, N) bool: the strongest `top` neurons of each row."""
    index, _ = maps.strongest(w, top)
    return torch.zeros_like(w, dtype=torch.bool).scatter(1, index, True)


def _correlation(u: Tensor, v: Tensor) -> Tensor:
    u, v = (x.double() - x.double().mean(1, keepdim=True) for x in (u, v))
    return (u * v).sum(1) / (u.norm(dim=1) * v.norm(dim=1))
