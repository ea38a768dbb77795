"""Tables of methods and scores: hand-worked cells, ceilings, differences, and what they allow."""

import math

import pytest
import torch

from wwwlib import images, language, scores
from wwwlib.studies import conclusions, metrics, tables
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


def noted(table, gaps, remarks=()):
    """Return the lines below a table, and its caveats."""
    caveats = conclusions.note(conclusions.limits(table, gaps, remarks))
    return [*conclusions.conclude(table, gaps), *caveats]


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


def test_scores_of_our_own_stand_behind_the_papers():
    table = tables.assemble(
        "t",
        {"A": MethodNames(TRUTH, WORDS)},
        TRUTH,
        {},
        {"ours": (scores.hit_rate, None), "absent": None},
    )
    assert table.metrics == ("F1", "hit rate", "ours", "absent")
    assert table["A"].scores["ours"].mean == 1
    assert (
        table.cells()["A"]["ours"] == "1.0000 [0.7500, 1.0000]"
        and "absent" not in table["A"].scores
    )


def test_each_word_is_encoded_once_for_all_rows():
    seen = []
    other = MethodNames([["carp"], ["crane"], ["tench"]], WORDS)
    looked = {"CLIP cos": lambda words: seen.extend(words) or encode(words)}
    tables.assemble("t", {"A": other, "B": other}, TRUTH, looked)
    assert len(seen) == len(set(seen)) == 5


def test_names_are_cut_to_anothers_number_but_never_to_none():
    names = [["a", "b", "c"], ["d", "e", "f"], []]
    assert tables.truncate(names, [2, 0, 3]) == [["a", "b"], ["d"], []]
    with pytest.raises(ValueError, match=r"Neuron 1 has 3 names, but 4 are"):
        tables.truncate(names, [1, 4, 1])


def test_scores_of_our_own_have_ceilings_too():
    """Each concept set is asked once; a column that is not run has no ceiling."""
    asked = []

    def limit(truth, words):
        asked.append(words)
        return metrics.hit_rate_upper_bound(truth, words)

    given = {
        "A": MethodNames(TRUTH, WORDS),
        "B": MethodNames(TRUTH, list(WORDS)),
        "C": MethodNames(TRUTH, ["x"]),
    }
    table = tables.assemble(
        "t", given, TRUTH, {}, {"ours": (scores.hit_rate, limit), "absent": None}
    )
    assert [table[m].upper_bounds["ours"] for m in "ABC"] == [1, 1, 0]
    assert asked == [tuple(WORDS), ("x",)] and "absent" not in table["A"].upper_bounds


def test_a_method_that_writes_its_own_words_has_no_ceiling():
    """A ceiling of 0, of an empty list of words, would be beaten; none is drawn or told."""
    table = made(FALCON=MethodNames([["tench"], ["carp"], []], None))
    assert table["FALCON"].upper_bounds == {} and table["WWW"].upper_bounds
    assert table.cells()["FALCON"]["hit rate"] == "0.3333 [0.1356, 0.6144]"
    note = "\n".join(noted(table, tables.differences(table, samples=50)))
    assert "upper bound: FALCON. This" not in note and "set of FALCON" not in note


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


def row(method, values, informed=False, ceiling=1.0, size=None):
    sizes = torch.full((len(values),), size or 2)
    kept = {
        name: scores.Score(name, torch.tensor(values, dtype=torch.float64), sizes)
        for name in ("F1", "hit rate")
    }
    return Row(method, kept, dict.fromkeys(kept, ceiling), size, informed)


def big(n=60):
    """Better by .3 of an even spread, worse by .3, and the same but for an odd pair."""
    base = [0.3 + 0.4 * (i % 2) for i in range(n)]
    same = [base[1], base[0], *base[2:]]
    rows = (
        row("WWW", base),
        row("above", [b + 0.3 for b in base]),
        row("below", [b - 0.3 for b in base]),
        row("level", same),
        row("oracle", [1.0] * n, informed=True),
        Row("MILAN", {}, {}),
    )
    return Table("a setting", ("CLIP cos", "F1", "hit rate"), rows)


def test_differences_are_method_less_reference_and_corrected_over_the_table():
    table = big()
    gaps = tables.differences(table, samples=2000)
    assert [(g.method, g.metric) for g in gaps] == [
        (m, c) for m in ("above", "below", "level", "oracle") for c in ("F1", "hit rate")
    ]
    assert gaps[0].comparison.difference == pytest.approx(0.3)
    assert gaps[2].comparison.difference == pytest.approx(-0.3)
    raw = [g.comparison.p for g in gaps]
    assert [g.p for g in gaps] == tables.holm(raw)
    assert gaps[0].p == pytest.approx(8 / 2001)


def test_a_reference_that_was_not_run_has_no_differences():
    assert tables.differences(big(), reference="MILAN") == []


def test_the_winner_is_named_whoever_it_is():
    """The informed method is higher than all, and still no winner."""
    table = big()
    told = conclusions.outcome(table, "F1", tables.differences(table, samples=2000))
    assert told.startswith(
        "F1: above has the highest mean of the competing methods, 0.8000; higher, without "
        "competing: oracle (1.0000). Better than WWW: above (+0.300)"
    )
    assert "Worse than WWW: below (-0.300)" in told and told.count("oracle") == 1
    assert "No significant difference from WWW: level (+0.000)" in told


def test_the_winner_in_a_few_words():
    table = big()
    assert conclusions.winner(table, "F1", samples=2000) == "above"
    assert conclusions.winner(table, "CLIP cos") == "not run"
    kept = tuple(row for row in table.rows if row.method in ("WWW", "level", "below"))
    less = Table("t", table.metrics, kept)
    assert conclusions.winner(less, "F1", samples=2000) == "WWW and level, equal"
    same = kept[0].scores["F1"].values.tolist()
    crowd = Table("t", table.metrics, (kept[0], *(row(m, same) for m in "ABC")))
    assert conclusions.winner(crowd, "F1") == "WWW, A and 2 others, equal"
    assert "may be missed" not in "".join(noted(crowd, tables.differences(crowd)))
    ahead = Table("t", table.metrics, (kept[0], kept[1]))
    assert conclusions.winner(ahead, "F1", samples=2000) == "WWW"
    assert conclusions.winner(Table("t", ("F1",), kept[:1]), "F1") == "WWW, alone"


def test_a_close_runner_up_makes_no_winner():
    """ "above" differs from the reference WWW, and by a hair from another that does, too."""
    base = [0.3 + 0.4 * (i % 2) for i in range(60)]
    above = [b + 0.3 for b in base]
    close = [above[0] - 0.01, above[1] + 0.005, *above[2:]]
    table = Table("t", ("F1",), (row("WWW", base), row("above", above), row("close", close)))
    gaps = tables.differences(table, samples=2000)
    assert all(gap.p < 0.01 and gap.comparison.difference > 0.29 for gap in gaps)
    assert conclusions.winner(table, "F1", samples=2000) == "above, not significantly above close"


def test_forced_names_are_chances_and_do_not_compete_in_hit_rate():
    """Five names hit always, in hit rate and in F1; only there are they one answer."""
    five, one = row("five", [1.0] * 30, size=5), row("one", [0.5] * 30, size=1)
    table = Table("t", ("F1", "hit rate"), (row("WWW", [0.0] * 30), five, one))
    assert conclusions.winner(table, "F1", samples=2000) == "five"
    assert conclusions.winner(table, "hit rate", samples=2000) == "one"
    gaps = tables.differences(table, samples=2000)
    told = conclusions.outcome(table, "hit rate", gaps)
    assert told.startswith("hit rate: one has the highest mean of the competing methods, 0.5000;")
    assert "higher, without competing: five (1.0000)." in told and told.count("five") == 1
    note = "\n".join(noted(table, gaps))
    assert "five gives 5 names per neuron, so it does not compete in hit rate" in note
    assert "one gives" not in note.replace("one gives every", "")


def test_differences_as_text():
    cells = tables.difference_cells(tables.differences(big(), samples=2000))
    assert cells["above"]["F1"] == "+0.300 [+0.300, +0.300], p = 0.0005 → 0.004"


def test_only_some_neurons_are_kept_in_order():
    kept = tables.only({"A": MethodNames([["a"], ["b"], ["c"]], WORDS), "B": MethodNames()}, [2, 0])
    assert kept["A"].names == [["c"], ["a"]] and kept["A"].words == WORDS
    assert kept["B"].names is None


def test_records_are_rows_in_which_counts_stay_whole():
    table = tables.by_row({("a", "b"): {"n": 24, "x": 0.95833}, ("a", "c"): {"n": 3, "x": None}})
    assert table.loc[("a", "b")].tolist() == [24, 0.958]
    assert table.loc[("a", "c")].tolist() == [3, "not run"]
    assert "24.0" not in table.to_html() and "0.958333" not in table.to_html()


def test_equal_leaders_share_and_a_lonely_one_is_compared_with_nobody():
    pair = Table("t", ("F1",), (row("A", [0.5, 0.5]), row("B", [0.25, 0.75])))
    assert "A and B share the highest mean" in conclusions.outcome(pair, "F1", [])
    lonely = Table("t", ("F1",), (row("A", [0.5, 0.5]),))
    assert "no other method was measured" in conclusions.outcome(lonely, "F1", [])


def test_a_caveat_of_several_tables_is_stated_once():
    lines = conclusions.note({"t": ["all", "two"], "u": ["all", "two"], "v": ["all", "own"]})
    assert lines == [
        "Caveats:", "  - all", "Only for t; u:", "  - two", "Only for v:", "  - own"
    ]  # fmt: skip


def test_what_may_not_be_concluded_is_said():
    table = big()
    gaps = tables.differences(table, samples=200)
    note = "\n".join(noted(table, gaps, ["The truth is a guess."]))
    assert "CLIP cos: not measured." in note
    assert "- The truth is a guess." in note
    assert "Not run here: MILAN." in note
    assert "oracle uses the annotations that define the truth" in note
    assert "Hit rate at its upper bound: oracle." in note
    assert "may be missed" in note


def test_vocabulary_forced_sizes_and_silence_are_told():
    short = row("five", [0.2, 0.2], ceiling=0.25, size=5)
    mute = Row("mute", {"F1": scores.Score("F1", torch.zeros(2), torch.tensor([0, 1])),
                        "hit rate": scores.Score("hit rate", torch.zeros(2), torch.tensor([0, 1]))},
               {"F1": 1.0, "hit rate": 1.0})  # fmt: skip
    note = "\n".join(noted(Table("t", ("F1", "hit rate"), (short, mute)), []))
    assert "The concept set of five contains a correct name for 25.0% of the neurons" in note


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


# Classes that share a word

SYNONYMS = [["tench", "Tinca tinca"], ["crane"], ["crane", "lifting machine", "derrick"]]
NAMES = [["Tench", " tench ", "carp"], [], ["Crane", "crane"]]


def test_shared_words_are_found():
    classes = tables.classes_of_words(SYNONYMS)
    assert classes["crane"] == [1, 2] and classes["tinca tinca"] == [0]


def test_by_synset_a_shared_word_is_only_half_an_answer_by_hand():
    """Neuron 0: right class and a wrong word. Neuron 2: both cranes, of which one is right."""
    pred, truth = tables.by_synset(NAMES, SYNONYMS)
    assert scores.hit_rate(pred, truth).values.tolist() == [1, 0, 1]
    assert scores.f1(pred, truth).values.tolist() == pytest.approx([2 / 3, 0, 2 / 3])


def test_by_synset_two_synonyms_are_one_answer():
    pred, truth = tables.by_synset([["tench", "tinca tinca"], ["x"], ["derrick"]], SYNONYMS)
    assert scores.f1(pred, truth).values.tolist() == [1, 0, 1]


def test_a_shared_word_stands_for_a_class_that_nobody_is_asked_about():
    """Of three classes only the machine is asked for: crane is the bird's name all the same."""
    pred, truth = tables.by_synset([["crane"]], SYNONYMS, [2])
    assert truth == [["class 2"]] and sorted(pred[0]) == ["class 1", "class 2"]
    assert scores.f1(pred, truth).mean == pytest.approx(2 / 3)


def test_the_cranes_are_told_apart_by_synset():
    """Needs only timm: two classes share "crane", and a perfect name by string is not one by id."""
    truth = language.synonyms(images.imagenet_synsets().values())
    assert tables.classes_of_words(truth)["crane"] == [134, 517]
    pred, restated = tables.by_synset(truth, truth)
    assert scores.f1(pred, restated).values[134] == pytest.approx(2 / 3)
    assert scores.f1(truth, truth).mean == 1
    assert scores.f1(pred, restated).mean < 1


def test_holm_by_hand():
    """Sorted .01 .02 .03 .04 times 4 3 2 1, never falling: .04 .06 .06 .06."""
    assert tables.holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert tables.holm([0.9, 0.8]) == [1.0, 1.0]
    assert tables.holm([]) == []
