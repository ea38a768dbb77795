"""Curves with bands, scores against a setting or a reference, and scores of a neuron's concepts."""

from collections.abc import Mapping, Sequence

import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from wwwlib.plots import style
from wwwlib.plots.style import BODY, GREY, SMALL, WIDTH, fit, literal, number, share, styled
from wwwlib.studies.figures.measurements import REFERENCE, looks, name_rows, panel


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
    figure, axes = panel(4.2)
    first = next(iter(curves.values()))
    rates, errors = first.points.rate, max(first.errors, 1)
    line = {"color": style.INK, "linewidth": 1, "label": "oracle: errors first"}
    axes.plot(rates, first.points.oracle / errors, **line)
    axes.plot(rates, first.points.random / errors, **REFERENCE, label="random order")
    labels = [f"{literal(name)} (AUROC {number(one.auroc, 3)})" for name, one in curves.items()]
    columns = ["rate", "recall", "low", "high"]
    _curves(axes, labels, [one.points[columns] for one in curves.values()], marked=True)
    axes.set(xlim=(rates.min(), rates.max()), ylim=(0, 1.02))
    text = f"share of {first.images} images rejected, the most uncertain first"
    _shares(axes, text, "share of the errors that is among them")
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
    figure, axes = panel(3.8)
    labels, points = [], [curve.points for curve in curves.values()]
    for name, curve in curves.items():
        ends = ", ".join(number(end, 3) for end in curve.interval)
        labels.append(f"{literal(name)} (area {number(curve.area, 3)} [{ends}])")
    _curves(axes, labels, [one[["coverage", "risk", "low", "high"]] for one in points])
    axes.axhline(points[0].risk.iloc[-1], **REFERENCE, label="all images")
    top = max(one.high[len(one) // 20 :].max() for one in points)
    axes.set(xlim=(0, 1), ylim=(0, 1.05 * top or 1))
    text = "coverage: share of images kept, the least uncertain first"
    _shares(axes, text, "error rate among them")
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
    figure, axes = panel(3.6)
    if log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    labels, best = [], []
    for name, points in curves.items():
        settings, values, *_ = np.asarray(points, float).T
        best.append((settings[values.argmax()], values.max()))
        labels.append(f"{literal(name)}: best {number(values.max(), 3)} at {best[-1][0]:.3g}")
    _curves(axes, labels, [*curves.values()])
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


def _shares(axes: Axes, x: str, y: str) -> None:
    """Label both axes, whose values are shares."""
    axes.set(xlabel=x, ylabel=y)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: share(value))


def _curves(axes: Axes, labels: list[str], curves: list, marked: bool = False) -> None:
    """Draw curves, rows of (x, y) or (x, y, low, high), the last two as a band."""
    own = zip(labels, curves, looks(len(curves)), strict=True)
    for place, (label, curve, look) in enumerate(own):
        x, y, *band = np.asarray(curve, float).T
        if band:
            axes.fill_between(x, *band, color=look["color"], alpha=0.14, linewidth=0)
        marks = {"markevery": (place, 7), "markersize": 4.5} if marked else {"marker": ""}
        line = {"x": x, "y": y, "label": label, **look, **marks}
        sns.lineplot(**line, estimator=None, sort=False, legend=False, ax=axes)


@styled
def selection(
    s_row: np.ndarray, words: Sequence[str], threshold: float, alpha: float, top: int = 20
) -> Figure:
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
    figure, axes = panel(1.25 + 0.19 * max(len(rows), 3))
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


@styled
def approximation(layers: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Draw how far approximate contributions are from those by ablation, layer by layer.

    Parameters
    ----------
    layers : mapping of layer to mapping of method to array, shape (n,)
        Contributions of the same n (image, neuron) pairs by every method: "ablation", which is on
        the horizontal axis, and for instance "taylor" and "shapley".

    Returns
    -------
    Figure
        A row per method, a column per layer; each panel gives Pearson's correlation. On the
        dashed line both are equal.
    """
    ways = [way for way in next(iter(layers.values())) if way != "ablation"]
    side = (WIDTH - 0.5) / max(len(layers), 3)
    figure = Figure(figsize=(WIDTH, 0.55 + len(ways) * (side + 0.35)), layout="constrained")
    grid = figure.subplots(len(ways), len(layers), squeeze=False)
    for column, (layer, values) in enumerate(layers.items()):
        grid[0, column].set_title("\n".join(fit(layer, side - 0.5, BODY, bold=True, lines=2)))
        for row, way in enumerate(ways):
            pair = np.array([values["ablation"], values[way]], float)
            _against(grid[row, column], pair, looks(row + 1)[row])
    for axes, way in zip(grid[:, 0], ways, strict=True):
        axes.set_ylabel(fit(way, 1.5, BODY)[0])
    figure.supxlabel(fit("ablation (the reference)", 5, BODY)[0], size=BODY)
    return figure


def _against(axes: Axes, pair: np.ndarray, look: dict) -> None:
    """Scatter the second row over the first, with the line of equality and the correlation."""
    x, y = pair[:, np.isfinite(pair).all(0)]
    if not len(x):
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no finite values", transform=axes.transAxes, size=SMALL, ha="center")
        return
    low, high = min(x.min(), y.min()), max(x.max(), y.max())
    pad = 0.05 * (high - low) or 0.5
    axes.plot([low, high], [low, high], color=GREY, linestyle=(0, (4, 2)), linewidth=1)
    dots = {"s": 10, "alpha": 0.6, "linewidth": 0, "rasterized": len(x) > 2000}
    sns.scatterplot(x=x, y=y, color=look["color"], marker=look["marker"], ax=axes, **dots)
    axes.set(xlim=(low - pad, high + pad), ylim=(low - pad, high + pad), aspect="equal")
    axes.locator_params(nbins=3)
    r = number(np.corrcoef(x, y)[0, 1], 3) if len(x) > 1 and x.std() > 0 and y.std() > 0 else "none"
    axes.text(0.03, 1.0, f"r = {r}", transform=axes.transAxes, size=SMALL, va="top")
