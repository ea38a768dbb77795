"""Verdicts: claims with their estimates, intervals and outcomes, decided by the run."""

from collections.abc import Sequence
from math import isnan
from typing import NamedTuple

from pandas import DataFrame

from wwwlib.studies.reliability import LEAST, NAN, Interval, RejectionCurve

HELD, FAILED, UNDECIDED = "held", "did not hold", "undecided"


class Verdict(NamedTuple):
    """A claim, its estimate, and its outcome.

    Attributes
    ----------
    claim : str
    value : float
        The estimate; NaN where nothing was measured.
    interval : (float, float)
        Of `value`.
    bound : float
        The claim is that the true value lies above it.
    why : str
        The reason where nothing was measured.
    """

    claim: str
    value: float = NAN
    interval: Interval = (NAN, NAN)
    bound: float = 0.0
    why: str = ""

    @property
    def outcome(self) -> str:
        """Held if the whole interval lies above the bound, did not hold if none of it does.

        Undecided if the bound lies within, or nothing was measured.
        """
        low, high = self.interval
        if any(map(isnan, (self.value, low, high))) or low <= self.bound < high:
            return UNDECIDED
        return HELD if low > self.bound else FAILED

    def __str__(self) -> str:
        low, high = self.interval
        found = f"measured {self.value:.3f}, interval {low:.3f} to {high:.3f}"
        if isnan(self.value):
            found = self.why or "nothing was measured"
        return f"{self.claim}: {self.outcome} ({found})."


verdict = Verdict  # decides the claim that a value lies above a bound


def outcomes(verdicts: Sequence[Verdict]) -> DataFrame:
    """Return verdicts as a table; a claim that was not measured has its reason in place of numbers.

    The columns are "claim", "figure" and "interval", as text; the index is the outcome.
    """
    rows = []
    for v in verdicts:
        measured = f"{v.value:.3f}", "{:.3f} to {:.3f}".format(*v.interval)
        missing = v.why or "not measured", "—"
        rows.append((v.outcome, v.claim, *(missing if isnan(v.value) else measured)))
    return DataFrame(rows, columns=["outcome", "claim", "figure", "interval"]).set_index("outcome")


def judge(claim: str, curve: RejectionCurve, why: str = "") -> Verdict:
    """Decide the claim that an uncertainty's AUROC lies above .5, that of a random order.

    With fewer than `reliability.LEAST` errors, or successes, the claim is undecided: the bootstrap
    interval of a few images is too narrow.

    Parameters
    ----------
    claim : str
        In words, without its outcome.
    curve : RejectionCurve
        Of that uncertainty.
    why : str
        The reason in that case; by default the numbers of errors and images.

    Returns
    -------
    Verdict
    """
    if min(curve.errors, curve.images - curve.errors) < LEAST:
        return verdict(claim, bound=0.5, why=why or f"{curve.errors} of {curve.images} are wrong")
    return verdict(claim, curve.auroc, curve.auroc_interval, 0.5)


def judge_share(claim: str, count: int, total: int, bound: float, why: str = "") -> Verdict:
    """Decide the claim that a share lies above a bound.

    Parameters
    ----------
    claim : str
        In words, without its outcome.
    count, total : int
        The share, as `count` of `total`.
    bound : float
        In [0, 1): the claim is that the share exceeds it. A single case lifts the interval above
        0, so take the smallest share that would matter.
    why : str
        Reason why `total` is 0, if it is.

    Returns
    -------
    Verdict
        With Wilson's interval, which has a width even where the share is 0 or 1.

    Raises
    ------
    ValueError
        If `count` is larger than `total`.
    """
    from scipy.stats import binomtest

    if not total:
        return verdict(claim, bound=bound, why=why or "there is nothing to count")
    ends = binomtest(count, total).proportion_ci(method="wilson")
    return verdict(claim, count / total, (float(ends.low), float(ends.high)), bound)
