"""WHAT, drawn: neurons with their names and exemplars, and how those names were chosen."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from wwwlib.concepts import ConceptTable
from wwwlib.exemplars import CONSTANT, NOT_FINITE, Exemplars
from wwwlib.images import ImageSet
from wwwlib.plots.sheet import MARGIN, Sheet, leading
from wwwlib.plots.style import (
    BLUE,
    BODY,
    GREY,
    INK,
    RULE,
    SMALL,
    VERMILION,
    WIDTH,
    fit,
    measure,
    number,
    share,
    styled,
)

_NAMES = 1.95  # inches: the column of names
_REASONS = {CONSTANT: "the same value everywhere", NOT_FINITE: "too few finite values"}


@styled
def neurons(
    table: ConceptTable,
    exemplars: Exemplars,
    images: ImageSet,
    which: Sequence[int],
    columns: int = 8,
) -> Figure:
    """Draw a row for each chosen neuron: index, major concepts with scores, top exemplars.

    Parameters
    ----------
    table : ConceptTable
        Of N neurons.
    exemplars : Exemplars
        Of the same neurons.
    images : ImageSet
        The probe set of the exemplars.
    which : sequence of int
        The neurons, each in [0, N).
    columns : int
        Exemplars per row; fewer are drawn where there are fewer.

    Returns
    -------
    Figure
        As WWW, Figures 1 and 3. An abstaining neuron says "no concept".
    """
    return _rows(table, exemplars, images, which, columns, "Major concepts", "images")


@styled
def minor(
    table: ConceptTable,
    exemplars: Exemplars,
    crops: ImageSet,
    which: Sequence[int],
    columns: int = 8,
) -> Figure:
    """Draw the chosen neurons with their minor concepts and the crops that excite them most.

    Parameters are those of `neurons`, the table and exemplars being those of the cropped set.
    """
    return _rows(table, exemplars, crops, which, columns, "Minor concepts", "crops")


def _rows(table, exemplars, images, which, columns, title, things) -> Figure:
    which = [_checked(neuron, len(table)) for neuron in which]
    if not which or columns < 1:
        raise ValueError(
            f"Nothing to draw: {len(which)} neurons in {columns} columns; choose at least one each."
        )
    left = MARGIN + _NAMES + 0.15
    side = min((WIDTH - MARGIN - left + 0.05) / columns - 0.05, 0.75)
    lines = max(3, int((side + 0.06) / leading()) - 1)
    blocks = [_names(table, exemplars, neuron, lines) for neuron in which]
    row = max(side, leading(BODY) + lines * leading()) + 0.14
    sheet = Sheet(height=2 * MARGIN + 0.24 + len(which) * row - 0.1)
    sheet.write(MARGIN, MARGIN, f"{title}, with scores", BODY, bold=True)
    sheet.write(left, MARGIN, f"Most exciting {things}, best first", BODY, bold=True)
    for place, (neuron, block) in enumerate(zip(which, blocks, strict=True)):
        y = MARGIN + 0.3 + place * row
        sheet.rule(y - 0.06, MARGIN, WIDTH - MARGIN)
        below = sheet.write(MARGIN, y, f"neuron {neuron}", BODY, bold=True)
        for name, score in block:
            sheet.write(MARGIN + _NAMES, below, score or "", ha="right")
            below = sheet.write(MARGIN, below, name, colour=GREY if score is None else INK)
        shown = exemplars.index[neuron][:columns].tolist()
        for column, image in enumerate(shown):
            at = (left + column * (side + 0.05), y, side)
            if image < 0:
                sheet.empty(*at)
            else:
                sheet.picture(*at, images.image(image))
    return sheet.figure


def _names(table, exemplars, neuron, lines) -> list[tuple[str, str | None]]:
    """Return at most `lines` lines, each with a score, "" where a name goes on, or None."""
    names, scores = table.names[neuron], table.scores[neuron]
    if not names:
        reason = _REASONS.get(int(exemplars.status[neuron]))
        return [("no concept", None)] + ([(f"({reason})", None)] if reason else [])
    kept = len(names) if len(names) <= lines else lines - 1
    spare = lines - min(len(names), lines)
    block = []
    for name, score in zip(names[:kept], scores[:kept], strict=True):
        score = number(score, 3)
        broken = fit(name, _NAMES - measure(score) - 0.12, lines=1 + spare)
        spare -= len(broken) - 1
        block += zip(broken, [score] + [""] * (len(broken) - 1), strict=True)
    return block + ([(f"and {len(names) - kept} more", None)] if kept < len(names) else [])


def _checked(neuron: int, count: int) -> int:
    if not 0 <= neuron < count:
        raise IndexError(f"Neuron {neuron} does not exist; the layer has {count}, from 0.")
    return int(neuron)


@styled
def selection(s_row, words: Sequence[str], threshold: float, alpha: float, top: int = 20) -> Figure:
    """Draw the best concept scores of one neuron and the threshold that chose among them.

    Parameters
    ----------
    s_row : array, shape (M,)
        The neuron's scores (WWW, Eq. 1).
    words : sequence of str
        The M concepts.
    threshold : float
        From which on a concept is kept: `alpha` times the best score (WWW, Eq. 2).
    alpha : float
        In (0, 1].
    top : int
        How many scores to draw; all that are kept are counted.

    Returns
    -------
    Figure
    """
    s = np.asarray(s_row, dtype=float)
    if s.shape != (len(words),):
        raise ValueError(f"Scores of shape {s.shape} do not fit {len(words)} concepts.")
    order = np.argsort(-np.where(np.isfinite(s), s, -np.inf), kind="stable")
    order = order[np.isfinite(s[order])]
    names = bool(len(order)) and s[order[0]] > 0
    kept = int((s[order] >= threshold).sum()) if names else 0
    order = order[:top]
    figure = Figure(figsize=(WIDTH, 1.25 + 0.19 * max(len(order), 3)), layout="constrained")
    axes = figure.subplots()
    _dots(axes, s[order], [words[i] for i in order], kept)
    if names:
        label, place = f"threshold {number(threshold, 3)} = {alpha:g} × best score", threshold
    else:
        label, place = "zero: no score lies above it, so no concept", 0
    axes.axvline(place, color=VERMILION, linestyle=(0, (4, 2)), linewidth=1.4, label=label)
    axes.set_xlabel("concept score: cosine to the exemplars above the bare template's")
    figure.legend(loc="outside upper left", ncols=3)
    return figure


def _dots(axes, scores, words, kept) -> None:
    """Draw scores as dots on lines: filled where kept, hollow where left out."""
    rows = np.arange(len(scores))
    chosen = rows < kept
    axes.hlines(rows, 0, 1, color=RULE, linewidth=0.6, transform=axes.get_yaxis_transform())
    axes.plot(scores[chosen], rows[chosen], "o", color=BLUE, markersize=6, label=f"kept ({kept})")
    axes.plot(
        scores[~chosen], rows[~chosen], "o", markerfacecolor="white", color=GREY, markersize=5,
        label="left out",
    )  # fmt: skip
    axes.set_yticks(rows, [fit(word, 2.2)[0] for word in words])
    for label, bold in zip(axes.get_yticklabels(), chosen, strict=True):
        label.set_fontweight("bold" if bold else "normal")
    axes.set_ylim(max(len(rows), 3) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


@styled
def set_sizes(tables: ConceptTable | Mapping[str, ConceptTable], most: int = 8) -> Figure:
    """Draw how many concepts neurons keep, and how many neurons abstain.

    Parameters
    ----------
    tables : ConceptTable, or mapping of layer name to ConceptTable
        One panel each.
    most : int
        Larger sets are counted together.

    Returns
    -------
    Figure
    """
    if isinstance(tables, ConceptTable):
        tables = {"": tables}
    columns = min(len(tables), 3)
    rows = -(-len(tables) // columns)
    figure = Figure(figsize=(WIDTH, 0.5 + 1.9 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    grid = list(grid.flat)
    for axes, (layer, table) in zip(grid, tables.items(), strict=False):
        sizes = np.array([len(names) for names in table.names])
        shares = np.bincount(sizes.clip(max=most), minlength=most + 1) / max(len(sizes), 1)
        bars = axes.bar(range(most + 1), shares, color=[VERMILION] + [BLUE] * most, width=0.75)
        bars[0].set_hatch("///")
        bars[0].set_edgecolor("white")
        named = sizes[sizes > 0]
        mean = number(named.mean(), 1) if len(named) else "–"
        words = f"{share(shares[0])} without a concept, mean of the others {mean}"
        width = WIDTH / columns - 0.75
        head = fit(layer, width, BODY, bold=True) if layer else []
        axes.set_title("\n".join(head), pad=6 + 10 * len(fit(words, width, lines=3)))
        axes.text(
            0, 1.02, "\n".join(fit(words, width, lines=3)), transform=axes.transAxes, size=SMALL
        )
        axes.set_xticks(range(most + 1), [*map(str, range(most)), f"{most}+"])
    for axes in grid[len(tables) :]:
        axes.set_visible(False)
    figure.supxlabel("concepts kept by a neuron (0: it abstains)", size=BODY)
    figure.supylabel("share of neurons", size=BODY)
    return figure


@styled
def hits(rows: Sequence[tuple[str, float, float, float]]) -> Figure:
    """Draw scores beside the best that any answer could reach.

    Parameters
    ----------
    rows : sequence of (name, value, stderr, ceiling)
        One row each; the ceiling may be nan where there is none.

    Returns
    -------
    Figure
        Points with one standard error on both sides; a tall tick is the ceiling.
    """
    figure = Figure(figsize=(WIDTH, 1.0 + 0.34 * len(rows)), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(rows))
    names, values, errors, ceilings = zip(*rows, strict=True)
    axes.hlines(places, 0, 1, color=RULE, linewidth=0.6, transform=axes.get_yaxis_transform())
    points = axes.errorbar(
        values, places, xerr=errors, fmt="o", color=BLUE, capsize=3, label="score ± standard error"
    )
    (ticks,) = axes.plot(
        ceilings, places, "|", color=VERMILION, markersize=15, markeredgewidth=2,
        label="ceiling: the best any answer could score",
    )  # fmt: skip
    axes.set_yticks(places, ["\n".join(fit(name, 2.2, lines=2)) for name in names])
    for place, value, error, ceiling in zip(places, values, errors, ceilings, strict=True):
        best = "" if np.isnan(ceiling) else f" of {number(ceiling, 3)}"
        axes.text(
            1.02, place, f"{number(value, 3)} ± {number(error, 3)}{best}",
            transform=axes.get_yaxis_transform(), va="center", size=SMALL,
        )  # fmt: skip
    axes.set_xlim(-0.02, max(1.02, *np.nan_to_num(ceilings), *values))
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    figure.legend(handles=[points, ticks], loc="outside upper left", ncols=2)
    axes.set_xlabel("score")
    return figure


__all__ = ["hits", "minor", "neurons", "selection", "set_sizes"]
