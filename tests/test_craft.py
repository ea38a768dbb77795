"""CRAFT: factorisation, Sobol indices and concept maps against slower ways to the same numbers."""

import sys

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn
from torchvision.transforms.functional import pil_to_tensor

from wwwlib import images, targets, world
from wwwlib.baselines import craft


def preprocess(image):
    return pil_to_tensor(image.resize((12, 12))).double() / 255


def network(head):
    """Three maps, the colours themselves, pooled and weighted by a head (2, 3)."""
    model = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    model = model.double()
    with torch.no_grad():
        model[3].weight.copy_(torch.tensor(head))
        model[3].bias.zero_()
    return targets.wrap(model, preprocess, ["a", "b"], "colours")


@pytest.fixture(scope="module")
def conv():
    return targets.load("world/conv")


@pytest.fixture(scope="module")
def boats(conv):
    """CRAFT of the class boat, and forty images of boats."""
    own = images.subset(world.image_set(960, seed=0), range(3, 960, 24))
    assert world.CLASSES[own.label(0)] == "boat"
    return own, craft.craft(conv, "layer4", own, own.label(0), concepts=6)


def test_amounts_are_the_best_non_negative_ones():
    """A general optimiser finds no better amounts at any position."""
    a, bank = torch.rand(1, 5, 2, 3), torch.rand(3, 5).double()
    u = craft.factorise(a, bank)
    assert u.shape == (1, 3, 2, 3) and (u >= 0).all()

    def gap(amount, goal):
        return float(((amount @ bank.numpy() - goal) ** 2).sum())

    for y in range(2):
        for x in range(3):
            goal = a[0, :, y, x].double().numpy()
            found = minimize(gap, np.full(3, 0.3), (goal,), bounds=[(0, None)] * 3, tol=1e-12)
            assert gap(u[0, :, y, x].numpy(), goal) <= found.fun + 1e-9


def test_sobol_indices_of_a_known_function():
    """Before a pooled linear head the logit is linear in the masks: index = share of squares."""
    target, bank = network([[3.0, 1.0, 0.0], [0.0, 0.0, 1.0]]), torch.eye(3).double()
    x = torch.rand(1, 3, 12, 12, dtype=torch.float64)
    found = craft.sobol(target, "0", x, 0, bank, samples=2048)
    part = x.mean((0, 2, 3)) * torch.tensor([3.0, 1.0, 0.0]).double()
    assert found.tolist() == pytest.approx((part.square() / part.square().sum()).tolist(), abs=0.02)


def test_what_the_logit_does_not_vary_with_has_no_importance():
    target = network([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    x = torch.rand(1, 3, 12, 12, dtype=torch.float64)
    assert craft.sobol(target, "0", x, 0, torch.eye(3).double(), 4).tolist() == [0.0] * 3


def test_all_concepts_at_full_amount_give_back_the_logit():
    """Breaks if the network goes on with anything else than the activations put together again."""
    target, bank = network([[3.0, 1.0, -2.0], [0.0, 0.0, 1.0]]), torch.eye(3).double()
    x = torch.rand(1, 3, 12, 12, dtype=torch.float64)
    u = craft.factorise(x, bank)[0]
    ones = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]]).double()
    full, first = craft._logits(target, "0", x, 0, u, bank, ones)
    assert full == pytest.approx(target.model(x)[0, 0].item())
    assert first == pytest.approx(3 * x[0, 0].mean().item())


@pytest.mark.parametrize("patch, side", [(0.5, 6), (0.33, 4), (1.0, 12), (0.05, 1)])
def test_crops_cover_the_image_and_are_what_lies_there(patch, side):
    x = torch.rand(2, 3, 12, 12)
    cut, patches = craft.crops(x, patch)
    assert cut.shape == (len(patches), 3, 12, 12)
    covered = torch.zeros(2, 12, 12, dtype=torch.bool)
    for one, (i, left, top, right, bottom) in zip(cut, patches, strict=True):
        assert right - left == bottom - top == side
        covered[i, top:bottom, left:right] = True
        piece = x[i : i + 1, :, top:bottom, left:right]
        large = nn.functional.interpolate(piece, (12, 12), mode="bilinear", align_corners=False)
        assert torch.equal(one, large[0])
    assert covered.all()


def test_the_factorisation_is_non_negative_and_says_what_it_leaves_out(conv, boats):
    own, found = boats
    assert found.bank.shape == (6, 128) and (found.bank >= 0).all()
    assert found.importance.tolist() == sorted(found.importance.tolist(), reverse=True)
    x = torch.stack([conv.preprocess(own.image(i)) for i in range(len(own))])
    a = craft.pooled(conv, "layer4", craft.crops(x, 0.33)[0])
    u = craft.factorise(a[:, :, None, None], found.bank)[:, :, 0, 0]
    left_out = torch.linalg.norm(a - u @ found.bank) / torch.linalg.norm(a)
    assert left_out.item() <= found.error + 1e-3  # exact amounts fit at least as well as NMF's own
    assert found.error < 0.5
    assert all(0 <= i < len(own) for row in found.patches for i, *_ in row)


def test_the_same_seed_gives_the_same_answer(conv, boats):
    own, found = boats
    again = craft.craft(conv, "layer4", own, own.label(0), concepts=6)
    assert torch.equal(found.bank, again.bank) and found.patches == again.patches
    assert torch.equal(found.importance, again.importance)


def test_the_heatmap_points_at_the_boat(conv, boats):
    """On held-out images; breaks if maps are transposed or belong elsewhere."""
    test = world.image_set(24 * 12, seed=77)
    hits = []
    for i in range(3, len(test), 24):
        m = boats[1].heatmap(conv, conv.preprocess(test.image(i))[None])[0]
        place = divmod(int(m.argmax()), m.shape[1])
        hits.append(bool(world.render(world.sample(i, 77)).masks["boat"][place]))
    assert sum(hits) >= 10, f"{sum(hits)} of 12"


def test_a_transformer_is_taken_apart_where_its_values_are_not_negative():
    """Maps with neurons last go back into the network in their own order of axes."""

    class Last(nn.Module):
        def forward(self, x):
            return x.permute(0, 2, 3, 1)

    model = nn.Sequential(Last(), nn.ReLU(), nn.Flatten(), nn.Linear(432, 2)).double()
    target = targets.wrap(model, preprocess, ["a", "b"], "last", layouts={"1": "BHWN"})
    x, bank = torch.rand(1, 3, 12, 12, dtype=torch.float64), torch.eye(3).double()
    ones = torch.ones(1, 3, dtype=torch.float64)
    full = craft._logits(target, "1", x, 1, craft.factorise(x, bank)[0], bank, ones)
    assert full[0] == pytest.approx(model(x)[0, 1].item())


@pytest.mark.parametrize("module", ["sklearn.decomposition", "SALib.sample.sobol"])
def test_a_missing_package_is_named_with_its_extra(conv, boats, module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"wwwlib\[baselines\]"):
        craft.craft(conv, "layer4", boats[0], 3, concepts=2, samples=1, perturbed=1)


@pytest.mark.parametrize(
    "options, message",
    [({"class_index": 24}, "Class 24 does not exist; world/conv has 24"),
     ({"concepts": 1}, "concepts is 1"), ({"patch": 0.0}, "patch is 0.0"),
     ({"samples": 12}, "samples is 12; a Sobol sequence needs a power of two"),
     ({"class_index": 5}, "None of the 40 images.*is predicted as"),
     ({"layer": "logits"}, "The layer 'logits' of world/conv has no maps"),
     ({"layer": "layer4.0"}, "has values down to -.*choose a layer after a ReLU"),
     ({"concepts": 9, "patch": 1.0, "cropped": 8}, "8 crops for 9 concepts")],
)  # fmt: skip
def test_errors_name_the_value(conv, boats, options, message):
    call = {"layer": "layer4", "class_index": 3, **options}
    with pytest.raises(ValueError, match=message):
        craft.craft(conv, images=boats[0], **call)
