"""HOW SURE: readings of an explanation as doubt, and how well doubt finds the errors.

`doubts_of` turns what `survey.survey` read of every image into doubts. `rejection` and
`risk_coverage` ask whether a doubt sorts errors first, `compare` whether one doubt does so better
than another, by AUROC or AURC, `gain` whether it adds anything to the other. `verdict` says what a
figure and its interval allow to say, which is sometimes nothing. How much of a neuron's name hangs
on the probe set is told by `concepts.stability`.
"""

from wwwlib.studies.reliability.combination import Gain, Logistic, fit_logistic, gain
from wwwlib.studies.reliability.doubts import doubts_of, explanation_doubts, softmax_doubts
from wwwlib.studies.reliability.rejection import (
    Difference,
    RejectionCurve,
    RiskCoverage,
    auroc,
    compare,
    compare_within,
    rejection,
    risk_coverage,
)
from wwwlib.studies.reliability.verdict import Verdict, judge, judge_share, verdict, wilson

__all__ = [
    "Difference",
    "Gain",
    "Logistic",
    "RejectionCurve",
    "RiskCoverage",
    "Verdict",
    "auroc",
    "compare",
    "compare_within",
    "doubts_of",
    "explanation_doubts",
    "fit_logistic",
    "gain",
    "judge",
    "judge_share",
    "rejection",
    "risk_coverage",
    "softmax_doubts",
    "verdict",
    "wilson",
]
