"""Agreement with ground truth: hand-worked examples, known published figures, paired tests."""

import math

import pytest
import torch
from scipy.stats import binomtest, permutation_test

from wwwlib import language, scores
from wwwlib.studies import metrics, wordnet

# Three neurons: a repeated and shouted right name among a wrong one; an abstention; a synonym
# that two classes share, given twice.
TRUTH = [["tench", "Tinca tinca"], ["crane"], ["crane", "lifting machine", "derrick"]]
PRED = [["Tench", " tench ", "carp"], [], ["Crane", "crane"]]
AXES = {
    "tench": [1.0, 0.0, 0.0],
    "tinca tinca": [0.6, 0.8, 0.0],
    "carp": [0.0, 1.0, 0.0],
    "crane": [0.0, 0.0, 2.0],  # encoders need not normalise here
    "lifting machine": [0.0, 0.6, 0.8],
    "derrick": [0.8, 0.0, 0.6],
}


def encode(words):
    return torch.tensor([AXES[word] for word in words])


def test_hit_rate_by_hand():
    score = scores.hit_rate(PRED, TRUTH)
    assert score.values.tolist() == [1, 0, 1]
    assert score.mean == pytest.approx(2 / 3)
    assert score.stderr == pytest.approx(math.sqrt(1 / 3) / math.sqrt(3))


def test_f1_by_hand():
    """{tench, carp} against two synonyms: 2*1/(2+2); {crane} against three: 2*1/(1+3)."""
    score = scores.f1(PRED, TRUTH)
    assert score.values.tolist() == [0.5, 0, 0.5]
    assert score.mean == pytest.approx(1 / 3)


def test_text_cosine_by_hand():
    """Pairs of neuron 0: 1, .6, 0, .8; neuron 1 abstains; of neuron 2: 1, .8, .6."""
    score = scores.text_cosine(PRED, TRUTH, encode)
    assert score.values.tolist() == pytest.approx([0.6, 0, 0.8], abs=1e-6)


def test_text_cosine_encodes_each_word_once():
    seen = []
    scores.text_cosine(PRED, TRUTH, lambda words: seen.extend(words) or encode(words))
    assert len(seen) == len(set(seen)) == len(AXES)


def test_a_cached_encoder_is_called_once_for_each_word():
    seen = []
    look_up = scores.cached(lambda words: seen.extend(words) or encode(words))
    for words in (["tench", "carp", "tench"], ["carp", "crane"]):
        assert torch.equal(look_up(words), encode(words))
    assert seen == ["carp", "tench", "crane"]  # the shortest of a call first


def test_sizes_and_abstentions_are_counted_on_sets():
    score = scores.f1(PRED, TRUTH)
    assert score.sizes.tolist() == [2, 0, 1]
    assert score.size == 1
    assert score.abstained == 1
    assert str(score) == "F1 0.3333 ± 0.1667 (n = 3, 1 abstained)"


def test_one_neuron_has_no_standard_error():
    assert math.isnan(scores.f1([["a"]], [["a"]]).stderr)


@pytest.mark.parametrize("hits, count", [(24, 24), (0, 24), (7, 24), (1, 1)])
def test_an_interval_has_a_width_at_24_of_24(hits, count):
    """Wilson's interval of one standard error, against scipy's."""
    values = torch.tensor([1.0] * hits + [0.0] * (count - hits), dtype=torch.float64)
    one = scores.Score("hit rate", values)
    level = math.erf(1 / math.sqrt(2))
    expected = binomtest(hits, count).proportion_ci(level, "wilson")
    assert one.interval == pytest.approx((expected.low, expected.high)) and "±" not in str(one)
    part = scores.Score("F1", torch.tensor([0.5, 1.0], dtype=torch.float64))
    assert part.interval == pytest.approx((0.5, 1.0)) and part.cell(2) == "0.75 ± 0.25"


def test_upper_bounds_by_hand():
    words = ["Tench", "tinca tinca", "derrick", "carp"]
    assert metrics.hit_rate_upper_bound(TRUTH, words).values.tolist() == [1, 0, 1]
    assert metrics.f1_upper_bound(TRUTH, words).values.tolist() == [1, 0, 0.5]
    assert metrics.f1_upper_bound(TRUTH, words, size=1).values.tolist() == pytest.approx(
        [2 / 3, 0, 0.5]
    )
    best = metrics.text_cosine_upper_bound(TRUTH, words, encode).values.tolist()
    literal = [
        max(
            sum(torch.cosine_similarity(encode([w]), encode([u])).item() for u in synonyms)
            / len(synonyms)
            for w in ["tench", "tinca tinca", "derrick", "carp"]
        )
        for synonyms in [[word.lower() for word in row] for row in TRUTH]
    ]
    assert best == pytest.approx(literal, abs=1e-6)


def test_no_names_beat_their_upper_bound():
    words = list(AXES)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        pick = [torch.randperm(6, generator=generator)[:i].tolist() for i in (1, 2, 3)]
        pred = [[words[j] for j in row] for row in pick]
        for score, bound in [
            (scores.hit_rate(pred, TRUTH), metrics.hit_rate_upper_bound(TRUTH, words)),
            (scores.f1(pred, TRUTH), metrics.f1_upper_bound(TRUTH, words)),
            (
                scores.text_cosine(pred, TRUTH, encode),
                metrics.text_cosine_upper_bound(TRUTH, words, encode),
            ),
        ]:
            assert (score.values <= bound.values + 1e-6).all()


@pytest.mark.parametrize(
    ("pred", "truth", "sentence"),
    [
        ([["a"]], [["a"], ["b"]], "names for 1 neurons and truth for 2"),
        ([], [], "at least one neuron"),
        ([["a"], ["b"]], [["a"], [" "]], "Neuron 1 has no truth"),
        (["cat"], [["cat"]], "names of neuron 0 is 'cat'; give a list"),
    ],
)
def test_lists_that_do_not_fit_are_refused(pred, truth, sentence):
    with pytest.raises(ValueError, match=sentence):
        scores.hit_rate(pred, truth)


# Paired comparison


def score_of(values, name="F1"):
    return scores.Score(name, torch.tensor(values, dtype=torch.float64), torch.ones(len(values)))


def test_permutation_p_equals_the_exact_one_by_enumeration():
    a, b = [0.9, 0.8, 0.7, 0.9, 0.6, 0.3], [0.5, 0.6, 0.6, 0.5, 0.7, 0.2]
    gap = [x - y for x, y in zip(a, b, strict=True)]
    extreme = 0
    for bits in range(64):
        flipped = [g if bits >> i & 1 else -g for i, g in enumerate(gap)]
        extreme += abs(sum(flipped)) >= abs(sum(gap)) - 1e-12
    found = scores.compare(score_of(a), score_of(b), samples=40_000)
    assert found.difference == pytest.approx(sum(gap) / 6)
    assert found.p == pytest.approx(extreme / 64, abs=0.01)


def test_permutation_p_is_scipys():
    noise = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 40, generator=noise).double() + torch.tensor([[0.4], [0.0]])
    oracle = permutation_test((a.numpy(), b.numpy()), lambda x, y, axis: (x - y).mean(axis),
                              permutation_type="samples", n_resamples=20_000, rng=1)  # fmt: skip
    found = scores.compare(score_of(a.tolist()), score_of(b.tolist()), samples=20_000)
    assert found.p == pytest.approx(oracle.pvalue, abs=0.015)


def test_one_neuron_decides_nothing():
    found = scores.compare(score_of([1.0]), score_of([0.0]))
    assert found.difference == 1 and found.p == 1 and math.isnan(found.interval[0])


def test_interval_covers_the_truth_about_as_often_as_it_says():
    generator = torch.Generator().manual_seed(1)
    covered = 0
    for seed in range(200):
        a, b = torch.randn(2, 60, generator=generator) + torch.tensor([[0.3], [0.0]])
        low, high = scores.compare(score_of(a.tolist()), score_of(b.tolist()), seed, 1_000).interval
        covered += low <= 0.3 <= high
    assert 178 <= covered <= 199


def test_pairing_finds_what_unpaired_errors_hide():
    """A small constant gain under a large spread between neurons."""
    base = torch.rand(200, dtype=torch.float64)
    found = scores.compare(score_of((base + 0.01).tolist()), score_of(base.tolist()))
    assert found.interval == pytest.approx((0.01, 0.01))
    assert found.p < 0.001


def test_equal_methods_do_not_differ():
    found = scores.compare(score_of([0.2, 0.4, 0.9]), score_of([0.2, 0.4, 0.9]))
    assert (found.difference, found.interval, found.p) == (0, (0, 0), 1)


def test_the_seed_fixes_the_comparison_and_blocks_do_not_change_its_size(monkeypatch):
    a, b = score_of(torch.rand(50).tolist()), score_of(torch.rand(50).tolist())
    assert scores.compare(a, b, 3, 500) == scores.compare(a, b, 3, 500)
    assert scores.compare(a, b, 3, 500) != scores.compare(a, b, 4, 500)
    monkeypatch.setattr(scores, "BLOCK", 333)
    gap = score_of((a.values + 1).tolist())  # no flip of 50 equal gaps is as far from 0
    assert scores.compare(gap, a, 3, 500).p == 1 / 501


def test_different_scores_are_not_compared():
    with pytest.raises(ValueError, match="cannot be compared"):
        scores.compare(score_of([1.0, 2.0]), score_of([1.0, 2.0], "hit rate"))


# WordNet's partial credit


def tree():
    """entity > animal > (bird > crane_1, fish > tench); entity > machine > crane_2."""
    shape = {
        "n0": (["entity"], []),
        "n1": (["animal", "beast"], ["n0"]),
        "n2": (["bird"], ["n1"]),
        "n3": (["crane"], ["n2"]),
        "n4": (["fish"], ["n1"]),
        "n5": (["tench", "Tinca tinca"], ["n4"]),
        "n6": (["machine"], ["n0"]),
        "n7": (["crane", "derrick"], ["n6"]),
        "n8": (["loner"], []),
    }
    return wordnet.Hypernyms(
        {i: language.Synset(i, tuple(words), tuple(up)) for i, (words, up) in shape.items()}
    )


def test_steps_are_counted_up_and_down():
    """fish to tench is one link; bird to fish two, through animal; a loner has no way anywhere."""
    hypernyms = tree()
    assert hypernyms.steps("n4", "n5") == 1 and hypernyms.steps("n5", "n4") == 1
    assert hypernyms.steps("n2", "n4") == 2
    assert hypernyms.steps("n3", "n5") == 4
    assert hypernyms.steps("n8", "n5") == math.inf and hypernyms.steps("n5", "n5") == 0


def test_of_several_common_hypernyms_the_shortest_way_counts():
    """Through the deep root the two are 6 links apart, through the shallow one 4."""
    above = {"r": (), "s": ("r",), "d1": ("r",), "d2": ("d1",), "a1": ("d2",), "a2": ("a1",),
             "b1": ("d2",), "b2": ("b1",), "a": ("a2", "s"), "b": ("b2", "s")}  # fmt: skip
    synsets = {i: language.Synset(i, (i,), up) for i, up in above.items()}
    assert wordnet.Hypernyms(synsets).steps("a", "b") == 2


def test_marks_by_hand():
    """Of tench: itself right, fish and animal near (one and two links), bird three links off."""
    hypernyms, truth = tree(), ["tench", "Tinca tinca"]
    marks = {name: wordnet.grade(name, truth, hypernyms) for name in
             (" TINCA  tinca", "fish", "animal", "bird", "machine", "qwerty")}  # fmt: skip
    assert list(marks.values()) == ["right", "near", "near", "wrong", "wrong", "wrong"]
    assert wordnet.grade("fish", truth) == "wrong", "without WordNet nobody is near"


def test_marked_names_keep_their_spelling_and_stand_once():
    marked = wordnet.graded(["Fish", "tench", "fish", " "], ["tench"], tree())
    assert marked == (("Fish", "near"), ("tench", "right"))
    assert wordnet.graded([], ["tench"], None) == ()


def test_examples_of_the_rule_hold_in_wordnet():
    """Those of the docstring and of notebook 04; skipped where WordNet is not installed."""
    try:
        tree = wordnet.Hypernyms(language.read_synsets())
    except FileNotFoundError as error:
        pytest.skip(str(error))
    for name, truth, mark in (("vessel", "boat", "near"), ("ship", "boat", "near"),
                              ("wolf", "dog", "near"), ("dog", "beagle", "wrong")):  # fmt: skip
        assert wordnet.grade(name, [truth], tree) == mark


def test_the_rule_says_what_was_applied():
    assert "within 2 hypernym links" in wordnet.grading_rule(tree())
    assert "without WordNet" in wordnet.grading_rule(None)


# Known answers on real labels


@pytest.fixture(scope="module")
def imagenet(real):
    return language.synonyms(real / "labels" / "imagenet_labels.txt")


def ceiling_words(truth):
    return [word for words in truth for word in words]


@pytest.mark.real
def test_one_perfect_name_a_class_scores_f1_7871(imagenet):
    ceiling = metrics.f1_upper_bound(imagenet, ceiling_words(imagenet), size=1)
    assert len(ceiling) == 1000
    assert ceiling.mean == pytest.approx(0.7871, abs=5e-5)
    assert metrics.f1_upper_bound(imagenet, ceiling_words(imagenet)).mean == 1


@pytest.mark.real
def test_122_classes_are_reachable_from_broden(real, imagenet):
    broden = language.from_file(real / "labels" / "broden_labels_clean.txt")
    assert metrics.hit_rate_upper_bound(imagenet, broden.words).values.sum() == 122


@pytest.mark.real
def test_a_perfect_answer_in_the_papers_reading_of_places_scores_7945(real):
    path = real / "labels" / "categories_places365.txt"
    for reading, expected in [("paper", 0.7945), ("clean", 1.0)]:
        truth = metrics.places365_truth(path, reading)
        words = language.places365(path, reading).words
        perfect = scores.hit_rate([[word] for word in words], truth)
        assert perfect.mean == pytest.approx(expected, abs=5e-5)
        assert metrics.hit_rate_upper_bound(truth, words).mean == pytest.approx(perfect.mean)
