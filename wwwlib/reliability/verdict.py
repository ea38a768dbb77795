"""What a figure and its interval allow to say about a claim."""

from dataclasses import dataclass
from math import isnan

from wwwlib.reliability.rejection import RejectionCurve

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
