"""Whether a neuron would keep its name if the probe set had been another one.

A bootstrap probe set draws as many images as there are, with repetition. The K exemplars in it lie
almost surely among the few K best images of the whole set, so nothing is run through the network
again: how often each of those was drawn decides which of them become exemplars.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from wwwlib.concepts.naming import BLOCK, score

# A name is called sure if it is the top concept on at least half of the bootstrap probe sets: below
# that, another probe set would more likely than not have given another name.
SURE = 0.5


@dataclass(frozen=True, eq=False)
class Stability:
    """How firmly each neuron holds its top concept.

    Attributes
    ----------
    top : Tensor of int64, shape (N,)
        The top concept on the whole probe set; -1 where the neuron abstains.
    share : Tensor of float64, shape (N,)
        Share of the bootstrap probe sets on which the top concept is the same, in [0, 1].
    """

    top: Tensor
    share: Tensor

    @property
    def kept(self) -> float:
        """Share of the neurons that keep their top concept on every bootstrap probe set."""
        return (self.share == 1).double().mean().item()


def reach(k: int, images: int) -> int:
    """Return how many best images of each neuron `stability` needs for K exemplars.

    A drawn set holds 63 % of the images, so K exemplars reach about 1.6 K deep; three times K and
    twenty is beyond what chance brings.
    """
    return min(images, 3 * k + 20)


def stability(
    v: Tensor,
    index: Tensor,
    images: int,
    t: Tensor,
    t0: Tensor | None,
    k: int,
    rounds: int = 20,
    seed: int = 0,
    rows: Tensor | None = None,
) -> Stability:
    """Name neurons again on bootstrap probe sets.

    Parameters
    ----------
    v : Tensor
        (N, L, D) features of each neuron's L best images, best first, L at least `reach`; or,
        with `rows`, (U, D) features of the distinct images among them.
    index : Tensor
        (N, L) their indices in the probe set; -1 where there is none.
    images : int
        Number of images of the probe set.
    t, t0 : Tensor
        (M, D) and (D,) features of the concepts and the bare template.
    k : int
        Exemplars per neuron.
    rounds : int
        Bootstrap probe sets, at least 1.
    seed : int
        Draws them.
    rows : Tensor, optional
        (N, L) the row of `v` that holds each image.

    Returns
    -------
    Stability

    Raises
    ------
    ValueError
        If there is no round, or a bootstrap probe set would need more than the L best images.
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}; draw at least one bootstrap probe set.")
    if rows is None:
        rows, v = torch.arange(index.numel()).view(index.shape), v.flatten(0, 1)
    generator = torch.Generator().manual_seed(seed)
    seen = index.clamp(min=0)  # a missing image has a zero feature, wherever it is drawn
    first = torch.zeros(index.shape).index_fill(1, torch.arange(min(k, index.shape[1])), 1.0)
    top = _top(v, rows, first, k, t, t0)
    same = torch.zeros(len(index), dtype=torch.float64)
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
        same += (_top(v, rows, weight, k, t, t0) == top).double()
    return Stability(top, same / rounds)


def _top(v: Tensor, rows: Tensor, weight: Tensor, k: int, t: Tensor, t0: Tensor | None) -> Tensor:
    """Return the best concept (N,) of exemplars drawn `weight` (N, L) times; -1 to abstain."""
    mean = F.embedding_bag(rows, v, mode="sum", per_sample_weights=weight.to(v)) / k
    tops = [mean.new_zeros(0, dtype=torch.int64)]
    for part in mean.split(max(1, BLOCK // len(t))):
        best, top = score(part, t, t0).max(1)
        tops.append(torch.where(best > 0, top, -1))
    return torch.cat(tops)
