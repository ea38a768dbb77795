"""What a figure and its interval allow to say about a claim."""

from dataclasses import dataclass
from math import isnan, sqrt
from statistics import NormalDist

from wwwlib.studies.reliability.rejection import RejectionCurve

HELD, FAILED, OPEN = "held", "did not hold", "not decidable here"


@dataclass(frozen=True)
class Verdict:
    """A claim, what was measured for it, and what follows.

    Attributes
    ----------
    claim : str
        In words.
    value : float
        What was measured; nan where nothing could be.
    interval : (float, float)
        Of `value`.
    bound : float
        The claim says that the truth lies above it.
    outcome : {"held", "did not hold", "not decidable here"}
    why : str
        Why nothing could be measured, if that is so.
    """

    claim: str
    value: float
    interval: tuple[float, float]
    bound: float
    outcome: str
    why: str = ""

    def __str__(self) -> str:
        """Return one line of markdown, the outcome first."""
        if isnan(self.value):
            return f"*{self.outcome}* · {self.claim}: {self.why or 'nothing could be measured'}"
        low, high = self.interval
        return f"*{self.outcome}* · {self.claim}: {self.value:.3f} [{low:.3f}, {high:.3f}]"


def verdict(
    claim: str,
    value: float = float("nan"),
    interval: tuple[float, float] = (float("nan"), float("nan")),
    bound: float = 0.0,
    why: str = "",
) -> Verdict:
    """Judge the claim that something lies above a bound.

    Parameters
    ----------
    claim : str
        In words, without its outcome.
    value : float
        The estimate; nan (or left out) where there is none.
    interval : (float, float)
        Its interval.
    bound : float
        What the claim says the truth exceeds.
    why : str
        Why there is no estimate.

    Returns
    -------
    Verdict
        *held* if the whole interval lies above the bound, *did not hold* if none of it does, and
        *not decidable here* if the bound lies within, or nothing was measured.
    """
    low, high = interval
    if isnan(value) or isnan(low) or isnan(high):
        outcome = OPEN
    elif low > bound:
        outcome = HELD
    else:
        outcome = FAILED if high <= bound else OPEN
    return Verdict(claim, value, (low, high), bound, outcome, why)


def judge(
    claim: str, curve: RejectionCurve, bound: float = 0.5, least: int = 5, why: str = ""
) -> Verdict:
    """Judge the claim that a doubt's AUROC lies above a bound.

    Parameters
    ----------
    claim : str
        In words, without its outcome.
    curve : RejectionCurve
        Of that doubt.
    bound : float
        By default that of guessing.
    least : int
        With fewer errors, or fewer successes, nothing can be decided: a bootstrap of a handful of
        images looks far too sure.
    why : str
        Why, in that case; by default their numbers.

    Returns
    -------
    Verdict
    """
    if min(curve.errors, curve.images - curve.errors) < least:
        return verdict(claim, bound=bound, why=why or f"{curve.errors} of {curve.images} are wrong")
    return verdict(claim, curve.auroc, curve.auroc_interval, bound)


def wilson(count: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """Return Wilson's interval of a share, which has a width even where the share is 0 or 1.

    Parameters
    ----------
    count, total : int
        How many of how many; `total` at least 1.
    level : float
        Coverage, in (0, 1).

    Raises
    ------
    ValueError
        If `count` is not within 0 and `total`, or `total` is 0.
    """
    if not 0 <= count <= total or not total:
        raise ValueError(f"{count} of {total} is no share; give a count from 0 to a total above 0.")
    z = NormalDist().inv_cdf((1 + level) / 2)
    p, scale = count / total, 1 + z**2 / total
    centre = (p + z**2 / (2 * total)) / scale
    half = z / scale * sqrt(p * (1 - p) / total + z**2 / (4 * total**2))
    return max(0.0, centre - half), min(1.0, centre + half)


def judge_share(claim: str, count: int, total: int, bound: float, why: str = "") -> Verdict:
    """Judge the claim that a share lies above a bound.

    Parameters
    ----------
    claim : str
        In words, without its outcome.
    count, total : int
        The share, as how many of how many.
    bound : float
        In [0, 1): what the claim says the share exceeds. One single case lifts the interval above
        0, so take what would matter.
    why : str
        Why there is nothing to count, if that is so.

    Returns
    -------
    Verdict
        With `wilson`'s interval.
    """
    if not total:
        return verdict(claim, bound=bound, why=why or "there is nothing to count")
    return verdict(claim, count / total, wilson(count, total), bound)
