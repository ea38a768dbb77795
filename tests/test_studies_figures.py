"""Figures of measurements and pages of several methods: what is drawn is what was measured."""

import math

import numpy as np
import pytest
import torch

from wwwlib import world
from wwwlib.atlas import Explanation, Neuron, Track
from wwwlib.studies import figures, reliability
from wwwlib.studies.figures.measurements import looks
from wwwlib.studies.qualitative import LocalExplanation, NeuronNames

UNCERTAINTY, WRONG = torch.arange(30.0), torch.arange(30) % 3 == 0
LONG = "an exceedingly long-winded name of more than forty characters, $x$ and <b>"
FOREIGN = ("$x$", r"$\frac{1}{", "<b onclick=x>a & b</b>", "花朵", "a_b^c\n\td", "", LONG, "é" * 90)
PROBE = world.image_set(12, seed=4)


# Records as the studies make them -----------------------------------------------------------


def _neuron(i, names=("sail",), share=0.2):
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    m = torch.exp(-((x - 9.0 * i) ** 2 + (y - 50.0 + 7 * i) ** 2) / 150)
    return Neuron(i, tuple(names), (), share, (), (), m > 0.4, m)


def _explanation(name="boat", r=0.83, cls=None):
    one = (_neuron(0), _neuron(1, FOREIGN), _neuron(2, []), _neuron(5, [LONG]))
    two = (_neuron(1, FOREIGN, -0.1), _neuron(7))
    tracks = [
        Track(kind, 3, name, 0.97, own, sum((n.map for n in own), torch.zeros(64, 64)), 128)
        for kind, own in (("sample", one), ("class", two if cls is None else cls))
    ]
    return Explanation(PROBE.image(3), None, 3, name, 0.97, "layer4", *tracks, r)


def _approximations():
    a = np.abs(np.random.RandomState(0).randn(80))
    methods = {"taylor": a**1.1, "ablation": a, "$shapley$": a - 0.1}
    broken = {name: np.full(3, np.nan) for name in methods}
    return {"layer4": methods, LONG: methods, "$l$": broken}


def _called(hidden=False):
    answers = {
        "WWW": (("boat", "right"), (LONG, "near"), ("x" * 90, "wrong")),
        "CLIP-Dissect equal k": ((LONG * 2, "wrong"), ("sea", "near")),
        "Network Dissection": ((LONG, None),),
        "FALCON": (),
        "MILAN": None,
    }
    pictures = tuple(world.image_set(5).image(i) for i in range(5))
    return NeuronNames(f"neuron 1 of {LONG}", ("boat", LONG), pictures, answers, hidden)


def _replies(picture):
    heat = torch.rand(picture.height, picture.width)
    crops = tuple(picture for _ in range(9))
    return [
        LocalExplanation("WWW", (f"1: {LONG * 3}", "2: b"), heat, (LONG,)),
        LocalExplanation("an exceedingly long name of a method", None, heat > 0.5, None),
        LocalExplanation("CRAFT", ("crops",), heat > 2, ("index", LONG * 4), crops),
        LocalExplanation("nothing at all"),
        LocalExplanation("MILAN", ran=False),
    ]


def _scores():
    s = torch.linspace(-0.1, 0.05, 40)
    s[7], s[30], s[4] = 0.12, 0.118, float("nan")
    return s, [*(FOREIGN * 5)]


CASES = {
    "selection": lambda: figures.selection(*_scores(), 0.114, 0.95),
    "selection_abstains": lambda: figures.selection(-_scores()[0].abs(), FOREIGN * 5, 0.0, 0.95),
    "selection_all_nan": lambda: figures.selection(torch.full((2,), torch.nan), ["a", "b"], 0, 1),
    "intervals": lambda: figures.intervals(
        [(name, 0.9, 0.8, 0.95) for name in FOREIGN] + [("none", math.nan, math.nan, 1)],
        "AUROC",
        0.85,
    ),
    "intervals_bounds": lambda: figures.intervals(
        [(LONG, 0.9, 0.8, 0.95), ("b", 0.5, 0.4, 0.6)], "F1", bounds=[0.95, math.nan]
    ),
    "intervals_series": lambda: figures.intervals(
        [(LONG, 0.9, 0.8, 0.95), ("b", 0.5, 0.4, 0.6)], "F1", series=["$a$", "b"]
    ),
    "localization": lambda: figures.localization(
        [
            (m, c, 0.1 * i, 0.1 * i - 0.03, 0.1 * i + 0.03)
            for i, m in enumerate(FOREIGN)
            for c in ("part", "$s$", LONG)
        ],
        "score",
    ),
    "sweep": lambda: figures.sweep(
        {"$a$": [(1, 0.2, 0.1, 0.3), (40, 0.7, 0.6, 0.8)]}, "K", "F1", {}, log=True
    ),
    "histograms": lambda: figures.histograms(
        {"a": {"$x$": [0, 0.1, 1]}, LONG: {"b": []}}, "1 - r", least=1e-6
    ),
    "contributions": lambda: figures.contributions(_explanation()),
    "contributions_no_class": lambda: figures.contributions(_explanation("$c$", cls=())),
    "approximation": lambda: figures.approximation(_approximations()),
    "called": lambda: figures.called([_called(), _called(True)], LONG),
    "called_one": lambda: figures.called(
        [NeuronNames("t", (), (), {"A": None})],
        LONG,
    ),
    "demonstration": lambda: figures.demonstration(
        PROBE.image(0), LONG, LONG, _replies(PROBE.image(0))
    ),
    "failures": lambda: figures.failures([(_explanation(LONG), _explanation("$b$"))] * 2),
}


@pytest.mark.parametrize("case", CASES)
def test_every_text_is_on_the_page_and_on_no_other(case, readable):
    """Long, foreign and missing names neither leave the figure nor cover each other."""
    assert readable(CASES[case])


@pytest.mark.parametrize("case", ["called", "selection"])
def test_the_same_records_give_the_same_bytes(case, tmp_path):
    one = figures.save(CASES[case](), tmp_path / "a", "t", "words")
    two = figures.save(CASES[case](), tmp_path / "b", "t", "words")
    assert one.png.read_bytes() == two.png.read_bytes()


@pytest.mark.parametrize("count", [3, 10, 17])
def test_no_two_series_share_a_colour(count):
    assert len({str(look["color"]) for look in looks(count)}) == count


# Values with intervals ----------------------------------------------------------------------


def test_a_value_without_an_upper_bound_has_no_tick():
    """A tick at 0 would mean an upper bound of zero."""
    (axes,) = CASES["intervals_bounds"]().axes
    (ticks,) = [line for line in axes.lines if line.get_markersize() == 15]
    assert np.isfinite(ticks.get_xdata()).tolist() == [True, False]


# Curves and distributions --------------------------------------------------------------------


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
    curve = reliability.rejection(UNCERTAINTY, WRONG, np.linspace(0, 1, 11), samples=5)
    figure = figures.rejection({"1 - $r$": curve})
    oracle, random, hits = figure.axes[0].lines
    for line, counts in ((hits, "hits"), (oracle, "oracle"), (random, "random")):
        assert line.get_ydata() * curve.errors == pytest.approx(curve.points[counts].to_numpy())
    (band,) = figure.axes[0].collections
    assert ends(band) == (0, 1), "no bootstrap sample finds more than all of its errors"
    figure.canvas.draw()
    (right,) = figure.axes[0].child_axes
    assert right.get_ylim() == pytest.approx([10 * end for end in figure.axes[0].get_ylim()])
    assert right.get_ylabel() == "hits, of 10 errors"
    assert any("1 - $r$" in text and f"{curve.auroc:.3f}" in text for text in words(figure))


def test_without_errors_rejection_still_draws_its_axes():
    curve = reliability.rejection(UNCERTAINTY, WRONG & False, np.linspace(0, 1, 11), samples=5)
    figures.rejection({"entropy": curve}).canvas.draw()


def test_risk_draws_the_curve_its_band_and_the_rate_of_all_images():
    found = reliability.risk_coverage(UNCERTAINTY, WRONG)
    figure = figures.risk({"entropy": found})
    assert figure.axes[0].lines[0].get_ydata().tolist() == found.points.risk.tolist()
    (band,) = figure.axes[0].collections
    assert ends(band) == pytest.approx((found.points.low.min(), found.points.high.max()))
    label = f"area {found.area:.3f} [{found.interval[0]:.3f}, {found.interval[1]:.3f}]"
    assert any(label in text for text in words(figure))
    assert figure.axes[0].get_ylim()[1] == pytest.approx(1.05 * found.points.high[1:].max())
    figures.risk({"entropy": reliability.risk_coverage(UNCERTAINTY, WRONG & False)}).canvas.draw()


def test_whole_numbers_have_no_ticks_between_them():
    figure = figures.sweep({"K": [(1, 0.5), (3, 0.7), (20, 0.6)]}, "K", "F1", {})
    assert all(tick == int(tick) for tick in figure.axes[0].get_xticks())


def test_a_reference_looks_like_no_series():
    """Breaks if the line of chance has the colour or the dashes of a curve."""
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
    assert "undecided" in words(figure) and "0.800 [0.700, 0.900]" in words(figure)
    figures.intervals([], "nothing", 0.0)


def test_intervals_of_two_methods_have_two_colours_and_a_legend():
    rows = [("a", 0.6, 0.5, 0.7), ("b", 0.8, 0.7, 0.9)] * 2
    figure = figures.intervals(rows, "AUROC", 0.5, series=["$r$", "softmax"] * 2)
    dots = [line for line in figure.axes[0].lines if line.get_marker() not in ("None", "")]
    drawn = {(dot.get_color(), dot.get_marker()) for dot in dots if len(dot.get_xdata())}
    assert len(drawn) == 2
    assert {"$r$", "softmax"} <= {text.get_text() for text in figure.legends[0].get_texts()}


def test_a_sweep_with_a_reference_draws_it_and_need_not_begin_at_zero():
    points = {"AUROC": [(1, 0.6), (2, 0.7)]}
    lines = figures.sweep(points, "k", "AUROC", {}, 0.5).axes[0].lines
    assert [0.5, 0.5] in [list(line.get_ydata()) for line in lines]
    assert figures.sweep(points, "k", "AUROC", {}, 0.5).axes[0].get_ylim()[0] > 0
    assert figures.sweep(points, "k", "AUROC", {}).axes[0].get_ylim()[0] == 0


@pytest.mark.parametrize("width", [2, 4])
def test_a_sweep_marks_its_maximum(width):
    points = [(1, 0.2, 0.1, 0.3), (2, 0.7, 0.6, 0.8), (4, 0.5, 0.4, 0.6)]
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
    steps = next(line for line in figure.axes[0].lines if len(line.get_xdata()) == 4)
    assert np.log10(steps.get_xdata()) == pytest.approx([-6, -4, -2, 0])
    assert steps.get_ydata()[:3] * 2 == pytest.approx([2 / 8, 2 / 8, 4 / 8])
    figure.canvas.draw()
    labels = {label.get_text() for label in figure.axes[0].get_xticklabels()}
    assert {"1e-06", "0.01", "1"} <= labels


# Pages of several methods -------------------------------------------------------------------


def test_a_grade_is_a_symbol_and_missing_names_are_marked(drawn):
    words = [text.get_text() for text in drawn(CASES["called"]())]
    assert {"✓", "✗", "no concept", "not run"} <= set(words)
    assert any(word.endswith("more") for word in words), "names that do not fit are counted"


def test_a_question_without_an_answer_is_marked(drawn):
    words = [text.get_text() for text in drawn(CASES["demonstration"]())]
    assert words.count("— (not provided)") == 5
    assert "nowhere here" in words and words.count("not run here") == 3


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match="There is no neuron to draw"):
        figures.called([], "")


def test_failures_name_both_classes_and_their_evidence(tmp_path):
    rows = [(_explanation("car", 0.12), _explanation("<b>boat</b>"))] * 2
    figure = figures.failures(rows)
    assert {"predicted car", "true <b>boat</b>", "r = .12"} <= set(words(figure))
    assert any("$x$" in text for text in words(figure))
    figures.save(figure, tmp_path, "failures", "Two failures.")
    with pytest.raises(ValueError, match="no misprediction"):
        figures.failures([])


def test_scores_of_other_words_are_not_drawn():
    with pytest.raises(ValueError, match="do not fit 2 concepts"):
        figures.selection(torch.zeros(3), ["a", "b"], 0, 0.95)


def test_a_neuron_without_scores_above_zero_has_no_concept(drawn):
    assert any("no concept" in text.get_text() for text in drawn(CASES["selection_abstains"]()))


def test_selection_counts_what_is_kept(drawn):
    words = " ".join(text.get_text() for text in drawn(CASES["selection"]()))
    assert "kept (2)" in words and "threshold 0.114 = 0.95 × best score" in words
