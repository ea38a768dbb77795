"""The README's first picture: its caption is that of the committed facts, which are true."""

import json
from pathlib import Path
from types import SimpleNamespace

import first_picture
import photographs
import pytest
import torch
from PIL import Image

from wwwlib import images, targets, world

ROOT = Path(__file__).resolve().parents[1]
KNOWN = json.loads((ROOT / f"{first_picture.NAME}.json").read_text(encoding="utf-8"))


def test_the_caption_in_the_readme_is_made_from_the_facts():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert first_picture.readme(text, KNOWN) == text
    with pytest.raises(ValueError, match="0 pairs"):
        first_picture.readme("no picture", KNOWN)
    with Image.open(ROOT / f"{first_picture.NAME}.png") as drawn:
        assert drawn.width > 900
    assert (ROOT / f"{first_picture.NAME}.png").stat().st_size < 400_000


def test_agreement_is_that_of_a_loop():
    """One neuron's patches all show its name, one's do by half, one has a name of nothing shown."""
    cat, cup = "cat.jpg [crop 0]", "coffee.jpg [crop 3]"
    names = ["fur", "cup", None, "banjo"]
    patches = [[cat, cat], [cat, cup], [cat, cat], [cup, cup]]
    found = first_picture.agreement(names, patches)
    assert found["names"] == pytest.approx((1 + 0.5 + 0) / 3)
    assert found["best"] == pytest.approx((1 + 0.5 + 1) / 3)
    assert 0 < found["shuffled"] < found["best"]
    same = first_picture.agreement(["cup"] * 4, [[cup]] * 4)
    assert same == {"names": 1.0, "shuffled": 1.0, "best": 1.0}


def test_random_regions_are_as_large_as_those_of_the_neurons():
    region = torch.zeros(2, 24, 36, dtype=torch.bool)
    region[0, :8, :8] = region[1, 4:12, 4:12] = True
    e = SimpleNamespace(sample=SimpleNamespace(neurons=[SimpleNamespace(region=r) for r in region]))
    union, others = first_picture.regions(e)
    assert union.sum() == 64 + 64 - 16 and (others.sum((1, 2)) == union.sum()).all()
    assert len({tuple(one.flatten().tolist()) for one in others}) == first_picture.DRAWS


def test_pixels_are_blurred_where_they_are_hidden_only():
    x = torch.rand(3, 30, 30)
    hidden = torch.zeros(2, 30, 30, dtype=torch.bool)
    hidden[0, :, :15] = True
    first, second = first_picture.blurred(x, hidden)
    assert torch.equal(second, x) and torch.equal(first[:, :, 15:], x[:, :, 15:])
    assert first[:, :, :15].std() < x[:, :, :15].std() / 2


def test_neurons_are_silenced_as_by_a_hook(monkeypatch):
    monkeypatch.setattr(first_picture, "LAYER", "layer4")
    network, sets = targets.load("world/conv"), torch.tensor([[3, 40], [7, 108]])
    x = network.preprocess(world.image_set(9, 5).image(8))
    found = first_picture.silenced(network, x, sets, 4)
    for own, p in zip(sets, found, strict=True):

        def silence(module, inputs, output, own=own):
            return output.index_fill(1, own, 0)

        handle = network.model.get_submodule("layer4").register_forward_hook(silence)
        expected = first_picture.probability(network, x[None], 4)
        handle.remove()
        assert p.item() == pytest.approx(expected.item(), abs=1e-4)


def test_a_region_is_compared_with_the_outline_of_what_its_name_says(monkeypatch):
    square = ((0.5, 0.25), (0.99, 0.25), (0.99, 0.74), (0.5, 0.74))
    monkeypatch.setattr(first_picture, "OUTLINE", square)
    assert first_picture.outlined((80, 80)).double().mean().item() == pytest.approx(1 / 4, abs=0.01)
    region = torch.zeros(80, 80, dtype=torch.bool)
    region[30:50, 20:60] = True
    neuron = SimpleNamespace(names=("roof", "banjo"), region=region)
    assert first_picture.on_named(neuron, (80, 80)) == 0.5
    neuron.names = ("banjo", "roof")
    assert first_picture.on_named(neuron, (80, 80)) is None


@pytest.mark.parametrize(("count", "said"), [(0, "None of 20"), (3, "masks of that size 3 lower")])
def test_regions_are_compared_with_random_pixels(count, said):
    assert said in first_picture.verdict({"predicted": "otter", "random as low": count})


def test_the_caption_says_what_the_facts_say():
    known = {
        "photograph": "cat.jpg", "predicted": "otter", "probability": 0.81, "share": 0.22,
        "layer size": 1280, "patches": 119, "named": 456, "r": 0.9, "r_words": "r = .90",
        "area of the thing": 0.17,
        "neurons": [{"names": ["fur"], "on": 0.44}, {"names": ["fur"], "on": 0.05},
                    {"names": ["banjo"], "on": None}, {"names": [], "on": None}],
        "agreement": {"names": 0.41, "shuffled": 0.12, "best": 0.93}, "area": 0.31,
        "blurred": 0.13, "random blurred": 0.62, "alone": 0.5, "random as low": 2,
        "silenced": 0.52, "random silenced": 0.79,
    }  # fmt: skip
    said = first_picture.caption(known)
    for part in (
        "Why is this an otter?", "(81 %)", "119 patches", "2 of the 4 neurons", "named *fur*",
        "1 of them", "44 %, 5 % of their regions; it covers 17 %", "456 of 1,280", "41 % of their",
        "shuffled names 12 %", "best words 93 %", "carry 22 %", "otter at 52 %",
        "random ones at 79 %", "31 % of the pixels", "is at 13 %", "pixels at 62 %",
        "2 lower otter",
    ):  # fmt: skip
        assert part in said, part


@pytest.mark.real
def test_the_facts_are_those_of_the_network(real_weights):
    """Breaks if the network or the photograph changed, and the picture did not."""
    target = targets.from_module(
        photographs.network(real_weights / "efficientnet_lite0.safetensors")
    )
    photos = images.folder(photographs.PHOTOS, progress=False)
    x = target.preprocess(photos.image(photos.names.index(KNOWN["photograph"])))
    c = target.classes.index(KNOWN["predicted"])
    p = first_picture.probability(target, x[None], c)
    assert p.item() == pytest.approx(KNOWN["probability"], abs=0.01)
    own = torch.tensor([[n["index"] for n in KNOWN["neurons"]]])
    assert first_picture.silenced(target, x, own, c).item() == pytest.approx(
        KNOWN["silenced"], abs=0.01
    )
