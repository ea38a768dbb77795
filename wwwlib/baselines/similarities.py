"""CLIP-Dissect's similarity functions, as streams of scores over blocks of concepts.

Each yields the scores (N, b) of N neurons for the next b of M concepts, from image features
`v` (I, D) and text features `t` (M, D), whose product P (I, M) is never held. No intermediate has
more than about `BLOCK` elements, whatever M is; whoever reads the stream keeps what it needs.
"""

from collections.abc import Iterator
from math import log

import torch
from torch import Tensor

BLOCK = 2**24  # 64 MiB in float32


def information(
    v: Tensor, t: Tensor, index: Tensor, weights: Tensor, temperature: float, lam: float
) -> Iterator[Tensor]:
    """Yield (soft) weighted pointwise mutual information.

    Parameters
    ----------
    v, t : Tensor
        (I, D) and (M, D) unit-norm features.
    index : Tensor
        (N, K) int64, each neuron's exemplars as rows of `v`.
    weights : Tensor
        (K,) the probability that the exemplar of each rank belongs, in [0, 1].
    temperature : float
        Of the softmax over concepts.
    lam : float
        Weight of the layer's prior.
    """
    rows, place = index.unique(return_inverse=True)
    v, (neurons, k) = temperature * v[rows], index.shape
    size = max(1, BLOCK // max(len(v), neurons, k))
    total = v.new_full((len(v),), -torch.inf)
    for part in t.split(size):
        total = total.logaddexp((v @ part.T).logsumexp(1))
    # 1 + w (p - 1) as (1 - w) + w p, in logarithms: nothing cancels, nothing underflows.
    outside, inside = torch.log1p(-weights).unsqueeze(1), weights.log().unsqueeze(1)
    for part in t.split(size):
        log_p = v @ part.T - total.unsqueeze(1)
        joint = [
            torch.logaddexp(outside, inside + log_p[some]).sum(1)
            for some in place.split(max(1, BLOCK // (k * len(part))))
        ]
        joint = torch.cat(joint)
        yield joint - lam * (joint.logsumexp(0) - log(neurons))


def reordered(
    v: Tensor, t: Tensor, order: Tensor, ranked: Tensor, p: float, scale: float
) -> Iterator[Tensor]:
    """Yield minus the p-norm distances between activations and their reordering by concept.

    `order` (R, N) holds the rows of each neuron's R most active images, `ranked` (R, N) their
    activations, best first. The image whose similarity to the concept is the i-th largest of the
    R gets the i-th largest activation; what it had is compared with what it got.
    """
    for part in t.split(max(1, BLOCK // max(order.shape))):
        moved = []
        for rows, own in zip(order.T, ranked.T, strict=True):
            similarity = v[rows] @ part.T
            given = own[similarity.argsort(dim=0, descending=True, stable=True)]
            distance = (given - own.unsqueeze(1)).norm(p, dim=0)
            level = similarity.mean(0).clamp_min(torch.finfo(v.dtype).tiny)
            moved.append(distance / level ** (scale / p) if scale else distance)
        yield -torch.stack(moved)


def cosines(v: Tensor, t: Tensor, z: Tensor) -> Iterator[Tensor]:
    """Yield cosines of the columns of z (I, N) with those of P.

    P is linear in v, so that (N, D) and (D, D) matrices stand for all images.
    """
    direction, square = _unit(z).T @ v, v.T @ v
    for part in t.split(max(1, BLOCK // max(z.shape[1], v.shape[1]))):
        length = ((part @ square) * part).sum(1).clamp_min(0).sqrt()
        yield direction @ part.T / length.clamp_min(torch.finfo(v.dtype).tiny)


def cubed(v: Tensor, t: Tensor, z: Tensor) -> Iterator[Tensor]:
    """Yield cosines of the columns of z (I, N) with the cubes of those of P."""
    z = _unit(z)
    for part in t.split(max(1, BLOCK // max(z.shape))):
        yield z.T @ _unit((v @ part.T).pow_(3))


def _unit(columns: Tensor) -> Tensor:
    """Scale columns to unit norm; columns of zeros stay."""
    return columns / columns.norm(dim=0).clamp_min(torch.finfo(columns.dtype).tiny)
