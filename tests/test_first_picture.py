"""The README's first picture: its facts are true, and the caption says them."""

import json
from pathlib import Path
from types import SimpleNamespace

import first_picture
import photographs
import picture
import pytest
import torch
from PIL import Image

from wwwlib import images, maps, targets, world
from wwwlib.contributions import forward

ROOT = Path(__file__).resolve().parents[1]
KNOWN = json.loads((ROOT / f"{first_picture.NAME}.json").read_text(encoding="utf-8"))


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


def test_random_masks_are_as_large_as_the_regions_of_the_neurons():
    region = torch.zeros(2, 24, 36, dtype=torch.bool)
    region[0, :8, :8] = region[1, 4:12, 4:12] = True
    union, noise = first_picture.masks(region)
    assert union.sum() == 64 + 64 - 16 and (noise.sum((1, 2)) == union.sum()).all()
    assert len({tuple(one.flatten().tolist()) for one in noise}) == first_picture.DRAWS


def test_random_neurons_are_other_active_ones():
    active, own = torch.tensor([2, 3, 5, 7, 11, 13]), torch.tensor([3, 11])
    found = first_picture.random_sets(active, own)
    assert found.shape == (first_picture.DRAWS, 2) and {*found.flatten().tolist()} == {2, 5, 7, 13}
    assert (found[:, 0] != found[:, 1]).all()


def test_a_share_is_compared_with_all_others():
    found = first_picture.higher_than(torch.tensor([0.2, 1.0, 0.5, 1.0, 0.1]))
    assert found.tolist() == [0.25, 0.75, 0.5, 0.75, 0]


def test_patches_of_other_photographs_are_left():
    left = first_picture.others(photographs.patches())
    assert {first_picture.source(name) for name in left.names} == (
        photographs.SHOWN.keys() - {first_picture.PHOTO}
    )


def test_pixels_are_blurred_where_they_are_hidden_only():
    x = torch.rand(3, 30, 30)
    hidden = torch.zeros(2, 30, 30, dtype=torch.bool)
    hidden[0, :, :15] = True
    first, second = first_picture.blurred(x, hidden)
    assert torch.equal(second, x) and torch.equal(first[:, :, 15:], x[:, :, 15:])
    assert first[:, :, :15].std() < x[:, :, :15].std() / 2


def test_neurons_are_set_to_zero_as_by_a_hook():
    network, sets = targets.load("world/conv"), torch.tensor([[3, 40], [7, 108]])
    x = network.preprocess(world.image_set(9, 5).image(8))
    found = picture.without_neurons(network, x, "layer4", sets)
    for own, p in zip(sets, found, strict=True):

        def silence(module, inputs, output, own=own):
            return output.index_fill(1, own, 0)

        handle = network.model.get_submodule("layer4").register_forward_hook(silence)
        expected = picture.probabilities(network, x[None])[0]
        handle.remove()
        assert torch.allclose(p, expected, atol=1e-4)


def test_regions_are_those_of_all_active_neurons(monkeypatch):
    monkeypatch.setattr(first_picture, "LAYER", "layer4")
    network = targets.load("world/conv")
    x = network.preprocess(world.image_set(9, 5).image(8))
    active, region = first_picture.regions(network, x)
    with torch.inference_mode():
        a = forward(network, x[None], ["layer4"])[1]["layer4"].raw[0]
    assert 0 < len(active) <= len(a) and region.shape == (len(active), *x.shape[1:])
    for i in range(len(a)):
        assert (i in active.tolist()) == (a[i].max().item() > 0)
    mask = maps.region(a[None, active[3:4]], size=tuple(x.shape[1:]))[0, 0]
    assert torch.equal(region[3], mask)


def test_a_region_is_compared_with_the_outline_of_the_object(monkeypatch):
    square = ((0.5, 0.25), (0.99, 0.25), (0.99, 0.74), (0.5, 0.74))
    monkeypatch.setattr(first_picture, "OUTLINE", square)
    assert first_picture.outlined((80, 80)).double().mean().item() == pytest.approx(1 / 4, abs=0.01)
    region = torch.zeros(2, 80, 80, dtype=torch.bool)
    region[0, 30:50, 20:60] = region[1, 30:50, 50:60] = True
    assert first_picture.on_object(region).tolist() == [0.5, 1]


@pytest.mark.parametrize(("count", "said"), [(0, "None of 20"), (3, "masks of that size 3 lower")])
def test_regions_are_compared_with_random_pixels(count, said):
    assert said in first_picture.verdict({"predicted": "otter", "random as low": count})


FACTS = {
    "photograph": "cat.jpg", "predicted": "otter", "probability": 0.81, "share": 0.22,
    "layer size": 1280, "patches": 119, "photographs": 9, "named": 456, "r_words": "r = .90",
    "neurons": [
        {"names": ["fur", "hair"], "name without": "fur", "of the photograph": 3, "patches": 5,
         "on": 0.44, "higher than": 0.61},
        {"names": ["ear"], "name without": "fur", "of the photograph": 4, "patches": 5,
         "on": 0.05, "higher than": 0.02},
        {"names": [], "name without": None, "of the photograph": 2, "patches": 5,
         "on": 0.33, "higher than": 0.35},
    ],
    "active": 701, "on, active": 0.4, "many": 50, "rest": 31, "on, rest": 0.58,
    "agreement": {"names": 0.41, "shuffled": 0.12, "best": 0.93}, "area": 0.31,
    "blurred": 0.13, "random blurred": 0.62, "alone": 0.5, "random as low": 2,
    "without": 0.52, "without random": 0.79, "credited": ["cat.jpg", "flower.jpg"],
}  # fmt: skip


def test_the_caption_says_what_the_facts_say():
    short, long = first_picture.caption(FACTS), first_picture.details(FACTS)
    for part in (
        "Why is this an otter?", "(81 %)",
        "2 of the 3 neurons that contribute most are named *fur* or *ear*; names are untested, as",
        "7 of the 10 patches that gave them", "without which 1 of these neurons keeps the name",
        "44 %, 5 % and 33 % of their regions are on",
        "all active neurons 40 %", "otter at 52 %", "random active ones at 79 %", "is at 13 %",
        "pixels at 62 %",
    ):  # fmt: skip
        assert part in short, part
    for part in (
        "*otter*", "119 patches", "[9 photographs]", "7 of the 10 patches that gave them",
        "1 of the 2 neurons keeps the name.", "The 3 neurons carry 22 %",
        "58 % of the regions of the 31 among the 50 largest contributors that are not named so",
        "On average 40 % of the regions of all 701 neurons active there are on", "456 of 1,280",
        "41 % of their",
        "shuffled names 12 %", "best words 93 %", "31 % of the pixels", "2 lower otter",
    ):  # fmt: skip
        assert part in long, part


def test_the_caption_says_so_if_no_neuron_has_a_name():
    none = [n | {"names": [], "name without": None} for n in FACTS["neurons"]]
    facts = FACTS | {"neurons": none}
    short, long = first_picture.caption(facts), first_picture.details(facts)
    assert "None of the 3 neurons that contribute most is named. **Where**" in short
    assert "active there are on the building. The 3" in long
    assert "untested" not in short + long


def test_the_pages_say_what_the_published_facts_say():
    """Breaks if a caption is edited by hand, or its code without the pages."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert first_picture.readme(text, KNOWN) == text
    text, words = first_picture.TRUST.read_text(encoding="utf-8"), first_picture.details(KNOWN)
    assert picture.filled(text, first_picture.BEGIN, first_picture.END, words) == text


def test_the_picture_is_drawn_with_the_words_of_the_facts():
    image, heat = Image.new("RGB", (64, 64), "navy"), torch.rand(64, 64)
    region = torch.zeros(64, 64, dtype=torch.bool)
    region[10:30, 20:40] = True
    neurons = [
        SimpleNamespace(names=n["names"], region=region, contribution=0.1, exemplars=[0, 1, 4])
        for n in FACTS["neurons"]
    ]
    e = SimpleNamespace(image=image, probability=0.81, cls=SimpleNamespace(heatmap=heat),
                        sample=SimpleNamespace(neurons=neurons, heatmap=heat))  # fmt: skip
    book = SimpleNamespace(thumbnails={0: image, 4: image})
    assert picture.exemplars_drawn(neurons[0], book) == [0, 4]
    figure = first_picture.draw(FACTS, e, book, [image] * 3)
    said = [text.get_text() for axes in figure.axes for text in axes.texts]
    for part in ("fur, hair", "no name", "untested; 44 % on the building,", "otter, 81 %",
                 "33 % on the building,", "higher than 61 % of active neurons"):  # fmt: skip
        assert part in said, part
    wide, tall = figure.get_size_inches() * figure.dpi
    for axes in figure.axes:
        for text in axes.texts:
            box = text.get_window_extent()
            assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= wide and box.y1 <= tall, text


def test_the_photographs_in_the_picture_are_credited():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = " ".join(text.partition(first_picture.BEGIN)[2].split(first_picture.END)[0].split())
    assert KNOWN["photograph"] in KNOWN["credited"]
    for name in KNOWN["credited"]:
        author, terms, link = photographs.CREDITS[name]
        assert f"({link}) by {author}, {terms}" in block


@pytest.mark.real
def test_the_facts_are_those_of_the_network(real_weights):
    """Breaks if the network or the photograph changed, and the picture did not."""
    target = targets.from_module(
        photographs.network(real_weights / "efficientnet_lite0.safetensors")
    )
    photos = images.folder(photographs.PHOTOS, progress=False)
    x = target.preprocess(photos.image(photos.names.index(KNOWN["photograph"])))
    c = target.classes.index(KNOWN["predicted"])
    active, region = first_picture.regions(target, x)
    assert len(active) == KNOWN["active"]
    own = [active.tolist().index(n["index"]) for n in KNOWN["neurons"]]
    on = first_picture.on_object(region)
    assert on.mean().item() == pytest.approx(KNOWN["on, active"], abs=0.01)
    for key, found in (("on", on), ("higher than", first_picture.higher_than(on))):
        assert found[own].tolist() == pytest.approx([n[key] for n in KNOWN["neurons"]], abs=0.02)
    union, _ = first_picture.masks(region[own])
    assert union.double().mean().item() == pytest.approx(KNOWN["area"], abs=0.01)
    inputs = torch.cat([x[None], first_picture.blurred(x, torch.stack([union, ~union]))])
    p = picture.probabilities(target, inputs)[:, c].tolist()
    expected = [KNOWN[key] for key in ("probability", "blurred", "alone")]
    assert p == pytest.approx(expected, abs=0.01)
    sets = torch.cat([active[own][None], first_picture.random_sets(active, active[own])])
    p = picture.without_neurons(target, x, photographs.LAYER, sets)[:, c]
    assert p[0].item() == pytest.approx(KNOWN["without"], abs=0.01)
