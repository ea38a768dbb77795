"""Whether a neuron would keep its name if the probe set had been another one.

A bootstrap probe set draws as many images as there are, with repetition. The K exemplars in it lie
almost surely among the few K best images of the whole set, so nothing is run through the network
again: how often each of those was drawn decides which of them become exemplars.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from wwwlib.concepts import score


@dataclass(frozen=True, eq=False)
class Stability:
    """How firmly each neuron holds its top concept.

    Attributes
    ----------
    top : Tensor of int64, shape (N,)
        The top concept on the whole probe set; -1 where the neuron abstains.
    share : Tensor of float64, shape (N,)
        Share of the bootstrap probe sets on which the top concept is the same.
    """

    top: Tensor
    share: Tensor

    @property
    def kept(self) -> float:
        """Share of the neurons that keep their top concept on every bootstrap probe set."""
        return (self.share == 1).double().mean().item()


def stability(
    v: Tensor,
    index: Tensor,
    images: int,
    t: Tensor,
    t0: Tensor | None,
    k: int,
    rounds: int = 20,
    seed: int = 0,
) -> Stability:
    """Name neurons again on bootstrap probe sets.

    Parameters
    ----------
    v : Tensor
        (N, L, D) features of each neuron's L best images, best first, L well above k.
    index : Tensor
        (N, L) their indices in the probe set.
    images : int
        Number of images of the probe set.
    t, t0 : Tensor
        (M, D) and (D,) features of the concepts and the bare template.
    k : int
        Exemplars per neuron.
    rounds : int
        Bootstrap probe sets.
    seed : int
        Draws them.

    Returns
    -------
    Stability

    Raises
    ------
    ValueError
        If a bootstrap probe set would need more than the L best images.
    """
    generator = torch.Generator().manual_seed(seed)
    seen = index.clamp(min=0)  # a missing image has a zero feature, wherever it is drawn
    first = torch.zeros(index.shape).index_fill(1, torch.arange(min(k, index.shape[1])), 1.0)
    top = _top(v, first, k, t, t0)
    same = torch.zeros(len(v), dtype=torch.float64)
    for _ in range(rounds):
        drawn = torch.randint(images, (images,), generator=generator)
        count = drawn.bincount(minlength=images)[seen]
        before = count.cumsum(1) - count
        weight = torch.minimum(count, (k - before).clamp(min=0)).float()
        if index.shape[1] < images and (short := weight.sum(1).min()) < k:
            raise ValueError(
                f"A bootstrap probe set holds {int(short)} of {k} exemplars among a neuron's "
                f"{index.shape[1]} best images; give more of them, such as {3 * k + 20}."
            )
        same += (_top(v, weight, k, t, t0) == top).double()
    return Stability(top, same / max(rounds, 1))


def _top(v: Tensor, weight: Tensor, k: int, t: Tensor, t0: Tensor | None) -> Tensor:
    """Return the best concept (N,) of exemplars drawn `weight` (N, L) times; -1 to abstain."""
    mean = torch.einsum("nl,nld->nd", weight.to(v), v) / k
    best, top = score(mean, t, t0).max(1)
    return torch.where(best > 0, top, -1)
