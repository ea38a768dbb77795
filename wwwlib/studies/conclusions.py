"""Conclusions that a table allows, derived from its scores and from the settings of the run."""

from collections.abc import Mapping, Sequence

from wwwlib.baselines.falcon import COHESIVE, SIGMAS
from wwwlib.baselines.milan import Describer
from wwwlib.scores import compare
from wwwlib.studies.tables import Difference, Row, Table, holm
from wwwlib.targets import LOGITS, Target

EQUAL = "CLIP-Dissect equal k"
PUBLISHED = "as published"
LEVEL = 0.05  # of the p-values after correction
HITS = "hit rate"
DISSECT_K = 100  # images per neuron of CLIP-Dissect's authors


def outcome(table: Table, metric: str, gaps: Sequence[Difference]) -> str:
    """Name the methods with the highest mean, and those that differ from the reference.

    Methods that use the annotations behind the truth do not compete, nor, in hit rate, those with
    a fixed number of names above one; those of them with a higher mean are named after the leaders.

    Parameters
    ----------
    table : Table
    metric : str
        A column of it.
    gaps : sequence of Difference
        From `tables.differences` of this table; two methods differ where the corrected p is below
        `LEVEL`.

    Returns
    -------
    str
        One or more sentences.
    """
    rows = _competitors(table, metric)
    if not rows:
        return f"{metric}: not measured."
    best, highest = _leaders(rows, metric)
    lead = f"{metric}: {_join(best)} {'has' if len(best) == 1 else 'share'} the highest mean"
    above = [
        f"{row.method} ({row.scores[metric].mean:.4f})"
        for row in table.rows
        if row not in rows and metric in row.scores and row.scores[metric].mean > highest + 1e-12
    ]
    lead += f" of the competing methods, {highest:.4f}"
    lead += f"; higher, without competing: {_join(above)}" if above else ""
    names = {row.method for row in rows}
    own = [gap for gap in gaps if gap.metric == metric and gap.method in names]
    if not own:
        return f"{lead}; no other method was measured."
    sides = {"Better than {}": [], "Worse than {}": [], "No significant difference from {}": []}
    for gap in own:
        better, worse, equal = sides.values()
        side = better if gap.comparison.difference > 0 else worse
        text = f"{gap.method} ({gap.comparison.difference:+.3f})"
        (side if gap.p < LEVEL else equal).append(text)
    sides = {side.format(own[0].reference): methods for side, methods in sides.items() if methods}
    found = [f"{side}: {_join(methods)}." for side, methods in sides.items()]
    return " ".join([f"{lead}.", *found])


def winner(table: Table, metric: str, seed: int = 0, samples: int = 10_000) -> str:
    """Return the method with the highest mean, and those that it does not differ from.

    It is compared with every competitor, neuron by neuron, with Holm's correction over them.

    Parameters
    ----------
    table, metric
        As for `outcome`.
    seed, samples : int
        See `scores.compare`.

    Returns
    -------
    str
        The method alone where it differs from all its competitors.
    """
    rows = _competitors(table, metric)
    if not rows:
        return "not run"
    leaders, _ = _leaders(rows, metric)
    if len(leaders) > 1:
        return f"{_short(leaders)}, equal"
    best, rest = table[leaders[0]], [row for row in rows if row.method not in leaders]
    if not rest:
        return f"{best.method}, alone"
    pairs = [compare(best.scores[metric], row.scores[metric], seed, samples) for row in rest]
    adjusted = holm([found.p for found in pairs])
    near = [row.method for row, p in zip(rest, adjusted, strict=True) if p >= LEVEL]
    return f"{best.method}, not significantly above {_short(near)}" if near else best.method


def conclude(table: Table, gaps: Sequence[Difference]) -> list[str]:
    """Return the conclusions under a table, a line for each metric; see `outcome`."""
    return [
        f"Conclusions from {table.title} (paired permutation tests, p < {LEVEL:g} after Holm's "
        "correction over the table):",
        *(f"  + {outcome(table, metric, gaps)}" for metric in table.metrics),
    ]


def limits(
    table: Table, gaps: Sequence[Difference], remarks: Sequence[str] = ()
) -> dict[str, list[str]]:
    """Return the caveats about a table by its title: `remarks`, and what its scores limit."""
    run = [row for row in table.rows if row.scores]
    found = [*remarks, *_references(table, run), *_bounds(run)]
    return {table.title: found + _precision(gaps)}


def note(limits: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the caveats about several tables, each once: first those that all tables share."""
    where: dict[str, list[str]] = {}
    for title, found in limits.items():
        for caveat in found:
            where.setdefault(caveat, []).append(title)
    shared = [caveat for caveat, titles in where.items() if len(titles) == len(limits)]
    lines = ["Caveats:", *(f"  - {caveat}" for caveat in shared)]
    for titles in dict.fromkeys(map(tuple, where.values())):
        if len(titles) < len(limits):
            own = [caveat for caveat, at in where.items() if tuple(at) == titles]
            lines += [f"Only for {'; '.join(titles)}:", *(f"  - {caveat}" for caveat in own)]
    return lines


def _competitors(table: Table, metric: str) -> list[Row]:
    measured = [row for row in table.rows if metric in row.scores and not row.informed]
    return [row for row in measured if metric != HITS or not _fixed_above_one(row)]


def _fixed_above_one(row: Row) -> bool:
    return row.size is not None and row.size > 1


def _leaders(rows: Sequence[Row], metric: str) -> tuple[list[str], float]:
    highest = max(row.scores[metric].mean for row in rows)
    return [row.method for row in rows if row.scores[metric].mean >= highest - 1e-12], highest


def _references(table: Table, run: Sequence[Row]) -> list[str]:
    """Name the methods that were not run, and those that do not compete."""
    missing = [row.method for row in table.rows if not row.scores]
    lines = [f"Not run here: {_join(missing)}."] if missing else []
    for row in run:
        if row.informed:
            lines.append(
                f"{row.method} uses the annotations that define the truth; it is a reference and "
                "does not compete."
            )
        if _fixed_above_one(row):
            lines.append(
                f"{row.method} gives {row.size} names per neuron, so it does not compete in hit "
                "rate."
            )
    return lines


def _bounds(run: Sequence[Row]) -> list[str]:
    """State what the concept sets make impossible, whatever the method."""
    bounds = {row.method: row.upper_bounds[HITS] for row in run if row.upper_bounds}
    shares = {round(bound, 4): method for method, bound in reversed(bounds.items())}
    lines = [
        f"The concept set of {method} contains a correct name for {share:.1%} of the neurons, "
        "which bounds its hit rate."
        for share, method in shares.items()
        if share < 1
    ]
    full = [
        row.method
        for row in run
        if not _fixed_above_one(row)
        and 0 < bounds.get(row.method, 0) <= row.scores[HITS].mean + 1e-9
    ]
    if full:
        lines.append(
            f"Hit rate at its upper bound: {_join(full)}. This setting cannot rank better methods."
        )
    return lines


def _precision(gaps: Sequence[Difference]) -> list[str]:
    """State the widest interval of each metric, as the smallest difference that can be found."""
    widest: dict[str, float] = {}
    for gap in gaps:
        low, high = gap.comparison.interval
        widest[gap.metric] = max(widest.get(gap.metric, 0.0), (high - low) / 2)
    found = ", ".join(f"{width:.3f} in {metric}" for metric, width in widest.items() if width > 0)
    return [f"With this many neurons differences below about {found} may be missed."] * bool(found)


def _short(names: Sequence[str]) -> str:
    """Join up to three names; of more, the first two and the number of others."""
    return _join(names if len(names) < 4 else [*names[:2], f"{len(names) - 2} others"])


def _join(names: Sequence[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} and {last}" if most else last


# Caveats about methods ------------------------------------------------------------------------


def caveats(
    table: Table,
    target: Target,
    layer: str,
    *,
    dissect_k: int,
    grouping: Mapping[str, float] | None = None,
    map_layer: str | None = None,
    describer: Describer | None = None,
) -> list[str]:
    """Return caveats about the methods of a table, derived from their settings.

    Parameters
    ----------
    table : Table
    target : Target
    layer : str
        Of the table's neurons.
    dissect_k : int
        Images per neuron of CLIP-Dissect.
    grouping : mapping of str to float, optional
        FALCON's `sigmas` and `cohesive`, by default its authors'.
    map_layer : str, optional
        Layer of the maps by which FALCON crops.
    describer : Describer, optional
        MILAN's.
    """
    lines, run = [], {row.method for row in table.rows if row.scores}
    if EQUAL in run:
        theirs = "as do its authors" if dissect_k == DISSECT_K else f"its authors {DISSECT_K}"
        images = f"{dissect_k} image{'s' * (dissect_k > 1)} per neuron"
        lines.append(f"CLIP-Dissect uses {images}, {theirs}, and else its authors' settings.")
    if "FALCON" in run:
        used = {"sigmas": SIGMAS, "cohesive": COHESIVE, **(grouping or {})}
        crops = f"images cropped by the maps of {map_layer}" if map_layer else "images not cropped"
        lines += [
            "FALCON takes words from captions, not from the concept set; neurons in none of its "
            "groups are left without a name.",
            f"FALCON's thresholds are {used['sigmas']:g} standard deviations and a coherence "
            f"of {used['cohesive']:g} (its authors': {SIGMAS:g} and {COHESIVE:g}); {crops}.",
        ]
    if "MILAN" in run and describer:
        same = describer.encoder.digest == target.digest
        lines.append(
            "MILAN's names are words of the concept set in its free text. Its decoder was trained "
            "on masks and names of the concept world; its image encoder is "
            f"{describer.encoder.name}, "
            + ("the network under study." if same else f"another network than {target.name}.")
        )
    if "Network Dissection" in run and layer == LOGITS:
        lines.append("Final neurons have one value per image, so Network Dissection sees no parts.")
    if any(method.endswith(PUBLISHED) for method in run):
        lines.append("Labels as published may come from other images and weights than this table.")
    if layer != LOGITS and target.prefix_tokens and target.class_token:
        lines.append("Names come from the class token, but the truth from patch tokens.")
    return lines
