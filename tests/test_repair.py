"""Removing neurons named after scenery, against literal edits of a network."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from torch import nn

from wwwlib import targets, world
from wwwlib.activations import capture
from wwwlib.baselines.common import concept_table
from wwwlib.concepts import discover
from wwwlib.evaluation import Truth, name_tests
from wwwlib.studies import repair
from wwwlib.studies.interventions import decide


@pytest.fixture(scope="module")
def own():
    return decide(targets.load("world/conv-biased"), world.image_set(48, 2, 1.0), 32)


def literal(own, layer, removed, fill):
    """Edit the output of a layer (B, N, h, w) by a hook, position by position."""

    def edit(module, inputs, output):
        output = output.clone()
        for i in range(output.shape[1]):
            if removed[i]:
                output[:, i] = fill[i]
        return output

    hook = own.target.module(layer).register_forward_hook(edit)
    with torch.no_grad():
        logits = own.target.model(own.x)
    hook.remove()
    return logits.double()


@pytest.mark.parametrize("layer", ["layer3", "layer4"])
def test_removed_neurons_are_set_to_the_fill_everywhere(own, layer):
    count = {"layer3": 96, "layer4": 128}[layer]
    removed, fill = torch.rand(count) < 0.3, torch.rand(count)
    found, same = repair.logits_without(own, layer, torch.stack([removed, removed & False]), fill)
    assert torch.allclose(found, literal(own, layer, removed, fill), atol=1e-4)
    whole = literal(own, layer, torch.zeros(count, dtype=torch.bool), fill)
    assert torch.allclose(same, whole, atol=1e-4)
    assert not torch.allclose(found, whole, atol=0.1)


def test_neurons_can_be_removed_for_each_class_apart(own):
    """Breaks if logit c is not that of the network without the neurons of row c."""
    removed, fill = torch.rand(24, 128) < 0.3, torch.rand(128)
    found = repair.logits_without(own, "layer4", removed[None], fill)[0]
    for c in (0, 7, 23):
        expected = literal(own, "layer4", removed[c], fill)[:, c]
        assert torch.allclose(found[:, c], expected, atol=1e-4)
    with pytest.raises(ValueError, match="No linear head follows 'layer3'"):
        repair.logits_without(own, "layer3", removed[None, :, :96])


def test_accuracy_falls_in_the_order_that_is_given(own):
    labels = torch.tensor(world.image_set(48, 2).labels)
    order = torch.arange(128.0)
    order[:100] = -torch.inf  # these stay, whatever k
    table = repair.trade_off({"home": (own, labels)}, "layer4", order, [0, 8, 200])
    assert table.index.tolist() == [0, 8, 200]
    for k, value in zip((0, 8, 28), table.home, strict=True):
        removed = torch.arange(128) >= 128 - k
        right = literal(own, "layer4", removed, torch.zeros(128)).argmax(1) == labels
        assert value == right.double().mean()


def test_only_tested_names_count_as_scenery():
    """Breaks if a neuron with a name that no test supports is switched off."""
    torch.manual_seed(0)
    present = torch.rand(200, 2) < 0.5
    z = torch.stack([present[:, 0] + 0.1 * torch.rand(200), torch.rand(200), torch.rand(200)], 1)
    v = nn.functional.normalize(torch.tensor([[[1.0, 0]], [[1.0, 0]], [[0, 1.0]]]), dim=2)
    table = discover(v, torch.eye(2), None, ["sea", "boat"])
    with pytest.raises(ValueError, match="have no tests"):
        repair.named_after(table, ["sea"])
    truth = Truth(world.image_set(200), ("sea", "boat"), present)
    tested = replace(table, tests=name_tests(table.names, z, truth))
    assert repair.named_after(tested, ["sea"]).tolist() == [True, False, False]


def test_a_new_last_layer_is_fitted_to_independent_scenes(own, monkeypatch):
    """Breaks if the layer is fitted to other scenes, or scored on those it was fitted to."""
    tested, first, made, asked = world.image_set(48, 2, swap=True), 240, world.image_set, []

    def fewer(count, *which):
        asked.append((count, *which))
        return made(first, *which)

    monkeypatch.setattr(world, "image_set", fewer)
    found = repair.retrained(own.target, "layer4", {"moved": tested}, 6, progress=False)["moved"]
    assert asked == [(1_200, 6)], "the first scenes of these are enough to see which they are"
    z = []
    for images in (made(first, 6), tested):
        x = torch.stack([own.target.preprocess(images.image(i)) for i in range(len(images))])
        with torch.no_grad(), capture(own.target, "layer4") as seen:
            own.target.model(x)
        z.append(seen["layer4"].z.numpy())
    mean, spread = z[0].mean(0), z[0].std(0)
    labels = [i % 24 for i in range(first)]
    fitted = LogisticRegression(max_iter=2_000).fit((z[0] - mean) / spread, labels)
    expected = fitted.score((z[1] - mean) / spread, labels[:48])
    assert found == pytest.approx(expected, abs=0.03)


def test_the_number_of_neurons_is_chosen_on_other_scenes():
    index = pd.MultiIndex.from_product([["a", "b"], [0, 8]], names=["order", "removed"])
    tuning, tested = [0.5, 0.4, 0.2, 0.6], [0.1, 0.9, 0.8, 0.7]
    table = pd.DataFrame({"tune": tuning, "test": tested}, index=index)
    found = repair.chosen(table, ["tune"])
    assert found.removed.tolist() == [0, 8] and found.test.tolist() == [0.1, 0.7]
    assert found.index.tolist() == ["a", "b"] and [*found] == ["removed", "test"]


def test_curves_hold_every_order(own):
    labels = torch.tensor(world.image_set(48, 2).labels)
    names = [["sea"], ["boat"]] * 64
    truth = Truth(world.image_set(48, 3), ("sea", "boat"), torch.rand(48, 2) < 0.5)
    z = torch.rand(48, 128)
    z[:, ::2] += truth.present[:, :1]  # neurons 0, 2, ... respond to the sea
    table = concept_table([{own[0]: 1.0} for own in names])
    table = replace(table, tests=name_tests(names, z, truth))
    class_w, sets = torch.rand(24, 128), {"home": (own, labels)}
    more = {"detected": torch.arange(128.0)}
    found = repair.curves(sets, "layer4", table, class_w, ["sea"], [0, 16], draws=2, more=more)
    sea = torch.arange(128) % 2 == 0
    order = torch.where(sea, table.tests.auroc, -torch.inf)
    alone = repair.trade_off(sets, "layer4", order, [0, 16])
    assert found.loc["scenery"].home.tolist() == alone.home.tolist()
    by_class = torch.where(sea, class_w, -torch.inf)
    apart = repair.trade_off(sets, "layer4", by_class, [0, 16])
    assert found.loc["scenery, by class"].home.tolist() == apart.home.tolist()
    assert found.loc[("random", 0), "home"] == found.loc[("contribution", 0), "home"]
    last = repair.trade_off(sets, "layer4", more["detected"], [0, 16])
    assert found.loc["detected"].home.tolist() == last.home.tolist()


def test_scenery_is_detected_by_the_best_scene_less_the_best_class():
    """Neuron 0 responds to a scene, 1 to a class, 2 to both, 3 to a colour, which is neither."""
    words = (*world.SCENES, *world.CLASSES, "red")
    present = torch.rand(400, len(words), generator=torch.Generator().manual_seed(1)) < 0.4
    truth = Truth(world.image_set(400), words, present)
    scene, cls, colour = present[:, 2].double(), present[:, len(world.SCENES) + 3], present[:, -1]
    found = repair.detected(torch.stack([scene, cls, scene + cls, colour], 1), truth)
    best = [
        [max(roc_auc_score(present[:, j], z) for j in some) for some in (range(12), range(12, 36))]
        for z in (scene, cls, scene + cls, colour)
    ]
    assert found.tolist() == pytest.approx([a - b for a, b in best])
    assert found[0] > 0.3 and found[1] < -0.3 and found[2:].abs().max() < 0.2
