"""Tests of names: each measure against its literal version, and each source of truth."""

import math

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
        (torch.zeros(3, 2), torch.zeros(3, 2), "float32; give bool"),
    ],
)
def test_what_does_not_match_is_refused(name, z, present, message):
    with pytest.raises(ValueError, match=message):
        MEASURES[name](z, present)


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


def test_presence_of_another_shape_is_refused():
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
