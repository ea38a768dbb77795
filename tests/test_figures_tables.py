"""Tables drawn: nothing leaves the page, nothing covers anything, what was not run says so."""

import warnings

import pytest
import torch

from wwwlib import plots
from wwwlib.scores import Score
from wwwlib.studies import figures
from wwwlib.studies.tables import Row, Table

LONG = "an exceedingly long-winded name of more than forty characters, $x$ and <b>"
METRICS = ("CLIP cos", "mpnet cos", "F1", "hit rate", "Wu-Palmer, not the paper's")


def _row(method, mean, metrics=METRICS, informed=False):
    values = torch.tensor([mean - 0.1, mean, mean + 0.1], dtype=torch.float64)
    kept = {name: Score(name, values, torch.tensor([1, 0, 2])) for name in metrics}
    return Row(method, kept, dict.fromkeys(metrics[:4], 0.9), None, informed)


def _table(title="a setting", metrics=METRICS):
    rows = (
        _row("WWW", 0.7, metrics),
        _row("CLIP-Dissect equal k", 0.6, metrics),
        _row(LONG, -0.2, metrics),
        _row("Network Dissection", 1.0, metrics, informed=True),
        Row("FALCON", {}, {}),
        Row("MILAN", {}, {}),
    )
    return Table(title, METRICS, rows)


CASES = {
    "one": lambda: figures.methods([_table()]),
    "several": lambda: figures.methods([_table(LONG * 3), _table("b"), _table("$c$")]),
    "two_scores": lambda: figures.methods([_table(metrics=("F1", "hit rate"))]),
    "another_reference": lambda: figures.methods([_table()], "Network Dissection"),
}


@pytest.mark.parametrize("case", CASES)
def test_every_text_is_on_the_page_and_on_no_other(case, drawn):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = CASES[case]()
        texts = drawn(figure)
    boxes = [(text, text.get_window_extent()) for text in texts]
    for text, box in boxes:
        inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1
        assert inside and box.y1 <= figure.bbox.y1, f"{text.get_text()!r} leaves the page"
        assert text.get_fontsize() >= 8 and not text.get_parse_math()
    for i, (text, box) in enumerate(boxes):
        for other, its in boxes[:i]:
            across = min(box.x1, its.x1) - max(box.x0, its.x0)
            down = min(box.y1, its.y1) - max(box.y0, its.y0)
            assert across <= 1 or down <= 1, f"{text.get_text()!r} covers {other.get_text()!r}"


def test_what_was_not_run_says_so_in_every_panel(drawn):
    """A missing point could otherwise be read as a score of nothing."""
    words = [text.get_text() for text in drawn(CASES["one"]())]
    assert words.count("not run") == 2 * len(METRICS)


def test_a_method_without_a_ceiling_has_no_tick(drawn):
    """A tick at 0 would say that nothing could be reached."""
    free = Row("FALCON", _row("FALCON", 0.3).scores, {})
    figure = figures.methods([Table("t", METRICS, (_row("WWW", 0.5), free))])
    drawn(figure)
    (part,) = figure.subfigs
    for axes in part.axes[:4]:
        ticks = [
            line for line in axes.lines if line.get_marker() == "|" and line.get_markersize() == 9
        ]
        assert [line.get_ydata()[0] for line in ticks] == [0], "only the first method has one"


def test_a_score_that_nobody_has_takes_no_room(drawn):
    words = [text.get_text() for text in drawn(CASES["two_scores"]())]
    assert "F1" in words and "mpnet cos" not in words


def test_the_same_tables_give_the_same_bytes(tmp_path):
    one = plots.save(CASES["one"](), tmp_path / "a", "t", "words")
    two = plots.save(CASES["one"](), tmp_path / "b", "t", "words")
    assert one.png.read_bytes() == two.png.read_bytes()


def test_nothing_to_draw_is_said():
    with pytest.raises(ValueError, match="No table has a score that was measured"):
        figures.methods([Table("t", ("F1",), (Row("MILAN", {}, {}),))])
    with pytest.raises(ValueError, match="No table"):
        figures.methods([])
