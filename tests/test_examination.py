"""Tests of names in bulk: settings, comparisons, checks of measures, and sets of names."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from wwwlib import evaluation, exemplars, images, scores, targets
from wwwlib.baselines import network_dissection
from wwwlib.concepts import ConceptTable
from wwwlib.evaluation import Truth
from wwwlib.exemplars import Exemplars
from wwwlib.language import ConceptSet
from wwwlib.studies import examination as ex

WORDS = ("red", "green", "blue", "grey", "black")


class Letters:
    """An encoder of words by fixed random directions."""

    name, dim = "letters", 8

    def encode_texts(self, texts):
        rows = [torch.Generator().manual_seed(sum(map(ord, text))) for text in texts]
        v = torch.stack([torch.randn(8, generator=one) for one in rows])
        return torch.nn.functional.normalize(v, dim=1)


def truth_of(count=60, seed=0):
    generator = torch.Generator().manual_seed(seed)
    present = torch.rand(count, len(WORDS), generator=generator) < 0.4
    names, labels = tuple(map(str, range(count))), (None,) * count
    return Truth(images.ImageSet("blank", "f", names, labels, (), Image.new), WORDS, present)


def activations(truth, neurons=6, noise=0.3, seed=1):
    """Neuron i responds to concept i mod 5."""
    generator = torch.Generator().manual_seed(seed)
    z = truth.present[:, [i % 5 for i in range(neurons)]].double()
    return z + noise * torch.randn(z.shape, generator=generator)


def table(names, z, truth):
    tests = evaluation.name_tests(names, z, truth)
    n = len(names)
    abstained = torch.tensor([not own for own in names])
    return ConceptTable(
        names, [[1.0] * len(own) for own in names], torch.zeros(n), abstained, tests
    )


def masked_probe(shown, words):
    """An image set without pixels: image i shows the concepts ``shown[i]``."""

    class Masks:
        categories, fingerprint = dict.fromkeys(words, "object"), "masks"

        def __call__(self, i):
            return {word: np.ones((2, 2), bool) for word in shown[i]}

    names, none = tuple(map(str, range(len(shown)))), (None,) * len(shown)
    return images.ImageSet("masked", "masked", names, none, (), Image.new, masks=Masks())


def top_images(rows, count):
    """Exemplars of neurons, given as rows of indices."""
    index, none = torch.tensor(rows), torch.zeros(0, len(rows))
    zero = torch.zeros(len(rows)).long()
    return Exemplars(index, torch.ones(index.shape), zero, none, none, none[:, 0].long(), count)


def test_a_perfect_encoder_names_by_the_concepts_of_masks():
    """Breaks if features are not presence of unit length: counted by hand."""
    shown = [("sea", "boat"), ("sea",), ("boat", "sail", "sea", "sky"), ("boat", "sail"), ()]
    probe = masked_probe(shown, ("sky", "sea", "sail", "boat"))
    rows, expected = [[0, 1, 4], [3, 2, 4], [2, 3, 0]], []
    for row in rows:
        score = {word: sum((word in shown[i]) / max(len(shown[i]), 1) ** 0.5 for i in row[:2])
                 for word in probe.masks.categories}  # fmt: skip
        best = max(score.values())
        expected.append([word for word, value in score.items() if value > best - 1e-6])
    found = ex.perfect(probe, {"a": top_images(rows, 5)}, 2, progress=False)["a"][ex.PERFECT,]
    assert [{*own} for own in found] == [{*own} for own in expected]


def test_a_standardised_perfect_encoder_favours_no_frequent_concept():
    """Oracle: the definition, number by number; the sky, which all images show, names nothing."""
    generator, words = np.random.RandomState(3), ("sky", "road", "car", "boat")
    chance = dict(zip(words, (1.0, 0.9, 0.5, 0.15), strict=True))
    shown = [[w for w in words if generator.rand() < chance[w]] for _ in range(40)]
    boats = [i for i in range(40) if "boat" in shown[i]]
    rows = [boats[:3], *(generator.permutation(40)[:3].tolist() for _ in range(6))]
    found = ex.perfect(masked_probe(shown, words), {"a": top_images(rows, 40)}, 3, progress=False)[
        "a"
    ]
    expected = []
    for row in rows:
        score = dict.fromkeys(words, 0.0)
        for i in row:
            v = {}
            for word in words:
                column = [word in own for own in shown]
                mean = sum(column) / 40
                deviation = (sum((x - mean) ** 2 for x in column) / 39) ** 0.5
                v[word] = (column[i] - mean) / deviation if deviation else 0.0
            norm = sum(x * x for x in v.values()) ** 0.5
            score = {word: score[word] + v[word] / norm for word in words}
        best = max(score.values())
        expected.append({w for w, s in score.items() if s > best - 1e-6 and best > 0})
    assert [{*own} for own in found[ex.EVEN,]] == expected and expected[0] == {"boat"}
    assert all("sky" in own for own in found[ex.PERFECT,])
    assert not any("sky" in own for own in found[ex.EVEN,])


def test_every_setting_names_by_its_own_number_of_exemplars_and_prior():
    v = torch.nn.functional.normalize(torch.randn(20, 8), dim=1)
    index = torch.stack([torch.randperm(20)[:9] for _ in range(4)])
    none, zero = torch.zeros(0, 4), torch.zeros(4).long()
    top = Exemplars(index, torch.rand(4, 9).sort(descending=True).values, zero, none, none,
                    none[:, 0].long(), 20)  # fmt: skip
    words, encoder = ConceptSet(WORDS), Letters()
    found = ex.sweep(v, top, words, encoder, (9, 3), (1.0, 0.0))
    assert [*found] == [
        ("WWW", 9), ("WWW", 3), ("CLIP-Dissect", 9, 1.0), ("CLIP-Dissect", 9, 0.0),
        ("CLIP-Dissect", 3, 1.0), ("CLIP-Dissect", 3, 0.0),
    ]  # fmt: skip
    t, t0 = words.embed(encoder)
    for k in (9, 3):
        mean = v[index[:, :k]].mean(1)
        s = mean @ t.T - (mean @ t0)[:, None]
        for i, own in enumerate(found["WWW", k]):
            assert own == ([WORDS[s[i].argmax()]] if s[i].max() > 0 else [])
    assert all(len(own) == 1 for own in found["CLIP-Dissect", 3, 0.0])


def test_the_tuned_setting_is_the_best_on_the_tuning_images():
    truth = truth_of()
    z = activations(truth)
    right = [[WORDS[i % 5]] for i in range(6)]
    wrong = [[WORDS[(i + 1) % 5]] for i in range(6)]
    tried = {("WWW", 9): wrong, ("WWW", 3): right, ("FALCON", 2.5, 0.3): wrong,
             ("FALCON", 2.5, 0.5): right, ("MILAN",): right}  # fmt: skip
    names, settings = ex.tuned(tried, z, truth)
    assert names == {"WWW": wrong, "WWW, tuned": right, "FALCON": wrong, "FALCON, tuned": right,
                     "MILAN": right}  # fmt: skip
    expected = ex.summary(evaluation.name_tests(right, z, truth))["AUROC"]
    assert settings == {"WWW: K": 3, "WWW: AUROC": expected, "FALCON: σ": 2.5,
                        "FALCON: cohesion": 0.5, "FALCON: AUROC": expected}  # fmt: skip
    assert expected > 0.9


def test_untested_names_count_as_chance():
    truth = truth_of()
    z = activations(truth)
    tests = evaluation.name_tests([["red"], [], ["unicorn"], ["grey"], ["red"], ["red"]], z, truth)
    found, own = ex.summary(tests), evaluation.auroc(z, truth.present)
    columns = {0: 0, 3: 3, 4: 0, 5: 0}
    values = [own[i, columns[i]].item() if i in columns else 0.5 for i in range(6)]
    assert found["AUROC"] == pytest.approx(sum(values) / 6)
    assert found["untested"] == pytest.approx(1 / 3)
    assert found["best concept"] == pytest.approx(own.amax(1).mean().item())
    assert found["supported"] == sum(bool(tests.supported(i)) for i in range(6)) / 6
    assert ex.most_frequent([["a"], [], ["b", "a"], ["b"]]) == [["b"]] * 4


def test_p_values_are_corrected_over_all_layers_and_methods():
    truth, tested, raw = truth_of(), {}, []
    for layer in ("one", "two"):
        z = activations(truth, 10, 0.5, seed=len(layer) + ord(layer[0]))
        names = {
            "WWW": [[WORDS[i % 5]] for i in range(10)],
            "other": [[WORDS[(i + i % 2) % 5]] for i in range(10)],
            "worse": [[WORDS[(i + 1) % 5]] for i in range(10)],
        }
        tested["net", layer] = {m: evaluation.name_tests(n, z, truth) for m, n in names.items()}
    found = ex.compare(tested, "WWW", seed=3)
    assert [*found.method] == ["WWW", "other", "worse"] * 2
    for (_, layer), own in tested.items():
        base = ex.values(own["WWW"])
        for method in ("other", "worse"):
            row = found[(found.layer == layer) & (found.method == method)].iloc[0]
            for metric, value in ex.values(own[method]).items():
                pair = (scores.Score(metric, one) for one in (value, base[metric]))
                gap = scores.compare(*pair, 3, 10_000)
                raw.append((gap.p, row[f"{metric} p"]))
                assert row[f"{metric} gap"] == pytest.approx((value - base[metric]).mean().item())
    count = len(raw)
    smallest = min(raw)
    assert count == 8 and smallest[1] == pytest.approx(min(1, 8 * smallest[0]))
    assert all(corrected >= p for p, corrected in raw)
    assert found[found.method == "WWW"]["AUROC p"].isna().all()


def test_checks_take_half_of_the_labels_and_add_as_many():
    """A neuron that is its concept: Pearson falls in both; cosine of a shifted neuron does not."""
    truth = truth_of(4000, seed=7)
    z = activations(truth, 5, 0.05)
    found = ex.label_checks(z, truth)
    assert (found.loc[["Pearson", "cosine", "AUPRC", "F1", "IoU"]] == 1).all(axis=None)
    shifted = ex.label_checks(z + 100, truth)
    assert shifted.loc["cosine", "extra labels"] == 0 and (shifted.loc["Pearson"] == 1).all()
    assert [*found.index] == [*ex.MEASURES]


def test_sets_cover_the_best_concept_of_other_images_as_often_as_stated():
    """Oracle: the definition, neuron by neuron, for one split."""
    generator = torch.Generator().manual_seed(0)
    true = torch.rand(400, 6, generator=generator)
    fit, fresh = (true + 0.2 * torch.randn(true.shape, generator=generator) for _ in range(2))
    coverage, size = ex.guaranteed_sets(fit, fresh, 0.9, rounds=1, seed=5)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(5)).tolist()
    best = fresh.argmax(1).tolist()
    gaps = sorted((fit[i].max() - fit[i, best[i]]).item() for i in order[:200])
    reach = gaps[math.ceil(201 * 0.9) - 1]
    sets = {
        i: [j for j in range(6) if (fit[i].max() - fit[i, j]).item() <= reach] for i in order[200:]
    }
    assert coverage == pytest.approx(sum(best[i] in own for i, own in sets.items()) / 200)
    assert size == pytest.approx(sum(map(len, sets.values())) / 200)
    mean, _ = ex.guaranteed_sets(fit, fresh, 0.9)
    assert 0.88 < mean < 0.95
    alone, one = ex.guaranteed_sets(fit, fit, 0.9)
    assert (alone, one) == (1, 1)


def test_findings_follow_from_the_tests_whichever_way_they_come_out():
    truth = truth_of()
    z = activations(truth, 10)
    right = [[WORDS[i % 5]] for i in range(10)]
    wrong = [[WORDS[(i + 1) % 5]] for i in range(10)]
    for www, rival, above, below in ((right, wrong, 0, 1), (wrong, right, 1, 0)):
        names = {"WWW": www, "WWW, tuned": www, "CLIP-Dissect, tuned": rival}
        names |= dict.fromkeys((ex.PERFECT, ex.EVEN), right)  # encoders that know the truth
        tested = {
            ("net", "layer"): {m: evaluation.name_tests(n, z, truth) for m, n in names.items()}
        }
        verified = {("net", "layer"): table([*right[:9], []], z, truth)}
        compared = ex.compare(tested, "WWW, tuned")
        first, second, third = ex.findings(tested, verified, compared)
        share = "100%" if www is right else "0%"
        assert f"and {share} of the names do better than chance" in first
        assert f"significantly above WWW in {above} of them and below in {below}" in second
        leader = (
            "CLIP-Dissect, tuned in 1 of 1"
            if www is wrong
            else " of 1 layers, several equally in 1"
        )
        assert leader in second
        assert third.endswith("leaves 10% of the neurons without a name.")
    assert isinstance(compared, pd.DataFrame)


@pytest.mark.parametrize(("worse", "counts"), [("given", (2, 0)), ("even", (0, 2))])
def test_what_the_encoder_costs_follows_from_the_tests(worse, counts):
    truth, tested = truth_of(), {}
    for layer, noise in (("one", 0.3), ("two", 0.6)):
        z = activations(truth, 20, noise)
        right = [[WORDS[i % 5]] for i in range(20)]
        wrong = [[WORDS[(i + 1) % 5]] for i in range(20)]
        given, even = (wrong, right) if worse == "given" else (right, wrong)
        named = {"given encoder": given, ex.PERFECT: wrong, ex.EVEN: even}
        tested["net", layer] = {m: evaluation.name_tests(n, z, truth) for m, n in named.items()}
    first, second = ex.due_to_encoder(tested)
    means = {m: sorted(own[m].auroc.mean().item() for own in tested.values()) for m in named}
    best = sorted(own[ex.EVEN].best_auroc.mean().item() for own in tested.values())
    reach = [f"{low:.2f} to {high:.2f}" for low, high in (*means.values(), best)]
    assert f"AUROC of {reach[0]}, by the perfect one {reach[1]}," in first
    assert f"standardised one {reach[2]}; the best concept has {reach[3]}." in first
    above, below = counts
    assert second.endswith(f"above the given one in {above} of 2 layers, and below it in {below}.")


def test_a_single_setting_is_the_tuned_one():
    """Breaks if a notebook with one K has no tuned names to compare with."""
    truth = truth_of()
    z, names = activations(truth), [[WORDS[i % 5]] for i in range(6)]
    tried = {("WWW", 3): names, ("Network Dissection",): names}
    found, settings = ex.tuned(tried, z, truth)
    assert found["WWW, tuned"] == found["WWW"] == names and settings["WWW: K"] == 3
    assert "Network Dissection, tuned" not in found


def test_auroc_notices_missing_labels_of_common_concepts_only():
    """Removed positives become negatives: few beside many others, they do not lower the AUROC."""
    generator = torch.Generator().manual_seed(5)
    fell = []
    for share in (0.2, 0.003):
        c = torch.rand(4_000, 40, generator=generator) < share
        z = torch.randn(4_000, 40, generator=generator).double() + 2 * c
        fell.append(ex.label_checks(z, SimpleNamespace(present=c))["missing labels"])
    common, rare = fell
    assert common["AUROC"] == common["Pearson"] == 1 and rare["Pearson"] > 0.9
    assert 0.3 < rare["AUROC"] < 0.7


# Real photographs -----------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.filterwarnings("ignore:The number 11 has no name")
def test_street_scenes_have_detectors_and_names_beyond_what_all_images_show(real, real_weights):
    """A block of a real network: the raw features name every neuron after what is everywhere."""
    probe = images.subset(images.load("masks", real / "camvid", progress=False), range(0, 92, 11))
    file = real_weights / "efficientnet_lite0.safetensors"
    target, layer = targets.load("timm/tf_efficientnet_lite0", file), "blocks.5"
    assert len(probe) == 9
    scan = network_dissection.dissect(target, probe, [layer], progress=False)[layer]
    detected = [own[0] for own in scan.table().names if own]
    assert 0 < len(detected) < 96 and 0.04 < scan.iou.max() < 0.4
    rep = exemplars.collect(target, probe, [layer], 3, progress=False)
    found, truth = ex.perfect(probe, rep, 3, progress=False)[layer], evaluation.from_masks(probe)
    everywhere = {w for w, c in zip(truth.words, truth.present.T, strict=True) if c.all()}
    assert all(own[0] in everywhere for own in found[ex.PERFECT,])
    named = {word for own in found[ex.EVEN,] for word in own}
    assert not named & everywhere and len(named) > 1
    z = evaluation.activations(target, probe, [layer], progress=False)[layer]
    even, raw = (evaluation.name_tests(found[m,], z, truth) for m in (ex.EVEN, ex.PERFECT))
    assert ex.summary(even)["AUROC"] > ex.summary(raw)["AUROC"] == 0.5  # on the images that chose
