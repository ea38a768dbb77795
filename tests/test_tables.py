"""Tables of methods and scores: hand-worked cells, ceilings, differences, and who is ahead."""

import math

import pytest
import torch

from wwwlib import scores
from wwwlib.studies import conclusions, tables
from wwwlib.studies.tables import MethodNames, Row, Table

TRUTH = [["tench", "tinca"], ["crane"], ["crane", "derrick"]]
WORDS = ["tench", "crane", "carp"]
AXES = {"tench": (1.0, 0.0), "tinca": (0.6, 0.8), "crane": (0.0, 1.0), "derrick": (0.8, 0.6),
        "carp": (0.8, -0.6)}  # fmt: skip


def encode(words):
    return torch.tensor([AXES[word] for word in words])


def made(**answers):
    every = {"WWW": MethodNames([["Tench", "tench", "carp"], [], ["crane"]], WORDS), **answers}
    return tables.assemble("t", every, TRUTH, {"CLIP cos": encode, "mpnet cos": None})


def test_a_row_by_hand():
    """{tench, carp} against two: F1 2/4, cosines 1 .6 .8 0 in mean; {crane} against two: 2/3."""
    row = made()["WWW"]
    assert row.scores["F1"].values.tolist() == pytest.approx([0.5, 0, 2 / 3])
    assert row.scores["hit rate"].values.tolist() == [1, 0, 1]
    pairs = [(1 + 0.6 + 0.8 + 0.0) / 4, 0, (1 + 0.6) / 2]
    assert row.scores["CLIP cos"].values.tolist() == pytest.approx(pairs, abs=1e-6)
    assert row.upper_bounds["hit rate"] == 1
    assert row.upper_bounds["F1"] == pytest.approx((2 / 3 + 1 + 2 / 3) / 3)
    assert row.upper_bounds["CLIP cos"] == pytest.approx((0.8 + 1 + 0.8) / 3, abs=1e-6)


def test_no_cell_is_blank():
    """What was not run says so, as a row and as a column."""
    cells = made(MILAN=MethodNames()).cells()
    assert list(cells["WWW"]) == [
        "CLIP cos", "mpnet cos", "F1", "hit rate", "set size", "abstaining"
    ]  # fmt: skip
    assert set(cells["MILAN"].values()) == {"not run"}
    assert cells["WWW"]["mpnet cos"] == "not run"
    assert cells["WWW"]["hit rate"] == "0.6667 [0.3856, 0.8644] (1.0000)"
    assert cells["WWW"]["set size"] == "1.00" and cells["WWW"]["abstaining"] == "1 of 3"


def bound(truth, words, size):
    row = tables.assemble("t", {"A": MethodNames(truth, words, size)}, truth, {})["A"]
    return row.upper_bounds["F1"]


def test_a_fixed_number_of_names_has_its_own_upper_bound():
    """Three names of a fixed number against 2, 1, 2 synonyms, of which the words hold one each."""
    assert bound(TRUTH, WORDS, 3) == pytest.approx((2 / 5 + 2 / 4 + 2 / 5) / 3)
    assert bound([["a"]], ["a", "b", "c", "d", "e"], 5) == pytest.approx(1 / 3)
    assert bound(TRUTH, ["carp"], 1) == 0


def test_no_fixed_number_of_names_beats_its_upper_bound():
    """All triples of three words, a neuron at a time."""
    words = ["tench", "tinca", "carp", "derrick"]
    for size in (1, 2, 3):
        best = 0.0
        for truth in TRUTH:
            choices = torch.combinations(torch.arange(4), size).tolist()
            best += max(scores.f1([[words[j] for j in c]], [truth]).mean for c in choices) / 3
        assert bound(TRUTH, words, size) == pytest.approx(best)


def test_each_word_is_encoded_once_for_all_rows():
    seen = []
    other = MethodNames([["carp"], ["crane"], ["tench"]], WORDS)
    looked = {"CLIP cos": lambda words: seen.extend(words) or encode(words)}
    tables.assemble("t", {"A": other, "B": other}, TRUTH, looked)
    assert len(seen) == len(set(seen)) == 5


def test_a_method_that_writes_its_own_words_has_no_ceiling():
    """A ceiling of 0, of an empty list of words, would be beaten; none is shown."""
    table = made(FALCON=MethodNames([["tench"], ["carp"], []], None))
    assert table["FALCON"].upper_bounds == {} and table["WWW"].upper_bounds
    assert table.cells()["FALCON"]["hit rate"] == "0.3333 [0.1356, 0.6144]"


def test_what_an_answer_is_made_of():
    """Four neurons: two of them sea, once beside boat; one silent."""
    answer = MethodNames([["sea"], ["boat", "sea"], [], ["sun"]], WORDS)
    assert tables.vocabulary_use(answer) == {
        "neurons": 4, "named": 0.75, "names in use": 3, "most frequent": "sea", "its share": 0.5
    }  # fmt: skip
    assert tables.vocabulary_use(MethodNames([[]], WORDS))["most frequent"] == "none"


def test_an_unknown_row_says_which_there_are():
    with pytest.raises(KeyError, match="its rows are WWW"):
        made()["FALCON"]


def row(method, values, size=None):
    sizes = torch.full((len(values),), size or 2)
    kept = {
        name: scores.Score(name, torch.tensor(values, dtype=torch.float64), sizes)
        for name in ("F1", "hit rate")
    }
    return Row(method, kept, dict.fromkeys(kept, 1.0), size)


def big(n=60):
    """Better by .3 of an even spread, worse by .3, and the same but for an odd pair."""
    base = [0.3 + 0.4 * (i % 2) for i in range(n)]
    same = [base[1], base[0], *base[2:]]
    rows = (
        row("WWW", base),
        row("above", [b + 0.3 for b in base]),
        row("below", [b - 0.3 for b in base]),
        row("level", same),
        Row("MILAN", {}, {}),
    )
    return Table("a setting", ("CLIP cos", "F1", "hit rate"), rows)


def test_differences_are_method_less_reference_and_corrected_over_the_table():
    table = big()
    gaps = tables.differences(table)
    assert [*gaps.index] == [
        (m, c) for m in ("above", "below", "level") for c in ("F1", "hit rate")
    ]
    assert gaps.difference["above", "F1"] == pytest.approx(0.3)
    assert gaps.difference["below", "F1"] == pytest.approx(-0.3)
    raw = [scores.compare(table[m].scores[c], table["WWW"].scores[c]) for m, c in gaps.index]
    assert gaps.p.tolist() == tables.holm([one.p for one in raw])
    assert gaps[["low", "high"]].to_numpy().tolist() == [[*one.interval] for one in raw]
    assert gaps.p["above", "F1"] == pytest.approx(6 / 10_001)


def test_a_reference_that_was_not_run_has_no_differences():
    assert tables.differences(big(), reference="MILAN").empty


def test_the_winner_in_a_few_words():
    table = big()
    assert conclusions.winner(table, "F1") == "above"
    assert conclusions.winner(table, "CLIP cos") == "not run"
    kept = tuple(row for row in table.rows if row.method in ("WWW", "level", "below"))
    less = Table("t", table.metrics, kept)
    assert conclusions.winner(less, "F1") == "WWW and level, equal"
    same = kept[0].scores["F1"].values.tolist()
    crowd = Table("t", table.metrics, (kept[0], *(row(m, same) for m in "ABC")))
    assert conclusions.winner(crowd, "F1") == "WWW, A and 2 others, equal"
    ahead = Table("t", table.metrics, (kept[0], kept[1]))
    assert conclusions.winner(ahead, "F1") == "WWW"
    assert conclusions.winner(Table("t", ("F1",), kept[:1]), "F1") == "WWW, alone"


def test_a_close_runner_up_makes_no_winner():
    """ "above" differs from the reference WWW, and by a hair from another that does, too."""
    base = [0.3 + 0.4 * (i % 2) for i in range(60)]
    above = [b + 0.3 for b in base]
    close = [above[0] - 0.01, above[1] + 0.005, *above[2:]]
    table = Table("t", ("F1",), (row("WWW", base), row("above", above), row("close", close)))
    gaps = tables.differences(table)
    assert (gaps.p < 0.01).all() and (gaps.difference > 0.29).all() and len(gaps) == 4
    assert conclusions.winner(table, "F1") == "above, not significantly above close"


def test_forced_names_are_chances_and_do_not_compete_in_hit_rate():
    """Five names hit always, in hit rate and in F1; only there are they one answer."""
    five, one = row("five", [1.0] * 30, size=5), row("one", [0.5] * 30, size=1)
    table = Table("t", ("F1", "hit rate"), (row("WWW", [0.0] * 30), five, one))
    assert conclusions.winner(table, "F1") == "five"
    assert conclusions.winner(table, "hit rate") == "one"


def test_differences_as_text():
    cells = tables.difference_cells(tables.differences(big()))
    assert cells["above"]["F1"] == "+0.300 [+0.300, +0.300], p = 0.0006"


def test_only_some_neurons_are_kept_in_order():
    kept = tables.only({"A": MethodNames([["a"], ["b"], ["c"]], WORDS), "B": MethodNames()}, [2, 0])
    assert kept["A"].names == [["c"], ["a"]] and kept["A"].words == WORDS
    assert kept["B"].names is None


def test_records_are_rows_in_which_counts_stay_whole():
    table = tables.by_row({("a", "b"): {"n": 24, "x": 0.95833}, ("a", "c"): {"n": 3, "x": None}})
    assert table.loc[("a", "b")].tolist() == [24, 0.958]
    assert table.loc[("a", "c")].tolist() == [3, "not run"]
    assert "24.0" not in table.to_html() and "0.958333" not in table.to_html()


def test_one_neuron_has_no_error_but_has_a_table():
    one = tables.assemble("t", {"A": MethodNames([["crane"]], WORDS)}, [["crane"]], {})
    assert math.isnan(one["A"].scores["F1"].stderr)
    assert one.cells()["A"]["F1"] == "1.0000 [0.5000, 1.0000] (1.0000)"


TITLES = {
    "one of a kind": (["world", "broden:/a/b.txt"], ["world", "broden"]),
    "two of a kind": (["file:/a/b.txt", "file:c.txt"], ["file:b.txt", "file:c.txt"]),
    "two files of one name": (["broden:/a/b", "broden:/c/b"], ["broden:/a/b", "broden:/c/b"]),
    "the installed one and another": (["wordnet", "wordnet:/a/b/"], ["wordnet", "wordnet:b"]),
    "a kind that is no title": (["file:/a/b.txt"], ["file:b.txt"]),
    "named twice": (["world", "world"], ["world"]),
}


@pytest.mark.parametrize("specs, expected", TITLES.values(), ids=TITLES)
def test_titles_of_concept_sets_are_short_and_distinct(specs, expected):
    """Breaks if a table's title contains a local path, or two concept sets share a row."""
    found = tables.titles(specs)
    assert list(found) == list(dict.fromkeys(specs)) and list(found.values()) == expected


def test_holm_by_hand():
    """Sorted .01 .02 .03 .04 times 4 3 2 1, never falling: .04 .06 .06 .06."""
    assert tables.holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert tables.holm([0.9, 0.8]) == [1.0, 1.0]
    assert tables.holm([]) == []
