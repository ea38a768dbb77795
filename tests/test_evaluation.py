"""Tests of names: each measure against its literal version, and each source of truth."""

import math
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import mannwhitneyu, pearsonr
from sklearn.metrics import average_precision_score, f1_score, jaccard_score, roc_auc_score

from wwwlib import concepts, evaluation, images, targets, world
from wwwlib.evaluation import Truth
from wwwlib.store import Store
from wwwlib.studies import drawn, examination

MEASURES = {
    "auroc": evaluation.auroc,
    "mad": evaluation.mad,
    "average_precision": evaluation.average_precision,
    "pearson": evaluation.pearson,
    "cosine": evaluation.cosine,
    **{
        name: lambda z, present, name=name: examination.binary(z, present, 0.2)[name]
        for name in ("F1", "IoU", "AUPRC")
    },
}
each_measure = pytest.mark.parametrize("name", MEASURES)


def literal_auroc(z, c):
    pairs = [(a > b) + (a == b) / 2 for a in z[c] for b in z[~c]]
    return sum(pairs) / len(pairs)


def literal_active(z, share=0.2):
    """Whether an image is among the highest share of values, ties included."""
    return z >= sorted(z, reverse=True)[math.ceil(share * len(z)) - 1]


LITERAL = {
    "auroc": literal_auroc,
    "mad": lambda z, c: (z[c].mean() - z[~c].mean()) / z[~c].std(),
    "average_precision": lambda z, c: np.mean([c[z >= v].mean() for v in z[c]]),
    "pearson": lambda z, c: pearsonr(z, c).statistic,
    "cosine": lambda z, c: (z * c).sum() / math.sqrt((z**2).sum() * c.sum()),
    "F1": lambda z, c: f1_score(c, literal_active(z)),
    "IoU": lambda z, c: jaccard_score(c, literal_active(z)),
    "AUPRC": lambda z, c: average_precision_score(literal_active(z), c),
}


def example(seed=0, images=37, neurons=4, words=5):
    """Activations with many ties, and presence of which every concept has some and lacks some."""
    rng = np.random.default_rng(seed)
    z = np.maximum(rng.integers(-3, 6, (images, neurons)), 0) / 4
    z[:, 0] = rng.normal(size=images)
    present = rng.random((images, words)) < rng.random(words)
    present[0], present[1] = True, False
    return torch.from_numpy(z), torch.from_numpy(present)


# Measures -------------------------------------------------------------------------------------


@each_measure
@pytest.mark.parametrize("seed", range(4))
def test_a_measure_equals_its_literal_version(name, seed):
    z, present = example(seed)
    found = MEASURES[name](z, present)
    assert found.shape == (4, 5) and found.dtype == torch.float64
    for i in range(4):
        for j in range(5):
            expected = LITERAL[name](z[:, i].numpy(), present[:, j].numpy())
            assert found[i, j].item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_auroc_and_average_precision_are_those_of_scikit_learn(seed):
    z, present = example(seed)
    auroc, precision = evaluation.auroc(z, present), evaluation.average_precision(z, present)
    for i in range(4):
        for j in range(5):
            own = present[:, j].numpy(), z[:, i].numpy()
            assert auroc[i, j].item() == pytest.approx(roc_auc_score(*own), abs=1e-12)
            assert precision[i, j].item() == pytest.approx(average_precision_score(*own), abs=1e-12)


EVERY_ORDER = torch.tensor(list(product(range(4), repeat=4)), dtype=torch.float64).T
EVERY_SHARE = torch.tensor(list(product([False, True], repeat=4))[1:-1]).T


@pytest.mark.parametrize("name", ["auroc", "average_precision"])
def test_every_order_of_four_images_and_every_concept_of_theirs(name):
    """Ties of every kind; a concept on the first or the last images, beside every other concept."""
    found = MEASURES[name](EVERY_ORDER, EVERY_SHARE).tolist()
    for i, z in enumerate(EVERY_ORDER.T.numpy()):
        for j, c in enumerate(EVERY_SHARE.T.numpy()):
            assert found[i][j] == pytest.approx(LITERAL[name](z, c), abs=1e-12)


@pytest.mark.parametrize("name", ["mad", "pearson", "cosine"])
@pytest.mark.parametrize("unit", [2.0**-60, 1.0, 2.0**60])
def test_activations_of_four_images_in_any_unit(name, unit):
    """Undecided are a flat neuron, and for MAD one that is flat without the concept."""
    z, c = EVERY_ORDER.numpy(), EVERY_SHARE.numpy()
    if name == "cosine":
        expected = z.T @ c / np.sqrt((z**2).sum(0)[:, None] * c.sum(0)).clip(1e-99)
        flat = (z == 0).all(0)[:, None] & c.any(0)
    elif name == "pearson":
        centred, share = z - z.mean(0), c - c.mean(0)
        flat = (z == z[0]).all(0)[:, None] & c.any(0)
        sizes = np.sqrt((centred**2).sum(0)[:, None] * (share**2).sum(0))
        expected = centred.T @ share / sizes.clip(1e-99)
    else:
        groups = [[(one[own], one[~own]) for own in c.T] for one in z.T]
        flat = np.array([[np.ptp(rest) == 0 for _, rest in row] for row in groups])
        expected = np.array(
            [[(a.mean() - b.mean()) / (b.std() or 1) for a, b in row] for row in groups]
        )
    found = MEASURES[name](EVERY_ORDER * unit, EVERY_SHARE).numpy()
    assert np.array_equal(np.isnan(found), flat)
    np.testing.assert_allclose(found[~flat], expected[~flat], rtol=0, atol=1e-12)


@pytest.mark.parametrize("value", [0.1, -1 / 3, 7.7e5])
def test_without_the_concept_alike_is_up_to_rounding(value):
    """The rounded sum of squares of equal values is not zero: MAD would be in the millions."""
    _, present = example(1, 999)
    z = torch.where(present, value * torch.rand(999, 5, dtype=torch.float64), value)
    assert evaluation.mad(z, present).diagonal().isnan().all()
    spread = z + 1e-4 * value * torch.randn(999, 5, dtype=torch.float64)
    found = evaluation.mad(spread, present)
    for j in range(5):
        own, c = spread[:, j].numpy(), present[:, j].numpy()
        assert found[j, j].item() == pytest.approx(LITERAL["mad"](own, c), rel=1e-6)


def test_correlations_that_are_perfect_are_not_beyond_one():
    """The quotient of rounded sums may be."""
    _, present = example(images=41, words=300)
    z = present.double() * torch.rand(300, dtype=torch.float64)
    for sign in (1, -1):
        for measure in (evaluation.pearson, evaluation.cosine):
            own = measure(sign * z, present).diagonal()
            assert (own.abs() <= 1).all() and ((own - sign).abs() < 1e-12).all()


@each_measure
def test_blocks_of_neurons_change_nothing(name, monkeypatch):
    z, present = example(neurons=9)
    whole = MEASURES[name](z, present)
    monkeypatch.setattr(evaluation, "_BLOCK", 80)
    torch.testing.assert_close(MEASURES[name](z, present), whole, rtol=1e-12, atol=1e-12)


@each_measure
def test_what_all_or_no_images_show_and_what_is_not_finite_is_not_decided(name):
    z, present = example()
    present[:, 1], present[:, 3], z[5, 2] = True, False, math.inf
    found = MEASURES[name](z, present)
    undecided = torch.zeros(4, 5, dtype=torch.bool)
    undecided[:, [1, 3]], undecided[2] = True, True
    assert torch.equal(found.isnan(), undecided)


def test_a_constant_neuron_is_at_chance_and_has_no_correlation():
    _, present = example()
    z = torch.full((37, 2), 0.1)
    assert (evaluation.auroc(z, present) == 0.5).all()
    assert evaluation.pearson(z, present).isnan().all()
    assert evaluation.mad(z, present).isnan().all()


@given(st.integers(0, 10**6), st.integers(2, 30))
@settings(max_examples=40, deadline=None)
def test_auroc_depends_on_the_order_of_activations_alone(seed, count):
    z, present = example(seed, count + 2)
    stretched = torch.exp(z - z.amax()).float()
    if all(len(z[:, i].unique()) == len(stretched[:, i].unique()) for i in range(4)):
        assert torch.equal(evaluation.auroc(z, present), evaluation.auroc(stretched, present))
    assert torch.allclose(evaluation.auroc(-z, present), 1 - evaluation.auroc(z, present))


@each_measure
@pytest.mark.parametrize(
    "z, present, message",
    [
        (torch.zeros(3, 2), torch.zeros(4, 2).bool(), r"\(3, 2\) and present \(4, 2\)"),
        (torch.zeros(3), torch.zeros(3, 2).bool(), r"expected \(I, N\)"),
        (torch.zeros(3, 2, 1), torch.zeros(3, 2).bool(), r"expected \(I, N\)"),
        (torch.zeros(4, 2), torch.zeros(3, 2).bool(), r"\(4, 2\) and present \(3, 2\)"),
        (torch.zeros(3, 0), torch.zeros(3, 2).bool(), r"expected \(I, N\)"),
        (torch.zeros(3, 2), torch.zeros(3, 2), "float32; give bool"),
    ],
)
def test_what_does_not_match_is_refused(name, z, present, message):
    with pytest.raises(ValueError, match=message):
        MEASURES[name](z, present)


@each_measure
@pytest.mark.parametrize("shape", [(3,), (3, 2, 1)])
def test_presence_that_is_no_matrix_is_refused(name, shape):
    with pytest.raises(ValueError, match=r"expected \(I, N\) and \(I, M\)"):
        MEASURES[name](torch.zeros(3, 2), torch.zeros(shape).bool())


def test_the_share_of_active_images_is_between_0_and_1():
    with pytest.raises(ValueError, match="share is 1"):
        examination.binary(*example(), 1)


@pytest.mark.parametrize(
    "name, missing",
    [("pearson", True), ("cosine", True), ("F1", True), ("IoU", True), ("AUPRC", True),
     ("auroc", False)],
)  # fmt: skip
def test_measures_notice_missing_and_extra_labels_as_published(name, missing):
    """A neuron that is a rare concept: fewer, and additional, labels must lower its score.

    Half of the labels, or twice as many; lower by more than .001, as in NeuronEval, of which these
    are the verdicts: AUROC does not notice what is missing.
    """
    generator = torch.Generator().manual_seed(0)
    c = torch.arange(100_000)[:, None] < 100
    noise, z = torch.rand(c.shape, generator=generator), c.double()
    measure = MEASURES[name]
    if name in ("F1", "IoU", "AUPRC"):
        measure = lambda z, c: examination.binary(z, c, 0.001)[name]  # noqa: E731
    whole, half, more = (
        measure(z, one).item() for one in (c, c & (noise > 0.5), c | (noise < 0.001))
    )
    assert (half < whole - 0.001) is missing
    assert more < whole - 0.001


# Truth ----------------------------------------------------------------------------------------


def truth_of(present, words=None, labels=None, known=None):
    """Truth of images without pixels."""
    names = tuple(f"{i}" for i in range(len(present)))
    labels = labels or (None,) * len(present)
    blank = images.ImageSet("blank", "f", names, tuple(labels), ("a", "b"), Image.new)
    words = words or tuple(f"word {j}" for j in range(present.shape[1]))
    return Truth(blank, words, present, known)


def test_the_truth_of_a_world_is_what_its_masks_show():
    truth = world.truth(count=30, seed=5, progress=False)
    shown = [set(world.render(world.sample(i, 5)).masks) for i in range(30)]
    for i in range(30):
        assert {w for w in world.CATEGORIES["part"] if w in shown[i]} == {
            w for w in world.CATEGORIES["part"] if truth.present[i, truth.words.index(w)]
        }
    for name, others in world.SYNONYMS.items():
        columns = truth.columns([name.upper(), *others])
        assert None not in columns
        for j in columns:
            assert torch.equal(truth.present[:, j], truth.present[:, columns[0]])
    assert truth.columns(["no such word"]) == [None]


def test_crops_show_what_covers_two_percent_of_them():
    truth = world.truth(count=6, seed=5, progress=False)
    assert len(truth.crops.images) == 30
    size = world.render(world.sample(0, 5)).image.width
    corners = [(0, 0), (size // 2, 0), (0, size // 2), (size // 2, size // 2), (size // 4,) * 2]
    for i in range(6):
        masks = world.render(world.sample(i, 5)).masks
        for j, (x, y) in enumerate(corners):
            for word in world.CATEGORIES["colour"]:
                part = masks.get(word, np.zeros((size, size), bool))
                part = part[y : y + size // 2, x : x + size // 2]
                at = truth.words.index(word)
                assert truth.crops.present[5 * i + j, at].item() == (part.mean() > 0.02)


def test_a_store_keeps_the_presence(tmp_path, monkeypatch):
    probe = world.image_set(4, 5)
    made = evaluation.from_masks(probe, store=Store(tmp_path), progress=False)
    assert probe.masks.fingerprint
    monkeypatch.setattr(world.WorldMasks, "__call__", lambda *_: 1 / 0)
    again = evaluation.from_masks(probe, store=Store(tmp_path), progress=False)
    assert torch.equal(made.present, again.present)


class HandMade:
    """Masks that are given as arrays, one dictionary for each image."""

    categories, fingerprint = ("red", "sail", "idle"), "hand-made"

    def __init__(self, masks):
        self.masks = masks

    def __call__(self, i):
        return self.masks[i]


def masked(masks):
    blank = images.ImageSet("blank", "f", tuple("abcdefgh"), (None,) * 8, (), Image.new)
    return replace(blank, masks=HandMade(masks))


def test_an_image_shows_what_covers_more_than_a_share_of_its_pixels():
    """Cell by cell, at shares that some concepts cover exactly; crops lie side by side."""
    rng = np.random.default_rng(0)
    masks = [
        {word: rng.permutation(16).reshape(2, 8) < rng.integers(0, 9) for word in ("red", "sail")}
        for _ in range(8)
    ]
    del masks[3]["sail"]
    boxes = [(0.0, 0.0, 0.5, 1.0), (0.5, 0.0, 1.0, 1.0), (0.25, 0.5, 1.0, 1.0)]
    sides = [(slice(0, 2), slice(0, 4)), (slice(0, 2), slice(4, 8)), (slice(1, 2), slice(2, 8))]
    for least, in_crops in ((0.0, 0.0), (0.25, 0.5), (0.125, 0.25)):
        truth = evaluation.from_masks(
            masked(masks), {"red": ["crimson", "sail"], "absent": ["gone"]}, least, boxes, in_crops,
            progress=False,
        )  # fmt: skip
        assert truth.words == truth.crops.words == ("red", "sail", "idle", "crimson")
        assert len(truth.crops.images) == 24
        for i, own in enumerate(masks):
            for j, word in enumerate(("red", "sail", "idle", "red")):
                mask = own.get(word, np.zeros((2, 8), bool))
                assert truth.present[i, j].item() == (mask.sum() > least * 16)
                for k, side in enumerate(sides):
                    part = mask[side]
                    shown = truth.crops.present[3 * i + k, j].item()
                    assert shown == (part.sum() > in_crops * part.size)


def test_one_pixel_shows_a_concept_by_default_and_in_crops_two_percent_do():
    one, two = np.zeros((10, 10), bool), np.zeros((10, 10), bool)
    one[0, 0] = two[0, :3] = True
    masks = [{"red": one, "sail": two}] * 8
    truth = evaluation.from_masks(masked(masks), boxes=[(0.0, 0.0, 1.0, 1.0)], progress=False)
    assert truth.present[0].tolist() == [True, True, False]
    assert truth.crops.present[0].tolist() == [False, True, False]
    assert evaluation.from_masks(masked(masks), progress=False).crops is None


@pytest.mark.parametrize("progress", [True, False])
def test_a_bar_of_progress_is_drawn_only_if_it_is_wanted(progress, capsys):
    evaluation.from_masks(masked([{}] * 8), progress=progress)
    assert ("masks" in capsys.readouterr().err) is progress


def test_images_without_a_label_are_left_out(tmp_path):
    found = folder(tmp_path, {"bird": 2, "crane": 3})
    found = replace(found, labels=(0, None, 1, None, 1))
    truth = evaluation.from_labels(found)
    assert truth.images.names == tuple(found.names[i] for i in (0, 2, 4))
    assert truth.present.tolist() == [[True, False], [False, True], [False, True]]
    whole = replace(found, labels=(0, 0, 1, 1, 1))
    assert evaluation.from_labels(whole).images is whole


def folder(tmp_path, counts):
    for name, count in counts.items():
        (tmp_path / name).mkdir(parents=True)
        for i in range(count):
            colour = (len(name) * 20, i * 9 % 256, 7 * len(counts))
            Image.new("RGB", (8, 8), colour).save(tmp_path / name / f"{i}.png")
    return images.folder(tmp_path, progress=False)


def test_labels_show_their_class_by_any_of_its_names(tmp_path):
    found = folder(tmp_path / "a", {"bird": 2, "crane": 3, "machine": 1})
    plain = evaluation.from_labels(found)
    assert plain.words == ("bird", "crane", "machine")
    assert plain.present.sum(0).tolist() == [2, 3, 1]
    both = evaluation.from_labels(found, [["bird", "crane"], ["wader"], ["crane"]])
    assert both.words == ("bird", "crane", "wader")
    assert both.present.sum(0).tolist() == [2, 3, 3], "a shared name stands for both classes"
    assert both.columns(["Crane", "WADER", "bird "]) == [1, 2, 0]
    with pytest.raises(ValueError, match="1 synonyms for 3 classes"):
        evaluation.from_labels(found, [["bird"]])
    (tmp_path / "b").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "b" / "x.png")
    with pytest.raises(ValueError, match="No image of 'b' has a label"):
        evaluation.from_labels(images.folder(tmp_path / "b"))


def test_drawn_images_of_a_concept_are_compared_with_control_images_alone():
    control = [world.render_image(world.sample(i, 77)) for i in range(8)]
    made = drawn.drawn(world.draw, ["sail", "red"], 3, control)
    assert len(made) == 14 and made.classes == ("sail", "red", "control")
    truth = drawn.from_drawn(made)
    assert truth.words == ("sail", "red") and truth.present.sum(0).tolist() == [3, 3]
    assert truth.known.sum(0).tolist() == [11, 11]
    assert [n.tolist() for n in truth.counts()] == [[3, 3], [8, 8]]
    z = torch.rand(14, 4)
    found = truth.apply(evaluation.auroc, z)
    for j, own in enumerate((range(3), range(3, 6))):
        rows = [*own, *range(6, 14)]
        for i in range(4):
            expected = literal_auroc(z[rows, i].numpy(), np.arange(11) < 3)
            assert found[i, j].item() == pytest.approx(expected)
    with pytest.raises(ValueError, match="no images of the class 'other'"):
        drawn.from_drawn(made, "other")
    with pytest.raises(ValueError, match="does not paint 'unicorn'"):
        world.draw("unicorn", 1)


def test_words_are_found_whatever_their_case_and_separators():
    truth = truth_of(torch.zeros(3, 3).bool(), ("red sail", "Blue_Sky", "up/down"))
    asked = ["Red_Sail", "red-sail", " red  sail ", "blue sky", "up down", "up", "redsail"]
    assert truth.columns(asked) == [0, 0, 0, 1, 2, None, None]


def test_some_of_the_images_keep_what_is_known_of_them():
    _, present = example(2, 9)
    known = torch.rand(9, 5) < 0.5
    rows = [7, 0, 3]
    for all_known in (None, known):
        whole = truth_of(present, known=all_known)
        some = whole.subset(rows)
        assert some.images.names == ("7", "0", "3") and some.words == whole.words
        assert some.present.tolist() == [present[i].tolist() for i in rows]
        assert (some.known is None) is (all_known is None)
        at = torch.ones(9, 5).bool() if all_known is None else known
        assert all_known is None or some.known.tolist() == [known[i].tolist() for i in rows]
        for values, shown in zip(some.counts(), (True, False), strict=True):
            assert values.dtype == torch.float64
            assert values.tolist() == [
                sum(at[i, j].item() and present[i, j].item() is shown for i in rows)
                for j in range(5)
            ]


def test_presence_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"present is torch.float32 \(3, 2\); expected bool"):
        truth_of(torch.zeros(3, 2), ("a", "b"))
    with pytest.raises(ValueError, match=r"expected bool \(3, 2\), for 3 images and 2 concepts"):
        truth_of(torch.zeros(3, 1).bool(), ("a", "b"))


# Tests of names -------------------------------------------------------------------------------


def test_a_name_carries_its_auroc_rank_and_chance():
    z, present = example(3, 60, 4, 5)
    truth = truth_of(present)
    names = [["word 2", "word 0"], [], ["elsewhere"], ["WORD 4"]]
    tests = evaluation.name_tests(names, z, truth)
    every = evaluation.auroc(z, present)
    for i, j in ((0, 2), (3, 4)):
        own = every[i, j].item()
        assert tests.auroc[i].item() == own
        assert tests.rank[i] == 1 + sum(value > own for value in every[i].tolist())
        assert tests.pearson[i] == evaluation.pearson(z, present)[i, j]
        with_it, without = (z[present[:, j] == on, i].numpy() for on in (True, False))
        exact = mannwhitneyu(
            with_it, without, alternative="greater", method="asymptotic", use_continuity=False
        ).pvalue
        assert tests.p[i].item() == pytest.approx(exact, abs=0.02)  # scipy's corrects for ties
        assert tests.words(i).startswith(f"AUROC {own:.2f}".replace(" 0", " "))
    assert tests.rank.tolist()[1:3] == [0, 0] and tests.auroc[1:3].isnan().all()
    assert tests.words(1) == tests.words(2) == "untested"
    assert tests.supported(1) is None and tests.supported(0) is bool(tests.p[0] < 0.05)
    assert tests.best_auroc.tolist() == every.amax(1).tolist()
    assert [tests.best[i] for i in range(4)] == [f"word {j}" for j in every.argmax(1).tolist()]
    assert tests.shuffled == pytest.approx((every[0, 4] + every[3, 2]).item() / 2)
    assert (tests.concepts, tests.images) == (5, 60)


@pytest.mark.parametrize("column", range(5))
def test_a_rank_counts_the_words_with_a_higher_auroc(column):
    z, present = example(7, 40, 30, 5)
    present[:, 4] = present[:, 2]  # a synonym: equal values do not count
    z[3, 5] = math.nan
    tests = evaluation.name_tests([[f"word {column}"]] * 30, z, truth_of(present))
    for i, row in enumerate(evaluation.auroc(z, present).tolist()):
        expected = 0 if i == 5 else 1 + sum(value > row[column] for value in row)
        assert tests.rank[i].item() == expected
    assert tests.best_auroc[5].isnan() and tests.auroc[5].isnan() and tests.p[5].isnan()
    assert tests.concepts == 5


def test_the_names_of_other_neurons_are_the_chance_level():
    """Mean over all pairs of a neuron and another one's name; none for one neuron alone."""
    z, present = example(4, 50, 4, 5)
    words, every = [2, 0, 3, 0], evaluation.auroc(z, present)
    tests = evaluation.name_tests([[f"word {j}"] for j in words], z, truth_of(present))
    pairs = [every[i, words[k]].item() for i in range(4) for k in range(4) if i != k]
    assert tests.shuffled == pytest.approx(sum(pairs) / 12)
    alone = evaluation.name_tests([["word 2"]], z[:, :1], truth_of(present))
    assert math.isnan(alone.shuffled)


def test_the_best_of_concepts_may_be_at_zero():
    present = torch.tensor([[True], [False], [False]])
    tests = evaluation.name_tests(
        [["word 0"]], torch.tensor([[0.0], [1.0], [2.0]]), truth_of(present)
    )
    assert tests.auroc.tolist() == tests.best_auroc.tolist() == [0.0] and tests.best == ("word 0",)


def test_a_name_is_tested_where_its_presence_is_known():
    """Slow version: one concept at a time, on the rows where it is known."""
    z, present = example(6, 60, 5, 5)
    known = torch.rand(60, 5) < 0.7
    known[:2] = True
    z += torch.rand(60, 5, dtype=torch.float64) * 1e-3  # no ties
    tests = evaluation.name_tests(
        [[f"word {j}"] for j in range(5)], z, truth_of(present, known=known)
    )
    for j in range(5):
        rows = known[:, j]
        own, shown = z[rows, j].numpy(), present[rows, j].numpy()
        assert tests.auroc[j].item() == pytest.approx(literal_auroc(own, shown))
        assert tests.pearson[j].item() == pytest.approx(pearsonr(own, shown).statistic)
        exact = mannwhitneyu(
            own[shown], own[~shown], alternative="greater", method="asymptotic",
            use_continuity=False,
        )  # fmt: skip
        assert tests.p[j].item() == pytest.approx(exact.pvalue, abs=1e-9)


def test_without_ties_the_chance_is_that_of_scipy():
    _, present = example(3, 60, 1, 5)
    z = torch.rand(60, 1, dtype=torch.float64)
    for j in range(5):
        tests = evaluation.name_tests([[f"word {j}"]], z, truth_of(present))
        groups = (z[present[:, j] == on, 0].numpy() for on in (True, False))
        exact = mannwhitneyu(
            *groups, alternative="greater", method="asymptotic", use_continuity=False
        )
        assert tests.p[0].item() == pytest.approx(exact.pvalue, abs=1e-9)


@pytest.mark.parametrize(
    "rank, words", [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (12, "12th"),
                    (22, "22nd"), (101, "101st"), (112, "112th")],
)  # fmt: skip
def test_ranks_are_ordinals(rank, words):
    one = torch.tensor([0.5], dtype=torch.float64)
    tests = concepts.NameTests(one, one, torch.tensor([rank]), one, one, 0.5, ("a",), 200, 9)
    assert tests.words(0) == f"AUROC .50, {words} of 200"


def test_names_are_tested_on_images_that_did_not_choose_them():
    net = targets.load("world/conv")
    truth = world.truth(24, 5, boxes=(), progress=False)
    table = concepts.ConceptTable(
        [["sail"]] * 24, [[1.0]] * 24, torch.zeros(24), torch.zeros(24) > 0
    )
    found = evaluation.evaluate(
        {"logits": table}, net, truth, world.image_set(24, 6), progress=False
    )
    z = evaluation.activations(net, truth.images, ["logits"], progress=False)["logits"]
    expected = evaluation.auroc(z, truth.present)[:, truth.words.index("sail")]
    assert torch.equal(found["logits"].tests.auroc, expected)
    with pytest.raises(ValueError, match="'world-5/000000' is also in 'world-5"):
        evaluation.evaluate({"logits": table}, net, truth, world.image_set(30, 5), progress=False)


def test_a_verified_name_is_chosen_on_one_half_and_tested_on_the_other():
    """Slow version: candidates one by one, on the rows of each half."""
    z, present = example(5, 80, 4, 5)
    present[:, 1] = z[:, 0] > 0.5  # word 1 is neuron 0
    labels = [i % 2 for i in range(80)]
    truth = truth_of(present, labels=labels)
    names = [["word 0", "word 1", "elsewhere"], [], ["elsewhere"], ["word 3", "word 2"]]
    nothing = [[0.0] * len(own) for own in names]
    table = concepts.ConceptTable(names, nothing, torch.zeros(4), torch.zeros(4) > 0)
    first, second = images.halves(labels, 3)
    assert {labels[i] for i in first} == {labels[i] for i in second} == {0, 1}
    found = evaluation.verify(table, z, truth, bar=0.1, seed=3)
    for i, own in enumerate(names):
        fits = {
            word: pearsonr(z[first, i].numpy(), present[first, int(word[-1])].numpy()).statistic
            for word in own
            if word != "elsewhere"
        }
        best = max(fits, key=fits.get, default=None)
        expected = [best] if best and fits[best] >= 0.1 else []
        assert found.names[i] == expected and found.abstained[i].item() is (not expected)
        if expected:
            column = present[second, int(best[-1])].numpy()
            value = roc_auc_score(column, z[second, i].numpy())
            assert found.tests.auroc[i].item() == pytest.approx(value)
            assert found.scores[i] == [pytest.approx(fits[best])]
    assert found.names[0] == ["word 1"]


def test_a_candidate_at_the_bar_is_verified_and_one_below_it_is_not():
    z, present = example(5, 80, 1, 1)
    present[:, 0] = z[:, 0] > 0.5
    truth = truth_of(present)
    table = concepts.ConceptTable([["word 0"]], [[0.0]], torch.zeros(1), torch.zeros(1) > 0)
    found = evaluation.verify(table, z, truth)
    assert found.names == [["word 0"]] and found.abstained.tolist() == [False]
    fit = found.scores[0][0]
    for bar, names in ((fit, [["word 0"]]), (math.nextafter(fit, 1), [[]])):
        assert evaluation.verify(table, z, truth, bar).names == names


def test_the_bar_and_the_halves_by_default():
    """Correlations of a tenth and more, and the halves of seed 0; ten neurons are noise."""
    _, present = example(8, 400, 20, 1)
    z = torch.rand(400, 20, dtype=torch.float64)
    z[:, :10] += 0.2 * present
    truth = truth_of(present)
    table = concepts.ConceptTable(
        [["word 0"]] * 20, [[0.0]] * 20, torch.zeros(20), torch.zeros(20) > 0
    )
    found, written = evaluation.verify(table, z, truth), evaluation.verify(table, z, truth, 0.1, 0)
    assert found.names == written.names and found.scores == written.scores
    assert all(found.names[:10]) and not all(found.names[10:])
