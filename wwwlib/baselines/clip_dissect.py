"""CLIP-Dissect: the concept whose similarities to the probe images go with the activations.

For I probe images, M concepts and N neurons there are two matrices: P (I, M), the cosines of image
features with text features, and z (I, N), the neuron activations. Five similarity functions
compare each column of z with every column of P. P is never held: it is made from `v` (I, D) and
`t` (M, D) in blocks of concepts, each of which only updates the best k of every neuron, so that
50,000 images and 82,115 words fit a laptop.

The two functions of mutual information need the K most active images of a neuron alone, and so
start from `Exemplars`; the other three start from all activations.

Oikarinen and Weng, "CLIP-Dissect: Automatic Description of Neuron Representations in Deep Vision
Networks", ICLR 2023. The method embeds bare words: `ConceptSet(words, template="{}")`.
"""

from collections.abc import Iterable, Iterator, Sequence
from math import ceil

import torch
from torch import Tensor

from wwwlib.baselines import similarities
from wwwlib.concepts import ConceptTable
from wwwlib.exemplars import OK, Exemplars


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
    """Name neurons by soft weighted pointwise mutual information, CLIP-Dissect's choice.

    ``log E p(t_m | B_n) - lam log p(t_m)`` with ``E p(t_m | B_n) = prod_o [1 + w_o (p(t_m | x_o)
    - 1)]`` over the exemplars x_o of neuron n, where w_o is the probability that x_o belongs to
    the set B_n that excites it, and ``p(t | x) = softmax(temperature * P_x)`` over concepts. The
    prior p(t_m) is the mean of E p(t_m | B_n) over the neurons of the layer, so that a neuron's
    names depend on its layer.

    Parameters
    ----------
    v : Tensor
        (I, D) unit-norm features of all probe images.
    t : Tensor
        (M, D) unit-norm features of the concepts.
    exemplars : Exemplars
        The K most active images of N neurons; the paper takes K = 100.
    words : sequence of str
        The M concepts.
    k : int
        How many names a neuron gets.
    membership : (float, float)
        w of the first and of the last exemplar, in [0, 1]; linear between them.
    temperature : float
        Of the softmax over concepts, the paper's a.
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
        raise ValueError(f"membership is {membership}; both are probabilities in [0, 1].")
    _check(v, t, words, k, exemplars.images)
    live = (exemplars.status == OK) & (exemplars.index >= 0).all(1)
    index = exemplars.index[live].to(v.device)
    weights = torch.linspace(*membership, index.shape[1], dtype=v.dtype, device=v.device)
    return _table(similarities.information(v, t, index, weights, temperature, lam), live, words, k)


def wpmi(
    v: Tensor,
    t: Tensor,
    exemplars: Exemplars,
    words: Sequence[str],
    k: int = 1,
    *,
    temperature: float = 10.0,
    lam: float = 1.0,
) -> ConceptTable:
    """Name neurons by weighted pointwise mutual information: each exemplar surely belongs.

    ``sum_o log p(t_m | x_o) - lam log p(t_m)``; arguments, result and errors are those of
    :func:`soft_wpmi`. The defaults here are those too, so that the two differ in membership alone;
    the authors' published code gives WPMI K = 28 exemplars, temperature 2 and lam .6.
    """
    options = {"membership": (1.0, 1.0), "temperature": temperature, "lam": lam}
    return soft_wpmi(v, t, exemplars, words, k, **options)


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
    """Name neurons by how little their activations change when put in the concept's order.

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
        At least 0. The authors' code divides the mean p-th power of the changes by this power of
        the concept's mean similarity to those images, .5 there, which must be positive; their
        paper does not, and 0 leaves it out. (The code also divides by what random orders give,
        the same for every concept of a neuron, which changes no ranking and is left out here.)

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
    blocks = similarities.reordered(v, t, order[:count], ranked[:count], p, scale)
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
    return _table(similarities.cosines(v, t, z), live, words, k)


def cos_cubed(
    v: Tensor, t: Tensor, z: Tensor | Iterable[Tensor], words: Sequence[str], k: int = 1
) -> ConceptTable:
    """Name neurons by the cosine of the cubes of both columns, each less its mean.

    Cubes let the few images with high values decide. Arguments, result and errors are those of
    :func:`rank_reorder`.
    """
    z, live = _activations(z, v, t, words, k)
    return _table(similarities.cubed(v - v.mean(0), t, (z - z.mean(0)).pow_(3)), live, words, k)


def _table(blocks: Iterator[Tensor], live: Tensor, words: Sequence[str], k: int) -> ConceptTable:
    """Keep the best k concepts of each live neuron while blocks (N, b) of scores pass by."""
    names: list[list[str]] = [[] for _ in live]
    scores: list[list[float]] = [[] for _ in live]
    threshold = torch.zeros(len(live))
    if live.any():
        value, index = _best(blocks, k)
        for n, row, best in zip(live.nonzero()[:, 0].tolist(), index.tolist(), value, strict=True):
            names[n], scores[n] = [words[j] for j in row], best.tolist()
        threshold = threshold.to(value).masked_scatter(live.to(value.device), value[:, -1])
    return ConceptTable(names, scores, threshold, ~live)


def _best(blocks: Iterator[Tensor], k: int) -> tuple[Tensor, Tensor]:
    """Return the k highest scores of each row, and their columns; of equals the first."""
    value, index, start = None, None, 0
    for s in blocks:
        columns = torch.arange(start, start + s.shape[1], device=s.device).expand(s.shape)
        start += s.shape[1]
        if value is not None:
            s, columns = torch.cat([value, s], 1), torch.cat([index, columns], 1)
        value, order = s.sort(dim=1, descending=True, stable=True)
        value, index = value[:, :k], columns.gather(1, order[:, :k])
    return value, index


def _activations(
    z: Tensor | Iterable[Tensor], v: Tensor, t: Tensor, words: Sequence[str], k: int
) -> tuple[Tensor, Tensor]:
    """Return the activations of the live neurons in the features' dtype, and who is alive."""
    z = z if isinstance(z, Tensor) else torch.cat(list(z))
    _check(v, t, words, k, len(z))
    live = z.isfinite().all(0) & (z.amax(0) > z.amin(0))
    return z[:, live].to(v), live


def _check(v: Tensor, t: Tensor, words: Sequence[str], k: int, images: int) -> None:
    """Refuse what does not fit together."""
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
