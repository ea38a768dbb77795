"""The same neurons, and the same image, named by every method."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from yaml import safe_load

from wwwlib import images, targets, world
from wwwlib.contributions import taylor
from wwwlib.exemplars import Exemplars
from wwwlib.studies import datasets, qualitative
from wwwlib.studies.qualitative import (
    LayerNames,
    class_contributions,
    classes_without_images,
    neuron_names,
)
from wwwlib.studies.tables import MethodNames

PHOTOS = Path(__file__).resolve().parents[1] / "papermill_runs" / "profiles" / "photos.yaml"


@pytest.fixture(scope="module")
def target():
    return targets.load("world/conv")


@pytest.fixture(scope="module")
def probe():
    return world.image_set(48, 0)


def layer(name, count, answers, truth):
    index = torch.arange(count * 3).view(count, 3) % 48
    index[0, 2] = -1
    none = torch.zeros(1, count)
    status = torch.zeros(count, dtype=torch.int8)
    top = Exemplars(index, torch.zeros(count, 3), status, none, none, torch.zeros(1), 48)
    return LayerNames(name, top, answers, truth)


def test_what_a_neuron_is_called_by_hand(probe):
    """A right and a wrong name, silence, a method not run; and a neuron of unknown truth."""
    answers = {
        "WWW": MethodNames([["Boat", "sea"], ["sun"]]),
        "mute": MethodNames([[], []]),
        "MILAN": MethodNames(),
    }
    known = layer("l", 2, answers, {0: ["boat"]})
    one = known.neuron(0, probe, None, "here: ")
    assert one.title == "here: neuron 0 of l" and one.truth == ("boat",)
    assert one.names == {"WWW": (("Boat", "right"), ("sea", "wrong")), "mute": (), "MILAN": None}
    assert len(one.pictures) == 2, "an exemplar that is missing is left out"
    other = known.neuron(1, probe, None, "")
    assert other.truth == () and other.names["WWW"] == (("sun", None),)
    assert len(other.pictures) == 3 and not other.hidden and one.hidden


def test_hidden_neurons_are_those_of_the_largest_class_contribution(target, probe):
    """Against a plain mean of Eq. 3 over the class's images, one image at a time."""
    classes = [int(probe.label(0)), int(probe.label(5))]
    found = class_contributions(target, probe, "layer4", classes, progress=False)
    for row, c in zip(found, classes, strict=True):
        own = [i for i in range(len(probe)) if probe.label(i) == c]
        literal = sum(
            taylor(target, target.preprocess(probe.image(i))[None], "layer4", c)[0].double()
            for i in own
        ) / len(own)  # fmt: skip
        torch.testing.assert_close(row, literal, rtol=1e-4, atol=1e-6)
    silent = {"WWW": MethodNames([[]] * 128)}
    final = layer("logits", 24, {"WWW": MethodNames([[]] * 24)}, {})
    called = neuron_names(
        target, probe, final, layer("layer4", 128, silent, {}), classes, progress=False
    )
    assert [one.hidden for one in called] == [False, True, True] * 2
    assert called[0].title == f"neuron {classes[0]} of logits"
    for place, row in ((1, found[0]), (4, found[1])):
        best = row.argsort(descending=True)[:2].tolist()
        told = [called[place + i].title.rsplit(": ")[1] for i in (0, 1)]
        assert told == [f"neuron {n} of layer4" for n in best]
        assert called[place].title.startswith(f"1. {row.max() / row.sum():.0%} of the contr")


def test_a_class_without_images_is_refused(target, probe):
    only = images.subset(probe, [i for i in range(48) if probe.label(i) != 3])
    with pytest.raises(
        ValueError, match="is of class 3 of world/conv; choose classes among the 23"
    ):
        class_contributions(target, only, "layer4", [3], progress=False)


@pytest.mark.real
@pytest.mark.parametrize("count", [160, 640])
def test_classes_of_profile_photos_are_pictured(real, count):
    """Else Figure 3 is left out of the run that shows whether it can be drawn at all."""
    asked = safe_load(PHOTOS.read_text())["notebooks"]["04_quantitative_tables"]["pictured"]
    shown = datasets.load("imagenet", real / "photos", count, 0).labels
    assert asked and set(asked) <= set(shown)


def test_a_probe_set_of_other_classes_shows_none(target, probe):
    other = targets.load("timm/test_resnet", "random")
    assert classes_without_images(other, probe, [2, 5]) == [2, 5]
    assert classes_without_images(target, probe, [2, 5]) == []
    sharks = replace(probe, classes=("great_white_shark",), labels=(0,) * len(probe))
    assert classes_without_images(other, sharks, [2, 5]) == [5], "a folder of some of its classes"


# One image


@pytest.fixture(scope="module")
def asked(target, probe):
    return qualitative.predict(
        target, probe.image(1), "layer4", truth=target.classes[probe.label(1)]
    )


def test_all_are_asked_about_the_neurons_that_carry_the_prediction(target, probe, asked):
    """A linear head follows layer4: the shares are those of |W z|."""
    w = taylor(target, target.preprocess(probe.image(1))[None], "layer4")[0]
    assert list(asked.neurons) == w.argsort(descending=True)[:3].tolist()
    assert asked.title.startswith("predicted: ") and asked.title.endswith(", correct")
    assert qualitative.predict(target, probe.image(1), "layer4", truth="x").title.endswith(
        "; the truth is x"
    )
    assert asked.image.size == (64, 64) and all(str(n) in asked.about for n in asked.neurons)
    names = [[f"w{n}"] for n in range(128)]
    names[asked.neurons[1]] = []
    own = qualitative.explain_www(asked, names, class_w=asked.found.w[0])
    first, second, third = asked.neurons
    assert own.what == (f"{first}: w{first}", f"{second}: no concept", f"{third}: w{third}")
    share = (w[first] / w.sum()).item()
    assert own.why[0] == f"neuron {first}: {share:.0%}" and own.why[-1].endswith("r = 1.00")
    assert own.where.shape == (64, 64) and own.where.amin() >= 0


def test_methods_say_no_more_than_they_can(target, asked):
    names = [["a", "b"]] * 128
    named = qualitative.explain_names("MILAN", asked, names)
    assert named.where is None and named.why is None and named.what[0].endswith(": a, b")
    seen = qualitative.explain_dissection(asked, names, torch.full((128,), torch.inf))
    assert seen.where.dtype == torch.bool and not seen.where.any() and seen.why is None
    assert qualitative.explain_www(asked, names, None).why[-1] == "its class: not known"
    assert not qualitative.explain_names("MILAN", asked, None).ran
    cam = qualitative.explain_grad_cam(target, asked)
    assert cam.what is None and cam.why is None and cam.where.shape == (64, 64)


def test_images_of_the_predicted_class_leave_the_image_itself_out(target, probe, asked):
    c = asked.cls
    own = [i for i in range(48) if probe.label(i) == c]
    found = qualitative.images_of_class(target, asked, probe)
    assert [found.names[i] for i in range(len(found))] == [probe.names[i] for i in own]
    w = class_contributions(target, found, "layer4", [c], progress=False)
    torch.testing.assert_close(w, class_contributions(target, probe, "layer4", [c], progress=False))
    apart = qualitative.images_of_class(target, asked, probe, without=probe.names[1])
    assert len(apart) == len(own) - 1 and probe.names[1] not in list(apart.names)
    alone = images.subset(probe, [1])
    assert qualitative.images_of_class(target, asked, alone, probe.names[1]) is None
    none = images.subset(probe, [i for i in range(48) if probe.label(i) != c])
    assert qualitative.images_of_class(target, asked, none) is None
    assert "no image of this class" in qualitative.explain_craft(target, asked, none).what[0]


def test_craft_shows_crops_for_names(target, asked):
    found = qualitative.explain_craft(
        target, asked, world.image_set(480, 0), concepts=3, perturbed=1, samples=2
    )
    assert found.where.shape == (64, 64) and len(found.pictures) == 4
    assert found.why[0].startswith("concept 1: Sobol index ") and len(found.why) == 3


def test_craft_says_of_how_many_images_its_concepts_come(target, asked):
    """Twenty of a class of the world's 480; the image asked about may be one of them, or alone."""
    probe, few = world.image_set(480, 0), {"concepts": 3, "perturbed": 1, "samples": 2}
    own = qualitative.images_of_class(target, asked, probe)
    seen = qualitative.explain_craft(target, asked, probe, **few).what[0]
    assert "from 20 other images of the class; crops, no name" in seen
    seen = qualitative.explain_craft(target, asked, probe, name=own.names[0], **few).what[0]
    assert "from 20 images of the class with this one;" in seen
    alone = images.subset(own, [0])
    assert (
        "from this image alone;"
        in qualitative.explain_craft(target, asked, alone, name=own.names[0], **few).what[0]
    )
    assert (
        "from 1 other image of the class"
        in qualitative.explain_craft(target, asked, alone, **few).what[0]
    )


def test_only_what_craft_cannot_take_apart_is_answered_with_nothing(target, asked):
    """A wrong argument is nobody's answer, and is not swallowed."""
    probe = world.image_set(96, 0)
    told = qualitative.explain_craft(target, asked, probe, layer="layer4.0").what[0]
    assert told.startswith("none: The layer 'layer4.0' of world/conv has values down to")
    with pytest.raises(ValueError, match="samples is 12"):
        qualitative.explain_craft(target, asked, probe, samples=12)
