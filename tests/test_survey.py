"""Reading whole sets of explanations: against loops over neurons, and against one image alone."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.transforms.functional import pil_to_tensor

from wwwlib import atlas, contributions, images, language, maps, targets, world
from wwwlib.activations import capture
from wwwlib.store import Store
from wwwlib.studies.survey import (
    READINGS,
    Surveyed,
    distinct,
    named_tracks,
    readings,
    survey,
)


def literal_reading(a, w, general, k, size):
    """Compute r, overlap and the share carried of one image with loops over neurons."""
    best = [sorted(range(len(w)), key=lambda i: (-x[i], i))[:k] for x in (w, general)]

    a, w, general = a.double(), w.double(), general.double()

    def heat(weights, chosen):
        large = maps.resize(a[None], size)[0]
        total = sum(max(weights[i].item(), 0) for i in chosen)
        return sum(max(weights[i].item(), 0) / total * large[i] for i in chosen).flatten()

    def cosine(u, v):
        return (u @ v / u.norm() / v.norm()).item()

    mine, theirs = best
    return {
        "r": cosine(heat(w, mine), heat(general, theirs)),
        "r_sample": cosine(heat(w, mine), heat(general, mine)),
        "r_class": cosine(heat(w, theirs), heat(general, theirs)),
        "overlap": len(set(mine) & set(theirs)) / k,
        "correlation": np.corrcoef(w.numpy(), general.numpy())[0, 1],
        "carried": sum(w[i].item() for i in mine) / w.sum().item(),
    }


def test_readings_agree_with_loops_over_neurons():
    """Breaks if r is rounded to float32, in which most heatmaps that nearly agree tie."""
    noise = torch.Generator().manual_seed(3)
    a = torch.randn(4, 9, 3, 3, generator=noise)
    w, general = torch.rand(4, 9, generator=noise), torch.rand(4, 9, generator=noise)
    found = readings(a, w, general, 3, 8)
    for i in range(4):
        for name, value in literal_reading(a[i], w[i], general[i], 3, 8).items():
            assert found[name][i].item() == pytest.approx(value, abs=1e-13), name


def test_one_shared_neuron_makes_both_heatmaps_one():
    """Breaks if rounding orders images between which there is nothing to choose."""
    noise = torch.Generator().manual_seed(4)
    a = torch.randn(60, 9, 4, 4, generator=noise)
    w, general = torch.rand(60, 9, generator=noise), torch.rand(60, 9, generator=noise)
    found = readings(a, w, general, 1, 16)
    assert (found["r_sample"] == 1).all() and (found["r_class"] == 1).all()


def test_an_image_like_its_class_agrees_and_with_an_unknown_class_there_is_nothing_to_compare():
    """Breaks if a class without images counts as agreement, or stops the whole batch."""
    a, w = torch.rand(3, 6, 4, 4), torch.rand(3, 6)
    general = w.clone()
    general[1], general[2] = torch.nan, 0.0
    found = readings(a, w, general, 2)
    for name, read in found.items():
        assert read[1:].isnan().all(), name
        if name != "carried":
            assert read[0].item() == pytest.approx(1, abs=1e-6), name


@pytest.fixture(scope="module")
def toy():
    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module("conv", nn.Conv2d(3, 6, 5, 4))
    model.add_module("relu", nn.ReLU())
    model.add_module("late", nn.Conv2d(6, 8, 3))
    model.add_module("pool", nn.AdaptiveAvgPool2d(1))
    model.add_module("flat", nn.Flatten())
    model.add_module("fc", nn.Linear(8, 4))
    return targets.wrap(
        model.eval(), lambda i: pil_to_tensor(i.resize((64, 64))).float() / 255, list("abcd"), "toy"
    )


def test_a_survey_reads_every_image_as_it_would_alone(toy):
    """Breaks if batches, layers or classes are mixed up on their way through the pass."""
    tested, layers = world.image_set(10, 5), ("relu", "late")
    sizes = {"relu": 6, "late": 8}
    class_w = {layer: torch.rand(4, sizes[layer]) for layer in layers}
    found = survey(toy, tested, class_w, (2, 3), batch_size=4, progress=False)
    assert list(found.readings) == [("relu", 2), ("relu", 3), ("late", 2), ("late", 3)]
    for i in (0, 5, 9):
        x = toy.preprocess(tested.image(i))[None]
        with capture(toy, ["late"]) as taken, torch.no_grad():
            logits = toy.model(x)
        torch.testing.assert_close(found.logits[i], logits[0])
        c = logits.argmax(1)
        assert found.predicted[i] == c
        w = contributions.taylor(toy, x, "late", c)
        one = readings(taken["late"].maps, w, class_w["late"][c], 3, (64, 64))
        assert found.readings["late", 3]["r"][i].item() == pytest.approx(one["r"].item(), abs=1e-5)


def test_a_stored_survey_is_that_of_its_class_side_alone(toy, tmp_path):
    """Breaks if another class side, such as a leaking one, is answered from the store."""
    store, tested = Store(tmp_path), world.image_set(6, 5)
    one, two = ({"late": torch.rand(4, 8)} for _ in range(2))
    first, again, other = (
        survey(toy, tested, w, (3,), store=store, progress=False) for w in (one, one, two)
    )
    key = ("late", 3)
    assert torch.equal(first.readings[key]["r"], again.readings[key]["r"])
    assert not torch.equal(first.readings[key]["r"], other.readings[key]["r"])


def test_some_images_of_a_survey_keep_their_own_values():
    """Breaks if logits, predictions and readings part ways."""
    read = dict(zip(READINGS, torch.rand(6, 5), strict=True))
    whole = Surveyed(torch.rand(5, 3), torch.arange(5), {("late", 3): read})
    for chosen in (torch.tensor([False, True, False, False, True]), torch.tensor([1, 4])):
        some = whole.at(chosen)
        assert some.predicted.tolist() == [1, 4]
        assert torch.equal(some.logits, whole.logits[[1, 4]])
        assert torch.equal(some.readings["late", 3]["overlap"], read["overlap"][[1, 4]])


# Names ---------------------------------------------------------------------------------------


class Colours:
    """An encoder that sees nothing but the mean colour, and reads letters as if it could."""

    name, dim = "colours", 3

    def preprocess(self, image):
        pixels = torch.frombuffer(bytearray(image.resize((8, 8)).tobytes()), dtype=torch.uint8)
        return pixels.view(8, 8, 3).permute(2, 0, 1) / 255

    def encode_images(self, x):
        return torch.nn.functional.normalize(x.mean((2, 3)), dim=1)

    def encode_texts(self, texts):
        rows = [[sum(map(ord, text)) % prime for prime in (7, 11, 13)] for text in texts]
        return torch.nn.functional.normalize(torch.tensor(rows).float() + 1, dim=1)


@pytest.mark.parametrize("layer", ["layer4", "layer3"])
def test_names_equal_those_of_explain(layer):
    """Breaks if neurons are chosen or ordered in another way, or a batch mixes its images."""
    torch.manual_seed(0)
    target = targets.load("world/conv", "random")
    probe, asked = world.image_set(48, 3), world.image_set(7, 4)
    words = language.ConceptSet(world.SEEN[:40])
    book = atlas.build(target, probe, Colours(), words, [layer], k=2, progress=False)
    record = book.layer(layer)
    found = named_tracks(
        target, asked, layer, record.major.names, record.class_w, top=3, batch_size=3
    )
    for i in range(len(asked)):
        one = book.explain(asked.image(i), top=3)
        assert found.predicted[i] == one.predicted
        assert found.sample[i] == [name for n in one.sample.neurons for name in n.names]
        assert found.cls[i] == [name for n in one.cls.neurons for name in n.names]
    assert any(found.sample)


def test_a_class_without_images_is_refused():
    target = targets.load("world/conv", "random")
    unknown = torch.full((len(target.classes), 128), torch.nan)
    with pytest.raises(ValueError, match="without finite contributions"):
        named_tracks(target, world.image_set(2, 4), "layer4", [["a"]] * 128, unknown)


def test_images_of_the_class_side_are_refused_by_name():
    whole = world.image_set(30, 1)
    known, tested = images.subset(whole, range(20)), images.subset(whole, range(19, 30))
    with pytest.raises(ValueError, match=r"'world-1/000019' is also in 'world-1"):
        images.check_apart(known, tested)
    images.check_apart(known, images.subset(whole, range(20, 30)))
    images.check_apart(known, world.image_set(30, 2))


def test_one_name_with_other_pixels_is_another_image():
    images.check_apart(world.image_set(3, 1, 1.0), world.image_set(3, 1, swap=True))


def test_one_photograph_under_two_names_is_one_image(tmp_path):
    """Breaks if a copy under another name may be on both sides."""
    for side, names in (("known", "ab"), ("tested", "cde")):
        (tmp_path / side).mkdir()
        for name in names:
            colour = {"a": "red", "b": "green", "c": "blue", "d": "green", "e": "green"}[name]
            Image.new("RGB", (4, 4), colour).save(tmp_path / side / f"{name}.png")
    known, tested = (images.folder(tmp_path / side) for side in ("known", "tested"))
    for some in (tested, images.subset(tested, [1])):
        with pytest.raises(ValueError, match=r"'d.png' is also .* as 'b.png'"):
            images.check_apart(known, some)
    images.check_apart(known, images.subset(tested, [0]))
    assert distinct(tested).names == ("c.png", "d.png")
    assert distinct(known) is known
    drawn = world.image_set(6, 1)
    assert distinct(drawn) is drawn and drawn.sha256(0) is None
    assert images.crops(known).sha256(0) is None, "a part of a file is not the file"


def test_halves_share_no_image_and_split_every_class():
    labels = [0] * 6 + [1] * 5 + [2] + [None] * 4
    first, second = images.halves(labels, seed=3)
    assert sorted(first + second) == list(range(16))
    for kind, count in ((0, 6), (1, 5), (2, 1), (None, 4)):
        inside = sum(labels[i] == kind for i in first)
        assert abs(2 * inside - count) <= 1, kind
    assert (first, second) == images.halves(labels, seed=3) != images.halves(labels, 4)
