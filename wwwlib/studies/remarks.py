"""What a table's note says of its methods: true of this run, and worked out from its settings.

A remark that was written before the run would be false of some.
"""

from collections.abc import Mapping

from wwwlib.baselines.falcon import COHESIVE, SIGMAS
from wwwlib.baselines.milan import Describer
from wwwlib.studies.line_up import EQUAL
from wwwlib.studies.tables import Table
from wwwlib.targets import LOGITS, Target

DISSECT_K = 100  # images a neuron that CLIP-Dissect's authors look at


def about(
    table: Table,
    target: Target,
    layer: str,
    *,
    dissect_k: int,
    grouping: Mapping[str, float] | None = None,
    drawn: str | None = None,
    describer: Describer | None = None,
) -> list[str]:
    """Return the remarks about the methods that a table has, a sentence or two each.

    Parameters
    ----------
    table : Table
    target : Target
    layer : str
        Of the table's neurons.
    dissect_k : int
        Images a neuron that CLIP-Dissect looked at.
    grouping : mapping of str to float, optional
        FALCON's `sigmas` and `cohesive`; those that are missing are its authors'.
    drawn : str, optional
        `Falcon.drawn`.
    describer : Describer, optional
        MILAN's.
    """
    told = {
        EQUAL: lambda: clip_dissect(dissect_k),
        "FALCON": lambda: falcon(grouping or {}, layer, drawn),
        "MILAN": lambda: milan(describer, target) if describer else [],
        "Network Dissection": lambda: _PARTLESS if layer == LOGITS else [],
    }
    run = [row.method for row in table.rows if row.scores]
    lines = [line for method, of in told.items() if method in run for line in of()]
    lines += _ELSEWHERE if any(method.endswith("as published") for method in run) else []
    readings = layer != LOGITS and target.prefix_tokens and target.class_token
    return lines + (_READINGS if readings else [])


_PARTLESS = ["A final neuron has one value an image: Network Dissection sees no part."]
_ELSEWHERE = [
    "Labels as published come from their authors' own runs, whose images and weights need not be "
    "this table's."
]
_READINGS = ["Names come from the class token, the truth from patch tokens: two readings."]


def clip_dissect(k: int) -> list[str]:
    """Tell how far CLIP-Dissect's settings are its authors'."""
    theirs = "as its authors do" if k == DISSECT_K else f"while its authors take {DISSECT_K}"
    return [
        f"CLIP-Dissect looks at {k} image{'s' * (k > 1)} a neuron, {theirs}; its other settings "
        "are theirs, and none was tuned to this network."
    ]


def falcon(grouping: Mapping[str, float], layer: str, drawn: str | None) -> list[str]:
    """Tell what FALCON's names are about, at which thresholds, and where it looked."""
    sigmas, cohesive = grouping.get("sigmas", SIGMAS), grouping.get("cohesive", COHESIVE)
    where = f"cuts images as the maps of {drawn} say" if drawn else "cuts none, for want of a map"
    lines = [
        "FALCON takes words and phrases from captions, whatever the table's concept set is, and "
        "names groups of neurons; those in no group it leaves without a name by design.",
        f"FALCON's features are on above {sigmas:g} standard deviations, and its groups cohere "
        f"above {cohesive:g} (its authors': {SIGMAS:g} and {COHESIVE:g}); it {where}.",
    ]
    if layer not in (LOGITS, drawn):
        lines[1] += f" Of the maps of {layer} its features are independent."
    return lines


def milan(describer: Describer, target: Target) -> list[str]:
    """Tell what MILAN's decoder learnt from, and through which network it sees."""
    encoder = describer.encoder
    same = encoder.digest == target.digest
    which = "the network under study itself" if same else f"not {target.name}, which is under study"
    return [
        "MILAN describes in its own words; those of the concept set are read out of them. Its "
        "decoder learnt from regions of images of the concept world with their true names, out of "
        "such masks as Network Dissection reads there. "
        f"It sees through {encoder.name}, {which}."
    ]
