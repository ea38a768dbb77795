"""Figures of neurons, maps and explanations: pure, with literal text inside the page."""

import base64
import io
import re
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure
from PIL import Image

from wwwlib import images, plots, world
from wwwlib.atlas import Explanation, Neuron, Thumbnails, Track
from wwwlib.concepts import ConceptTable
from wwwlib.exemplars import Exemplars
from wwwlib.plots.neurons import _WORDS
from wwwlib.plots.page import heated, pixels
from wwwlib.plots.style import fit, listing, literal, look, measure, number
from wwwlib.studies import figures

LONG = "an exceedingly long-winded concept name of more than forty characters"
FOREIGN = ("$x$", r"$\frac{1}{", "<b onclick=x>a & b</b>", "花朵", "a_b^c\n\td", "", LONG, "é" * 90)
PROBE, SCENE = world.image_set(12, seed=4), world.render(world.sample(5, seed=2))


def _table():
    names = [["sail", "boat"], [LONG], list(FOREIGN), [], [], ["grass"]]
    scores = [[0.12 - 0.002 * i for i in range(len(own))] for own in names]
    empty = torch.tensor([not own for own in names])
    return ConceptTable(names, scores, torch.full((6,), 0.1), empty)


def _exemplars(k):
    index = torch.arange(6 * k).reshape(6, k) % 12
    index[4, 1:] = -1
    none = torch.zeros(24, 6)
    status = torch.tensor([0, 0, 0, 1, 2, 0], dtype=torch.int8)
    return Exemplars(index, torch.rand(6, k), status, none, none, torch.zeros(24), 12)


def _neuron(i, names=("sail",), minor=("mast",), share=0.2, empty=False, test=("untested", None)):
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    m = torch.exp(-((x - 9.0 * i) ** 2 + (y - 50.0 + 7 * i) ** 2) / 150)
    region = m > (2 if empty else 0.4)
    best, crops = (i, 1, 2, 99), (3, i)
    return Neuron(i, tuple(names), tuple(minor), share, best, crops, region, m, *test)


def _explanation(name="boat", label="boat", r=0.83, cls=None):
    one = (
        _neuron(0),
        _neuron(1, FOREIGN, [LONG]),
        replace(_neuron(2, [], []), index=16384),
        _neuron(5, [LONG], FOREIGN),
    )
    two = (
        _neuron(1, FOREIGN, [LONG], -0.1),
        _neuron(7, empty=True, test=("AUROC .50, 40th of 103", False)),
    )
    tracks = [
        Track(kind, 3, name, 0.97, own, sum((n.map for n in own), torch.zeros(64, 64)), 128)
        for kind, own in (("sample", one), ("class", two if cls is None else cls))
    ]
    return Explanation(PROBE.image(3), label, 3, name, 0.97, "layer4", *tracks, r)


def _atlas():
    kept = torch.arange(12)
    tiles = torch.stack([torch.from_numpy(np.array(PROBE.image(i))) for i in range(12)])
    pictures = Thumbnails(kept, tiles)
    count = torch.tensor([0, 7, 1, 1200])
    return SimpleNamespace(thumbnails=pictures, minor_thumbnails=pictures, class_count=count)


def _maps():
    return torch.stack([torch.stack([_neuron(i).map for i in (0, 2, 4)])] * 2)


CASES = {
    "neurons": lambda: figures.neurons(_table(), _exemplars(9), PROBE, range(6)),
    "fewer_than_columns": lambda: figures.neurons(_table(), _exemplars(2), PROBE, [0, 4]),
    "one_column": lambda: figures.neurons(_table(), _exemplars(2), PROBE, [2], columns=1),
    "minor": lambda: figures.minor(_table(), _exemplars(3), images.crops(PROBE), [2, 3]),
    "samples": lambda: figures.samples(PROBE, range(8), FOREIGN),
    "samples_by_class": lambda: figures.samples(PROBE, [0, 5]),
    "two_tracks": lambda: plots.two_tracks(_explanation(), _atlas()),
    "two_tracks_long": lambda: plots.two_tracks(_explanation(LONG * 3, LONG * 4), _atlas()),
    "one_track": lambda: plots.two_tracks(_explanation(r=float("nan"), cls=()), _atlas()),
    "failure": lambda: figures.failure(
        _explanation(LONG, "$b$"), _explanation(r=float("nan"), cls=()), _atlas()
    ),
    "where": lambda: figures.where(
        PROBE.image(3), torch.stack([_neuron(i).region for i in range(8)]), FOREIGN
    ),
    "heatmaps": lambda: figures.heatmaps(
        [PROBE.image(3)] * 2,
        _maps(),
        [FOREIGN[:3], ["a", LONG, "c"]],
        [LONG, "$b$"],
        [_neuron(2).region] * 2,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_every_text_is_on_the_page_and_on_no_other(case, readable):
    """Long, foreign and missing names neither leave the figure nor cover each other."""
    assert readable(CASES[case])


@pytest.mark.parametrize("case", ["neurons", "where", "two_tracks"])
def test_the_same_record_gives_the_same_bytes_under_any_settings(case, tmp_path):
    """A user's own settings, or a date in the file, would change the picture."""
    first = figures.save(CASES[case](), tmp_path / "a", case, "words")
    with matplotlib.rc_context({"font.size": 20, "figure.facecolor": "red", "savefig.dpi": 30}):
        second = figures.save(CASES[case](), tmp_path / "b", case, "words")
    assert first.png.read_bytes() == second.png.read_bytes()
    assert first.pdf.read_bytes() == second.pdf.read_bytes()


def test_settings_of_the_user_are_restored():
    with matplotlib.rc_context({"font.size": 20}):
        CASES["samples_by_class"]()
        assert matplotlib.rcParams["font.size"] == 20


def test_names_are_drawn_literally(drawn):
    """A formula or a tag in a name would vanish from the page if it were parsed."""
    with pytest.warns(UserWarning, match=r"Glyph \d+ .* missing from font\(s\) DejaVu Sans"):
        words = " ".join(text.get_text() for text in drawn(CASES["samples"]()))
    for name in ("$x$", r"$\frac{1}{", "<b", "&", "a_b^c d"):
        assert name in words


def test_an_abstaining_neuron_is_marked_no_concept(drawn):
    words = [text.get_text() for text in drawn(CASES["neurons"]())]
    assert words.count("no concept") == 2
    assert "(the same value everywhere)" in words and "(too few finite values)" in words
    assert "no concept" in [text.get_text() for text in drawn(CASES["two_tracks"]())]


def test_rows_may_be_latents(drawn):
    figure = figures.neurons(_table(), _exemplars(9), PROBE, [2], unit="latent")
    words = [text.get_text() for text in drawn(figure)]
    assert "latent 2" in words and not any("neuron" in word for word in words)


def test_tracks_mark_inactive_neurons_and_tests_of_names_and_count_images(drawn):
    """A missing outline, an untested name and a class of few images would all mislead."""
    words = [text.get_text() for text in drawn(CASES["two_tracks"]())]
    assert words.count("not active here") == 1
    assert words.count("major, untested") > 1 == words.count("major, AUROC .50")
    assert "CLASS: boat in 1,200 images" in words


def test_without_a_class_side_the_sample_track_fills_the_page(drawn):
    """Half an empty figure would look like a result."""
    words = [text.get_text() for text in drawn(CASES["one_track"]())]
    assert not any(word.startswith("CLASS") for word in words) and "class" not in words
    assert sum(word.startswith("neuron ") for word in words) == 4
    assert "there are no images of boat" in " ".join(words)
    stand_in = replace(_explanation(), cls=replace(_explanation().cls, by_weights=True))
    words = [text.get_text() for text in drawn(plots.two_tracks(stand_in, _atlas()))]
    assert "CLASS: boat, by its weights in the head" in words


def test_a_failure_has_the_tracks_of_both_classes_and_of_the_sample(drawn):
    figure = figures.failure(_explanation("car"), _explanation("boat"), _atlas())
    words = [text.get_text() for text in drawn(figure)]
    assert "SAMPLE: this prediction" in words
    assert [w.split(",")[0] for w in words if "CLASS, " in w] == ["PREDICTED CLASS", "TRUE CLASS"]
    assert sum(word.startswith("neuron ") for word in words) == 2 + 2 + 4


def test_a_figure_says_where_r_stands(drawn):
    known = torch.linspace(0.5, 1, 30, dtype=torch.float64)
    placed = replace(_explanation(r=0.7), right_r=known)
    words = " ".join(text.get_text() for text in drawn(plots.two_tracks(placed, _atlas())))
    assert "r = .70" in words and "lower than 60 % of 30 right predictions" in words
    assert "agree" not in words and "uncertain" not in words


def test_heatmaps_mark_the_maximum_in_its_place_and_none_on_a_flat_map():
    """Breaks if rows and columns were exchanged: (0, 3) is far right in the first row."""
    m = torch.zeros(1, 3, 5, 5)
    m[0, 0, 0, 3], m[0, 1, 4, 0] = 1, 1
    figure = figures.heatmaps(
        [Image.new("RGB", (5, 5))], m, [["*a* $b$", "<b>", "flat"]], ["image"]
    )
    marks = [
        [tuple(line.get_xydata()[0]) for line in axes.lines if line.get_marker() == "X"]
        for axes in figure.axes[:4]
    ]
    assert marks == [[], [(0.7, 0.1)], [(0.1, 0.9)], []]
    assert figure.axes[1].texts[0].get_text() == "*a* $b$"


def test_the_picture_shines_through_a_heatmap_the_more_the_lower_its_value():
    """Two pictures, black and white, under one heatmap: their difference is what shines through."""
    m = np.array([[0.0, 0.5, 1.0]])
    black, white = (heated(np.full((1, 3, 3), c, np.uint8), m).astype(int) for c in (0, 255))
    assert (white - black).mean(-1).round() == pytest.approx(np.array([[166, 115, 64]]), abs=1)
    assert white[0, 2].argmax() != 2, "the maximum is yellow, not the blue of zero"


def test_a_picture_has_the_outlines_of_three_regions_at_most():
    regions = torch.stack([_neuron(i).region for i in range(5)])
    whole, *rest = figures.where(PROBE.image(3), regions, list("abcde")).axes
    lines = [sum(isinstance(one, QuadContourSet) for one in axes.collections) for axes in rest]
    assert len(whole.collections) == 2 * 3, "each with its halo"
    assert lines.count(2) == 5, "each alone beside it"


def test_the_looks_of_sixty_neurons_differ():
    assert len({look(place) for place in range(60)}) == 60


def test_importing_the_package_or_an_atlas_does_not_import_matplotlib():
    code = "import sys, wwwlib, wwwlib.atlas; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_save_writes_both_files_and_shows_one_escaped_image(tmp_path):
    figure = CASES["samples_by_class"]()
    alt = 'Neuron "sail" <script>alert(1)</script>\n& more'
    shown = figures.save(figure, tmp_path / "deep" / "er", "figure_1", alt)
    assert shown.png.read_bytes()[:4] == b"\x89PNG" and shown.pdf.read_bytes()[:4] == b"%PDF"
    page = shown._repr_html_()
    assert re.fullmatch(
        r'<img alt="[^"<>]*" style="[^"<>]*" src="data:image/png;base64,[^"]*">', page
    )
    assert "&lt;script&gt;" in page and "&quot;sail&quot;" in page
    assert str(tmp_path) not in repr(shown)


def embedded(shown):
    """Return the image inside the HTML of a shown figure, and its size in bytes."""
    data = base64.b64decode(re.search(r"base64,([^\"]*)", shown._repr_html_())[1])
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), dtype=float), len(data)


@pytest.mark.parametrize("case", ["two_tracks", "neurons", "samples_by_class"])
def test_the_embedded_figure_is_smaller_and_looks_the_same(case, tmp_path):
    """Breaks if notebooks carry the full file, or if what they carry has other colours."""
    shown = figures.save(CASES[case](), tmp_path, case, "words")
    inside, size = embedded(shown)
    whole = np.asarray(Image.open(shown.png).convert("RGB"), dtype=float)
    assert inside.shape == whole.shape and size < 0.6 * shown.png.stat().st_size
    assert np.abs(inside - whole).mean() < 4


def test_a_figure_of_too_many_colours_is_embedded_as_it_is(tmp_path):
    """A noise of all colours has no palette of 256: its colours would change visibly."""
    figure = Figure(figsize=(2, 2))
    figure.figimage(np.random.default_rng(0).random((300, 300, 3)))
    shown = figures.save(figure, tmp_path, "noise", "words")
    assert embedded(shown)[1] == shown.png.stat().st_size


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a b", "x\n"])
def test_a_name_that_leaves_the_folder_is_refused(name, tmp_path):
    with pytest.raises(ValueError, match="plain file name"):
        figures.save(CASES["samples_by_class"](), tmp_path, name, "words")


def test_a_figure_without_alternative_text_is_refused(tmp_path):
    with pytest.raises(ValueError, match="alternative text"):
        figures.save(CASES["samples_by_class"](), tmp_path, "x", "  ")


@pytest.mark.parametrize("words", FOREIGN)
@pytest.mark.parametrize("lines", [1, 2, 5])
def test_fitted_lines_fit_and_mark_what_is_cut(words, lines):
    broken = fit(words, 1.0, lines=lines)
    assert len(broken) <= lines and all(measure(line) <= 1.0 for line in broken)
    whole = literal(words).replace(" ", "")
    kept = "".join(broken).replace(" ", "")
    assert kept == whole or (kept[-1] == "…" and whole.startswith(kept[:-1]))


def test_a_list_that_does_not_fit_counts_what_it_left_out():
    assert listing(["sail", "boat"], 3) == ["sail, boat"]
    assert listing(["striped", "checkered", "dotted"], 1.2, lines=1) == ["striped +2 more"]
    assert listing([LONG, "b"], 1.2)[0].endswith("… +1 more")
    assert listing([], 1) == [""]


def test_numbers_have_a_real_minus_and_no_signed_zero():
    assert number(-0.25) == "\N{MINUS SIGN}0.25" and number(-0.001) == "0.00"


def test_wrong_input_is_refused():
    with pytest.raises(IndexError, match="Neuron 9 does not exist; the layer has 6"):
        figures.neurons(_table(), _exemplars(2), PROBE, [9])
    with pytest.raises(ValueError, match="choose at least one"):
        figures.neurons(_table(), _exemplars(2), PROBE, [])
    with pytest.raises(ValueError, match="one title for each"):
        figures.samples(PROBE, [1, 2], ["a"])
    with pytest.raises(ValueError, match="expected bool"):
        figures.where(PROBE.image(0), torch.zeros(1, 64, 64), ["a"])
    with pytest.raises(ValueError, match=r"\(2, 3, 64, 64\) for 1 images"):
        figures.heatmaps([PROBE.image(0)], _maps(), [["one", "two", "three"]], ["image"])
    with pytest.raises(ValueError, match="give PIL or uint8"):
        pixels(np.zeros((4, 4)))


def test_the_longest_test_of_a_name_ends_before_the_examples():
    assert measure("major, AUROC 1.00") < _WORDS
