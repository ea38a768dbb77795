"""Curves with bands, scores against a setting, and the scores of one neuron's concepts."""

from collections.abc import Mapping, Sequence

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from wwwlib.plots import style
from wwwlib.plots.style import GREY, WIDTH, fit, literal, number, share, styled
from wwwlib.studies.figures.measurements import REFERENCE, looks, name_rows


@styled
def rejection(curves: Mapping[str, object]) -> Figure:
    """Draw the share of errors found against rejection rate, with bands, oracle and random order.

    Parameters
    ----------
    curves : mapping of an uncertainty's name to RejectionCurve
        Of the same images.

    Returns
    -------
    Figure
        WWW, Figure 4, right: shares on the left axis, the paper's hits on the right. The legend
        gives each uncertainty's AUROC.
    """
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    axes = figure.subplots()
    first = next(iter(curves.values()))
    rates, errors = np.asarray(first.rates), max(first.errors, 1)
    axes.plot(
        rates, first.oracle / errors, color=style.INK, linewidth=1, label="oracle: errors first"
    )
    axes.plot(rates, first.random / errors, **REFERENCE, label="random order")
    found = {}
    for name, curve in curves.items():
        label = f"{literal(name)} (AUROC {number(curve.auroc, 3)})"
        found[label] = rates, curve.recall, curve.recall_low, curve.recall_high
    _curves(axes, found, marked=True)
    axes.set(xlim=(rates.min(), rates.max()), ylim=(0, 1.02))
    axes.xaxis.set_major_formatter(lambda value, _: share(value))
    axes.yaxis.set_major_formatter(lambda value, _: share(value))
    axes.set_xlabel(f"share of {first.images} images rejected, the most uncertain first")
    axes.set_ylabel("share of the errors that is among them")
    counts = axes.secondary_yaxis("right", functions=(lambda y: y * errors, lambda y: y / errors))
    counts.set_ylabel(f"hits, of {first.errors} errors")
    figure.legend(loc="outside upper left", ncols=2)
    return figure


@styled
def risk(curves: Mapping[str, object]) -> Figure:
    """Draw the error rate among the images that are kept, against how many are kept.

    Parameters
    ----------
    curves : mapping of an uncertainty's name to RiskCoverage

    Returns
    -------
    Figure
        With bootstrap bands. The legend gives the area under each curve; lower is better. The
        axis ends where the bands do beyond the first twentieth: left of it a handful of images
        decides, and what rises above is cut.
    """
    figure = Figure(figsize=(WIDTH, 3.8), layout="constrained")
    axes = figure.subplots()
    found = {}
    for name, curve in curves.items():
        ends = ", ".join(number(end, 3) for end in curve.interval)
        label = f"{literal(name)} (area {number(curve.area, 3)} [{ends}])"
        found[label] = curve.coverage, curve.risk, curve.low, curve.high
    _curves(axes, found)
    overall = next(iter(curves.values())).risk[-1].item()
    axes.axhline(overall, **REFERENCE, label="all images")
    top = max(curve.high[len(curve.high) // 20 :].max().item() for curve in curves.values())
    axes.set(xlim=(0, 1), ylim=(0, 1.05 * top or 1))
    axes.xaxis.set_major_formatter(lambda value, _: share(value))
    axes.yaxis.set_major_formatter(lambda value, _: share(value))
    axes.set_xlabel("coverage: share of images kept, the least uncertain first")
    axes.set_ylabel("error rate among them")
    figure.legend(loc="outside upper left", ncols=2)
    return figure


@styled
def sweep(
    curves: Mapping[str, Sequence[tuple[float, ...]]],
    x: str,
    y: str,
    chosen: Mapping[str, float],
    reference: float | None = None,
    log: bool = False,
) -> Figure:
    """Draw a score against a setting, with the maximum of each curve marked.

    Parameters
    ----------
    curves : mapping of a name to points
        (setting, score) or (setting, score, low, high), in the order of the settings.
    x, y : str
        What the setting is, and what the score is.
    chosen : mapping of a name to float
        The setting that is used elsewhere, marked by a vertical line; may be empty.
    reference : float, optional
        Where a line is drawn, such as the score of guessing. Then the axis of scores need not
        begin at zero.
    log : bool
        Whether the axis of settings is logarithmic, for settings that span decades.

    Returns
    -------
    Figure
        WWW, Figure 4, left: the star is the maximum.
    """
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    axes = figure.subplots()
    if log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    found, best = {}, []
    for name, points in curves.items():
        settings, values, *ends = np.asarray(points, float).T
        best.append((settings[values.argmax()], values.max()))
        label = f"{literal(name)}: best {number(values.max(), 3)} at {best[-1][0]:.3g}"
        found[label] = settings, values, *ends
    _curves(axes, found)
    for name, at, look in zip(curves, best, looks(len(curves)), strict=True):
        axes.plot(*at, "*", color=look["color"], markersize=13, markeredgecolor="white")
        if name in chosen:
            axes.axvline(chosen[name], color=look["color"], linewidth=0.9, linestyle=(0, (1, 2)))
    if reference is None:
        axes.set_ylim(bottom=0)
    else:
        axes.axhline(reference, **REFERENCE)
    if not log and all(p[0] == int(p[0]) for points in curves.values() for p in points):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel=f"{x}; dotted: the value used elsewhere" if chosen else x, ylabel=y)
    axes.grid(axis="y")
    figure.legend(loc="outside upper left", ncols=2)
    return figure


def _curves(axes: Axes, curves: Mapping[str, tuple], marked: bool = False) -> None:
    """Draw (x, y) or (x, y, low, high) by label, the last two as a band."""
    own = looks(len(curves))
    for place, ((label, (x, y, *band)), look) in enumerate(zip(curves.items(), own, strict=True)):
        if band:
            axes.fill_between(x, *band, color=look["color"], alpha=0.14, linewidth=0)
        marks = {"markevery": (place, 7), "markersize": 4.5} if marked else {"marker": ""}
        line = {"x": np.asarray(x), "y": np.asarray(y), "label": label, **look, **marks}
        sns.lineplot(**line, estimator=None, sort=False, legend=False, ax=axes)


@styled
def selection(s_row, words: Sequence[str], threshold: float, alpha: float, top: int = 20) -> Figure:
    """Draw the best concept scores of one neuron and the threshold that selects among them.

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

    Raises
    ------
    ValueError
        If scores and concepts differ in number.
    """
    s = np.asarray(s_row, dtype=float)
    if s.shape != (len(words),):
        raise ValueError(f"Scores of shape {s.shape} do not fit {len(words)} concepts.")
    order = np.argsort(-np.where(np.isfinite(s), s, -np.inf), kind="stable")
    order = order[np.isfinite(s[order])]
    named = bool(len(order)) and s[order[0]] > 0
    count = int((s[order] >= threshold).sum()) if named else 0
    rows = np.arange(len(order[:top]))
    figure = Figure(figsize=(WIDTH, 1.25 + 0.19 * max(len(rows), 3)), layout="constrained")
    axes = figure.subplots()
    name_rows(axes, [fit(words[i], 2.2)[0] for i in order[:top]])
    kinds = ((f"kept ({count})", style.BLUE, "o"), ("left out", GREY, "X"))
    for (kind, colour, mark), some in zip(kinds, (rows < count, rows >= count), strict=True):
        dots = {"x": s[order[:top]][some], "y": rows[some], "color": colour, "marker": mark}
        sns.scatterplot(**dots, s=45, label=kind, legend=False, ax=axes)
    for label in axes.get_yticklabels()[:count]:
        label.set_fontweight("bold")
    if named:
        label, place = f"threshold {number(threshold, 3)} = {alpha:g} × best score", threshold
    else:
        label, place = "zero: no score lies above it, so no concept", 0
    axes.axvline(place, color=style.VERMILION, linestyle=(0, (4, 2)), linewidth=1.4, label=label)
    axes.set_xlabel("concept score: cosine to the exemplars above the bare template's")
    figure.legend(loc="outside upper left", ncols=3)
    return figure
