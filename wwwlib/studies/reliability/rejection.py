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

from wwwlib.studies.reliability.levels import Levels, checked, interval, levels, resamples

Interval = tuple[float, float]

# Floats put a rate such as .58 below what it means, float32 by up to 6e-8; its share of 25 images
# ends in a half all the same, which is rounded up.
SLACK = 1e-7

MEASURES = {"auroc": Levels.auroc, "aurc": Levels.aurc}


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
        Bootstrap band of the hits. Every bootstrap sample has its own number of errors, so the
        band is wider than a count of these errors can be.
    recall, recall_low, recall_high : Tensor of float64, shape (R,)
        The hits as a share of all errors, and its band, in which every sample's hits are a share
        of its own errors; nan without errors.
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
    recall: Tensor
    recall_low: Tensor
    recall_high: Tensor
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
    low, high : Tensor of float64, shape (n,)
        Bootstrap band of the risk.
    area : float
        Mean of the risk over all coverages, AURC; lower is better.
    interval : (float, float)
        Bootstrap interval of the area.
    """

    coverage: Tensor
    risk: Tensor
    low: Tensor
    high: Tensor
    area: float
    interval: Interval


@dataclass(frozen=True)
class Difference:
    """One doubt's measure less another's on the same images, with its paired bootstrap interval."""

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
    whole = _measures(levels(doubt, wrong), rejected)
    resampled = (levels(doubt, wrong, counts) for counts in resamples(n, samples, seed))
    again = torch.cat([_measures(one, rejected) for one in resampled])
    parts = [len(rates), len(rates), 1, 1]
    hits, recall, area, risk = whole[0].split(parts)
    hits_ends, recall_ends, area_ends, risk_ends = interval(again, level).split(parts, 1)
    return RejectionCurve(
        rates=rates,
        rejected=rejected,
        hits=hits,
        low=hits_ends[0],
        high=hits_ends[1],
        recall=recall,
        recall_low=recall_ends[0],
        recall_high=recall_ends[1],
        oracle=rejected.clamp(max=errors).double(),
        random=rejected * errors / n,
        auroc=area.item(),
        aurc=risk.item(),
        auroc_interval=tuple(area_ends[:, 0].tolist()),
        aurc_interval=tuple(risk_ends[:, 0].tolist()),
        errors=errors,
        images=n,
    )


def _measures(one: Levels, rejected: Tensor) -> Tensor:
    """Return (S, 2 R + 2): hits, their shares of all errors, AUROC and AURC of S samples."""
    hits = one.hits(rejected)
    total = one.wrong.sum(1, keepdim=True)
    return torch.cat([hits, hits / total, one.auroc()[:, None], one.aurc()[:, None]], 1)


def auroc(doubt: Tensor, wrong: Tensor) -> float:
    """Return the probability that a random error is doubted more than a random success.

    Ties count half. nan where there are no errors or nothing else. Arguments as in `rejection`.
    """
    return levels(*checked(doubt, wrong)).auroc().item()


def risk_coverage(
    doubt: Tensor, wrong: Tensor, samples: int = 1000, level: float = 0.95, seed: int = 0
) -> RiskCoverage:
    """Return the error rate among the least doubtful images, for every number of them.

    Arguments as in `rejection`. The area is the mean over all n coverages, as Geifman, Uziel and
    El-Yaniv take it (ICLR 2019).
    """
    doubt, wrong = checked(doubt, wrong)
    n, risk = len(doubt), levels(doubt, wrong).risks()[0]
    again = torch.cat([levels(doubt, wrong, c).risks() for c in resamples(n, samples, seed)])
    low, high = interval(again, level)
    return RiskCoverage(
        coverage=torch.arange(1, n + 1, dtype=torch.float64) / n,
        risk=risk,
        low=low,
        high=high,
        area=risk.mean().item(),
        interval=tuple(interval(again.mean(1), level).tolist()),
    )


def compare(
    doubt: Tensor,
    other: Tensor,
    wrong: Tensor,
    samples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    least: int = 5,
    measure: str = "auroc",
) -> Difference:
    """Compare two doubts on the same images: both see the same bootstrap samples.

    Parameters
    ----------
    doubt, other : Tensor
        (n,) doubts of the same images.
    wrong, samples, level, seed
        As in `rejection`.
    least : int
        With fewer errors, or fewer successes, nothing can be compared.
    measure : {"auroc", "aurc"}
        By which they are compared. Of AURC, the mean risk over all coverages, less is better.

    Returns
    -------
    Difference
        The measure of `doubt` less that of `other`; nan where nothing can be compared.

    Raises
    ------
    ValueError
        If there is no such measure, or as in `rejection`.
    """
    if measure not in MEASURES:
        raise ValueError(f"There is no measure {measure!r}; take one of {', '.join(MEASURES)}.")
    doubt, wrong = checked(doubt, wrong)
    other, _ = checked(other, wrong)
    if min(wrong.sum(), (~wrong).sum()) < least:
        return Difference(float("nan"), (float("nan"), float("nan")))
    of = MEASURES[measure]
    gaps = torch.cat(
        [
            of(levels(doubt, wrong, counts)) - of(levels(other, wrong, counts))
            for counts in resamples(len(doubt), samples, seed)
        ]
    )
    low, high = interval(gaps, level).tolist()
    gap = of(levels(doubt, wrong)) - of(levels(other, wrong))
    return Difference(gap.item(), (low, high))


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
