"""WHY, measured: who carries a class, how good an approximation is, and who looks where."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from wwwlib.atlas import Explanation
from wwwlib.plots.style import (
    BLUE,
    BODY,
    GREY,
    INK,
    MARKS,
    RULE,
    SERIES,
    SMALL,
    VERMILION,
    WIDTH,
    fit,
    listing,
    literal,
    number,
    share,
    styled,
)


@styled
def contributions(explanation: Explanation) -> Figure:
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
    shares = [{n.index: n.contribution for n in track.neurons} for track in tracks]
    neurons = {n.index: n for track in reversed(tracks) for n in track.neurons}
    rows = np.arange(len(neurons))
    figure = Figure(figsize=(WIDTH, 1.1 + 0.42 * max(len(rows), 1)), layout="constrained")
    axes = figure.subplots()
    kinds = ((-0.2, BLUE, "///", f"class {literal(explanation.cls.class_name)} in general"),
             (0.2, VERMILION, "", "this sample"))  # fmt: skip
    for (offset, colour, hatch, label), known in zip(kinds, shares, strict=True):
        missing = f"not among its top {len(known)}" if known else "not known"
        values = [known.get(index, np.nan) for index in neurons]
        axes.barh(
            rows + offset, np.nan_to_num(values), height=0.36, color=colour, edgecolor="white",
            hatch=hatch, linewidth=0, label=fit(label, 3)[0],
        )  # fmt: skip
        for row, value in zip(rows, values, strict=True):
            words, ink = (missing, GREY) if np.isnan(value) else (share(value), INK)
            axes.annotate(
                words, (max(np.nan_to_num(value), 0), row + offset), (4, 0),
                textcoords="offset points", va="center", size=SMALL, color=ink,
            )  # fmt: skip
    names = [
        f"neuron {index}\n" + listing(n.names, 2.2)[0] if n.names else f"neuron {index}\nno concept"
        for index, n in neurons.items()
    ]
    axes.set_yticks(rows, names)
    axes.set_ylim(len(rows) - 0.45, -0.55)
    most = max([0.01, *(value for known in shares for value in known.values())])
    least = min([0, *(value for known in shares for value in known.values())])
    axes.set_xlim(least * 1.1, most * 1.2)
    axes.tick_params(axis="y", length=0)
    axes.xaxis.set_major_formatter(lambda value, _: share(value))
    axes.set_xlabel("share of the contributions of all neurons of the layer")
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
        A row per method, a column per layer; each panel tells Pearson's correlation. On the
        dashed line both are equal.
    """
    for layer, methods in layers.items():
        if reference not in methods:
            raise ValueError(
                f"Layer {layer!r} has no contributions by {reference!r}, only by "
                f"{', '.join(map(repr, methods))}; name one of them as the reference."
            )
    methods = [m for m in next(iter(layers.values())) if m != reference]
    columns = len(layers)
    side = (WIDTH - 0.5) / max(columns, 3)
    figure = Figure(figsize=(WIDTH, 0.55 + len(methods) * (side + 0.35)), layout="constrained")
    grid = figure.subplots(len(methods), columns, squeeze=False)
    for column, (layer, values) in enumerate(layers.items()):
        for row, method in enumerate(methods):
            axes = grid[row, column]
            _against(axes, np.asarray(values[reference]), np.asarray(values[method]), row)
            head = [] if row else ["\n".join(fit(layer, side - 0.5, BODY, bold=True, lines=2))]
            axes.set_title("\n".join(head))
            if not column:
                axes.set_ylabel(fit(method, 1.5, BODY)[0])
    figure.supxlabel(fit(f"{reference} (the reference)", 5, BODY)[0], size=BODY)
    return figure


def _against(axes, x, y, place) -> None:
    """Scatter y over x, with the line of equality and the correlation."""
    finite = np.isfinite(x) & np.isfinite(y)
    x, y = x[finite], y[finite]
    if not len(x):
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no finite values", transform=axes.transAxes, size=SMALL, ha="center")
        return
    low, high = min(x.min(), y.min()), max(x.max(), y.max())
    pad = 0.05 * (high - low) or 0.5
    axes.plot([low, high], [low, high], color=GREY, linestyle=(0, (4, 2)), linewidth=1)
    axes.plot(
        x, y, MARKS[place], color=SERIES[place], markersize=3, alpha=0.6, markeredgewidth=0,
        rasterized=len(x) > 2000,
    )  # fmt: skip
    axes.set(xlim=(low - pad, high + pad), ylim=(low - pad, high + pad), aspect="equal")
    axes.locator_params(nbins=3)
    varied = len(x) > 1 and x.std() > 0 and y.std() > 0
    told = number(np.corrcoef(x, y)[0, 1], 3) if varied else "none"
    axes.text(0.03, 1.0, f"r = {told}", transform=axes.transAxes, size=SMALL, va="top")


@styled
def localization(
    table: Sequence[tuple[str, str, float, float]], label: str = "score (higher is better)"
) -> Figure:
    """Draw localization scores per method and category.

    Parameters
    ----------
    table : sequence of (method, category, mean, stderr)
        In the order in which they shall appear; missing pairs stay empty.
    label : str
        What the score is, such as "pointing game, hits".

    Returns
    -------
    Figure
        A point with one standard error on both sides; each method has a symbol and a colour.
    """
    rows = [tuple(row) for row in table]
    methods = list(dict.fromkeys(row[0] for row in rows))
    categories = list(dict.fromkeys(row[1] for row in rows))
    step = 0.7 / max(len(methods), 1)
    height = 1.1 + len(categories) * max(0.3, 0.13 * len(methods)) + 0.18 * -(-len(methods) // 2)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots()
    for place, method in enumerate(methods):
        own = [row for row in rows if row[0] == method]
        y = [categories.index(row[1]) + step * (place - (len(methods) - 1) / 2) for row in own]
        axes.errorbar(
            [row[2] for row in own], y, xerr=[row[3] for row in own], linestyle="none",
            marker=MARKS[place % len(MARKS)], color=SERIES[place % len(SERIES)], capsize=2.5,
            markersize=5.5, linewidth=1.2, label=fit(method, 2.9)[0],
        )  # fmt: skip
    for line in range(1, len(categories)):
        axes.axhline(line - 0.5, color=RULE, linewidth=0.6)
    axes.set_yticks(range(len(categories)), ["\n".join(fit(c, 1.8, lines=2)) for c in categories])
    axes.set_ylim(len(categories) - 0.5, -0.5)
    axes.set_xlim(left=min(0, axes.get_xlim()[0]))
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.set_xlabel(fit(label, 4.5, BODY)[0])
    figure.legend(loc="outside upper left", ncols=2)
    return figure
