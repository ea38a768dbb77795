"""HOW SURE: whether an uncertainty finds the errors of a network.

An uncertainty is a number per image, from the logits (`softmax_uncertainty`) or from the
explanation (`explanation_uncertainty`). `rejection` and `risk_coverage` measure whether it ranks
errors first, `compare` whether one uncertainty ranks them better than another, and `gain` whether
it adds information to another.

Images of equal uncertainty have no order: every measure is its expectation over all their orders.
Intervals are percentile intervals of a bootstrap over images; resamples without errors, or without
successes, have no AUROC and are left out.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from pandas import DataFrame
from torch import Tensor

from wwwlib import registry
from wwwlib.images import halves
from wwwlib.scores import Comparison, bootstrap_interval
from wwwlib.studies.survey import Surveyed

Interval = tuple[float, float]
Values = Sequence[float] | Tensor | np.ndarray

LEAST = 5  # errors, and successes, below which nothing is concluded
# Floats put a rate such as .58 below its decimal value, float32 by up to 6e-8; its share of 25
# images must be rounded up all the same.
SLACK = 1e-7
NAN = float("nan")


# Uncertainties --------------------------------------------------------------------------------


def softmax_uncertainty(logits: Tensor) -> dict[str, Tensor]:
    """Compute four uncertainties from the logits.

    Parameters
    ----------
    logits : Tensor
        (B, C), C at least 2.

    Returns
    -------
    dict of str to Tensor
        (B,) float64 each: "max softmax", 1 minus the highest probability, accurate where that is
        close to 1; "entropy" of the probabilities, in nats; "margin", 1 minus the difference of
        the two highest probabilities; "energy", the negative log-sum-exp of the logits.

    Raises
    ------
    ValueError
        If there are fewer than two classes, or a logit is not finite.
    """
    if logits.ndim != 2 or logits.shape[1] < 2 or not logits.isfinite().all():
        raise ValueError(f"Logits {[*logits.shape]}: give finite ones of at least two classes.")
    logits = logits.detach().double()
    ranked = logits.sort(1, descending=True).values
    rest = (ranked[:, 1:] - ranked[:, :1]).exp()  # relative to the best class, whose value is 1
    odds = rest.sum(1)
    logs = logits.log_softmax(1)
    found = {"max softmax": odds / (1 + odds), "entropy": -(logs.exp() * logs).sum(1)}
    found["margin"] = (odds + rest[:, 0]) / (1 + odds)
    return found | {"energy": -logits.logsumexp(1)}


def explanation_uncertainty(readings: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return 1 minus each reading, by its name: (B,) float64, and 1 where a reading is NaN."""
    return {name: 1 - v.nan_to_num(0.0) for name, v in readings.items()}


def uncertainties(found: Surveyed, layer: str, top: int) -> dict[str, Tensor]:
    """Return all uncertainties of surveyed images: of their explanations, then of their logits.

    Parameters
    ----------
    found : Surveyed
        See `survey.survey`.
    layer, top : str, int
        One of the surveyed layers and numbers of neurons.

    Returns
    -------
    dict of str to Tensor
        (n,) float64 each: "1 - r" first, then 1 minus each other reading, then those of
        `softmax_uncertainty`.

    Raises
    ------
    ValueError
        If that layer and number were not surveyed.
    """
    read = explanation_uncertainty(found.readings[layer, top])
    return {f"1 - {name}": u for name, u in read.items()} | softmax_uncertainty(found.logits)


# Errors found ---------------------------------------------------------------------------------


class RejectionCurve(NamedTuple):
    """Errors among the most uncertain images.

    Attributes
    ----------
    points : DataFrame
        A row for each rate: the share "rate" of the images that are rejected, in [0, 1]; their
        number "rejected", halves rounded up; expected errors among them, "hits"; "recall", the hits
        as a share of all errors, and its band from "low" to "high", in which every sample's hits
        are a share of its own errors, NaN without errors; and the hits of a perfect and of a random
        order, "oracle" and "random".
    auroc : float
        See `auroc`; NaN without errors, or without successes.
    auroc_interval : (float, float)
        Its bootstrap interval.
    errors, images : int
        Number of mispredictions, and of images.
    """

    points: DataFrame
    auroc: float
    auroc_interval: Interval
    errors: int
    images: int


class RiskCoverage(NamedTuple):
    """The error rate among the images that are kept, the least uncertain ones.

    Attributes
    ----------
    points : DataFrame
        A row for each share kept, the "coverage": 1/n, 2/n, ..., 1. Its "risk" is the expected
        error rate among these images, its bootstrap band is from "low" to "high".
    area : float
        Mean of the risk over all coverages, AURC; lower is better.
    interval : (float, float)
        Bootstrap interval of the area.
    """

    points: DataFrame
    area: float
    interval: Interval


def rejection(
    uncertainty: Values, wrong: Values, rates: Values, samples: int = 1000, seed: int = 0
) -> RejectionCurve:
    """Count the errors among the most uncertain images, for several shares of them.

    Parameters
    ----------
    uncertainty : Tensor
        (n,) values, n at least 2; infinities are allowed, NaN is not.
    wrong : Tensor
        (n,) bool or 0 and 1, true for a misprediction.
    rates : sequence of float
        (R,) shares to reject, in [0, 1].
    samples : int
        Number of bootstrap samples; bands and intervals cover 95 %.
    seed : int
        Seed of the bootstrap.

    Returns
    -------
    RejectionCurve

    Raises
    ------
    ValueError
        If the shapes do not fit, an uncertainty is NaN, or a rate lies outside [0, 1].

    References
    ----------
    WWW, Figure 4, right.
    """
    u, wrong = _checked(uncertainty, wrong)
    rates = np.asarray(rates, float)
    if not ((rates >= 0) & (rates <= 1)).all():
        raise ValueError(f"The rates {rates.tolist()} are not all in [0, 1].")
    n, errors = len(u), int(wrong.sum())
    rejected = ((rates + SLACK) * n + 0.5).astype(int).clip(max=n)

    @np.errstate(invalid="ignore")  # NaN without errors
    def measures(drawn: np.ndarray) -> np.ndarray:
        found = _found(u[drawn], wrong[drawn])
        hits = np.moveaxis(found[..., rejected], -1, 0)
        return np.stack([*(hits / found[..., -1]), _auroc(found)])

    *recall, area = measures(np.arange(n)).tolist()
    (*low, least), (*high, most) = bootstrap_interval(measures, n, samples, seed).tolist()
    points = {"rate": rates, "rejected": rejected, "hits": _found(u, wrong)[rejected]}
    points |= {"recall": recall, "low": low, "high": high}
    points |= {"oracle": rejected.clip(max=errors), "random": rejected * errors / n}
    return RejectionCurve(DataFrame(points), area, (least, most), errors, n)


def auroc(uncertainty: Values, wrong: Values) -> float:
    """Return the probability that a random error is more uncertain than a random success.

    Ties count half; NaN without errors or without successes. Parameters are those of `rejection`.
    """
    return float(_auroc(_found(*_checked(uncertainty, wrong))))


def risk_coverage(
    uncertainty: Values, wrong: Values, samples: int = 1000, seed: int = 0
) -> RiskCoverage:
    """Return the error rate among the least uncertain images, for every number of them.

    Parameters are those of `rejection`. The area is the mean over all n coverages, as defined by
    Geifman, Uziel and El-Yaniv (ICLR 2019).
    """
    u, wrong = _checked(uncertainty, wrong)
    risk = _risks(_found(u, wrong))

    def measures(drawn: np.ndarray) -> np.ndarray:
        risks = np.moveaxis(_risks(_found(u[drawn], wrong[drawn])), -1, 0)
        return np.concatenate([risks, risks.mean(0, keepdims=True)])

    (*low, least), (*high, most) = bootstrap_interval(measures, len(u), samples, seed).tolist()
    points = {"coverage": np.arange(1, len(u) + 1) / len(u), "risk": risk, "low": low, "high": high}
    return RiskCoverage(DataFrame(points), risk.mean(), (least, most))


def compare(
    uncertainty: Values,
    other: Values,
    wrong: Values,
    samples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    measure: str = "auroc",
) -> Comparison:
    """Compare two uncertainties on the same images by a paired bootstrap.

    Parameters
    ----------
    uncertainty, other : Tensor
        (n,) uncertainties of the same images.
    wrong, samples, seed
        As for `rejection`.
    level : float
        Coverage of the interval, in (0, 1).
    measure : {"auroc", "aurc"}
        The measure compared. Of AURC, the mean risk over all coverages, less is better.

    Returns
    -------
    Comparison
        The measure of `uncertainty` minus that of `other`, without a p-value; NaN with fewer than
        `LEAST` errors, or successes.

    Raises
    ------
    ValueError
        If the measure is unknown, or as for `rejection`.
    """
    registry.one_of("measure", measure, MEASURES)
    u, wrong = _checked(uncertainty, wrong)
    other, _ = _checked(other, wrong)
    if _too_few(wrong, LEAST):
        return Comparison(NAN, (NAN, NAN), NAN)

    def gap(drawn: np.ndarray) -> np.ndarray:
        one, two = (_found(of[drawn], wrong[drawn]) for of in (u, other))
        return MEASURES[measure](one) - MEASURES[measure](two)

    interval = bootstrap_interval(gap, len(u), samples, seed, level)
    return Comparison(float(gap(np.arange(len(u)))), tuple(interval.tolist()), NAN)


def _found(place: np.ndarray, wrong: np.ndarray) -> np.ndarray:
    """Return (..., n + 1): expected errors among the 0, 1, ..., n most uncertain of n images.

    Within a group of equal uncertainty every image counts as the group's share of errors.
    """
    if place.ndim > 1:
        return np.stack([_found(*one) for one in zip(place, wrong, strict=True)])
    sizes, errors = np.bincount(place), np.bincount(place, wrong)  # of the groups
    ends = (np.append(0, one.cumsum()) for one in (sizes, errors))
    return np.interp(np.arange(len(place) + 1), *ends)


@np.errstate(invalid="ignore")  # NaN without errors, or without successes
def _auroc(found: np.ndarray) -> np.ndarray:
    """Return the area under the ROC curve, in trapezoids, so that ties count half."""
    errors, n = found[..., -1], found.shape[-1] - 1
    area = np.diff(np.arange(n + 1) - found, axis=-1) * (found[..., 1:] + found[..., :-1]) / 2
    return area.sum(-1) / (errors * (n - errors))


def _risks(found: np.ndarray) -> np.ndarray:
    """Return (..., n): the error rate among the 1, 2, ..., n least uncertain images."""
    return (found[..., -1:] - found[..., :-1])[..., ::-1] / np.arange(1, found.shape[-1])


MEASURES = {"auroc": _auroc, "aurc": lambda found: _risks(found).mean(-1)}


def _checked(uncertainty: Values, wrong: Values) -> tuple[np.ndarray, np.ndarray]:
    """Return the images' places by falling uncertainty, ties equal, and the errors as bool."""
    u, wrong = (np.asarray(torch.as_tensor(one).detach().cpu()) for one in (uncertainty, wrong))
    if u.ndim != 1 or u.shape != wrong.shape or len(u) < 2:
        raise ValueError(f"Shapes {u.shape} and {wrong.shape}; give twice the same, n at least 2.")
    if not ((wrong == 0) | (wrong == 1)).all():
        raise ValueError("wrong holds values other than 0 and 1; give 1 for each misprediction.")
    if unknown := int(np.isnan(u).sum()):
        raise ValueError(f"The uncertainty is nan for {unknown} of {len(u)} images; omit them.")
    value, place = np.unique(u, return_inverse=True)
    return len(value) - 1 - place, wrong.astype(bool)


def _too_few(wrong: np.ndarray, least: int) -> bool:
    return min(wrong.sum(), (~wrong).sum()) < least


# Combination ----------------------------------------------------------------------------------


def gain(
    uncertainty: Values,
    second: Values,
    wrong: Values,
    seed: int = 0,
    samples: int = 2000,
    level: float = 0.95,
) -> Comparison:
    """Measure what a second uncertainty adds to a first one.

    A logistic regression on both is fitted on one half of the images and tested on the other,
    against one on the first uncertainty alone.

    Parameters
    ----------
    uncertainty, second : Tensor
        (n,) finite uncertainties of the same images. Give a probability of error as log-odds.
    wrong : Tensor
        (n,) bool.
    seed : int
        Seed of the halves, stratified by `wrong`, and of the bootstrap.
    samples : int
        Number of bootstrap samples.
    level : float
        Coverage of the interval, in (0, 1). For m uncertainties tried one after the other take
        ``1 - 0.05 / m``.

    Returns
    -------
    Comparison
        AUROC of both on the test half, minus that of the first alone; NaN with fewer than ten
        errors or ten successes in all.

    Raises
    ------
    ValueError
        If the shapes do not fit, or an uncertainty is NaN or infinite.
    """
    (_, wrong), _ = _checked(uncertainty, wrong), _checked(second, wrong)
    pair = np.stack([np.asarray(uncertainty, float), np.asarray(second, float)], 1)
    if not np.isfinite(pair).all():
        raise ValueError("An uncertainty is infinite; clamp it, so that a model can be fitted.")
    train, test = halves(wrong.tolist(), seed)
    if _too_few(wrong, 2 * LEAST):
        return Comparison(NAN, (NAN, NAN), NAN)
    tried = pair, pair[:, :1]
    odds = [classifier().fit(x[train], wrong[train]).decision_function(x[test]) for x in tried]
    return compare(*odds, wrong[test], samples=samples, level=level, seed=seed)


def classifier(**options: object) -> Any:
    """Return a logistic regression on standardised features, to be fitted.

    Parameters
    ----------
    **options
        Of scikit-learn's `LogisticRegression`.
    """
    make = registry.require("sklearn.pipeline", "notebooks").make_pipeline
    scaler = registry.require("sklearn.preprocessing", "notebooks").StandardScaler()
    linear = registry.require("sklearn.linear_model", "notebooks")
    return make(scaler, linear.LogisticRegression(**options))
