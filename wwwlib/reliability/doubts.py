"""Doubts: what the logits say about a prediction, and what its explanation says.

Softmax doubts read the logits alone. Readings of an explanation compare the contributions of this
image with those of its class in general: where both look (r), which neurons they share, how the
two vectors correlate, and how much of the evidence the strongest neurons carry.
"""

import warnings
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from wwwlib import maps


def softmax_doubts(logits: Tensor) -> dict[str, Tensor]:
    """Return four doubts that read the logits alone.

    Parameters
    ----------
    logits : Tensor
        (B, C), C at least 2.

    Returns
    -------
    dict of str to Tensor
        (B,) float64 each: "max softmax", one less the highest probability, precise where that is
        close to one; "entropy" of the probabilities, in nats; "margin", one less the gap of the two
        highest probabilities; "energy", the negative log-sum-exp of the logits.

    Raises
    ------
    ValueError
        If there are fewer than two classes, or a logit is not finite.
    """
    if logits.ndim != 2 or logits.shape[1] < 2 or not logits.isfinite().all():
        raise ValueError(
            f"The logits have shape {tuple(logits.shape)}; expected finite values of shape (B, C) "
            "with at least two classes."
        )
    logits = logits.detach().double()
    ranked = logits.sort(1, descending=True).values
    rest = (ranked[:, 1:] - ranked[:, :1]).exp()  # beside the best class, whose value is 1
    odds = rest.sum(1)
    logs = logits.log_softmax(1)
    return {
        "max softmax": odds / (1 + odds),
        "entropy": -(logs.exp() * logs).sum(1),
        "margin": (odds + rest[:, 0]) / (1 + odds),
        "energy": -logits.logsumexp(1),
    }


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

    def doubts(self) -> dict[str, Tensor]:
        """Return one less each reading; what cannot be compared counts as no agreement."""
        return {f.name: 1 - getattr(self, f.name).nan_to_num(0.0) for f in fields(self)}


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
    general = general.to(a)
    known = (general.isfinite() & w.isfinite()).all(1) & a.flatten(1).isfinite().all(1)
    known &= (general > 0).any(1) & (w > 0).any(1)
    found = _compare(a[known], w[known].to(a), general[known], top, size)
    filled = []
    for values in found:
        every = torch.full((len(a),), torch.nan, dtype=torch.float64, device=a.device)
        every[known] = values.double()
        filled.append(every.cpu())
    return Readings(*filled)


def _compare(a, w, general, top, size) -> tuple[Tensor, ...]:
    """Return the readings of images all of whose values are known."""
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
        (mine & theirs).sum(1) / mine.sum(1),
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
