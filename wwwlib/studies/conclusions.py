"""Conclusions that tables allow, derived from their scores and from the settings of the run."""

from collections.abc import Iterable, Mapping, Sequence

from wwwlib.baselines import falcon, milan
from wwwlib.studies.tables import Table, compare_pairs

EQUAL = "CLIP-Dissect equal k"
LEVEL = 0.05  # of the p-values after correction
DISSECT_K = 100  # images per neuron of CLIP-Dissect's authors


def winner(table: Table, metric: str, seed: int = 0) -> str:
    """Return the method with the highest mean, and those that it does not differ from.

    It is compared with every other method, neuron by neuron, with Holm's correction over them. In
    hit rate methods with a fixed number of names above one do not compete.

    Parameters
    ----------
    table : Table
    metric : str
        A column of it.
    seed : int
        See `scores.compare`.

    Returns
    -------
    str
        The method alone where it differs from all its competitors.
    """
    rows = [row for row in table.rows if metric in row.scores]
    rest = {r.method: r.scores[metric] for r in rows if metric != "hit rate" or (r.size or 1) <= 1}
    if not rest:
        return "not run"
    highest = max(score.mean for score in rest.values())
    leaders = [method for method, score in rest.items() if score.mean >= highest - 1e-12]
    if len(leaders) > 1:
        return f"{_short(leaders)}, equal"
    best = rest.pop(leaders[0])
    if not rest:
        return f"{leaders[0]}, alone"
    p = compare_pairs({method: (best, own) for method, own in rest.items()}, seed).p
    near = [*p.index[p >= LEVEL]]
    return leaders[0] + (f", not significantly above {_short(near)}" if near else "")


def caveats(
    tables: Iterable[Table],
    *,
    dissect_k: int,
    grouping: Mapping[str, float] | None = None,
    describer: milan.Describer | None = None,
) -> list[str]:
    """Return the caveats about the methods of some tables of the final layer, each once.

    Parameters
    ----------
    tables : iterable of Table
    dissect_k : int
        Images per neuron of CLIP-Dissect.
    grouping : mapping of str to float, optional
        FALCON's `sigmas` and `cohesive`, by default its authors'.
    describer : Describer, optional
        MILAN's.
    """
    rows = {row.method: row for table in tables for row in table.rows}
    run = [method for method, row in rows.items() if row.scores]
    missing = [method for method in rows if method not in run]
    lines = [f"Not run here: {_join(missing)}."] if missing else []
    lines += [
        f"{method} gives {rows[method].size} names per neuron, so it does not compete in hit rate."
        for method in run
        if (rows[method].size or 1) > 1
    ]
    theirs = "as do its authors" if dissect_k == DISSECT_K else f"its authors {DISSECT_K}"
    images = f"{dissect_k} image{'s' * (dissect_k > 1)} per neuron"
    used = {"sigmas": falcon.SIGMAS, "cohesive": falcon.COHESIVE, **(grouping or {})}
    texts = {
        EQUAL: f"CLIP-Dissect uses {images}, {theirs}, and else its authors' settings.",
        "Network Dissection": "Final neurons have one value per image, so Network Dissection sees "
        "no parts.",
        "FALCON": "FALCON takes words from captions, not from the concept set, and leaves neurons "
        f"in none of its groups without a name. Its thresholds are {used['sigmas']:g} standard "
        f"deviations and a coherence of {used['cohesive']:g} (its authors': {falcon.SIGMAS:g} and "
        f"{falcon.COHESIVE:g}).",
        "MILAN": describer
        and "MILAN's names are words of the concept set in its free text. Its decoder was trained "
        f"on masks and names of the concept world, its image encoder is {describer.encoder.name}.",
    }
    lines += [text for method, text in texts.items() if method in run and text]
    if any(method.endswith("as published") for method in run):
        lines.append("Labels as published may come from other images and weights than these.")
    return lines


def _short(names: Sequence[str]) -> str:
    """Join up to three names; of more, the first two and the number of others."""
    return _join(names if len(names) < 4 else [*names[:2], f"{len(names) - 2} others"])


def _join(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
