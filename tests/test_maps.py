"""Maps against bilinear resizing, percentiles and weighted sums written out cell by cell."""

import math
import warnings
from collections import OrderedDict
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import nn
from torchvision.transforms.functional import pil_to_tensor

from wwwlib import targets, world
from wwwlib.contributions import contribute, forward, replaced_output, taylor
from wwwlib.maps import (
    contribution,
    default_kinds,
    heatmap,
    last_spatial_layer,
    position,
    region,
    resize,
    similarity,
    strongest,
)


def cells(value, length, size):
    """Return the two source cells of a target cell and the share of the second."""
    place = max((value + 0.5) * length / size - 0.5, 0)
    low = min(int(place), length - 1)
    return low, min(low + 1, length - 1), place - low


def resize_by_hand(a, height, width):
    """Clamp and interpolate one map, a list of lists, cell by cell, without aligned corners."""
    a = [[max(value, 0.0) for value in row] for row in a]
    m = [[0.0] * width for _ in range(height)]
    for y in range(height):
        for x in range(width):
            top, bottom, v = cells(y, len(a), height)
            left, right, u = cells(x, len(a[0]), width)
            upper = (1 - u) * a[top][left] + u * a[top][right]
            lower = (1 - u) * a[bottom][left] + u * a[bottom][right]
            m[y][x] = (1 - v) * upper + v * lower
    return m


def region_by_hand(m, percentile):
    values = sorted(value for row in m for value in row)
    level = values[max(1, math.ceil(Fraction(str(percentile)) * len(values) / 100)) - 1]
    if level == values[-1]:
        return [[value == level and values[0] < level for value in row] for row in m]
    return [[value > level for value in row] for row in m]


def strongest_by_hand(w, top):
    ranked = sorted(range(len(w)), key=lambda i: (-w[i], i))[:top]
    positive = [max(Fraction(w[i]), 0) for i in ranked]
    return ranked, [float(value / (sum(positive) or 1)) for value in positive]


def cosine_by_hand(u, v):
    """Sum the products in exact fractions; the root has 60 digits."""
    dot, uu, vv = (
        sum(Fraction(p) * Fraction(q) for p, q in zip(*pair, strict=True))
        for pair in ((u, v), (u, u), (v, v))
    )
    with localcontext() as context:
        context.prec = 60
        square = dot * dot / (uu * vv)
        root = (Decimal(square.numerator) / Decimal(square.denominator)).sqrt()
    return float(root) if dot >= 0 else -float(root)


def position_by_hand(m):
    """Count in whole numbers; a cell belongs to the third in which its centre is."""
    rows, columns = dict.fromkeys(range(3), 0), dict.fromkeys(range(3), 0)
    for y, line in enumerate(m):
        for x, value in enumerate(line):
            rows[(2 * y + 1) * 3 // (2 * len(m))] += max(value, 0)
            columns[(2 * x + 1) * 3 // (2 * len(line))] += max(value, 0)
    total = sum(rows.values())
    if not total:
        return None
    row = [("upper", "middle", "lower")[i] for i in range(3) if 2 * rows[i] > total]
    column = [("left", "centre", "right")[i] for i in range(3) if 2 * columns[i] > total]
    if row == ["middle"] and column:
        return column[0]
    return " ".join(row + column) or "whole image"


def heatmap_by_hand(a, w, top, height, width):
    """Resize each map first and sum then: the order that the paper writes down."""
    ranked = sorted(range(len(w)), key=lambda i: (-w[i], i))[:top]
    total = sum(max(w[i], 0.0) for i in ranked)
    m = [[0.0] * width for _ in range(height)]
    for i in ranked:
        grown = resize_by_hand(a[i], height, width)
        for y in range(height):
            for x in range(width):
                m[y][x] += max(w[i], 0.0) / total * grown[y][x]
    return m


def maps(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def as_tensor(m, dtype=torch.float64):
    return torch.tensor(m, dtype=dtype)


# Maps and regions ---------------------------------------------------------------------------


@pytest.mark.parametrize(("h", "w", "size"), [(2, 2, (5, 5)), (3, 2, (7, 4)), (1, 1, (3, 2)),
                                              (4, 4, (4, 4)), (3, 5, (9, 31))])  # fmt: skip
def test_resize_equals_bilinear_by_hand(h, w, size):
    """Resizing first would let negative cells eat into their neighbours."""
    a = maps(2, 3, h, w)
    found = resize(a, size)
    for b in range(2):
        for i in range(3):
            expected = as_tensor(resize_by_hand(a[b, i].tolist(), *size))
            torch.testing.assert_close(found[b, i], expected)


def test_one_number_is_a_square_and_none_leaves_the_size():
    a = maps(1, 2, 3, 3)
    assert torch.equal(resize(a, 7), resize(a, (7, 7)))
    assert torch.equal(resize(a, None), a.clamp(min=0))


@pytest.mark.parametrize("percentile", [0, 33.3, 50, 90, 99.9])
def test_region_equals_a_sorted_list(percentile):
    a = maps(2, 3, 3, 4)
    found = region(a, percentile, (6, 10))
    for b in range(2):
        for i in range(3):
            m = resize(a, (6, 10))[b, i].tolist()
            assert found[b, i].tolist() == region_by_hand(m, percentile)
    assert found.double().mean((2, 3)).max() <= 1 - percentile / 100 + 1 / 60


@pytest.mark.parametrize("count", [1, 2, 10, 100, 400])
@pytest.mark.parametrize("percentile", [0, 0.1, 7, 29, 50, 55, 58, 90, 99, 99.9])
def test_the_level_is_the_value_of_the_nearest_rank(count, percentile):
    """Breaks if the rank is one off: 55 / 100 * 100 is more than 55 in floating point."""
    a = torch.randperm(count).view(1, 1, 1, count) + 1.0
    assert region(a, percentile)[0, 0].tolist() == region_by_hand(a[0, 0].tolist(), percentile)


@pytest.mark.parametrize("percentile", [0, 20, 50, 75, 90, 99])
def test_regions_of_maps_with_few_values_equal_a_sorted_list(percentile):
    """Plateaus, flat maps and maps of zeros side by side: each counts its own cells alone."""
    a = torch.randint(-1, 3, (3, 6, 3, 5)).double()
    a[0, 2], a[1, 3], a[2, :4] = 2.0, 1.0, -1.0
    found = region(a, percentile)
    for b in range(3):
        for i in range(6):
            m = a[b, i].clamp(min=0).tolist()
            assert found[b, i].tolist() == region_by_hand(m, percentile)


def test_defaults_written_out():
    a, w = maps(2, 8, 10, 10), torch.rand(2, 8, dtype=torch.float64)
    assert torch.equal(region(a), region(a, 90.0, None))
    assert torch.equal(heatmap(a, w), heatmap(a, w, 5, None, True))
    for found, expected in zip(strongest(w), strongest(w, 5), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("value", [0.0, -1.0, 3.0])
def test_a_flat_map_has_an_empty_region(value):
    """At or above the percentile would be the whole image."""
    assert not region(torch.full((1, 1, 4, 4), value), 90, 16).any()
    assert not region(torch.full((1, 1, 1, 1), value), 90, 16).any()


def test_a_map_with_fewer_positive_cells_than_the_percentile_keeps_them_all():
    a = torch.zeros(1, 1, 10, 10)
    a[0, 0, 2, 3:6] = torch.tensor([1.0, 2.0, 3.0])
    assert torch.equal(region(a, 90), a > 0)


def test_a_plateau_wider_than_the_percentile_is_not_erased():
    """A saturated ReLU6 has its maximum on a quarter of the image: nothing lies above it."""
    a = torch.zeros(1, 1, 4, 4)
    a[..., :2, 2:] = 6.0
    assert torch.equal(region(a, 90), a > 0)


# Heatmaps -----------------------------------------------------------------------------------


@pytest.mark.parametrize("top", [1, 3, 6, 50])
def test_heatmap_equals_resizing_each_map_and_summing(top):
    a, w = maps(2, 6, 3, 2), torch.rand(2, 6, dtype=torch.float64)
    found = heatmap(a, w, top, (7, 5))
    for b in range(2):
        expected = heatmap_by_hand(a[b].tolist(), w[b].tolist(), top, 7, 5)
        torch.testing.assert_close(found[b], as_tensor(expected))
    torch.testing.assert_close(
        heatmap(a, w[0], top, (7, 5)), heatmap(a, w[[0, 0]], top, (7, 5)), msg="(N,) is for all"
    )


def test_one_neuron_with_all_the_weight_reproduces_its_map():
    a, w = maps(1, 4, 3, 3), torch.tensor([0.0, 0.0, 0.3, 0.0])
    torch.testing.assert_close(heatmap(a, w, 3, 9)[0], resize(a, 9)[0, 2])


def test_equals_among_weights_stand_in_the_order_of_their_index():
    """topk(zeros) gives 8, 6, 7."""
    index, share = strongest(torch.ones(2, 10), 3)
    assert index.tolist() == [[0, 1, 2]] * 2
    torch.testing.assert_close(share, torch.full((2, 3), 1 / 3))
    assert strongest(torch.zeros(10), 3)[0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("top", [1, 2, 4, 6, 50])
@pytest.mark.parametrize("factor", [1, 2.0**-1000, 2.0**1021])
def test_strongest_equals_a_sorted_list(top, factor):
    """Breaks if ties change their order, negative weights count, or a sum overflows."""
    w = torch.randint(-2, 4, (20, 6)).double() * factor
    index, share = strongest(w, top)
    for b in range(20):
        ranked, expected = strongest_by_hand(w[b].tolist(), top)
        assert index[b].tolist() == strongest(w[b], top)[0].tolist() == ranked
        assert share[b].tolist() == pytest.approx(expected, abs=1e-15)


def test_no_images_have_no_maps():
    index, share = strongest(torch.ones(0, 3), 2)
    assert index.shape == share.shape == (0, 2)
    assert heatmap(torch.ones(0, 3, 4, 5), torch.ones(0, 3), 2).shape == (0, 4, 5)


def test_negative_weights_count_as_zero():
    """They would invert a map, or cancel evidence for the class."""
    a, w = maps(1, 4, 3, 3), torch.tensor([-5.0, 2.0, -0.1, 1.0])
    torch.testing.assert_close(strongest(w, 4)[1], torch.tensor([2 / 3, 1 / 3, 0.0, 0.0]))
    torch.testing.assert_close(heatmap(a, w, 4, 6), heatmap(a, w.clamp(min=0), 4, 6))
    assert heatmap(a, w, 4, 6).min() >= 0


@pytest.mark.parametrize("w", [torch.zeros(2, 4), torch.tensor([[1.0] * 4, [-1.0] * 4])])
def test_a_map_without_any_positive_weight_is_zero_and_says_so(w):
    with pytest.warns(UserWarning, match="No neuron has a positive weight"):
        m = heatmap(maps(2, 4, 3, 3), w)
    assert not m[1].any()
    assert bool(m[0].any()) == bool(w.any()), "the other image keeps its map"


def test_images_without_a_positive_weight_are_counted_and_others_cause_no_warning():
    a, w = maps(4, 2, 3, 3).abs(), torch.tensor([[1.0, 0.0], [0.0, 0.0], [2.0, 1.0], [-1.0, -2.0]])
    with pytest.warns(UserWarning, match=r"for 2 of 4 images \(first: 1\)"):
        m = heatmap(a, w, 1)
    assert m.flatten(1).any(1).tolist() == [True, False, True, False]
    with warnings.catch_warnings(action="error"):
        heatmap(a[[0, 2]], w[[0, 2]], 1)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_weights_that_are_not_finite_are_named(bad):
    w = torch.ones(2, 4)
    w[1, 2] = bad
    with pytest.raises(ValueError, match=r"neuron 2 for image 1 is (nan|-?inf)"):
        heatmap(maps(2, 4, 3, 3), w)
    with pytest.raises(ValueError, match=r"neuron 2 is"):
        strongest(w[1])


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_maps_that_are_not_finite_are_named_where_they_count(bad):
    a = maps(2, 4, 3, 3)
    a[1, 2, 0, 0] = bad
    with pytest.raises(ValueError, match="neuron 2 for image 1"):
        region(a)
    with pytest.raises(ValueError, match="neuron 2 for image 1"):
        heatmap(a, torch.tensor([1.0, 2.0, 4.0, 3.0]))
    assert heatmap(a, torch.tensor([1.0, 2.0, 0.0, 3.0]), 4).isfinite().all()
    assert not resize(a, 6)[1, 2].isfinite().all(), "it shows"
    a[0, 3, 2, 2] = bad
    with pytest.raises(ValueError, match="neuron 3 for image 0"):
        region(a)


def test_inputs_keep_their_type_and_values():
    a, w = maps(1, 3, 2, 2).half(), torch.rand(1, 3, dtype=torch.float64)
    before = a.clone(), w.clone()
    assert resize(a, 4).dtype == heatmap(a, w, 2, 4).dtype == torch.float16
    region(a)
    assert torch.equal(a, before[0]) and torch.equal(w, before[1])


# Similarity ---------------------------------------------------------------------------------


def test_maps_that_differ_in_scale_alone_agree_exactly():
    """Breaks if rounding makes equal maps differ: sorted by 1 - r, noise would look uncertain."""
    m = torch.rand(200, 9, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert (similarity(m, m * 0.3) == 1).all()


@pytest.mark.parametrize("top", [1, 3, 6])
def test_the_maps_of_an_unweighted_heatmap_are_summed(top):
    """Those without a positive weight are left out."""
    a, w = maps(2, 6, 3, 4), torch.rand(2, 6, dtype=torch.float64) - 0.2
    w[0, 1], w[1, 3] = 0.0, -0.1
    found = heatmap(a, w, top, (9, 8), weighted=False)
    for b in range(2):
        ranked = sorted(range(6), key=lambda i: -w[b, i])[:top]
        grown = [resize_by_hand(a[b, i].tolist(), 9, 8) for i in ranked if w[b, i] > 0]
        assert torch.allclose(found[b], as_tensor(grown).sum(0))


LAYER_1 = "encoder.layers.encoder_layer_1"


def double(name):
    """A network of the world in float64, and two of its images."""
    f = targets.load(name)
    f = targets.wrap(f.network.double(), f.preprocess, f.classes, name)
    shown = world.image_set(2, seed=31)
    return f, torch.stack([f.preprocess(shown.image(i)) for i in range(2)]).double()


@pytest.mark.parametrize(
    "name, layer",
    [("world/conv", "layer1"), ("world/conv", "layer4"), ("world/vit", LAYER_1),
     ("world/vit", f"{LAYER_1}.mlp.1"), ("world/vit", "encoder.layers.encoder_layer_2.ln_1")],
)  # fmt: skip
def test_a_contribution_map_adds_up_to_the_signed_contribution(name, layer):
    f, x = double(name)
    for classes in (None, 3, torch.tensor([5, 0])):
        c = contribution(f, x, layer, classes)
        w = taylor(f, x, layer, classes, signed=True)
        assert torch.allclose(c.sum((2, 3)), w, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name, layer", [("world/conv", "layer3"), ("world/vit", LAYER_1)])
def test_a_contribution_map_is_the_slope_of_the_logit_as_a_position_fades(name, layer):
    """Oracle: central differences, one neuron and position at a time."""
    f, x = double(name)
    found, step = contribute(f, x, layer, 3, signed=True, linear=False), 1e-6
    a, c = found.activations, contribution(f, x, layer, 3)
    rest = (found.w - found.maps.sum((2, 3))) / c[0, 0].numel()  # of the class token
    h, w = c.shape[2:]
    for neuron, row, column in ((0, 1, 2), (7, h - 1, 0), (31, 3, w - 1)):
        logits = []
        for factor in (1 + step, 1 - step):
            raw = a.raw.clone()
            if a.layout == "BNHW":
                raw[:, neuron, row, column] *= factor
            else:
                raw[:, a.prefix + row * w + column, neuron] *= factor
            with torch.no_grad(), replaced_output(f, layer, lambda _, raw=raw: raw):
                logits.append(forward(f, x, [])[0][:, 3])
        slope = (logits[0] - logits[1]) / (2 * step) + rest[:, neuron]
        assert torch.allclose(c[:, neuron, row, column], slope, rtol=1e-4, atol=1e-7)


def test_maps_behind_the_last_attention_are_refused_with_the_layer_to_take():
    f, x = double("world/vit")
    last = "encoder.layers.encoder_layer_2"
    with pytest.raises(ValueError, match=f"no position of '{last}'.*take '{LAYER_1}'"):
        contribution(f, x, last)
    kinds = default_kinds(f, [last, LAYER_1, "conv_proj", "logits"])
    assert kinds == {last: None, LAYER_1: "contribution", "conv_proj": "activation",
                     "logits": "activation"}  # fmt: skip


def test_the_contribution_maps_of_one_image_are_those_in_a_batch():
    f, x = double("world/vit")
    alone, both = contribution(f, x[:1], LAYER_1, 3), contribution(f, x, LAYER_1, 3)
    assert torch.allclose(alone, both[:1], rtol=1e-9, atol=1e-12)


def in_order(**modules):
    """A network of modules, one after the other, for images of 8 x 8."""
    model = nn.Sequential(OrderedDict(modules))
    shrink = lambda image: pil_to_tensor(image.resize((8, 8))) / 255  # noqa: E731
    return targets.wrap(model, shrink, list("abcde"), "test")


def convolution(inputs=4, outputs=4):
    return nn.Conv2d(inputs, outputs, 3, padding=1)


SPATIAL = {
    "no block, and neither dropout nor one position counts": (
        "zone", lambda: in_order(area=convolution(3), zone=nn.Sigmoid(), same=nn.Identity(),
                                 drop=nn.Dropout(), pool=nn.AdaptiveAvgPool2d(1),
                                 flat=nn.Flatten(), out=nn.Linear(4, 5)),
    ),
    "the last block, although a layer follows it": (
        "b2", lambda: in_order(b1=nn.Sequential(convolution(3)), b2=nn.Sequential(convolution()),
                               tail=convolution(), flat=nn.Flatten(), out=nn.Linear(256, 5)),
    ),
    "not a block of one position": (
        "b1", lambda: in_order(b1=nn.Sequential(convolution(3)), tail=convolution(),
                               b2=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Sigmoid()),
                               flat=nn.Flatten(), out=nn.Linear(4, 5)),
    ),
    "a layer of one neuron": (
        "zone", lambda: in_order(area=convolution(3, 1), zone=nn.Sigmoid(), flat=nn.Flatten(),
                                 out=nn.Linear(64, 5)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SPATIAL)
def test_the_last_layer_with_positions(case):
    layer, make = SPATIAL[case]
    assert last_spatial_layer(make()) == layer


def test_before_a_head_of_zeros_all_maps_are_zero_and_none_is_refused():
    f = in_order(area=convolution(3), zone=nn.Sigmoid(), flat=nn.Flatten(), out=nn.Linear(256, 5))
    nn.init.zeros_(f.module("out").weight)
    assert contribution(f, torch.rand(2, 3, 8, 8), "area", 1).shape == (2, 4, 8, 8)
    assert not contribution(f, torch.rand(2, 3, 8, 8), "area", 1).any()
    assert last_spatial_layer(f) == "zone"


def test_a_network_without_maps_is_told_its_last_layers_in_their_order():
    f = in_order(flat=nn.Flatten(), a=nn.Linear(192, 9), b=nn.Sigmoid(), zone=nn.Linear(9, 9),
                 d=nn.Sigmoid(), e=nn.Linear(9, 5))  # fmt: skip
    with pytest.raises(ValueError, match=r"No layer of test .* such as 'b', 'zone', 'd', 'e'\."):
        last_spatial_layer(f)


def test_similarity_is_the_cosine():
    m1, m2 = maps(3, 4, 5), maps(3, 4, 5)
    for b, r in enumerate(similarity(m1, m2)):
        u, v = m1[b].flatten().tolist(), m2[b].flatten().tolist()
        dot = sum(p * q for p, q in zip(u, v, strict=True))
        expected = dot / math.sqrt(sum(p * p for p in u) * sum(q * q for q in v))
        assert r.item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("angle", [0, 1e-9, 1e-7, 1e-4, 0.01, 0.3, 0.8, 1.0, 1.2, 1.5, 2, 3, 3.14])
def test_similarity_at_every_angle_equals_exact_arithmetic(angle):
    """Near 1, where explanations are compared, to the last digit."""
    m, side = maps(6, 4, 5), maps(6, 4, 5)
    m = m / m.norm(dim=(1, 2), keepdim=True)
    side -= m * (m * side).sum((1, 2), keepdim=True)
    side *= math.sin(angle) / side.norm(dim=(1, 2), keepdim=True)
    turned = m * math.cos(angle) + side
    for b, r in enumerate(similarity(m, turned).tolist()):
        expected = cosine_by_hand(m[b].flatten().tolist(), turned[b].flatten().tolist())
        assert r == pytest.approx(expected, rel=0, abs=2.3e-16 if expected > 0.9 else 1e-15)


def test_opposite_maps_are_at_minus_one_and_not_below():
    m = torch.randn(200, 9, 9, dtype=torch.float64)
    r = similarity(m, m * -0.3)
    assert (r >= -1).all() and (r < -1 + 1e-15).all()
    assert similarity(m.float(), m.float()).dtype == torch.float32


WEIGHTS = arrays.arrays(np.float64, (2, 6), elements=st.floats(0.01, 100))


@settings(max_examples=30, deadline=None)
@given(WEIGHTS, WEIGHTS, st.sampled_from([1e-300, 1e-8, 0.5, 3.0, 1e300]))
def test_scaling_all_weights_leaves_r_unchanged(w, class_w, factor):
    a = torch.rand(2, 6, 4, 4, dtype=torch.float64)
    w, class_w = torch.from_numpy(w), torch.from_numpy(class_w)
    class_m = heatmap(a, class_w, 3, 8)
    r = similarity(class_m, heatmap(a, w, 3, 8))
    torch.testing.assert_close(similarity(class_m, heatmap(a, w * factor, 3, 8)), r)
    torch.testing.assert_close(similarity(class_m * 1e-200, class_m), torch.ones_like(r))
    assert ((r >= 0) & (r <= 1)).all()


def test_equal_weights_give_one_and_disjoint_maps_zero():
    a, w = maps(3, 6, 4, 4), torch.rand(3, 6)
    m = heatmap(a, w, 5, 8)
    torch.testing.assert_close(similarity(m, m.clone()), torch.ones(3, dtype=torch.float64))
    ones = torch.zeros(1, 2, 2)
    ones[0, 0] = 1
    assert similarity(ones, ones.flip(1)).item() == 0


def test_nothing_to_compare_is_nan():
    """0 would read as uncertain and 1 as certain: a map of zeros is neither."""
    one, zero, bad = torch.ones(1, 2, 2), torch.zeros(1, 2, 2), torch.full((1, 2, 2), torch.nan)
    for m1, m2 in [(one, zero), (zero, zero), (one, bad)]:
        assert similarity(m1, m2).isnan().all()


# Words --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "columns", "words"),
    [
        (slice(0, 3), slice(0, 3), "upper left"),
        (slice(0, 3), slice(3, 6), "upper centre"),
        (slice(6, 9), slice(6, 9), "lower right"),
        (slice(3, 6), slice(3, 6), "centre"),
        (slice(3, 6), slice(0, 2), "left"),
        (slice(0, 9), slice(0, 2), "left"),
        (slice(3, 6), slice(0, 9), "middle"),
        (slice(6, 9), slice(0, 9), "lower"),
        (slice(0, 9), slice(0, 9), "whole image"),
    ],
)
def test_position_in_words(rows, columns, words):
    m = torch.zeros(9, 9)
    m[rows, columns] = 2.0
    assert position(m) == position(m > 0) == words


@pytest.mark.parametrize("height", range(1, 8))
def test_position_equals_counting_cells(height):
    """Of every size: unequal thirds, halves, no mass; what is negative counts as zero."""
    for width in range(1, 8):
        for share in (0.05, 0.3, 1.0):
            for m in (torch.rand(5, height, width) < share) * torch.randint(-1, 3, (height, width)):
                assert position(m) == position_by_hand(m.tolist())


def test_position_of_two_corners_is_not_the_centre_between_them():
    m = torch.zeros(9, 9)
    m[:2, :2] = m[-2:, -2:] = 1
    assert position(m) == "whole image"
    assert position(torch.zeros(9, 9)) is None
    assert position(torch.ones(1, 1, dtype=torch.bool)) == "centre"


# What goes wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: resize(torch.ones(2, 3, 3), 8), r"expected \(B, N, h, w\)"),
        (lambda: resize(torch.ones(1, 2, 3, 3, 3), 8), r"expected \(B, N, h, w\)"),
        (lambda: resize(torch.ones(1, 0, 3, 3), 8), "N, h, w >= 1"),
        (lambda: resize(torch.ones(1, 1, 0, 3), 8), "N, h, w >= 1"),
        (lambda: resize(torch.ones(1, 1, 3, 0), 8), "N, h, w >= 1"),
        (lambda: region(torch.ones(1, 1, 2, 2), 100), "percentile is 100"),
        (lambda: region(torch.ones(1, 1, 2, 2), 101), "percentile is 101"),
        (lambda: region(torch.ones(1, 1, 2, 2), -0.1), "percentile is -0.1"),
        (lambda: region(torch.ones(1, 1, 2, 2), torch.nan), "percentile is nan"),
        (lambda: region(torch.ones(1, 1, 2, 2), -1), "percentile is -1"),
        (lambda: heatmap(torch.ones(2, 3, 2, 2), torch.ones(2)), r"give \(2, 3\) or \(3,\)"),
        (lambda: heatmap(torch.ones(2, 3, 2, 2), torch.ones(3), 0), "top is 0"),
        (lambda: strongest(torch.ones(1, 2, 3)), r"expected \(B, N\)"),
        (lambda: strongest(torch.ones(())), r"expected \(B, N\)"),
        (lambda: strongest(torch.ones(0)), "with N >= 1"),
        (lambda: strongest(torch.ones(3, 0)), "with N >= 1"),
        (lambda: similarity(torch.ones(1, 2, 2), torch.ones(1, 3, 3)), "same shape"),
        (lambda: similarity(torch.ones(2, 2), torch.ones(2, 2)), "same shape"),
        (lambda: similarity(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2)), "same shape"),
        (lambda: position(torch.ones(1, 2, 2)), r"\(H, W\)"),
        (lambda: position(torch.ones(2)), r"\(H, W\)"),
        (lambda: position(torch.tensor([[1.0, torch.inf]])), "finite"),
        (lambda: position(torch.full((2, 2), torch.nan)), "finite"),
    ],
)
def test_mistakes_are_sentences(call, words):
    with pytest.raises(ValueError, match=words):
        call()
