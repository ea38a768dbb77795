"""Conclusions that tables allow, derived from their scores."""

from collections.abc import Sequence

from wwwlib.studies.tables import Table, compare_pairs

EQUAL = "CLIP-Dissect equal k"
LEVEL = 0.05  # of the p-values after correction


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


def _short(names: Sequence[str]) -> str:
    """Join up to three names; of more, the first two and the number of others."""
    *most, last = names if len(names) < 4 else [*names[:2], f"{len(names) - 2} others"]
    return f"{', '.join(most)} and {last}" if most else last
