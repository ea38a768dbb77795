"""Interventions on parts, pixels, weights and neurons, against slow literal versions."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from wwwlib import contributions, evaluation, images, maps, targets, world
from wwwlib.baselines.craft import Craft
from wwwlib.studies import interventions as iv


def rand(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def scenes():
    return iv.removals(6, 3)


@pytest.fixture(scope="module")
def conv():
    return targets.load("world/conv")


def decisions(target, count=3):
    return iv.decide(target, world.image_set(count, 5), 2)


# Parts ------------------------------------------------------------------------------------------


def test_every_subset_of_regions_is_removed(scenes):
    """Bit r of a painting's number leaves out region r, and nothing else but the background's."""
    width = scenes.masks.shape[1]
    for i, (scene, names) in enumerate(zip(scenes.scenes, scenes.parts, strict=True)):
        assert scene == world.sample(i, 3)
        picture = world.render(scene)
        assert {*names} == {*scene.parts} & picture.masks.keys()
        for code in range(0, 2 ** (width - 1), 3):  # the background stays
            gone = [name for r, name in enumerate(names) if code & 2**r]
            thing = None if code & 2 ** (width - 2) else scene.thing
            wanted = replace(scene, missing=(*scene.missing, *gone), thing=thing)
            painted = scenes.images.image(int(scenes.rows[i, code]))
            assert np.array_equal(painted, world.render(wanted).image)
        elsewhere = np.asarray(scenes.images.image(int(scenes.rows[i, 2 ** (width - 1)])))
        changed = (elsewhere != np.asarray(picture.image)).any(2)
        assert changed[scenes.masks[i, -1].bool().numpy()].mean() > 0.5
        if scene.scene not in ("night", "sunset") and scene.finish == "plain":
            inside = ~scenes.masks[i, -1].bool().numpy()
            assert changed[inside].mean() < 0.3  # pixels at the border


def test_masks_are_the_visible_pixels_and_padding_is_empty(scenes):
    for i, (scene, names) in enumerate(zip(scenes.scenes, scenes.parts, strict=True)):
        picture = world.render(scene)
        for r, name in enumerate(names):
            assert np.array_equal(scenes.masks[i, r].bool(), picture.masks[name])
        assert not scenes.masks[i, len(names) : -2].any()
        assert bool(scenes.exists[i, -2]) == (scene.thing is not None)
        assert scenes.exists[i, :-2].sum() == len(names)
        subject = picture.masks[scene.subject] | scenes.masks[i, -2].bool().numpy()
        assert np.array_equal(scenes.masks[i, -1].bool(), ~subject)
    whole = scenes.images.image(int(scenes.rows[2, 0]))
    assert np.array_equal(whole, world.render_image(scenes.scenes[2]))


def test_shares_are_the_mass_on_each_region(scenes):
    m = rand(2, 6, 64, 64) - 0.3
    m[1, 2] = -1
    found = scenes.share(m)
    for d, i, r in ((0, 0, 0), (1, 4, -1), (0, 3, 1)):
        heat, mask = m[d, i].clamp(min=0).double(), scenes.masks[i, r].bool()
        assert found[d, i, r].item() == pytest.approx((heat[mask].sum() / heat.sum()).item(), 1e-4)
    assert not found[1, 2].any(), "a map of zeros has no shares"


def test_logits_are_those_of_the_paintings(scenes, conv):
    found = evaluation.activations(conv, scenes.images, ["logits"], progress=False)["logits"]
    found = found[scenes.rows]
    for i, code in ((0, 0), (3, 5)):
        x = conv.preprocess(scenes.images.image(int(scenes.rows[i, code])))[None]
        assert torch.allclose(found[i, code], conv.model(x)[0].detach(), atol=1e-5)
    fall = iv.falls(found)
    for i, r in ((1, 0), (2, -1)):
        c, code = found[i, 0].argmax(), 2 ** (r % scenes.masks.shape[1])
        assert fall[i, r] == found[i, 0, c] - found[i, code, c]


def test_single_deletion_equals_scipys_rank_correlation():
    share, fall, parts = rand(2, 7, 5), rand(7, 5, seed=1), rand(7, 5, seed=2) < 0.6
    parts[0] = torch.tensor([True, False, False, False, False])
    parts[1:3] = True
    share[0, 1, :3] = share[0, 1, 0]  # ties
    share[1, 2] = 0.2  # constant
    found = iv.single_deletion(share, fall, parts)
    for d in range(2):
        for i, own in enumerate(parts):
            if own.sum() < 2:
                assert found[d, i].isnan()
            elif len(set(share[d, i, own].tolist())) == 1:
                assert found[d, i] == 0.5
            else:
                rho = spearmanr(share[d, i, own], fall[i, own]).statistic
                assert found[d, i].item() == pytest.approx(0.5 + rho / 2)


def literal_checks(share, logits, exists, threshold, tolerance):
    rows = []
    for i in range(len(logits)):
        there = [r for r in range(exists.shape[1]) if exists[i, r]]
        marked = [r for r in there if share[i, r] > threshold]
        others = [r for r in there if r not in marked]
        c, logit = logits[i, 0].argmax().item(), logits[i, 0].max().item()
        kept = logits[i, sum(2**r for r in others)].argmax().item() == c
        changed = logits[i, sum(2**r for r in marked)].argmax().item() != c
        idle = [r for r in there if abs(logit - logits[i, 2**r, c]) <= tolerance * abs(logit)]
        left = [r not in marked for r in idle]
        rows.append((kept, changed, sum(left) / len(left) if left else math.nan))
    return torch.tensor(rows, dtype=torch.float64).T


def test_checks_equal_literal_ones_at_the_best_threshold():
    share, logits, exists = rand(1, 9, 4), rand(9, 16, 3, seed=1), rand(9, 4, seed=2) < 0.8
    thresholds = (0.2, 0.5, 0.9)
    found = iv.part_checks(share, logits, exists, thresholds, 0.3)
    tried = [literal_checks(share[0], logits, exists, t, 0.3) for t in thresholds]
    best = max(tried, key=lambda own: own[:2].mean() + own[2].nanmean())
    for own, wanted in zip(found.values(), best, strict=True):
        assert torch.allclose(own[0], wanted, equal_nan=True)
    assert not all(torch.allclose(a, best, equal_nan=True) for a in tried)


def test_a_perfect_map_passes_every_check():
    """Region 0 alone decides; a map that marks it, and nothing else, has 1 everywhere."""
    logits = torch.zeros(5, 8, 2)
    logits[:, :, 0] = 3.0 * (torch.arange(8) % 2 == 0)
    logits[:, :, 1] = 1.0
    exists = torch.ones(5, 3, dtype=torch.bool)
    share = torch.tensor([0.9, 0.0, 0.0]).expand(1, 5, 3)
    assert all(v.mean() == 1 for v in iv.part_checks(share, logits, exists).values())
    wrong = share.flip(2)
    assert any(v.mean() < 1 for v in iv.part_checks(wrong, logits, exists).values())


def test_rival_classes_share_different_parts(scenes):
    classes, parts = iv.rival_classes(scenes, 1)
    kinds, held = list(world.CLASSES), 0
    for i, (scene, names) in enumerate(zip(scenes.scenes, scenes.parts, strict=True)):
        a, b = (
            {*replace(scene, subject=kinds[c], missing=()).parts} & {*names} for c in classes[:, i]
        )
        for side, wanted in enumerate((a - b, b - a)):
            own = {name for r, name in enumerate(names) if parts[side, i, r]}
            assert own == wanted or not parts[:, i].any(1).all()
        if parts[:, i].any(1).all():
            held += 1
            assert scene.subject not in {kinds[c] for c in classes[:, i]}
    assert held > 2
    assert not torch.equal(classes, iv.rival_classes(scenes, 2)[0])


def test_target_sensitivity_equals_the_literal_one():
    first, second = rand(2, 6, 4), rand(2, 6, 4, seed=1)
    parts = rand(2, 6, 4, seed=2) < 0.5
    parts[1, 0] = False
    second[0, 1] = first[0, 1]  # the same map for both
    found = iv.target_sensitivity(first, second, parts)
    for d in range(2):
        for i in range(6):
            if not (parts[0, i].any() and parts[1, i].any()):
                assert found[d, i].isnan()
                continue
            values = []
            for own, other, part in ((first, second, parts[0]), (second, first, parts[1])):
                a, b = (m[d, i, part[i]].double().sum().item() for m in (own, other))
                values.append(1.0 if a > b else 0.5 if a == b else 0.0)
            assert found[d, i].item() == sum(values) / 2


def test_all_part_tests_of_a_map(scenes):
    rows = scenes.rows.shape
    logits, m = rand(*rows, 5, seed=4), [{"map": rand(1, 6, 64, 64, seed=s)} for s in range(3)]
    shared = scenes.exists.expand(2, -1, -1)
    found = iv.part_tests(scenes, logits, m, shared)["map"]
    share, sizes = scenes.share(m[0]["map"]), scenes.masks.sum((2, 3)).clamp(min=1)
    parts = scenes.exists.clone()
    parts[:, -2:] = False  # neither distractor nor background
    for name, v in (("single deletion", share), ("single deletion per pixel", share / sizes)):
        assert torch.equal(found[name], iv.single_deletion(v, iv.falls(logits), parts))
    others = (scenes.share(one["map"]) for one in m[1:])
    assert torch.equal(found["target sensitivity"], iv.target_sensitivity(*others, shared))
    checks = iv.part_checks(share, logits, scenes.exists)
    assert all(torch.allclose(found[name], own, equal_nan=True) for name, own in checks.items())


# Pixels and weights -------------------------------------------------------------------------------


def test_heatmaps_are_those_of_each_method(conv):
    own = decisions(conv)
    found = iv.explain(own, "layer4", 2, draws=3, steps=4)
    m = maps.contribution(conv, own.x, "layer4", own.classes)
    w = contributions.taylor(conv, own.x, "layer4", own.classes)
    wanted = maps.heatmap(m, w, 2, (64, 64), weighted=False)
    assert torch.allclose(found["contribution, top 2"][0], wanted, atol=1e-5)
    assert {len(own) for name, own in found.items() if name != iv.RANDOM} == {1}
    assert found[iv.RANDOM].shape == (3, 3, 64, 64)
    assert all(v.min() >= 0 and v.shape[1:] == (3, 64, 64) for v in found.values())
    other = iv.explain(replace(own, classes=(own.classes + 1) % 24), "layer4", 2, 3, 4)
    assert not torch.allclose(found["integrated gradients"], other["integrated gradients"])


def test_crafts_heatmaps_are_those_of_each_image_s_class(conv):
    """Every image has the heatmap of the concepts of the class that is asked about."""
    own = iv.decide(conv, images.subset(world.image_set(8, seed=3), [1, 3, 5]))
    own = replace(own, classes=torch.tensor([3, 1, 3]))
    bank, importance = torch.rand(2, 4, 128).double(), torch.rand(2, 4).double()
    known = {c: Craft("layer4", bank[j], importance[j], 0.0, (), ()) for j, c in enumerate((1, 3))}
    found = iv.explain(own, "layer4", 2, 3, 2, decomposed=known)["CRAFT"]
    assert found.shape == (1, 3, 64, 64)
    for i, c in enumerate((3, 1, 3)):
        alone = known[c].heatmap(conv, own.x[i : i + 1])[0]
        torch.testing.assert_close(found[0, i], alone.float())
    assert "CRAFT" not in iv.explain(own, "layer4", 2, 3, 2)


def test_hiding_pixels_equals_doing_so_one_by_one(conv):
    own = decisions(conv, 2)
    m, steps = rand(2, 2, 64, 64), 4
    found = iv.hiding(own, m, steps)
    mean = own.x.mean((2, 3), keepdim=True)
    for d, i, s in ((0, 0, 1), (1, 1, 2), (0, 1, 4), (1, 0, 0)):
        values = sorted(((v, at) for at, v in enumerate(m[d, i].flatten().tolist())), reverse=True)
        for kind in ("insertion", "deletion"):
            x = own.x[i].clone() if kind == "deletion" else mean[i].expand(3, 64, 64).clone()
            for _, at in values[: s * 64 * 64 // steps]:
                row, column = divmod(at, 64)
                x[:, row, column] = (
                    mean[i, :, 0, 0] if kind == "deletion" else own.x[i, :, row, column]
                )
            p = conv.model(x[None]).softmax(1)[0, own.classes[i]].item()
            assert found[f"{kind}, mean"][d, i, s].item() == pytest.approx(p, abs=1e-5)
    assert torch.allclose(found["insertion, blurred"][..., 0], found["deletion, blurred"][..., -1])


def test_imputed_pixels_are_means_of_their_neighbours():
    """A literal check of every hidden pixel, after the noise has been taken away."""
    x, shown = torch.randn(2, 3, 7, 5), torch.rand(4, 2, 1, 7, 5) < 0.6
    shown[0] = True
    found = iv.imputed(x, shown, seed=3).double()
    noise = torch.randn(8, 35, 3, generator=torch.Generator().manual_seed(3))
    found -= 0.01 * noise.mT.reshape(found.shape)
    torch.testing.assert_close(
        found.where(shown, 0), x.double().where(shown, 0.0), atol=1e-5, rtol=0
    )
    for d, i, row, column in (~shown[:, :, 0]).nonzero().tolist():
        total, weight = torch.zeros(3, dtype=torch.float64), 0
        for down, right in itertools.product((-1, 0, 1), repeat=2):
            y, z = row + down, column + right
            if (down or right) and 0 <= y < 7 and 0 <= z < 5:
                w = 1 if down and right else 2
                total, weight = total + w * found[d, i, :, y, z], weight + w
        torch.testing.assert_close(found[d, i, :, row, column], total / weight, atol=1e-4, rtol=0)


def test_an_image_without_a_shown_pixel_gets_its_mean_colour():
    x = torch.rand(1, 3, 4, 6)
    found = iv.imputed(x, torch.zeros(1, 1, 1, 4, 6, dtype=torch.bool))
    expected = x.mean((2, 3), keepdim=True).expand_as(x)
    torch.testing.assert_close(found[0], expected, atol=0.06, rtol=0)


def test_imputed_curves_start_and_end_where_the_others_do(conv):
    own = decisions(conv, 2)
    found = iv.hiding(own, rand(1, 2, 64, 64), 2)
    for kind, whole in (("insertion", -1), ("deletion", 0)):
        imputed, mean = (found[f"{kind}, {how}"] for how in ("imputed", "mean"))
        torch.testing.assert_close(imputed[..., whole], mean[..., whole])
        assert not torch.allclose(imputed[..., 1], mean[..., 1], atol=1e-3)
    assert list(iv.hiding(own, rand(1, 2, 64, 64), 1, fills=["mean"])) == [
        "insertion, mean",
        "deletion, mean",
    ]


def test_equal_pixels_are_hidden_in_random_order(conv):
    """In raster order a flat map would hide the top of the image first."""
    own = decisions(conv, 2)
    flat = torch.ones(1, 2, 64, 64)
    raster = -torch.arange(64.0 * 64).view(1, 1, 64, 64).expand(1, 2, 64, 64)
    found, other = (iv.hiding(own, m, 2)["deletion, mean"][..., 1] for m in (flat, raster))
    assert not torch.allclose(found, other, atol=1e-3)


def test_weights_are_shuffled_from_the_end(conv):
    before = [p.detach().clone() for p in conv.model.parameters()]
    stages = [[*f.model.parameters()] for f in iv.randomised(conv, 3)]
    for stage, weights in enumerate(stages, 1):
        chunks = np.array_split(np.arange(len(before)), 3)[:stage]
        shuffled = {len(before) - 1 - j for chunk in chunks for j in chunk.tolist()}
        for j, (a, b) in enumerate(zip(before, weights, strict=True)):
            assert torch.equal(a, b) == (j not in shuffled or a.unique().numel() == 1)
        for a, b in zip(before, weights, strict=True):
            assert torch.equal(a.flatten().sort().values, b.detach().flatten().sort().values)
    assert all(torch.equal(a, b) for a, b in zip(before, conv.model.parameters(), strict=True))
    again = [*iv.randomised(conv, 3)][-1].model.parameters()
    assert all(torch.equal(a, b) for a, b in zip(again, stages[-1], strict=True))


def test_complexity_is_the_entropy_of_the_histogram():
    m = rand(1, 2, 9, 9)
    m[0, 1] = 0
    values = (m[0, 0] / m[0, 0].max()).double().flatten().tolist()
    counts = [0] * 10
    for v in values:
        counts[min(int(v * 10), 9)] += 1
    wanted = -sum(n / 81 * math.log(n / 81) for n in counts if n)
    found = iv.complexity(m, 10)
    assert found[0, 0].item() == pytest.approx(wanted)
    assert found[0, 1] == 0


def test_maps_are_compared_with_those_of_randomised_networks(conv):
    own = decisions(conv)
    found = iv.randomisation(own, "layer4", 2, draws=2, steps=2, top=3)
    last = [*iv.randomised(conv, 2)][-1]
    a = iv.explain(own, "layer4", 3, 2, 2)["Grad-CAM"]
    b = iv.explain(replace(own, target=last), "layer4", 3, 2, 2)["Grad-CAM"]
    similar, rise = found["Grad-CAM"]
    for i in range(3):
        pair = a[0, i].flatten(), b[0, i].flatten()
        r = np.corrcoef(*pair)[0, 1] if min(one.std() for one in pair) > 0 else 0.0
        assert similar[-1, 0, i].item() == pytest.approx(r, abs=1e-4)
    assert similar.shape == (2, 1, 3) and rise.shape == (1, 3)
    assert found[iv.RANDOM][0].abs().max() < 0.5


# Neurons ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "layer"), [("conv", "layer3"), ("vit", "encoder.layers.encoder_layer_1")]
)
def test_neurons_are_removed_as_in_a_literal_pass(name, layer):
    target = targets.load(f"world/{name}")
    own, ks = decisions(target), (1, 5)
    count = 96
    order = rand(2, 3, count)
    found = iv.without_neurons(own, layer, order, ks)
    module, axis = target.module(layer), 1 if name == "conv" else 2
    for d, i, k in ((0, 0, 0), (1, 2, 1)):
        first = order[d, i].argsort(descending=True)[: ks[k]]
        rest = torch.tensor([n for n in range(count) if n not in first.tolist()])
        whole = target.model(own.x[[i]])[0, own.classes[i]]
        for side, gone in (("lost", first), ("kept", rest)):
            hook = module.register_forward_hook(lambda _, __, y, g=gone: y.index_fill(axis, g, 0))
            logits = target.model(own.x[[i]])[0].detach()
            hook.remove()
            c = own.classes[i]
            gap, same = (logits[c] - whole).item(), float(logits.argmax() == c)
            wanted = (-gap, 1 - same) if side == "lost" else (gap, same)
            assert found[f"logit {side}"][d, i, k].item() == pytest.approx(wanted[0], abs=1e-4)
            assert found[f"class {side}"][d, i, k] == wanted[1]


def test_orders_are_those_of_their_names(conv):
    own = decisions(conv)
    class_w = rand(24, 128)
    found = iv.orders(own, "layer4", class_w, draws=4, samples=1)
    signed = contributions.taylor(conv, own.x, "layer4", own.classes, signed=True)
    assert torch.equal(found["class contribution"][0], class_w[own.classes])
    assert torch.allclose(found["sample contribution, signed"][0], signed)
    assert torch.allclose(found["sample contribution"][0], signed.abs())
    # Before a linear head the game is linear, and Shapley values are contributions.
    assert torch.allclose(found["Shapley value"][0], signed, atol=1e-3)
    assert found["random order"].shape == (4, 3, 128)


# Results ----------------------------------------------------------------------------------------


def test_tables_hold_means_over_draws_of_common_images():
    a, b = rand(1, 4).double(), rand(3, 4, seed=1).double()
    a[0, 1] = torch.nan
    table = iv.scored("title", {"one": {"m": a}, "two": {"m": b}})
    kept = [0, 2, 3]
    assert table["one"].scores["m"].values.tolist() == a[0, kept].tolist()
    assert table["two"].scores["m"].mean == pytest.approx(b[:, kept].mean().item())
    shown = iv.cells({"net": table})
    assert shown.loc[("net", "two"), "m"] == table["two"].scores["m"].cell(3)
    (sentence,) = iv.winners({"net": table})
    best = max(("one", "two"), key=lambda way: table[way].scores["m"].mean)
    assert sentence.startswith(f"Best in net, m: {best}")


def test_separation_is_the_share_of_pairs_in_order():
    own, noise = rand(1, 5).double(), rand(3, 5, seed=1).double()
    noise[0, 0], own[0, 0] = torch.nan, noise[1, 1]
    found = iv.separation({"one": {"m": own}, iv.RANDOM: {"m": noise}})
    pairs = [(a, b) for a in own.flatten() for b in noise.flatten() if not b.isnan()]
    wanted = sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs)
    assert found == {"one": {"m": pytest.approx(wanted)}}


def test_images_with_known_classes_are_explained_for_predicted_ones(conv):
    own = iv.decide(conv, images.subset(world.image_set(8, 5), [7, 2]))
    assert torch.equal(own.classes, conv.model(own.x).argmax(1)) and own.x.shape == (2, 3, 64, 64)
    assert isinstance(conv.model, nn.Module)
