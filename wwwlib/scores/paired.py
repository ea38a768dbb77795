"""Is one method better than another? Compared neuron by neuron, never by unpaired errors."""

from dataclasses import dataclass

import torch
from torch import Tensor

from wwwlib.scores.agreement import Score

BLOCK = 2**22  # resampled values held at once: 32 MiB


@dataclass(frozen=True)
class Comparison:
    """The mean difference a - b over neurons, its 95 % interval, and a two-sided p-value."""

    difference: float
    interval: tuple[float, float]
    p: float


def compare(
    score_a: Score, score_b: Score, seed: int = 0, samples: int = 10_000, level: float = 0.95
) -> Comparison:
    """Compare two scores of the same neurons.

    The interval is the percentile interval of a paired bootstrap over neurons; p comes from a
    permutation test that swaps the two methods at random within each neuron, with the observed
    arrangement counted among the permutations, so that p is never 0.

    Parameters
    ----------
    score_a, score_b : Score
        The same score of the same N neurons under two methods.
    seed : int
        Fixes both resamplings.
    samples : int
        Bootstrap samples and permutations.
    level : float
        Coverage of the interval, in (0, 1).

    Returns
    -------
    Comparison

    Raises
    ------
    ValueError
        If the scores differ in kind or number of neurons.
    """
    if score_a.name != score_b.name or len(score_a) != len(score_b):
        raise ValueError(
            f"{score_a.name!r} of {len(score_a)} neurons cannot be compared with "
            f"{score_b.name!r} of {len(score_b)}; take the same score of the same neurons."
        )
    gap = score_a.values - score_b.values
    generator = torch.Generator().manual_seed(seed)
    means, flips = [], []
    for count in _blocks(samples, len(gap)):
        drawn = torch.randint(len(gap), (count, len(gap)), generator=generator)
        means.append(gap[drawn].mean(1))
        sign = torch.randint(2, (count, len(gap)), generator=generator) * 2 - 1
        flips.append((sign * gap).mean(1))
    tail = (1 - level) / 2
    low, high = torch.cat(means).quantile(torch.tensor([tail, 1 - tail]).double()).tolist()
    return Comparison(gap.mean().item(), (low, high), _p_value(gap.mean(), torch.cat(flips)))


def holm(p: list[float]) -> list[float]:
    """Correct the p-values of one table for their number, by Holm's step-down method.

    Parameters
    ----------
    p : list of float
        In [0, 1], in any order.

    Returns
    -------
    list of float
        Adjusted p-values in that order: below .05 means that the family-wise error is below .05.
    """
    adjusted, running = [0.0] * len(p), 0.0
    for rank, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        running = max(running, min(1.0, (len(p) - rank) * p[i]))
        adjusted[i] = running
    return adjusted


def _p_value(observed: Tensor, flips: Tensor) -> float:
    """Return the share of arrangements at least as far from 0 as the observed one."""
    slack = 1e-12  # the same values summed in another order differ in the last bit
    extreme = int((flips.abs() >= observed.abs() - slack).sum())
    return (1 + extreme) / (1 + len(flips))


def _blocks(samples: int, neurons: int) -> list[int]:
    """Split the samples so that no block holds more than BLOCK values."""
    rows = max(1, BLOCK // neurons)
    whole, rest = divmod(samples, rows)
    return [rows] * whole + [rest] * (rest > 0)
