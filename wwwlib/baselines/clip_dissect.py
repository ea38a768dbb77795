"""CLIP-Dissect: names neurons by the concept whose image similarities match their activations.

For I probe images, M concepts and N neurons the matrix P (I, M) holds the cosines of image features
with text features. It is never held: it is computed from `v` (I, D) and `t` (M, D) in blocks of
concepts, each of which updates the best k of every neuron, so that 50,000 images and 82,115 words
fit a laptop. No intermediate has more than about `BLOCK` elements.

Oikarinen and Weng, "CLIP-Dissect: Automatic Description of Neuron Representations in Deep Vision
Networks", ICLR 2023. The method embeds bare words: `ConceptSet(words, template="{}")`.
"""

from collections.abc import Iterator, Sequence
from math import log

import torch
from torch import Tensor

from wwwlib.baselines.common import best_of_blocks, ranked_table
from wwwlib.concepts import ConceptTable
from wwwlib.exemplars import OK, Exemplars

MEMBERSHIP = (0.998, 0.97)  # w of the first and of the last exemplar, linear between them
TEMPERATURE = 10.0  # of the softmax over concepts, a in the paper
BLOCK = 2**24  # elements of a block: 64 MiB in float32


def soft_wpmi(
    v: Tensor,
    t: Tensor,
    exemplars: Exemplars,
    words: Sequence[str],
    k: int = 1,
    *,
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
    if v.ndim != 2 or t.ndim != 2 or v.shape[1] != t.shape[1] or len(words) != len(t):
        raise ValueError(
            f"Image features {tuple(v.shape)}, concept features {tuple(t.shape)} and {len(words)} "
            "words do not fit: expected (I, D), (M, D) and M."
        )
    if len(v) != exemplars.images:
        raise ValueError(
            f"There are features of {len(v)} images and activations on {exemplars.images}; give "
            "the features of the whole probe set, in its order."
        )
    if not 1 <= k <= len(t):
        raise ValueError(f"k is {k}, but there are {len(t)} concepts; give 1 to {len(t)}.")
    live = (exemplars.status == OK) & (exemplars.index >= 0).all(1)
    index = exemplars.index[live].to(v.device)
    weights = torch.linspace(*MEMBERSHIP, index.shape[1], dtype=v.dtype, device=v.device)
    value = torch.full((len(live), k), -torch.inf, dtype=torch.float64)
    columns = torch.zeros(len(live), k, dtype=torch.int64)
    if live.any():
        best, places = best_of_blocks(_wpmi_blocks(v, t, index, weights, lam), k)
        value[live], columns[live] = best.to(value), places.to(columns)
    return ranked_table(value, columns, [words] * len(live))


def _wpmi_blocks(v: Tensor, t: Tensor, index: Tensor, w: Tensor, lam: float) -> Iterator[Tensor]:
    """Yield soft-WPMI (N, b) of exemplars `index` (N, K) with membership `w` (K,)."""
    rows, position = index.unique(return_inverse=True)
    v, (neurons, k) = TEMPERATURE * v[rows], index.shape
    size = max(1, BLOCK // max(len(v), neurons, k))
    total = v.new_full((len(v),), -torch.inf)
    for part in t.split(size):
        total = total.logaddexp((v @ part.T).logsumexp(1))
    # 1 + w (p - 1) as (1 - w) + w p, in logarithms: nothing cancels, nothing underflows.
    outside, inside = torch.log1p(-w).unsqueeze(1), w.log().unsqueeze(1)
    for part in t.split(size):
        log_p = v @ part.T - total.unsqueeze(1)
        several = position.split(max(1, BLOCK // (k * len(part))))
        joint = [torch.logaddexp(outside, inside + log_p[some]).sum(1) for some in several]
        joint = torch.cat(joint)
        yield joint - lam * (joint.logsumexp(0) - log(neurons))
