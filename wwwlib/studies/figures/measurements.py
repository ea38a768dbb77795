"""Intervals, distributions and shares of many neurons, images or methods, drawn with seaborn.

Values and intervals are computed elsewhere; nothing is estimated while drawing. Each method or
series has its own colour, and a marker, line style or hatch that repeats it.
"""

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from wwwlib.plots import style
from wwwlib.plots.style import BODY, GREY, SMALL, WIDTH, fit, literal, number, share, styled

# Guessing, no difference, all images: a line that is no series. No series is grey.
REFERENCE = {"color": GREY, "linewidth": 1.2, "linestyle": (0, (1, 2))}
NOT_RUN = "not run"


def looks(count: int) -> list[dict]:
    """Return the look of each of `count` series, no two of one colour."""
    colours = style.SERIES[:count] if count <= len(style.SERIES) else sns.husl_palette(count)
    return [
        {"color": colour, "linestyle": line, "marker": mark}
        for colour, line, mark in zip(colours, cycle(style.LINES), cycle(style.MARKS), strict=False)
    ]


# Values with intervals --------------------------------------------------------------------------


def name_rows(axes, names: Sequence[str]) -> None:
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
    names = [fit(row[0], 2.6, lines=2) for row in rows]
    row = 0.34 if any(len(name) > 1 for name in names) else 0.27
    figure = Figure(figsize=(WIDTH, 0.85 + row * max(len(rows), 1)), layout="constrained")
    axes = figure.subplots()
    name_rows(axes, ["\n".join(name) for name in names])
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
            own = {"color": colour, "markers": marker, "markerfacecolor": face}
            _points(axes, places, *values[places].T, **own)
        if kind:
            axes.plot([], [], marker, color=colour, label=literal(kind))
    texts = [
        f"{number(value, 3)} [{number(low, 3)}, {number(high, 3)}]" for value, low, high in values
    ]
    if bounds is not None:
        _ticks(axes, bounds, range(len(rows)), "upper bound: the best possible score")
        texts = [
            f"{text} of {number(bound, 3)}" if np.isfinite(bound) else text
            for text, bound in zip(texts, bounds, strict=True)
        ]
        axes.set_xlim(left=min(0, axes.get_xlim()[0]))
    if bounds is not None or any(kinds):
        figure.legend(loc="outside upper left", ncols=2)
    for place, text in enumerate(texts):
        text = text if known[place] else "undecided"
        axes.text(1.02, place, text, transform=axes.get_yaxis_transform(), va="center", size=SMALL)
    if reference is not None:
        axes.axvline(reference, **REFERENCE)
    axes.locator_params(axis="x", nbins=6)
    axes.set(xlabel=fit(label, 4, BODY)[0], ylabel="")
    return figure


@styled
def localization(
    table: Sequence[tuple[str, str, float, float, float]], label: str = "score (higher is better)"
) -> Figure:
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
    methods, categories = rows.method.unique(), rows.category.unique()
    height = 1.1 + len(categories) * max(0.3, 0.13 * len(methods)) + 0.18 * -(-len(methods) // 2)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    offsets = (np.arange(len(methods)) - (len(methods) - 1) / 2) * 0.7 / max(len(methods), 1)
    for method, offset, look in zip(methods, offsets, looks(len(methods)), strict=True):
        own = rows[rows.method == method]
        at = [np.flatnonzero(categories == one)[0] + offset for one in own.category]
        name = {"label": fit(method, 2.9)[0], "color": look["color"], "markers": look["marker"]}
        _points(axes, at, own["mean"], own.low, own.high, **name)
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


@styled
def methods(tables: Sequence, reference: str = "WWW") -> Figure:
    """Draw tables as rows of panels: a row a table, a panel a score, a line a method.

    Parameters
    ----------
    tables : sequence of Table
        With the same metrics.
    reference : str
        The method that the others are compared with, whose name is bold.

    Returns
    -------
    Figure
        Points with `Score.interval`; a tall tick is the upper bound. A score that
        no method of any table has, for want of an encoder, has no panel.

    Raises
    ------
    ValueError
        If there is no table, or nothing in them was measured.
    """
    rows = [row for table in tables for row in table.rows]
    metrics = [m for m in (tables[0].metrics if tables else ()) if any(m in r.scores for r in rows)]
    if not metrics:
        raise ValueError("No table has a score that was measured; give at least one that has.")
    names = list(dict.fromkeys(row.method for row in rows))
    own = dict(zip(names, looks(len(names)), strict=True))
    heights = [0.62 + 0.22 * len(table.rows) for table in tables]
    figure = Figure(figsize=(WIDTH, 0.45 + sum(heights)), layout="constrained")
    parts = figure.subfigures(len(tables), 1, height_ratios=heights, squeeze=False)[:, 0]
    for part, table in zip(parts, tables, strict=True):
        title = fit(table.title, WIDTH - 0.3, SMALL, bold=True)[0]
        part.suptitle(title, x=0.01, ha="left", size=SMALL, weight="bold")
        panels = part.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
        names = [fit(row.method, 1.6)[0] + " *" * row.informed for row in table.rows]
        name_rows(panels[0], names)
        for row, label in zip(table.rows, panels[0].get_yticklabels(), strict=True):
            label.set_fontweight("bold" if row.method == reference else "normal")
        for axes, metric in zip(panels, metrics, strict=True):
            title = fit(metric, (WIDTH - 1.75) / len(metrics) - 0.1, SMALL, bold=True, lines=2)
            axes.set_title("\n".join(title), size=SMALL)
            _panel(axes, table, metric, own)
    handles = {label: one for axes in figure.axes for one, label in _labelled(axes)}
    if any(row.informed for row in rows):
        handles["* given what the truth was made from"] = Line2D([], [], linestyle="")
    figure.legend(handles.values(), handles.keys(), loc="outside lower left", ncols=4)
    return figure


def _panel(axes: Axes, table, metric: str, own: Mapping[str, dict]) -> None:
    """Draw one score of every method."""
    known = {place: row for place, row in enumerate(table.rows) if metric in row.scores}
    for place in set(range(len(table.rows))) - known.keys():
        paper = {"facecolor": style.PAPER, "edgecolor": "none", "pad": 1}
        middle = {"ha": "center", "va": "center", "bbox": paper}
        axes.text(0.5, place, NOT_RUN, size=SMALL, color=GREY, **middle)
    places, rows = list(known), list(known.values())
    _ticks(axes, [row.upper_bounds.get(metric, np.nan) for row in rows], places, "upper bound", 9)
    found = [row.scores[metric] for row in rows]
    low, high = zip(*(one.interval for one in found), strict=True) if found else ((), ())
    colours = [own[row.method]["color"] for row in rows]
    marks = {"markers": [own[row.method]["marker"] for row in rows], "markersize": 5}
    hue = {"hue": np.repeat(places, 3), "palette": colours}
    _points(axes, places, [one.mean for one in found], low, high, **hue, **marks)
    axes.set(xlim=(min(-0.06, axes.get_xlim()[0]), 1.08), xlabel="", ylabel="")
    axes.set_xticks([0, 0.5, 1], ["0", ".5", "1"])
    axes.grid(axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def _labelled(axes: Axes):
    return zip(*axes.get_legend_handles_labels(), strict=True)


def _points(axes: Axes, places, values, lows, highs, **look) -> None:
    """Draw values with given intervals at `places` of the vertical axis.

    seaborn receives value, low and high of each place, and takes them for estimate and interval.
    """
    if not len(values):
        return
    three = np.stack([values, lows, highs], axis=1)
    gaps = np.diff(np.unique(places))  # seaborn measures caps in the least of them
    cap = 0.08 / (gaps.min() if gaps.size else 1)
    sns.pointplot(
        x=three.ravel(), y=np.repeat(np.asarray(places, float), 3), orient="h", native_scale=True,
        estimator=lambda own: own.iloc[0], errorbar=lambda own: tuple(own.iloc[1:]), capsize=cap,
        linestyles="none", err_kws={"linewidth": 1.4, "zorder": 2}, legend=False, ax=axes,
        **{"markersize": 6, "markeredgewidth": 1.2, "zorder": 3, **look},
    )  # fmt: skip


def _ticks(axes: Axes, values, places, label: str, size: float = 15) -> None:
    """Draw tall ticks at values of the rows."""
    axes.plot(
        values, places, "|", color=style.VERMILION, markersize=size, markeredgewidth=2, label=label
    )


# Distributions and shares -----------------------------------------------------------------------


@styled
def histograms(
    groups: Mapping[str, Mapping[str, Sequence[float]]],
    label: str,
    bins: int | Sequence[float] = 30,
    least: float | None = None,
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
    finite = {
        panel: {name: _finite(values, least) for name, values in group.items()}
        for panel, group in groups.items()
    }
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
    values = values[np.isfinite(values)]
    return values if least is None else np.maximum(values, least)


@styled
def set_sizes(tables: Mapping[str, object], most: int = 8) -> Figure:
    """Draw how many concepts neurons keep, and how many neurons abstain.

    Parameters
    ----------
    tables : mapping of layer name to ConceptTable
        One panel each.
    most : int
        Larger sets are counted together.

    Returns
    -------
    Figure
    """
    columns = min(len(tables), 3)
    rows = -(-len(tables) // columns)
    figure = Figure(figsize=(WIDTH, 0.5 + 1.9 * rows), layout="constrained")
    grid = list(figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flat)
    width = WIDTH / columns - 0.75
    for axes, (layer, table) in zip(grid, tables.items(), strict=False):
        sizes = np.array([len(names) for names in table.names])
        sns.histplot(
            x=sizes.clip(max=most), discrete=True, binrange=(0, most), stat="probability",
            shrink=0.75, color=style.BLUE, alpha=1, edgecolor="white", linewidth=0, ax=axes,
        )  # fmt: skip
        axes.patches[0].set(facecolor=style.VERMILION, hatch="///")
        mean = number(sizes[sizes > 0].mean(), 1) if sizes.any() else "–"
        words = f"{share((sizes == 0).mean())} without a concept, mean of the others {mean}"
        words = fit(words, width, lines=3)
        axes.set_title("\n".join(fit(layer, width, BODY, bold=True)), pad=6 + 10 * len(words))
        axes.text(0, 1.02, "\n".join(words), transform=axes.transAxes, size=SMALL)
        axes.set_xticks(range(most + 1), [*map(str, range(most)), f"{most}+"])
        axes.set(xlabel="", ylabel="")
    for axes in grid[len(tables) :]:
        axes.set_visible(False)
    figure.supxlabel("concepts kept by a neuron (0: it abstains)", size=BODY)
    figure.supylabel("share of neurons", size=BODY)
    return figure


@styled
def contributions(explanation) -> Figure:
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
    shares = pd.DataFrame(
        [{n.index: n.contribution for n in track.neurons} for track in tracks],
        kinds, list(neurons), dtype=float,
    )  # fmt: skip
    figure = Figure(figsize=(WIDTH, 1.1 + 0.42 * max(len(neurons), 1)), layout="constrained")
    axes = figure.subplots()
    bars = shares.T.fillna(0).rename_axis("neuron").reset_index().melt("neuron", var_name="track")
    sns.barplot(
        bars, x="value", y="neuron", hue="track", orient="h", order=list(neurons), errorbar=None,
        palette=style.SERIES[:2], saturation=1, edgecolor="white", linewidth=0, legend=False,
        ax=axes,
    )  # fmt: skip
    for drawn, hatch, track, kind in zip(axes.containers, ("///", ""), tracks, kinds, strict=True):
        missing = f"not among its top {len(track.neurons)}" if track.neurons else "not known"
        texts = [share(value) if np.isfinite(value) else missing for value in shares.loc[kind]]
        axes.bar_label(drawn, texts, padding=4, size=SMALL)
        drawn.set_label(kind)
        for bar in drawn:
            bar.set_hatch(hatch)
    names = [
        f"neuron {index}\n" + style.listing(n.names or ["no concept"], 2.2)[0]
        for index, n in neurons.items()
    ]
    axes.set_yticks(range(len(names)), names)
    values = np.nan_to_num(shares.to_numpy())
    low, high = values.min(initial=0), values.max(initial=0.01)
    axes.set_xlim(low - 0.2 * (high - low) * (low < 0), high + 0.2 * (high - low))
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter(lambda value, _: share(value))
    axes.set(xlabel="share of the contributions of all neurons of the layer", ylabel="")
    figure.legend(loc="outside upper left", ncols=2)
    return figure


@styled
def approximation(
    layers: Mapping[str, Mapping[str, Sequence[float]]], reference: str = "ablation"
) -> Figure:
    """Draw how far approximate contributions are from a reference, layer by layer.

    Parameters
    ----------
    layers : mapping of layer to mapping of method to array, shape (n,)
        Contributions of the same n (image, neuron) pairs by every method, for instance "taylor",
        "ablation" and "shapley".
    reference : str
        The method on the horizontal axis; one of those of every layer.

    Returns
    -------
    Figure
        A row per method, a column per layer; each panel gives Pearson's correlation. On the
        dashed line both are equal.
    """
    ways = [way for way in next(iter(layers.values())) if way != reference]
    side = (WIDTH - 0.5) / max(len(layers), 3)
    figure = Figure(figsize=(WIDTH, 0.55 + len(ways) * (side + 0.35)), layout="constrained")
    grid = figure.subplots(len(ways), len(layers), squeeze=False)
    for column, (layer, values) in enumerate(layers.items()):
        title = fit(layer, side - 0.5, BODY, bold=True, lines=2)
        grid[0, column].set_title("\n".join(title))
        for row, way in enumerate(ways):
            pair = np.array([values[reference], values[way]], float)
            _against(grid[row, column], pair, looks(row + 1)[row])
    for axes, way in zip(grid[:, 0], ways, strict=True):
        axes.set_ylabel(fit(way, 1.5, BODY)[0])
    figure.supxlabel(fit(f"{reference} (the reference)", 5, BODY)[0], size=BODY)
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
    varied = len(x) > 1 and x.std() > 0 and y.std() > 0
    r = number(np.corrcoef(x, y)[0, 1], 3) if varied else "none"
    axes.text(0.03, 1.0, f"r = {r}", transform=axes.transAxes, size=SMALL, va="top")
