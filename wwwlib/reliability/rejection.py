"""Does doubt find the errors? Hits against rejection rate, AUROC, risk and coverage, with bands.

The most doubtful share q of the images is rejected, and the hits are the mispredictions among them
(WWW, Figure 4, right). AUROC is the same question over all q at once; risk and coverage ask what
is left: the error rate among the images that were kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan

import torch
from torch import Tensor

from wwwlib.reliability.levels import Levels, checked, interval, levels, resamples

Interval = tuple[float, float]

# Floats put a rate such as .58 below what it means, float32 by up to 6e-8; its share of 25 images
# ends in a half all the same, which is rounded up.
SLACK = 1e-7


@dataclass(frozen=True, eq=False)
class RejectionCurve:
    """How many errors are among the most doubtful images.

    Attributes
    ----------
    rates : Tensor of float64, shape (R,)
        Shares of the images that are rejected, in [0, 1].
    rejected : Tensor of int64, shape (R,)
        Their numbers: `rates` times the number of images, halves rounded up.
    hits : Tensor of float64, shape (R,)
        Expected errors among them; images of equal doubt are rejected in random order.
    low, high : Tensor of float64, shape (R,)
        Bootstrap band of the hits.
    oracle, random : Tensor of float64, shape (R,)
        Hits of a doubt that knows the errors, and of one that guesses.
    auroc, aurc : float
        See `auroc` and `risk_coverage`; `auroc` is nan without errors, or without successes.
    auroc_interval, aurc_interval : (float, float)
        Their bootstrap intervals.
    errors, images : int
        Number of mispredictions, and of images.
    """

    rates: Tensor
    rejected: Tensor
    hits: Tensor
    low: Tensor
    high: Tensor
    oracle: Tensor
    random: Tensor
    auroc: float
    aurc: float
    auroc_interval: Interval
    aurc_interval: Interval
    errors: int
    images: int


@dataclass(frozen=True, eq=False)
class RiskCoverage:
    """The error rate among the images that are kept, the least doubtful ones.

    Attributes
    ----------
    coverage : Tensor of float64, shape (n,)
        Shares kept: 1/n, 2/n, ..., 1.
    risk : Tensor of float64, shape (n,)
        Expected error rate among them.
    area : float
        Mean of the risk over all coverages, AURC; lower is better.
    """

    coverage: Tensor
    risk: Tensor
    area: float


@dataclass(frozen=True)
class Difference:
    """One doubt's AUROC less another's on the same images, with its paired bootstrap interval."""

    difference: float
    interval: Interval


def rejection(
    doubt: Tensor,
    wrong: Tensor,
    rates: Sequence[float] | Tensor,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> RejectionCurve:
    """Count the errors among the most doubtful images, for several shares of them.

    Parameters
    ----------
    doubt : Tensor
        (n,) the higher, the more doubtful; infinities are fine, nan is not.
    wrong : Tensor
        (n,) bool or 0 and 1, whether the prediction is wrong.
    rates : sequence of float
        (R,) shares to reject, in [0, 1].
    samples : int
        Bootstrap samples of images behind bands and intervals.
    level : float
        Their coverage, in (0, 1).
    seed : int
        Fixes the bootstrap.

    Returns
    -------
    RejectionCurve

    Raises
    ------
    ValueError
        If the shapes do not fit, doubt is nan, or a rate lies outside [0, 1].

    References
    ----------
    WWW, Figure 4, right.
    """
    doubt, wrong = checked(doubt, wrong)
    rates = torch.as_tensor(rates, dtype=torch.float64)
    if not ((rates >= 0) & (rates <= 1)).all():
        raise ValueError(f"The rates {rates.tolist()} are no shares of the images, from 0 to 1.")
    n, errors = len(doubt), int(wrong.sum())
    rejected = ((rates + SLACK) * n + 0.5).floor().clamp(max=n).long()
    whole = levels(doubt, wrong)
    again = [
        torch.cat([one.hits(rejected), one.auroc()[:, None], one.risks().mean(1)[:, None]], 1)
        for one in (levels(doubt, wrong, counts) for counts in resamples(n, samples, seed))
    ]
    low, high = interval(torch.cat(again), level)
    return RejectionCurve(
        rates=rates,
        rejected=rejected,
        hits=whole.hits(rejected)[0],
        low=low[:-2],
        high=high[:-2],
        oracle=rejected.clamp(max=errors).double(),
        random=rejected * errors / n,
        auroc=whole.auroc().item(),
        aurc=whole.risks().mean().item(),
        auroc_interval=(low[-2].item(), high[-2].item()),
        aurc_interval=(low[-1].item(), high[-1].item()),
        errors=errors,
        images=n,
    )


def auroc(doubt: Tensor, wrong: Tensor) -> float:
    """Return the probability that a random error is doubted more than a random success.

    Ties count half. nan where there are no errors or nothing else. Arguments as in `rejection`.
    """
    return levels(*checked(doubt, wrong)).auroc().item()


def risk_coverage(doubt: Tensor, wrong: Tensor) -> RiskCoverage:
    """Return the error rate among the least doubtful images, for every number of them.

    Arguments as in `rejection`. The area is the mean over all n coverages, as Geifman, Uziel and
    El-Yaniv take it (ICLR 2019).
    """
    found: Levels = levels(*checked(doubt, wrong))
    risk = found.risks()[0]
    coverage = torch.arange(1, len(risk) + 1, dtype=torch.float64) / len(risk)
    return RiskCoverage(coverage, risk, risk.mean().item())


def compare(
    doubt: Tensor,
    other: Tensor,
    wrong: Tensor,
    samples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    least: int = 5,
) -> Difference:
    """Compare two doubts by AUROC on the same images: both see the same bootstrap samples.

    Parameters
    ----------
    doubt, other : Tensor
        (n,) doubts of the same images.
    wrong, samples, level, seed
        As in `rejection`.
    least : int
        With fewer errors, or fewer successes, nothing can be compared.

    Returns
    -------
    Difference
        AUROC of `doubt` less that of `other`; nan where nothing can be compared.
    """
    doubt, wrong = checked(doubt, wrong)
    other, _ = checked(other, wrong)
    if min(wrong.sum(), (~wrong).sum()) < least:
        return Difference(float("nan"), (float("nan"), float("nan")))
    gaps = torch.cat(
        [
            levels(doubt, wrong, counts).auroc() - levels(other, wrong, counts).auroc()
            for counts in resamples(len(doubt), samples, seed)
        ]
    )
    low, high = interval(gaps, level).tolist()
    return Difference(auroc(doubt, wrong) - auroc(other, wrong), (low, high))


def compare_within(
    doubt: Tensor,
    other: Tensor,
    wrong: Tensor,
    groups: Sequence[int] | Tensor,
    **options: object,
) -> dict[int, Difference]:
    """Compare two doubts within each group of images, such as each class.

    Parameters
    ----------
    doubt, other, wrong
        As in `compare`.
    groups : sequence of int
        (n,) the group of each image.
    **options
        As for `compare`.

    Returns
    -------
    dict of int to Difference
        By group, ascending; groups in which nothing can be compared are left out.
    """
    groups = torch.as_tensor(groups)
    each = {group: groups == group for group in groups.unique().tolist()}
    found = {
        group: compare(doubt[own], other[own], wrong[own], **options) for group, own in each.items()
    }
    return {group: one for group, one in found.items() if not isnan(one.difference)}
