"""The paper's tables at a glance: a point for each score, a tick for what could be reached."""

from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from wwwlib.plots.style import BLUE, GREY, INK, RULE, SMALL, VERMILION, WIDTH, fit, styled
from wwwlib.studies.tables import NOT_RUN, Row, Table

_LABELS = 1.75  # inches for the methods' names


@styled
def methods(tables: Sequence[Table], reference: str = "WWW") -> Figure:
    """Draw tables as rows of panels: a row a table, a panel a score, a line a method.

    Parameters
    ----------
    tables : sequence of Table
        With the same metrics.
    reference : str
        The method that the others are compared with, which is drawn full.

    Returns
    -------
    Figure
        Points with one standard error on both sides; a tall tick is the upper bound. A score that
        no method of any table has, for want of an encoder, has no panel.

    Raises
    ------
    ValueError
        If there is no table, or nothing in them was measured.
    """
    metrics = [
        metric
        for metric in (tables[0].metrics if tables else ())
        if any(metric in row.scores for table in tables for row in table.rows)
    ]
    if not metrics:
        raise ValueError("No table has a score that was measured; give at least one that has.")
    heights = [0.62 + 0.22 * len(table.rows) for table in tables]
    figure = Figure(figsize=(WIDTH, 0.45 + sum(heights)), layout="constrained")
    parts = figure.subfigures(len(tables), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, table in zip(parts, tables, strict=True):
        part.suptitle(
            fit(table.title, WIDTH - 0.3, SMALL, bold=True)[0],
            x=0.01, ha="left", size=SMALL, weight="bold",
        )  # fmt: skip
        panels = part.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
        _name_methods(panels[0], table)
        for axes, metric in zip(panels, metrics, strict=True):
            _panel(axes, table, metric, reference, (WIDTH - _LABELS) / len(metrics) - 0.1)
    figure.legend(handles=_key(tables, reference), loc="outside lower left", ncols=4)
    return figure


def _name_methods(axes, table: Table) -> None:
    """Write the methods' names on the left, the first on top."""
    names = [fit(row.method, _LABELS)[0] for row in table.rows]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)


def _panel(axes, table: Table, metric: str, reference: str, width: float) -> None:
    """Draw one score of every method."""
    axes.set_title("\n".join(fit(metric, width, SMALL, bold=True, lines=2)), size=SMALL)
    for place, row in enumerate(table.rows):
        axes.axhline(place, color=RULE, linewidth=0.5, zorder=0)
        if metric not in row.scores:
            axes.text(
                0.5, place, NOT_RUN, size=SMALL, color=GREY, ha="center", va="center",
                bbox={"facecolor": axes.get_facecolor(), "edgecolor": "none", "pad": 1},
            )  # fmt: skip
            continue
        score, look = row.scores[metric], _look(row, reference)
        if metric in row.upper_bounds:
            bound = row.upper_bounds[metric]
            axes.plot(bound, place, "|", color=VERMILION, markersize=9, markeredgewidth=2)
        axes.errorbar(score.mean, place, xerr=score.stderr, capsize=2, linewidth=1.2, **look)
    axes.set_xlim(min(-0.06, axes.get_xlim()[0]), 1.08)
    axes.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _look(row: Row, reference: str) -> dict:
    """Return how a method's point is drawn: told apart by shape and filling, not colour alone."""
    if row.method == reference:
        return {"color": BLUE, "marker": "o", "markersize": 5.5}
    if row.informed:
        return {"color": GREY, "marker": "D", "markersize": 4.5, "markerfacecolor": "none"}
    return {"color": INK, "marker": "s", "markersize": 4.5, "markerfacecolor": "none"}


def _key(tables: Sequence[Table], reference: str) -> list[Line2D]:
    """Return the legend's entries, of what is really drawn."""
    rows = [row for table in tables for row in table.rows if row.scores]
    kinds = {
        reference: [row for row in rows if row.method == reference],
        "other methods": [r for r in rows if r.method != reference and not r.informed],
        "yardstick": [row for row in rows if row.informed and row.method != reference],
    }
    entries = [
        Line2D([], [], linestyle="none", label=fit(label, 1.6)[0], **_look(own[0], reference))
        for label, own in kinds.items()
        if own
    ]
    ceiling = Line2D([], [], linestyle="none", marker="|", color=VERMILION, markersize=9)
    ceiling.set(markeredgewidth=2, label="ceiling")
    return [*entries, ceiling]
