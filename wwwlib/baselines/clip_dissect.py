"""CLIP-Dissect: names neurons by the concept whose image similarities match their activations.

For I probe images, M concepts and N neurons there are two matrices: P (I, M), the cosines of image
features with text features, and z (I, N), the neuron activations. Five similarity functions
compare each column of z with every column of P. P is never held: it is computed from `v` (I, D) and
`t` (M, D) in blocks of concepts, each of which updates the best k of every neuron, so that 50,000
images and 82,115 words fit a laptop. No intermediate has more than about `BLOCK` elements.

The two functions based on mutual information need only the K most active images of a neuron, and so
start from `Exemplars`; the other three start from all activations (`common.activations`).

Oikarinen and Weng, "CLIP-Dissect: Automatic Description of Neuron Representations in Deep Vision
Networks", ICLR 2023. The method embeds bare words: `ConceptSet(words, template="{}")`.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from math import ceil, log

import torch
import torch.nn.functional as F
from torch import Tensor

from wwwlib.baselines.common import best_of_blocks, ranked_table
from wwwlib.concepts import ConceptTable
from wwwlib.exemplars import OK, Exemplars

BLOCK = 2**24  # elements of a block: 64 MiB in float32
# Scales columns to unit norm; columns of zeros stay.
_unit = partial(F.normalize, dim=0, eps=torch.finfo(torch.float32).tiny)


def soft_wpmi(
    v: Tensor,
    t: Tensor,
    exemplars: Exemplars,
    words: Sequence[str],
    k: int = 1,
    *,
    membership: tuple[float, float] = (0.998, 0.97),
    temperature: float = 10.0,
    lam: float = 1.0,
) -> ConceptTable:
    """Name neurons by soft weighted pointwise mutual information, the default of CLIP-Dissect.

    ``log E p(t_m | B_n) - lam log p(t_m)`` with ``E p(t_m | B_n) = prod_o [1 + w_o (p(t_m | x_o)
    - 1)]`` over the exemplars x_o of neuron n, where w_o is the probability that x_o belongs to
    the set B_n of images that activate it, and ``p(t | x) = softmax(temperature * P_x)`` over
    concepts. The prior p(t_m) is the mean of E p(t_m | B_n) over the neurons of the layer, so that
    a neuron's names depend on its layer.

    Parameters
    ----------
    v : Tensor
        (I, D) unit-norm features of all probe images.
    t : Tensor
        (M, D) unit-norm features of the concepts.
    exemplars : Exemplars
        The K most active images of N neurons; K = 100 in the paper.
    words : sequence of str
        The M concepts.
    k : int
        Number of names per neuron.
    membership : (float, float)
        w of the first and of the last exemplar, in [0, 1]; linear between them.
    temperature : float
        Of the softmax over concepts, a in the paper.
    lam : float
        Weight of the prior.

    Returns
    -------
    ConceptTable
        k names for each neuron; neurons whose status is not 0 abstain.

    Raises
    ------
    ValueError
        If the shapes do not fit together or an argument is out of range.
    """
    if not all(0 <= end <= 1 for end in membership):
        raise ValueError(f"membership is {membership}; give two probabilities in [0, 1].")
    _check(v, t, words, k, exemplars.images)
    live = (exemplars.status == OK) & (exemplars.index >= 0).all(1)
    index = exemplars.index[live].to(v.device)
    weights = torch.linspace(*membership, index.shape[1], dtype=v.dtype, device=v.device)
    return _table(_wpmi_blocks(v, t, index, weights, temperature, lam), live, words, k)


# Weighted pointwise mutual information, ``sum_o log p(t_m | x_o) - lam log p(t_m)``: every exemplar
# has membership 1. The authors' code uses K = 28 exemplars, temperature 2 and lam .6 for it.
wpmi = partial(soft_wpmi, membership=(1.0, 1.0))


def rank_reorder(
    v: Tensor,
    t: Tensor,
    z: Tensor | Iterable[Tensor],
    words: Sequence[str],
    k: int = 1,
    *,
    p: float = 3.0,
    share: float = 0.05,
    scale: float = 0.0,
) -> ConceptTable:
    """Name neurons by how little their activations change when reordered by the concept.

    ``-||q' - q||_p``, where q' holds the values of q in the order of P_m: the image whose
    similarity to the concept is the i-th largest gets the i-th largest activation. It is 0 where
    neuron and concept rank the images alike.

    Parameters
    ----------
    v, t, words, k
        As for :func:`soft_wpmi`.
    z : Tensor or iterable of Tensor
        (I, N) neuron activations on all probe images, or batches (B, N) of them in order; of
        equal activations, and of equal similarities, the earlier image comes first.
    p : float
        Of the norm, at least 1.
    share : float
        In (0, 1]: only this share of the images, those most active, is compared.
    scale : float
        At least 0. The authors' code divides the mean p-th power of the changes by this power (.5)
        of the concept's mean similarity to those images, which must be positive; the paper does
        not, and 0 leaves it out. (The code also divides by the value of random orders, which is
        the same for every concept of a neuron, changes no ranking and is left out here.)

    Returns
    -------
    ConceptTable
        k names for each neuron; neurons that are constant or not finite abstain.

    Raises
    ------
    ValueError
        If the shapes do not fit together or an argument is out of range.

    References
    ----------
    Oikarinen and Weng, ICLR 2023, appendix on similarity functions; `p` and `share` default to
    the values of the authors' code.
    """
    if p < 1 or not 0 < share <= 1 or scale < 0:
        raise ValueError(
            f"p = {p}, share = {share} and scale = {scale} must be at least 1, in (0, 1] and at "
            "least 0."
        )
    z, live = _activations(z, v, t, words, k)
    ranked, order = z.sort(dim=0, descending=True, stable=True)
    count = ceil(share * len(z))
    blocks = _reorder_blocks(v, t, order[:count], ranked[:count], p, scale)
    return _table(blocks, live, words, k)


def cos(
    v: Tensor,
    t: Tensor,
    z: Tensor | Iterable[Tensor],
    words: Sequence[str],
    k: int = 1,
    *,
    centred: bool = False,
) -> ConceptTable:
    """Name neurons by the cosine of their activations with a concept's similarities.

    P is linear in the image features, so neither it nor any of its columns is ever computed.

    Parameters
    ----------
    v, t, z, words, k
        As for :func:`rank_reorder`, and so are the result and the errors.
    centred : bool
        Subtract both columns' means first, which makes it Pearson's correlation.
    """
    z, live = _activations(z, v, t, words, k)
    if centred:
        v, z = v - v.mean(0), z - z.mean(0)
    return _table(_cosine_blocks(v, t, z), live, words, k)


def cos_cubed(
    v: Tensor, t: Tensor, z: Tensor | Iterable[Tensor], words: Sequence[str], k: int = 1
) -> ConceptTable:
    """Name neurons by the cosine of the cubes of both columns, each less its mean.

    Cubing emphasises the few images with high values. Arguments, result and errors are those of
    :func:`rank_reorder`.
    """
    z, live = _activations(z, v, t, words, k)
    return _table(_cubed_cosine_blocks(v - v.mean(0), t, (z - z.mean(0)).pow_(3)), live, words, k)


def _table(blocks: Iterator[Tensor], live: Tensor, words: Sequence[str], k: int) -> ConceptTable:
    """Keep the best k concepts of each live neuron over blocks (n, b) of scores."""
    value = torch.full((len(live), k), -torch.inf, dtype=torch.float64)
    index = torch.zeros(len(live), k, dtype=torch.int64)
    if live.any():
        best, columns = best_of_blocks(blocks, k)
        value[live], index[live] = best.to(value), columns.to(index)
    return ranked_table(value, index, [words] * len(live))


def _activations(
    z: Tensor | Iterable[Tensor], v: Tensor, t: Tensor, words: Sequence[str], k: int
) -> tuple[Tensor, Tensor]:
    """Return the activations of the live neurons in the dtype of `v`, and which are live (N,)."""
    z = z if isinstance(z, Tensor) else torch.cat(list(z))
    _check(v, t, words, k, len(z))
    live = z.isfinite().all(0) & (z.amax(0) > z.amin(0))
    return z[:, live].to(v), live


def _check(v: Tensor, t: Tensor, words: Sequence[str], k: int, images: int) -> None:
    if v.ndim != 2 or t.ndim != 2 or v.shape[1] != t.shape[1] or len(words) != len(t):
        raise ValueError(
            f"Image features {tuple(v.shape)}, concept features {tuple(t.shape)} and {len(words)} "
            "words do not fit: expected (I, D), (M, D) and M."
        )
    if len(v) != images:
        raise ValueError(
            f"There are features of {len(v)} images and activations on {images}; give the features "
            "of the whole probe set, in its order."
        )
    if not 1 <= k <= len(t):
        raise ValueError(f"k is {k}, but there are {len(t)} concepts; give 1 to {len(t)}.")


def _wpmi_blocks(
    v: Tensor, t: Tensor, index: Tensor, weights: Tensor, temperature: float, lam: float
) -> Iterator[Tensor]:
    """Yield soft-WPMI (N, b) of exemplars `index` (N, K) with membership `weights` (K,)."""
    rows, position = index.unique(return_inverse=True)
    v, (neurons, k) = temperature * v[rows], index.shape
    size = max(1, BLOCK // max(len(v), neurons, k))
    total = v.new_full((len(v),), -torch.inf)
    for part in t.split(size):
        total = total.logaddexp((v @ part.T).logsumexp(1))
    # 1 + w (p - 1) as (1 - w) + w p, in logarithms: nothing cancels, nothing underflows.
    outside, inside = torch.log1p(-weights).unsqueeze(1), weights.log().unsqueeze(1)
    for part in t.split(size):
        log_p = v @ part.T - total.unsqueeze(1)
        several = position.split(max(1, BLOCK // (k * len(part))))
        joint = [torch.logaddexp(outside, inside + log_p[some]).sum(1) for some in several]
        joint = torch.cat(joint)
        yield joint - lam * (joint.logsumexp(0) - log(neurons))


def _reorder_blocks(
    v: Tensor, t: Tensor, order: Tensor, ranked: Tensor, p: float, scale: float
) -> Iterator[Tensor]:
    """Yield minus the p-norm distances (N, b) between activations and their reordering.

    `order` (R, N) holds the rows of each neuron's R most active images, `ranked` (R, N) their
    activations, highest first. The image with the i-th largest similarity to the concept gets the
    i-th largest activation.
    """
    for part in t.split(max(1, BLOCK // max(order.shape))):
        distances = []
        for rows, own in zip(order.T, ranked.T, strict=True):
            similarity = v[rows] @ part.T
            given = own[similarity.argsort(dim=0, descending=True, stable=True)]
            distance = (given - own.unsqueeze(1)).norm(p, dim=0)
            level = similarity.mean(0).clamp_min(torch.finfo(v.dtype).tiny)
            distances.append(distance / level ** (scale / p) if scale else distance)
        yield -torch.stack(distances)


def _cosine_blocks(v: Tensor, t: Tensor, z: Tensor) -> Iterator[Tensor]:
    """Yield cosines (N, b) of the columns of z with those of P, which is linear in v."""
    direction, square = _unit(z).T @ v, v.T @ v
    for part in t.split(max(1, BLOCK // max(z.shape[1], v.shape[1]))):
        length = ((part @ square) * part).sum(1).clamp_min(0).sqrt()
        yield direction @ part.T / length.clamp_min(torch.finfo(v.dtype).tiny)


def _cubed_cosine_blocks(v: Tensor, t: Tensor, z: Tensor) -> Iterator[Tensor]:
    """Yield cosines (N, b) of the columns of z with the cubes of those of P."""
    z = _unit(z)
    for part in t.split(max(1, BLOCK // max(z.shape))):
        yield z.T @ _unit((v @ part.T).pow_(3))
