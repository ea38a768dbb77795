"""The figures of doubt and of ablations: they draw what they are given, missing values included."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from wwwlib import plots
from wwwlib.atlas import Explanation, Neuron, Track
from wwwlib.studies import figures, reliability

DOUBT, WRONG = torch.arange(30.0), torch.arange(30) % 3 == 0


def words(figure):
    found = [text.get_text() for axes in figure.axes for text in axes.texts]
    found += [label.get_text() for axes in figure.axes for label in axes.get_yticklabels()]
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes)]
    return found + [text.get_text() for one in legends if one for text in one.get_texts()]


def ends(band):
    """Return the lowest and highest point of a band."""
    heights = band.get_paths()[0].vertices[:, 1]
    return heights.min(), heights.max()


def test_rejection_draws_shares_and_hits_between_oracle_and_random():
    curve = reliability.rejection(DOUBT, WRONG, np.linspace(0, 1, 11), samples=5)
    figure = figures.rejection({"1 - $r$": curve})
    oracle, random, hits = figure.axes[0].lines
    for line, counts in ((hits, curve.hits), (oracle, curve.oracle), (random, curve.random)):
        assert line.get_ydata() * curve.errors == pytest.approx(counts.numpy())
    (band,) = figure.axes[0].collections
    assert ends(band) == (0, 1), "no bootstrap sample finds more than all of its errors"
    figure.canvas.draw()
    (right,) = figure.axes[0].child_axes
    assert right.get_ylim() == pytest.approx([10 * end for end in figure.axes[0].get_ylim()])
    assert right.get_ylabel() == "hits, of 10 errors"
    assert any("1 - $r$" in text and f"{curve.auroc:.3f}" in text for text in words(figure))


def test_without_errors_rejection_still_draws_its_axes():
    curve = reliability.rejection(DOUBT, WRONG & False, np.linspace(0, 1, 11), samples=5)
    figures.rejection({"entropy": curve}).canvas.draw()


def test_risk_draws_the_curve_its_band_and_the_rate_of_all_images():
    found = reliability.risk_coverage(DOUBT, WRONG)
    figure = figures.risk({"entropy": found})
    assert figure.axes[0].lines[0].get_ydata().tolist() == found.risk.tolist()
    (band,) = figure.axes[0].collections
    assert ends(band) == pytest.approx((found.low.min().item(), found.high.max().item()))
    told = f"area {found.area:.3f} [{found.interval[0]:.3f}, {found.interval[1]:.3f}]"
    assert any(told in text for text in words(figure))
    assert figure.axes[0].get_ylim()[1] == pytest.approx(1.05 * found.high[1:].max().item())
    figures.risk({"entropy": reliability.risk_coverage(DOUBT, WRONG & False)}).canvas.draw()


def test_whole_numbers_have_no_ticks_between_them():
    figure = figures.sweep({"K": [(1, 0.5), (3, 0.7), (20, 0.6)]}, "K", "F1", {})
    assert all(tick == int(tick) for tick in figure.axes[0].get_xticks())


def test_a_reference_looks_like_no_series():
    """Breaks if the line of guessing has the colour or the dashes of a curve."""
    points = {str(i): [(1, 0.6), (2, 0.7)] for i in range(6)}
    *curves, reference = [
        line for line in figures.sweep(points, "k", "AUROC", {}, 0.5).axes[0].lines
        if line.get_marker() == "None"
    ]  # fmt: skip
    across = figures.intervals([("a", 0.6, 0.5, 0.7)], "AUROC", 0.5).axes[0].lines[-1]
    assert list(across.get_xdata()) == [0.5, 0.5]
    for line in (reference, across):
        assert line.get_color() not in {curve.get_color() for curve in curves}
        assert line.get_linestyle() != "-"


def test_an_interval_is_filled_only_where_it_excludes_the_reference():
    """Breaks if a reader would take an undecided figure for a decided one."""
    rows = [("sure", 0.8, 0.7, 0.9), ("open", 0.6, 0.4, 0.8), ("none", math.nan, math.nan, 1)]
    figure = figures.intervals(rows, "AUROC", 0.5)
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [dot.get_markerfacecolor() == "white" for dot in dots] == [False, True]
    assert "not decidable here" in words(figure) and "0.800 [0.700, 0.900]" in words(figure)
    figures.intervals([], "nothing", 0.0)


def test_a_sweep_with_a_reference_draws_it_and_need_not_begin_at_zero():
    points = {"AUROC": [(1, 0.6), (2, 0.7)]}
    lines = figures.sweep(points, "k", "AUROC", {}, 0.5).axes[0].lines
    assert [0.5, 0.5] in [list(line.get_ydata()) for line in lines]
    assert figures.sweep(points, "k", "AUROC", {}, 0.5).axes[0].get_ylim()[0] > 0
    assert figures.sweep(points, "k", "AUROC", {}).axes[0].get_ylim()[0] == 0


@pytest.mark.parametrize("width", [2, 3])
def test_a_sweep_marks_its_maximum(width):
    points = [(1, 0.2, 0.1), (2, 0.7, 0.1), (4, 0.5, 0.1)]
    figure = figures.sweep({"F1": [p[:width] for p in points]}, "K", "F1", {"F1": 4})
    star = next(line for line in figure.axes[0].lines if line.get_marker() == "*")
    assert (star.get_xdata()[0], star.get_ydata()[0]) == (2, 0.7)
    assert "F1: best 0.700 at 2" in words(figure)


def test_histograms_leave_nan_out_and_name_empty_groups():
    groups = {"layer4": {"right": [0.1, 0.5, math.nan], "wrong": []}}
    figure = figures.histograms(groups, "r")
    assert {"right (n = 2)", "wrong (n = 0)"} <= set(words(figure))
    figures.histograms({"none": {"a": [], "b": [math.nan]}}, "r")


def test_a_logarithmic_histogram_counts_decades_and_piles_up_what_is_too_small():
    """Breaks if zeros vanish from the picture, or a bar is as high as its width in plain units."""
    groups = {"one": {"all": [0.0, 1e-9, 1e-3, 1e-3, 0.1, 0.1, 1.0, 1.0]}}
    figure = figures.histograms(groups, "1 - r", bins=3, least=1e-6)
    bars = figure.axes[0].patches[0].get_data()
    assert bars.edges.tolist() == pytest.approx([-6, -4, -2, 0])
    assert (bars.values * 2).tolist() == pytest.approx([2 / 8, 2 / 8, 4 / 8])
    figure.canvas.draw()
    told = {label.get_text() for label in figure.axes[0].get_xticklabels()}
    assert {"1e-06", "0.01", "1"} <= told


def explanation(r, name):
    region = torch.zeros(8, 8, dtype=torch.bool)
    neuron = Neuron(3, ("wheel $x$",), (), 0.5, (0,), (0,), region, torch.rand(8, 8))
    silent = Neuron(4, (), (), 0.2, (), (), region, torch.zeros(8, 8))
    track = [
        Track(kind, 0, name, 0.7, (neuron, silent), torch.rand(8, 8))
        for kind in ("sample", "class")
    ]
    return Explanation(Image.new("RGB", (8, 8)), None, 0, name, 0.7, "late", *track, r)


def test_failures_name_both_classes_and_their_evidence(tmp_path):
    rows = [(explanation(0.12, "car"), explanation(0.9, "<b>boat</b>")) for _ in range(2)]
    figure = figures.failures(rows)
    assert {"not car", "but <b>boat</b>", "r = 0.12"} <= set(words(figure))
    assert any("wheel $x$" in text for text in words(figure))
    plots.save(figure, tmp_path, "failures", "Two failures.")
    with pytest.raises(ValueError, match="no misprediction"):
        figures.failures([])
