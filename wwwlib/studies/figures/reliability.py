"""HOW SURE, drawn: rejection, risk, doubts side by side, a swept choice."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, MultipleLocator

from wwwlib.plots.style import (
    BLUE,
    BODY,
    GREY,
    INK,
    LINES,
    MARKS,
    RULE,
    SERIES,
    SMALL,
    WIDTH,
    fit,
    literal,
    number,
    share,
    styled,
)
from wwwlib.studies.reliability import RejectionCurve, RiskCoverage

Points = Sequence[tuple[float, ...]]

# What is no series: guessing, no difference, all images. No series is grey.
REFERENCE = {"color": GREY, "linewidth": 1.2, "linestyle": (0, (1, 2))}


def _look(place: int) -> dict:
    return {"color": SERIES[place % len(SERIES)], "linestyle": LINES[place % len(LINES)]}


@styled
def rejection(curves: Mapping[str, RejectionCurve]) -> Figure:
    """Draw the share of errors found against rejection rate, with bands, oracle and random order.

    Parameters
    ----------
    curves : mapping of a doubt's name to RejectionCurve
        Of the same images.

    Returns
    -------
    Figure
        WWW, Figure 4, right: shares on the left axis, the paper's hits on the right. The legend
        tells each doubt's AUROC.
    """
    figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
    axes = figure.subplots()
    first = next(iter(curves.values()))
    rates = first.rates.numpy()
    errors = max(first.errors, 1)
    axes.plot(rates, first.oracle / errors, color=INK, linewidth=1, label="oracle: errors first")
    axes.plot(rates, first.random / errors, **REFERENCE, label="random order")
    for place, (name, curve) in enumerate(curves.items()):
        look = _look(place)
        axes.fill_between(
            rates, curve.recall_low, curve.recall_high, color=look["color"], alpha=0.13, linewidth=0
        )
        axes.plot(
            rates, curve.recall, **look, marker=MARKS[place % len(MARKS)], markevery=(place, 7),
            markersize=4.5, label=f"{literal(name)} (AUROC {number(curve.auroc, 3)})",
        )  # fmt: skip
    axes.set(xlim=(rates.min(), rates.max()), ylim=(0, 1.02))
    axes.xaxis.set_major_formatter(lambda value, _: share(value))
    axes.yaxis.set_major_formatter(lambda value, _: share(value))
    axes.set_xlabel(f"share of {first.images} images rejected, the most doubtful first")
    axes.set_ylabel("share of the errors that is among them")
    counts = axes.secondary_yaxis("right", functions=(lambda y: y * errors, lambda y: y / errors))
    counts.set_ylabel(f"hits, of {first.errors} errors")
    figure.legend(loc="outside upper left", ncols=2)
    return figure


@styled
def risk(curves: Mapping[str, RiskCoverage]) -> Figure:
    """Draw the error rate among the images that are kept, against how many are kept.

    Parameters
    ----------
    curves : mapping of a doubt's name to RiskCoverage

    Returns
    -------
    Figure
        With bootstrap bands. The legend tells the area under each curve; lower is better. The
        axis ends where the bands do beyond the first twentieth: left of it a handful of images
        decides, and what rises above is cut.
    """
    figure = Figure(figsize=(WIDTH, 3.8), layout="constrained")
    axes = figure.subplots()
    for place, (name, curve) in enumerate(curves.items()):
        look, area = _look(place), number(curve.area, 3)
        ends = ", ".join(number(end, 3) for end in curve.interval)
        axes.fill_between(
            curve.coverage, curve.low, curve.high, color=look["color"], alpha=0.13, linewidth=0
        )
        axes.plot(
            curve.coverage, curve.risk, **look, label=f"{literal(name)} (area {area} [{ends}])"
        )
    overall = next(iter(curves.values())).risk[-1].item()
    axes.axhline(overall, **REFERENCE)
    axes.annotate(
        "all images",
        (1, overall),
        (-2, 3),
        textcoords="offset points",
        size=SMALL,
        color=GREY,
        ha="right",
    )
    top = max(curve.high[len(curve.high) // 20 :].max().item() for curve in curves.values())
    axes.set(xlim=(0, 1), ylim=(0, 1.05 * top or 1))
    axes.xaxis.set_major_formatter(lambda value, _: share(value))
    axes.yaxis.set_major_formatter(lambda value, _: f"{number(100 * value, 1)} %")
    axes.set_xlabel("coverage: share of images kept, the least doubtful first")
    axes.set_ylabel("error rate among them")
    figure.legend(loc="outside upper left", ncols=2)
    return figure


@styled
def intervals(
    rows: Sequence[tuple[str, float, float, float]], label: str, reference: float | None = None
) -> Figure:
    """Draw estimates with their intervals, a row each.

    Parameters
    ----------
    rows : sequence of (name, value, low, high)
        nan where nothing could be measured.
    label : str
        What the values are.
    reference : float, optional
        Where a line is drawn, such as the value that means no difference.

    Returns
    -------
    Figure
        Filled where the interval excludes the reference, hollow where it does not.
    """
    names = [fit(row[0], 2.6, lines=2) for row in rows]
    row = 0.34 if any(len(name) > 1 for name in names) else 0.24
    figure = Figure(figsize=(WIDTH, 0.85 + row * max(len(rows), 1)), layout="constrained")
    axes = figure.subplots()
    for place, (_, value, low, high) in enumerate(rows):
        axes.axhline(place, color=RULE, linewidth=0.6)
        if np.isfinite(value):
            sure = reference is None or not low <= reference <= high
            axes.plot([low, high], [place, place], color=BLUE, linewidth=1.6)
            axes.plot(value, place, "o", color=BLUE, markerfacecolor=BLUE if sure else "white")
            told = f"{number(value, 3)} [{number(low, 3)}, {number(high, 3)}]"
        else:
            told = "not decidable here"
        axes.text(1.02, place, told, transform=axes.get_yaxis_transform(), va="center", size=SMALL)
    if reference is not None:
        axes.axvline(reference, **REFERENCE)
    axes.set_yticks(range(len(rows)), ["\n".join(name) for name in names])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.locator_params(axis="x", nbins=6)
    axes.set_xlabel(fit(label, 4, BODY)[0])
    return figure


@styled
def sweep(
    curves: Mapping[str, Points],
    x: str,
    y: str,
    chosen: Mapping[str, float],
    reference: float | None = None,
) -> Figure:
    """Draw a score against a choice, with the maximum of each curve marked.

    Parameters
    ----------
    curves : mapping of a name to points
        (choice, score) or (choice, score, standard error), in the order of the choices.
    x, y : str
        What the choice is, and what the score is.
    chosen : mapping of a name to float
        The choice that is used elsewhere, marked by a vertical line; may be empty.
    reference : float, optional
        Where a line is drawn, such as the score of guessing. Then the axis of scores need not
        begin at zero.

    Returns
    -------
    Figure
        WWW, Figure 4, left: the star is the maximum.
    """
    figure = Figure(figsize=(WIDTH, 3.6), layout="constrained")
    axes = figure.subplots()
    for place, (name, points) in enumerate(curves.items()):
        choices, values, *errors = np.asarray(points, float).T
        look = _look(place)
        best = int(values.argmax())
        label = f"{literal(name)}: best {number(values[best], 3)} at {choices[best]:.3g}"
        axes.plot(choices, values, **look, label=label)
        if errors:
            axes.fill_between(
                choices, values - errors[0], values + errors[0], color=look["color"], alpha=0.15,
                linewidth=0,
            )  # fmt: skip
        axes.plot(
            choices[best], values[best], "*", color=look["color"], markersize=13,
            markeredgecolor="white",
        )  # fmt: skip
        if name in chosen:
            axes.axvline(chosen[name], color=look["color"], linewidth=0.9, linestyle=(0, (1, 2)))
    if reference is None:
        axes.set_ylim(bottom=0)
    else:
        axes.axhline(reference, **REFERENCE)
    if all(point[0] == int(point[0]) for points in curves.values() for point in points):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(axis="y")
    figure.legend(loc="outside upper left", ncols=2)
    return figure


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
    groups = {
        panel: {name: _placed(values, least) for name, values in group.items()}
        for panel, group in groups.items()
    }
    whole = np.concatenate([v for group in groups.values() for v in group.values()])
    edges = np.histogram_bin_edges(whole if len(whole) else [0, 1], bins)
    for axes, (panel, group) in zip(panels, groups.items(), strict=True):
        axes.set_title(fit(panel, WIDTH - 3, BODY, bold=True)[0])
        for place, (name, values) in enumerate(group.items()):
            _steps(axes, place, f"{literal(name)} (n = {len(values)})", values, edges)
        axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=2, borderaxespad=0)
        axes.set_yticks([])
        axes.set_ylabel("density")
    if least is not None:
        panels[-1].xaxis.set_major_locator(MultipleLocator(1))
        panels[-1].xaxis.set_major_formatter(lambda power, _: f"{10**power:.3g}")
    panels[-1].set_xlabel(fit(f"{label}; triangles mark the medians", 6, BODY)[0])
    return figure


def _placed(values: Sequence[float], least: float | None) -> np.ndarray:
    """Return the finite values, or their powers of ten on a logarithmic axis."""
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    return values if least is None else np.log10(np.maximum(values, least))


def _steps(axes: Axes, place: int, label: str, values: np.ndarray, edges: np.ndarray) -> None:
    """Draw one group's density and median; an empty group stands in the legend alone."""
    if not len(values):
        axes.plot([], [], **_look(place), label=label)
        return
    density, _ = np.histogram(values, edges, density=True)
    axes.stairs(density, edges, **_look(place), linewidth=1.5, label=label)
    axes.plot(
        np.median(values), 0, "^", color=SERIES[place % len(SERIES)], markersize=8, clip_on=False,
        zorder=5,
    )  # fmt: skip
