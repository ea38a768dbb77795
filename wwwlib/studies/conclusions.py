"""What may and what may not be concluded from a table, worked out from the table itself.

A sentence that was written before the run would praise whoever its writer hoped for.
"""

from collections.abc import Sequence

from wwwlib.scores.paired import compare, holm
from wwwlib.studies.tables import Difference, Row, Table

LEVEL = 0.05  # of the p-values after correction
HITS = "hit rate"


def outcome(table: Table, metric: str, gaps: Sequence[Difference], level: float = LEVEL) -> str:
    """Say who has the highest score, and who differs from the reference beyond chance.

    Methods that were told what the truth was made from do not compete, nor, in hit rate, those
    whose number of names is forced above one: each name is another chance.

    Parameters
    ----------
    table : Table
    metric : str
        A column of it.
    gaps : sequence of Difference
        From `differences` of this table.
    level : float
        The corrected p below which two methods differ.

    Returns
    -------
    str
        One or more sentences.
    """
    rivals = _rivals(table, metric)
    if not rivals:
        return f"{metric}: not measured."
    leaders, highest = _leaders(rivals, metric)
    lead = f"{metric}: {_listed(leaders)} {'has' if len(leaders) == 1 else 'share'} the highest "
    names = {row.method for row in rivals}
    own = [gap for gap in gaps if gap.metric == metric and gap.method in names]
    if not own:
        return f"{lead}mean, {highest:.4f}; there is nothing to compare it with."
    sides: dict[str, list[str]] = {"Better than": [], "Worse than": [], "Not told apart from": []}
    for gap in own:
        side = "Better than" if gap.comparison.difference > 0 else "Worse than"
        sides[side if gap.p < level else "Not told apart from"].append(_told(gap))
    told = [
        f"{side} {own[0].reference}: {_listed(found)}." for side, found in sides.items() if found
    ]
    return " ".join([f"{lead}mean, {highest:.4f}.", *told])


def winner(
    table: Table, metric: str, seed: int = 0, samples: int = 10_000, level: float = LEVEL
) -> str:
    """Return who leads in a metric, in a few words, and from whom chance may tell it apart.

    The leader is compared with every rival, neuron by neuron: the lead is beyond chance only if
    all of them differ, after Holm's correction over the rivals.

    Parameters
    ----------
    table, metric, level
        As for `outcome`, and so are the rivals.
    seed, samples : int
        See `compare`.

    Returns
    -------
    str
        The leader alone if its lead is beyond chance, else with those that it may owe to chance.
    """
    rivals = _rivals(table, metric)
    if not rivals:
        return "not run"
    leaders, _ = _leaders(rivals, metric)
    if len(leaders) > 1:
        return f"{_short(leaders)}, equal"
    best, rest = table[leaders[0]], [row for row in rivals if row.method not in leaders]
    if not rest:
        return f"{best.method}, alone"
    pairs = [compare(best.scores[metric], row.scores[metric], seed, samples) for row in rest]
    adjusted = holm([found.p for found in pairs])
    near = [row.method for row, p in zip(rest, adjusted, strict=True) if p >= level]
    return f"{best.method}, not told apart from {_short(near)}" if near else best.method


def conclude(
    table: Table, gaps: Sequence[Difference], remarks: Sequence[str] = (), level: float = LEVEL
) -> list[str]:
    """Return the note under a table, a line each.

    Parameters
    ----------
    table, gaps, level
        As for `outcome`.
    remarks : sequence of str
        What only the caller knows, such as where the truth comes from.

    Returns
    -------
    list of str
        First what may be concluded, metric by metric, then what may not.
    """
    run = [row for row in table.rows if row.scores]
    may = [outcome(table, metric, gaps, level) for metric in table.metrics]
    but = [
        *_silence(table, run),
        *_limits(run),
        *_chances(run),
        *_same_columns(table, run),
        *_precision(gaps),
    ]
    return [
        f"What may be concluded of {table.title} (differences from paired permutation tests, "
        f"p < {level:g} after Holm's correction over the table):",
        *(f"  + {line}" for line in may),
        "What may not:",
        *(f"  - {line}" for line in (*remarks, *but)),
    ]


def _rivals(table: Table, metric: str) -> list[Row]:
    """Return the rows that compete in a metric."""
    measured = [row for row in table.rows if metric in row.scores and not row.informed]
    return [row for row in measured if metric != HITS or not _crowded(row)]


def _crowded(row: Row) -> bool:
    """Tell whether a method has to give several names, and so has as many chances to hit."""
    return row.size is not None and row.size > 1


def _leaders(rivals: Sequence[Row], metric: str) -> tuple[list[str], float]:
    """Return who has the highest mean, and that mean."""
    highest = max(row.scores[metric].mean for row in rivals)
    return [row.method for row in rivals if row.scores[metric].mean >= highest - 1e-12], highest


def _silence(table: Table, run: Sequence[Row]) -> list[str]:
    """Tell who was not run, who does not compete, and who abstained."""
    lines = []
    missing = [row.method for row in table.rows if not row.scores]
    if missing:
        lines.append(f"Nothing follows about {_listed(missing)}: not run here.")
    lines += [
        f"{row.method} was told what the truth was made from: it is a yardstick, no competitor."
        for row in run
        if row.informed
    ]
    silent = [(row.method, row.scores["F1"].abstained) for row in run]
    found = [f"{method} about {count}" for method, count in silent if count]
    if found:
        lines.append(f"Silence scores 0, and some are silent: {_listed(found)} neurons.")
    return lines


def _limits(run: Sequence[Row]) -> list[str]:
    """Tell what the concept sets, and not the methods, make impossible."""
    known = [row for row in run if row.ceilings]
    lines = []
    reach = {round(row.ceilings[HITS], 4): row.method for row in reversed(known)}
    for share, method in reach.items():
        if share < 1:
            lines.append(
                f"The words open to {method} hold a right name for {share:.1%} of the neurons; "
                "what is missing above that is the vocabulary's doing."
            )
    for row in known:
        if row.size and row.ceilings["F1"] < 1:
            lines.append(
                f"{row.method} gives every neuron {row.size} name{'s' * (row.size > 1)}: its F1 "
                f"cannot exceed {row.ceilings['F1']:.4f}, however right it is."
            )
    full = [
        row.method
        for row in known
        if not _crowded(row)
        and row.scores[HITS].mean >= row.ceilings[HITS] - 1e-9
        and row.ceilings[HITS]
    ]
    if full:
        lines.append(
            f"{_listed(full)} reached the ceiling of the hit rate: this setting cannot tell them "
            "from anything better."
        )
    if free := [row.method for row in run if not row.ceilings]:
        lines.append(
            f"{_listed(free)} chose from no list of words: there is no ceiling to hold against "
            f"{'it' if len(free) == 1 else 'them'}."
        )
    return lines


def _chances(run: Sequence[Row]) -> list[str]:
    """Tell who has more than one chance to hit."""
    lines = [
        f"{row.method} has {row.size} chances a neuron in hit rate, so it does not compete there."
        for row in run
        if _crowded(row)
    ]
    chosen = {row.method: row.scores[HITS].size for row in run if row.size is None}
    many = [f"{method} {mean:.1f}" for method, mean in chosen.items() if round(mean, 1) > 1]
    if many:
        lines.append(
            "Every name is a chance in hit rate, and some give more than one on average: "
            f"{_listed(many)}."
        )
    return lines


def _same_columns(table: Table, run: Sequence[Row]) -> list[str]:
    """Notice two columns that are one measurement under two names."""
    cosines = [metric for metric in table.metrics if metric.endswith("cos")]
    both = [row for row in run if all(metric in row.scores for metric in cosines)]
    if len(cosines) != 2 or not both:
        return []
    a, b = cosines
    if any(abs(row.scores[a].mean - row.scores[b].mean) > 1e-6 for row in both):
        return []
    return [f"{a} and {b} are equal in every row: one text encoder stands behind both."]


def _precision(gaps: Sequence[Difference]) -> list[str]:
    """Tell how large a difference would have had to be to be seen."""
    widest: dict[str, float] = {}
    for gap in gaps:
        low, high = gap.comparison.interval
        widest[gap.metric] = max(widest.get(gap.metric, 0.0), (high - low) / 2)
    told = ", ".join(f"{width:.3f} in {metric}" for metric, width in widest.items() if width > 0)
    if not told:
        return []
    return [f"Differences of less than about {told} may escape this many neurons."]


def _told(gap: Difference) -> str:
    """Write a method with its difference."""
    return f"{gap.method} ({gap.comparison.difference:+.3f})"


def _short(names: Sequence[str]) -> str:
    """Join up to three names; of more, the first two and how many others."""
    return _listed(names if len(names) < 4 else [*names[:2], f"{len(names) - 2} others"])


def _listed(names: Sequence[str]) -> str:
    """Join names with commas and an "and"."""
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last
