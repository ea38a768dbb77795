"""Pointing game and overlap: hand-worked maps, and slow literal versions as oracles."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms import v2

from wwwlib import scores, targets, world
from wwwlib.images import ImageSet
from wwwlib.studies import localization


def mask_of(*rows):
    """Return a (1, H, W) mask from drawn rows."""
    return torch.tensor([[letter == "#" for letter in row] for row in rows])[None]


def peak(row, column, size=5):
    """Return a (1, size, size) heatmap with one maximum."""
    m = torch.zeros(1, size, size)
    m[0, row, column] = 2.0
    return m


CORNER = mask_of(
    "##...",
    "##...",
    ".....",
    ".....",
    ".....",
)


def literal_pointing(m, mask, tolerance):
    """Expected share of maxima with a true pixel near enough, pixel by pixel."""
    values = []
    for heat, truth in zip(m.tolist(), mask.tolist(), strict=True):
        best = max(max(row) for row in heat)
        true = [(i, j) for i, row in enumerate(truth) for j, on in enumerate(row) if on]
        hits = [
            any(math.dist((i, j), pixel) <= tolerance for pixel in true)
            for i, row in enumerate(heat)
            for j, value in enumerate(row)
            if value == best
        ]
        values.append(sum(hits) / len(hits))
    return values


def literal_iou(region, mask):
    """Intersection over union of sets of pixels."""
    values = []
    for one, other in zip(region.tolist(), mask.tolist(), strict=True):
        a = {(i, j) for i, row in enumerate(one) for j, on in enumerate(row) if on}
        b = {(i, j) for i, row in enumerate(other) for j, on in enumerate(row) if on}
        values.append(len(a & b) / len(a | b))
    return values


# Pointing game ------------------------------------------------------------------------------


def test_a_maximum_on_the_mask_hits_and_one_beside_it_misses():
    m = torch.cat([peak(1, 1), peak(2, 2)])
    score = localization.pointing_game(m, CORNER.expand(2, -1, -1))
    assert score.values.tolist() == [1, 0]
    assert score.mean == 0.5
    assert score.name == "pointing game"


def test_tolerance_is_a_euclidean_distance_and_its_border_still_hits_by_hand():
    """(2, 2) is sqrt 2 from the mask's nearest pixel (1, 1), (1, 3) is 2, (4, 4) is sqrt 18."""
    m = torch.cat([peak(2, 2), peak(1, 3), peak(4, 4)])
    mask = CORNER.expand(3, -1, -1)
    assert localization.pointing_game(m, mask, 1).values.tolist() == [0, 0, 0]
    assert localization.pointing_game(m, mask, 1.5).values.tolist() == [1, 0, 0]
    assert localization.pointing_game(m, mask, 2).values.tolist() == [1, 1, 0]
    assert localization.pointing_game(m, mask, 4).values.tolist() == [1, 1, 0]
    assert localization.pointing_game(m, mask, 5).values.tolist() == [1, 1, 1]
    assert localization.pointing_game(m, mask, 1e9).values.tolist() == [1, 1, 1]


def test_pixels_that_share_the_maximum_score_the_share_of_them_that_hit():
    """One of two maxima lies on the mask: breaks if the first, or any, decided alone."""
    m = peak(0, 0) + peak(4, 4)
    score = localization.pointing_game(m, CORNER)
    assert score.values.tolist() == [0.5]
    assert score.sizes.tolist() == [2]


def test_a_flat_map_scores_as_a_random_guess():
    for value in (0.0, 3.0):
        score = localization.pointing_game(torch.full((1, 5, 5), value), CORNER)
        assert score.values.tolist() == pytest.approx([4 / 25])


@pytest.mark.parametrize("tolerance", [0, 1, 1.5, 2, 4, 40])
def test_pointing_game_equals_its_literal_version(tolerance):
    """Whole numbers make ties; breaks if the disc were a square or off by half a pixel."""
    m = torch.randint(0, 4, (12, 7, 9))
    mask = torch.rand(12, 7, 9) < 0.08
    mask[:, 3, 4] = True
    score = localization.pointing_game(m.float(), mask, tolerance)
    assert score.values.tolist() == pytest.approx(literal_pointing(m, mask, tolerance))


def test_a_random_map_scores_the_area_of_the_mask():
    """Over many maps of independent pixels; breaks if a side of the image were preferred."""
    score = localization.pointing_game(torch.rand(20_000, 5, 5), CORNER.expand(20_000, -1, -1))
    assert abs(score.mean - 4 / 25) < 4 * score.stderr


def test_scaling_a_heatmap_changes_nothing():
    m, mask = torch.rand(6, 8, 8), torch.rand(6, 8, 8) < 0.3
    one, other = localization.pointing_game(m, mask), localization.pointing_game(7 * m, mask)
    assert one.values.tolist() == other.values.tolist()


# Overlap ------------------------------------------------------------------------------------


def test_iou_by_hand():
    """4 pixels against the corner's 4, two shared: 2/6. All 25 pixels: 4/25. Nothing: 0."""
    shifted = mask_of(".##..", ".##..", ".....", ".....", ".....")
    regions = torch.cat([CORNER, shifted, torch.ones_like(CORNER), torch.zeros_like(CORNER)])
    score = localization.iou(regions, CORNER.expand(4, -1, -1))
    assert score.values.tolist() == pytest.approx([1, 1 / 3, 4 / 25, 0])
    assert score.sizes.tolist() == [4, 4, 25, 0]
    assert score.abstained == 1


def test_iou_equals_its_literal_version_and_never_passes_its_upper_bound():
    region, mask = torch.rand(30, 6, 7) < 0.3, torch.rand(30, 6, 7) < 0.5
    score, bound = localization.iou(region, mask), localization.iou_upper_bound(region, mask)
    assert score.values.tolist() == pytest.approx(literal_iou(region, mask))
    assert (score.values <= bound.values).all()


def test_the_upper_bound_is_reached_by_a_region_within_the_mask_and_by_one_around_it():
    within, around = CORNER.clone(), torch.ones_like(CORNER)
    within[0, 0, 0] = False
    regions, mask = torch.cat([within, around]), CORNER.expand(2, -1, -1)
    assert torch.equal(
        localization.iou(regions, mask).values, localization.iou_upper_bound(regions, mask).values
    )


def test_by_group_keeps_every_value_once_in_order_of_appearance():
    score = scores.Score("IoU", torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.tensor([1, 2, 3, 4]))
    parts = localization.by_group(score, ["part", "object", "part", "scene"])
    assert list(parts) == ["part", "object", "scene"]
    assert parts["part"].values.tolist() == pytest.approx([0.1, 0.3])
    assert parts["part"].sizes.tolist() == [1, 3]
    assert parts["object"].name == "IoU"
    assert sum(map(len, parts.values())) == len(score)


def test_scores_of_maps_can_be_compared_pair_by_pair():
    """Breaks if two tolerances, which are two scores, could be compared with each other."""
    m, mask = torch.rand(20, 8, 8), torch.rand(20, 8, 8) < 0.3
    strict, near = (localization.pointing_game(m, mask, tolerance) for tolerance in (0, 2))
    assert scores.compare(strict, strict).difference == 0
    with pytest.raises(ValueError, match="cannot be compared"):
        scores.compare(strict, near)


# What a user may get wrong ------------------------------------------------------------------


@pytest.mark.parametrize(
    "measure", [localization.pointing_game, localization.iou, localization.iou_upper_bound]
)
def test_masks_that_do_not_fit_are_refused(measure):
    given = CORNER if measure is not localization.pointing_game else CORNER.float()
    with pytest.raises(ValueError, match=r"\(1, 5, 5\) and the masks \(1, 4, 5\)"):
        measure(given, CORNER[:, :4])
    with pytest.raises(ValueError, match="Mask 0 is empty"):
        measure(given, torch.zeros_like(CORNER))
    with pytest.raises(ValueError, match=r"float32; give bool"):
        measure(given, CORNER.float())


def test_a_heatmap_that_is_not_finite_is_refused_by_its_number():
    m = torch.cat([peak(0, 0), peak(0, 0)])
    m[1, 2, 2] = torch.nan
    with pytest.raises(ValueError, match="Heatmap 1 is not finite"):
        localization.pointing_game(m, CORNER.expand(2, -1, -1))


@pytest.mark.parametrize("tolerance", [-1, math.inf, math.nan])
def test_a_senseless_tolerance_is_refused(tolerance):
    with pytest.raises(ValueError, match="tolerance is"):
        localization.pointing_game(peak(0, 0), CORNER, tolerance)


def test_regions_that_are_no_regions_are_refused():
    with pytest.raises(ValueError, match=r"float32; give bool, as maps.region"):
        localization.iou(peak(0, 0), CORNER)


def test_groups_of_another_number_are_refused():
    score = localization.iou(CORNER, CORNER)
    with pytest.raises(ValueError, match="2 groups for 1 values"):
        localization.by_group(score, ["part", "object"])


# Masks of images ------------------------------------------------------------------------------


def test_masks_are_those_of_the_part_that_the_network_reads():
    """Breaks if masks are not cropped as the image is, or a sliver that is cut off counts."""
    masks = {"left": np.zeros((6, 12), bool), "corner": np.zeros((6, 12), bool)}
    masks["left"][:, :6] = masks["corner"][:, 0] = True

    def reader(i):
        return Image.fromarray(np.uint8(np.linspace(0, 255, 216).reshape(6, 12, 3)))

    class Masks:
        categories, fingerprint = dict.fromkeys(masks, "object"), "two"

        def __call__(self, i):
            return masks

    probe = ImageSet("two", "two", ("a", "b"), (None, None), (), reader, masks=Masks())
    square = v2.Compose([v2.CenterCrop(6), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])
    model = nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    target = targets.wrap(model, square, ("x", "y"), "crops")
    found = localization.visible_masks(target, probe, (12, 12))
    assert len(found) == 2 and found[1].keys() == {"left"}  # the corner lies outside the crop
    expected = torch.zeros(12, 12, dtype=torch.bool)
    expected[:, :6] = True
    assert torch.equal(found[0]["left"], expected)
    assert localization.visible_masks(target, replace(probe, masks=None), (12, 12)) == []


def test_masks_of_the_world_are_as_they_were_painted():
    target, probe = targets.load("world/conv"), world.image_set(5, 3)
    for i, found in enumerate(localization.visible_masks(target, probe, (64, 64))):
        assert found.keys() == probe.masks(i).keys()
        assert all((found[w].numpy() == mask).all() for w, mask in probe.masks(i).items())
