"""Tests of names in bulk: settings, comparisons, checks of measures, and sets of names."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from wwwlib import evaluation, images, scores
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


def test_a_perfect_encoder_names_by_the_concepts_of_masks():
    """Breaks if features are not presence of unit length: counted by hand."""
    shown = {
        0: ("sea", "boat"),
        1: ("sea",),
        2: ("boat", "sail", "sea", "sky"),
        3: ("boat", "sail"),
        4: (),
    }

    class Masks:
        categories, fingerprint = dict.fromkeys(("sky", "sea", "sail", "boat"), "object"), "five"

        def __call__(self, i):
            return {word: np.ones((2, 2), bool) for word in shown[i]}

    names = tuple(map(str, range(5)))
    probe = images.ImageSet("five", "five", names, (None,) * 5, (), Image.new, masks=Masks())
    index, none = torch.tensor([[0, 1, 4], [3, 2, 4], [2, 3, 0]]), torch.zeros(0, 3)
    top = Exemplars(
        index, torch.ones(3, 3), torch.zeros(3).long(), none, none, none[:, 0].long(), 5
    )
    expected = []
    for row in index.tolist():
        score = {word: sum((word in shown[i]) / max(len(shown[i]), 1) ** 0.5 for i in row[:2])
                 for word in Masks.categories}  # fmt: skip
        best = max(score.values())
        expected.append([word for word, value in score.items() if value > best - 1e-6])
    found = ex.perfect(probe, {"a": top}, 2, progress=False)["a"]
    assert [{*own} for own in found] == [{*own} for own in expected]


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


def test_a_single_setting_is_the_tuned_one():
    """Breaks if a notebook with one K has no tuned names to compare with."""
    truth = truth_of()
    z, names = activations(truth), [[WORDS[i % 5]] for i in range(6)]
    tried = {("WWW", 3): names, ("Network Dissection",): names}
    found, settings = ex.tuned(tried, z, truth)
    assert found["WWW, tuned"] == found["WWW"] == names and settings["WWW: K"] == 3
    assert "Network Dissection, tuned" not in found
