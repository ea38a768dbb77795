"""HOW SURE: readings of an explanation as doubt, and how well doubt finds the errors.

`survey` reads one explanation per image: how far the image's own evidence and that of its class
agree. `rejection` and `risk_coverage` ask whether a doubt sorts errors first, `compare` whether
one doubt does so better than another, `gain` whether it adds anything to the other. `verdict` says
what a figure and its interval allow to say, which is sometimes nothing. How much of a neuron's name
hangs on the probe set is told by `concepts.stability`.
"""

from wwwlib.reliability.combination import Gain, Logistic, fit_logistic, gain
from wwwlib.reliability.doubts import Readings, readings, softmax_doubts
from wwwlib.reliability.rejection import (
    Difference,
    RejectionCurve,
    RiskCoverage,
    auroc,
    compare,
    compare_within,
    rejection,
    risk_coverage,
)
from wwwlib.reliability.survey import Survey, Surveyed, check_apart, halves, survey
from wwwlib.reliability.verdict import Verdict, judge, verdict

__all__ = [
    "Difference",
    "Gain",
    "Logistic",
    "Readings",
    "RejectionCurve",
    "RiskCoverage",
    "Survey",
    "Surveyed",
    "Verdict",
    "auroc",
    "check_apart",
    "compare",
    "compare_within",
    "fit_logistic",
    "gain",
    "halves",
    "judge",
    "readings",
    "rejection",
    "risk_coverage",
    "softmax_doubts",
    "survey",
    "verdict",
]
