"""Intervals, distributions and shares of many neurons, images or methods.

Values and intervals are computed elsewhere; nothing is estimated while drawing. Each method or
series has its own colour, and a marker, line style or hatch that repeats it.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from wwwlib.plots import style
from wwwlib.plots.style import BODY, GREY, SMALL, WIDTH, fit, literal, number, share, styled

# Guessing, no difference, all images: a line that is no series. No series is grey.
REFERENCE = {"color": GREY, "linewidth": 1.2, "linestyle": (0, (1, 2))}


def looks(count: int) -> list[dict]:
    """Return the look of each of `count` series, no two of one colour."""
    colours = style.SERIES[:count] if count <= len(style.SERIES) else sns.husl_palette(count)
    marks = zip(colours, cycle(style.LINES), cycle(style.MARKS), strict=False)
    return [{"color": one, "linestyle": line, "marker": mark} for one, line, mark in marks]


def panel(height: float) -> tuple[Figure, Axes]:
    """Return a figure of the page's width, `height` inches high, with one panel."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


# Values with intervals --------------------------------------------------------------------------


def name_rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows of a vertical axis, the first on top, with a line across each."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(max(len(names), 1) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y")
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)


@styled
def intervals(
    rows: Sequence[tuple[str, float, float, float]],
    label: str,
    reference: float | None = None,
    bounds: Sequence[float] | None = None,
    series: Sequence[str] | None = None,
) -> Figure:
    """Draw estimates with their intervals, a row each.

    Parameters
    ----------
    rows : sequence of (name, value, low, high)
        nan where nothing could be measured.
    label : str
        What the values and intervals are.
    reference : float, optional
        Where a line is drawn, such as the value that means no difference.
    bounds : sequence of float, optional
        The upper bound of each value, drawn as a tall tick; nan where there is none.
    series : sequence of str, optional
        The method of each row; every method then has its own colour and marker.

    Returns
    -------
    Figure
        Filled where the interval excludes the reference, hollow where it does not.
    """
    names = ["\n".join(fit(name, 2.6, lines=2)) for name, *_ in rows]
    row = 0.34 if any("\n" in name for name in names) else 0.27
    figure, axes = panel(0.85 + row * max(len(rows), 1))
    name_rows(axes, names)
    values = np.array([row[1:] for row in rows], float).reshape(-1, 3)
    known = np.isfinite(values[:, 0])
    least = np.nan if reference is None else reference
    open_ = known & (values[:, 1] <= least) & (least <= values[:, 2])
    series = np.array([""] * len(rows) if series is None else series)
    kinds = dict.fromkeys(series)
    for kind, look in zip(kinds, looks(len(kinds)), strict=True):
        colour, marker = look["color"], look["marker"]
        for some, face in ((known & ~open_, colour), (open_, "white")):
            places = np.flatnonzero(some & (series == kind))
            _points(axes, places, *values[places].T, colour, marker=marker, markerfacecolor=face)
        if kind:
            axes.plot([], [], marker, color=colour, label=literal(kind))
    if bounds is not None:
        ticks = {"color": style.VERMILION, "markersize": 15, "markeredgewidth": 2}
        best = "upper bound: the best possible score"
        axes.plot(bounds, range(len(rows)), "|", label=best, **ticks)
        axes.set_xlim(left=min(0, axes.get_xlim()[0]))
    if bounds is not None or any(kinds):
        figure.legend(loc="outside upper left", ncols=2)
    for place, three in enumerate(values):
        value, low, high = (number(one, 3) for one in three)
        text = f"{value} [{low}, {high}]" if known[place] else "undecided"
        if known[place] and bounds is not None and np.isfinite(bounds[place]):
            text += f" of {number(bounds[place], 3)}"
        axes.text(1.02, place, text, transform=axes.get_yaxis_transform(), va="center", size=SMALL)
    if reference is not None:
        axes.axvline(reference, **REFERENCE)
    axes.locator_params(axis="x", nbins=6)
    axes.set(xlabel=fit(label, 4, BODY)[0], ylabel="")
    return figure


@styled
def localization(table: Sequence[tuple[str, str, float, float, float]], label: str) -> Figure:
    """Draw localization scores per method and category.

    Parameters
    ----------
    table : sequence of (method, category, mean, low, high)
        In the order in which they shall appear; missing pairs stay empty.
    label : str
        What the score is, such as "pointing game, hits".

    Returns
    -------
    Figure
        A point with its interval; each method has a marker and a colour.
    """
    rows = pd.DataFrame(table, columns=["method", "category", "mean", "low", "high"])
    rows["place"], categories = rows.category.factorize()
    methods, count = rows.groupby("method", sort=False), rows.method.nunique()
    figure, axes = panel(1.1 + len(categories) * max(0.3, 0.13 * count) + 0.18 * -(-count // 2))
    offsets = (np.arange(count) - (count - 1) / 2) * 0.7 / max(count, 1)
    for (method, own), offset, look in zip(methods, offsets, looks(count), strict=True):
        name = {"label": fit(method, 2.9)[0], "marker": look["marker"]}
        _points(axes, own.place + offset, own["mean"], own.low, own.high, look["color"], **name)
    for line in range(1, len(categories)):
        axes.axhline(line - 0.5, color=style.RULE, linewidth=0.6)
    axes.set_yticks(range(len(categories)), ["\n".join(fit(c, 1.8, lines=2)) for c in categories])
    axes.set(ylim=(len(categories) - 0.5, -0.5), xlabel=fit(label, 4.5, BODY)[0], ylabel="")
    axes.set_xlim(left=min(0, axes.get_xlim()[0]))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper left", ncols=2)
    return figure


def _points(axes: Axes, places, values, lows, highs, colour, **look) -> None:
    """Draw values with given intervals, which end in caps, at `places` of the vertical axis."""
    bar = np.array([-0.04, 0.04, np.nan, 0, 0, np.nan, -0.04, 0.04])  # cap, interval, cap
    for place, low, high in zip(places, lows, highs, strict=True):
        ends = [low, low, np.nan, low, high, np.nan, high, high]
        axes.plot(ends, place + bar, "-", color=colour, linewidth=1.4, zorder=2)
    size = {"markersize": 6, "markeredgewidth": 1.2, "zorder": 3}
    axes.plot(values, places, color=colour, linestyle="none", **size, **look)


# Distributions and shares -----------------------------------------------------------------------


@styled
def histograms(
    groups: Mapping[str, Mapping], label: str, bins: int | Sequence = 30, least: float | None = None
) -> Figure:
    """Draw how a value is distributed in several groups, a panel for each network or layer.

    Parameters
    ----------
    groups : mapping of panel to mapping of group to values
        nan is left out.
    label : str
        What the value is.
    bins : int or sequence of float
        Their number, or their edges.
    least : float, optional
        If given, a positive number: the axis is logarithmic, and what lies below is drawn there.

    Returns
    -------
    Figure
        Densities as steps, so that groups of different size can be compared; on a logarithmic
        axis densities per decade.
    """
    figure = Figure(figsize=(WIDTH, 0.9 + 1.7 * len(groups)), layout="constrained")
    panels = figure.subplots(len(groups), 1, squeeze=False, sharex=True)[:, 0]
    finite = {at: {n: _finite(v, least) for n, v in own.items()} for at, own in groups.items()}
    whole = np.concatenate([v for group in finite.values() for v in group.values()] or [[]])
    edges = np.histogram_bin_edges(whole if least is None else np.log10(whole), bins)
    for axes, (panel, group) in zip(panels, finite.items(), strict=True):
        axes.set_title(fit(panel, WIDTH - 3, BODY, bold=True)[0])
        for (name, values), look in zip(group.items(), looks(len(group)), strict=True):
            line = {"color": look["color"], "linestyle": look["linestyle"]}
            axes.plot([], [], **line, label=f"{literal(name)} (n = {len(values)})")
            steps = {"stat": "density", "element": "step", "fill": False, "legend": False, **line}
            sns.histplot(x=values, bins=edges, log_scale=least is not None, ax=axes, **steps)
            if len(values):
                mark = {"markersize": 8, "clip_on": False, "zorder": 5}
                axes.plot(np.median(values), 0, "^", color=look["color"], **mark)
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0)
        axes.set(yticks=[], ylabel="density", xlabel="", ylim=(0, None))
    if least is not None:
        panels[-1].xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    panels[-1].set_xlabel(fit(f"{label}; triangles mark the medians", 6, BODY)[0])
    return figure


def _finite(values: Sequence[float], least: float | None) -> np.ndarray:
    """Return the finite values, those below `least` moved there."""
    values = np.asarray(values, float)
    return np.maximum(values[np.isfinite(values)], -np.inf if least is None else least)


@styled
def contributions(explanation: Any) -> Figure:
    """Draw the shares of both tracks' neurons: in the class in general, and in this sample.

    Parameters
    ----------
    explanation : Explanation

    Returns
    -------
    Figure
        A row per neuron of either track, largest sample share first; a track that does not count
        a neuron among its top k has no bar there.
    """
    tracks = (explanation.cls, explanation.sample)
    neurons = {n.index: n for track in reversed(tracks) for n in track.neurons}
    kinds = (fit(f"class {explanation.cls.class_name} in general", 3)[0], "this sample")
    places, values = np.arange(len(neurons)), [0.0, 0.01]
    figure, axes = panel(1.1 + 0.42 * max(len(neurons), 1))
    for place, (track, kind) in enumerate(zip(tracks, kinds, strict=True)):
        missing = f"not among its top {len(track.neurons)}" if track.neurons else "not known"
        own = {n.index: n.contribution for n in track.neurons if np.isfinite(n.contribution)}
        texts = [share(own[i]) if i in own else missing for i in neurons]
        look = {"color": style.SERIES[place], "edgecolor": "white", "linewidth": 0}
        look |= {"hatch": ("///", "")[place], "label": kind}
        lengths = [own.get(i, 0) for i in neurons]
        drawn = axes.barh(places + 0.4 * (place - 1), lengths, 0.4, align="edge", **look)
        axes.bar_label(drawn, texts, padding=4, size=SMALL)
        values += lengths
    words = [style.listing(n.names or ["no concept"], 2.2)[0] for n in neurons.values()]
    names = [f"neuron {index}\n{own}" for index, own in zip(neurons, words, strict=True)]
    axes.set_yticks(places, names)
    low, high = min(values), max(values)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(False, axis="y")
    axes.set_xlim(low - 0.2 * (high - low) * (low < 0), high + 0.2 * (high - low))
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter(lambda value, _: share(value))
    axes.set(xlabel="share of the contributions of all neurons of the layer", ylabel="")
    figure.legend(loc="outside upper left", ncols=2)
    return figure
