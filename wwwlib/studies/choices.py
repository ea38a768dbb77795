"""Alternatives to the choices of the method: other selections of concepts, other contributions.

`select_top` and `select_overall` select concepts without the threshold of WWW, Eq. 2;
`equivalent_alpha` relates selections with and without the template term of Eq. 1; `agreement`
compares approximations of contributions (Eq. 3) with a reference.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from pandas import DataFrame
from torch import Tensor


def select_top(s: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Select a given number of concepts for each neuron.

    Parameters
    ----------
    s : Tensor
        (N, M) scores.
    sizes : sequence of int
        N numbers in [0, M].

    Returns
    -------
    list of Tensor
        Selected indices of each neuron, best first, ties by index.

    Raises
    ------
    ValueError
        If `sizes` has another length or a value outside [0, M].
    """
    if len(sizes) != len(s) or not all(0 <= size <= s.shape[1] for size in sizes):
        raise ValueError(
            f"{len(sizes)} sizes from {min(sizes, default=0)} to {max(sizes, default=0)} do not "
            f"match scores of shape {tuple(s.shape)}; give one size per neuron, from 0 to M."
        )
    order = s.argsort(dim=1, descending=True, stable=True)
    return [row[:size] for row, size in zip(order, sizes, strict=True)]


def select_overall(s: Tensor, total: int) -> list[Tensor]:
    """Select the highest scores of all neurons together, with one threshold for all.

    Parameters
    ----------
    s : Tensor
        (N, M) finite scores.
    total : int
        Number of concepts over all neurons, in [0, N M]; ties with the last are selected too.

    Returns
    -------
    list of Tensor
        Selected indices of each neuron, best first; some may be empty.
    """
    if not total:
        return select_top(s, [0] * len(s))
    return select_top(s, (s >= s.flatten().topk(total).values[-1]).sum(1).tolist())


def equivalent_alpha(alpha: float, template: Tensor, best: Tensor) -> Tensor:
    """Compute the alpha with which plain cosines select the same concepts as corrected scores.

    It is ``1 - (1 - alpha) (1 - c / max)``: the template correction amounts to a stricter alpha,
    neuron by neuron.

    Parameters
    ----------
    alpha : float
        Alpha of the corrected scores, in (0, 1].
    template : Tensor
        (N,) mean cosine c of each neuron's exemplars with the bare template.
    best : Tensor
        (N,) highest plain cosine of each neuron.

    Returns
    -------
    Tensor
        (N,) values in (0, 1]; nan if there is none, because no concept scores higher than the bare
        template (the neuron abstains) or no cosine is positive.
    """
    found = 1 - (1 - alpha) * (1 - template / best)
    return found.masked_fill((best <= template) | (found <= 0) | (found > 1), torch.nan)


class Agreement(NamedTuple):
    """Agreement of contributions with a reference, per image.

    Attributes
    ----------
    rank : Tensor
        (B,) Spearman's rank correlation over neurons in [-1, 1]; nan if either is constant.
    error : Tensor
        (B,) sum of absolute differences divided by the reference's sum of absolute values; nan if
        the reference is zero.
    """

    rank: Tensor
    error: Tensor


def agreement(w: Tensor, reference: Tensor) -> Agreement:
    """Compare contributions with a reference.

    Parameters
    ----------
    w, reference : Tensor
        (B, N) contributions of the same neurons to the same classes.

    Returns
    -------
    Agreement

    Raises
    ------
    ValueError
        If the shapes differ or are not (B, N).
    """
    if w.shape != reference.shape or w.ndim != 2:
        raise ValueError(f"{[*w.shape]} and {[*reference.shape]} are not the same shape (B, N).")
    ranks, others = (DataFrame(one.cpu().numpy()).rank(axis=1) for one in (w, reference))
    rank = torch.tensor(ranks.corrwith(others, axis=1).to_numpy())
    error = (w - reference).abs().sum(1).double() / reference.abs().sum(1).double()
    return Agreement(rank, error.where(error.isfinite(), torch.nan))
