"""The atlas: build, save, load, explain, and their errors."""

import json
import math
import re
import sys
import warnings
from dataclasses import dataclass, fields, replace

import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import interpolate
from torchvision.transforms.functional import pil_to_tensor

from wwwlib import atlas, concepts, evaluation, exemplars, maps, targets, world
from wwwlib.atlas import class_contributions, match_labels
from wwwlib.atlas.explain import likeness, quoted, run_model
from wwwlib.contributions import contribute
from wwwlib.evaluation import Truth
from wwwlib.images import ImageSet, crops, imagenet_synsets, subset
from wwwlib.language import ConceptSet, embed_exemplars
from wwwlib.store import Store, digest
from wwwlib.studies.datasets import class_name, labelled_subset, shown_classes
from wwwlib.world import DATA

CLASSES = ("boat", "tree", "house")
WORDS = ("sail", "leaf", "roof", "<img src=x onerror=alert(1)>", "a*b**", "night", "sea")
SIDE = 12


@dataclass(frozen=True)
class Noise:
    """Image i is always the same noise; it can refuse, once, to go on beyond an image."""

    fail_at: tuple = ()

    def __call__(self, i):
        if self.fail_at and i >= self.fail_at[0]:
            raise RuntimeError("power cut")
        generator = torch.Generator().manual_seed(i)
        pixels = torch.randint(0, 256, (SIDE, SIDE, 3), generator=generator, dtype=torch.uint8)
        return Image.fromarray(pixels.numpy())


def images(count=24, labels=None, classes=CLASSES, **reader):
    labels = tuple(i % 3 for i in range(count)) if labels is None else tuple(labels)
    names = tuple(f"noise {i}" for i in range(count))
    fingerprint = digest({"noise": [count, labels, classes]})
    return ImageSet("noise", fingerprint, names, labels, classes, Noise(**reader))


class Projection:
    """An encoder without weights: fixed random projections of pixels and of a word's letters."""

    name, dim = "projection", 16

    def __init__(self):
        self.calls = 0

    def preprocess(self, image):
        return pil_to_tensor(image.resize((4, 4))).float() / 255 - 0.5

    def encode_images(self, pixels):
        self.calls += 1
        weight = torch.randn(48, self.dim, generator=torch.Generator().manual_seed(7))
        return nn.functional.normalize(pixels.flatten(1) @ weight, dim=1)

    def encode_texts(self, texts):
        seeds = [int(digest(text)[:8], 16) for text in texts]
        rows = [torch.randn(16, generator=torch.Generator().manual_seed(s)) for s in seeds]
        return nn.functional.normalize(torch.stack(rows), dim=1)


def preprocess(image):
    return (pil_to_tensor(image.resize((SIDE, SIDE))).double() / 255 - 0.5) / 0.25


def network(seed=0, bias=0.0, outputs=3):
    """Two hidden layers: "1" has the network after it, "3" pooling and one linear layer."""
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Conv2d(3, 5, 3, stride=2), nn.ReLU(), nn.Conv2d(5, 6, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, outputs),
    ).double()  # fmt: skip
    with torch.no_grad():
        model[6].bias += torch.tensor(bias)
    return model


def tiny(seed=0, bias=0.0, transform=preprocess, classes=CLASSES):
    return targets.wrap(network(seed, bias, len(classes)), transform, classes, "tiny")


def built(target=None, probe=None, encoder=None, layers=("1", "3", "logits"), **options):
    return atlas.build(
        target or tiny(), images() if probe is None else probe, encoder or Projection(),
        ConceptSet(WORDS), layers, **{"k": 4, "batch_size": 5, "progress": False, **options},
    )  # fmt: skip


@pytest.fixture(scope="module")
def made():
    return built()


def same(one, other):
    """Whether two atlases, or any parts of them, hold the same, nan equal to nan."""
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one.nan_to_num(9e9), other.nan_to_num(9e9))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if hasattr(one, "__dataclass_fields__") and not isinstance(one, targets.Target):
        return all(same(getattr(one, f.name), getattr(other, f.name)) for f in fields(one))
    return one == other


# Explaining ---------------------------------------------------------------------------------


def slow(model, layer, x, classes=None):
    """Maps, contributions and prediction of one image, position by position."""
    a = model[: layer + 1](x[None]).detach().requires_grad_()
    logits = model[layer + 1 :](a)
    predicted = int(logits.argmax())
    c = predicted if classes is None else classes
    gradient, a = torch.autograd.grad(logits[0, c], a)[0], a.detach()
    w = []
    for i in range(a.shape[1]):
        total = 0.0
        for row in range(a.shape[2]):
            for column in range(a.shape[3]):
                total += float(a[0, i, row, column] * gradient[0, i, row, column])
        w.append(abs(total))
    return a, w, predicted, logits.detach()[0]


def literal_track(a, w, top):
    """Neurons, their shares, maps and regions, and the heatmap, by the words of the paper."""
    order = sorted(range(len(w)), key=lambda i: (-w[i], i))[:top]
    heatmap, drawn, regions = torch.zeros(SIDE, SIDE, dtype=torch.float64), [], []
    for i in order:
        m = interpolate(a[:, i : i + 1].clamp(min=0), (SIDE, SIDE), mode="bilinear")[0, 0]
        heatmap += w[i] / sum(w[j] for j in order) * m
        level = sorted(m.flatten().tolist())[math.ceil(0.9 * SIDE * SIDE) - 1]
        drawn.append(m)
        regions.append(m > level)
    return order, [w[i] / sum(w) for i in order], drawn, regions, heatmap


@pytest.mark.parametrize("name, layer, rounding", [("1", 1, 1e-12), ("3", 3, 1e-6)])
def test_explain_is_the_literal_computation(made, name, layer, rounding):
    """Breaks if a track takes other neurons, weights or maps than those of Eq. 3 and 4.

    Before the linear head ("3") class contributions come from float32 activations.
    """
    model, probe, picture = network(), images(), Noise()(1000)
    general = torch.zeros(3, len(made.layers[name]), dtype=torch.float64)
    for i in range(24):
        _, w, _, _ = slow(model, layer, preprocess(probe.image(i)), i % 3)
        general[i % 3] += torch.tensor(w, dtype=torch.float64) / 8
    torch.testing.assert_close(made.layers[name].class_w, general, rtol=rounding, atol=1e-12)

    found = made.explain(picture, layer=name, top=3)
    a, w, predicted, logits = slow(model, layer, preprocess(picture))
    p = logits.exp() / logits.exp().sum()
    assert found.predicted == predicted and found.probability == pytest.approx(float(p[predicted]))
    assert found.predicted_name == CLASSES[predicted]
    tracks = (found.sample, w), (found.cls, general[predicted].tolist())
    heatmaps = []
    for track, weights in tracks:
        order, shares, drawn, regions, heatmap = literal_track(a, weights, 3)
        assert [neuron.index for neuron in track.neurons] == order
        assert [neuron.contribution for neuron in track.neurons] == pytest.approx(shares)
        for neuron, m, region in zip(track.neurons, drawn, regions, strict=True):
            torch.testing.assert_close(neuron.map, m)
            assert torch.equal(neuron.region, region)
            assert neuron.names == tuple(made.layers[name].major.names[neuron.index])
            assert neuron.minor == tuple(made.layers[name].minor.names[neuron.index])
            shown = made.layers[name].exemplars.index[neuron.index]
            assert neuron.exemplars == tuple(shown.tolist())
        torch.testing.assert_close(track.heatmap, heatmap)
        heatmaps.append(heatmap.flatten())
    r = heatmaps[0] @ heatmaps[1] / (heatmaps[0].norm() * heatmaps[1].norm())
    assert found.r == pytest.approx(float(r))


def test_class_contributions_before_a_linear_head_equal_those_by_gradient():
    """Breaks if the shortcut and the pass disagree on labels, absolute values or counts."""
    for signed in (False, True):
        short = built(layers=["3"], signed=signed)
        long, count = class_contributions(tiny(), images(), ["3", "logits"], signed, progress=False)
        assert short.layers["3"].exact and not built(layers=["1"]).layers["1"].exact
        assert torch.equal(count, short.class_count)
        # The exemplar pass sums float32 activations.
        torch.testing.assert_close(short.layers["3"].class_w, long["3"], rtol=1e-6, atol=1e-7)


def test_signed_contributions_keep_their_sign_and_the_strongest_evidence_comes_first():
    found = built(signed=True).explain(Noise()(3), "1")
    shares = [neuron.contribution for neuron in found.sample.neurons]
    assert shares == sorted(shares, reverse=True) and min(shares) < 0


@pytest.mark.parametrize("layer, backward", [("1", 1), ("3", 0)])
def test_explaining_runs_the_network_once(layer, backward, monkeypatch):
    made, calls, grads = built(), [], []
    made.target.model.register_forward_hook(lambda *_: calls.append(1))
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *a, **k: grads.append(1) or grad(*a, **k))
    made.explain(Noise()(3), layer)
    assert len(calls) == 1 and len(grads) == backward


@pytest.mark.parametrize("name, layer", [("1", 1), ("3", 3)])
def test_explanations_by_contribution_maps_are_the_literal_computation(made, name, layer):
    """Breaks if maps are not those of the track's class, or are weighted a second time."""
    model, picture = network(), Noise()(1000)
    other = (made.explain(picture, name).predicted + 1) % 3
    found = made.explain(picture, name, 3, cls=other, where="contribution")
    for track in (found.sample, found.cls):
        a = model[: layer + 1](preprocess(picture)[None]).detach().requires_grad_()
        logit = model[layer + 1 :](a)[0, track.class_index]
        c = (a * torch.autograd.grad(logit, a)[0]).detach()
        heatmap = torch.zeros(SIDE, SIDE, dtype=torch.float64)
        for neuron in track.neurons:
            i = neuron.index
            m = interpolate(c[:, i : i + 1].clamp(min=0), (SIDE, SIDE), mode="bilinear")[0, 0]
            torch.testing.assert_close(neuron.map, m)
            heatmap += m
        torch.testing.assert_close(track.heatmap, heatmap)
    usual = made.explain(picture, name, 3, cls=other)
    for one, same_one in ((found.sample, usual.sample), (found.cls, usual.cls)):
        assert [n.index for n in one.neurons] == [n.index for n in same_one.neurons]
    assert found.where == found.to_dict()["where"] == "contribution"
    assert "contributing" in str(found) and "active" not in str(found)
    assert made.explain(picture, name, where="contribution").right_r is None
    with pytest.raises(ValueError, match="where is 'both'; use one of activation, contribution"):
        made.explain(picture, name, where="both")


def test_tokens_are_explained_by_contribution_maps_and_the_last_ones_are_refused():
    """Behind the last attention the class token alone reaches the logits."""
    blocks = [f"encoder.layers.encoder_layer_{i}" for i in (1, 2)]
    probe, target = world.image_set(48, 3), targets.load("world/vit")
    made = built(target, probe, layers=blocks, rounds=0)
    assert made.where(blocks[0]) == "contribution" and made.where(blocks[1]) is None
    found, x = made.explain(probe.image(0), blocks[0]), target.preprocess(probe.image(0))[None]
    one = contribute(target, x, blocks[0], linear=False)
    top = one.w[0].topk(5).indices
    heat = interpolate(one.maps[:, top].clamp(min=0), (64, 64), mode="bilinear")[0].sum(0)
    torch.testing.assert_close(found.sample.heatmap, heat, rtol=1e-4, atol=1e-6)
    assert found.where == "contribution" and made.layers[blocks[1]].right_r is None
    assert len(found.right_r) > 0
    with pytest.raises(ValueError, match=f"no position of '{blocks[1]}', .*; take '{blocks[0]}'"):
        made.explain(probe.image(0), blocks[1])


@pytest.mark.parametrize("where", ["activation", "contribution"])
@pytest.mark.parametrize("name, layer", [("1", 1), ("3", 3)])
def test_one_class_rather_than_another_is_the_difference_of_their_logits(made, name, layer, where):
    model, picture, record = network(), Noise()(1000), made.layers[name]
    a = model[: layer + 1](preprocess(picture)[None]).detach().requires_grad_()
    logits = model[layer + 1 :](a)[0]
    predicted = int(logits.argmax())
    other = (predicted + 1) % 3
    c = (a * torch.autograd.grad(logits[predicted] - logits[other], a)[0]).detach()[0]
    w = c.sum((1, 2))
    found = made.explain(picture, name, 3, where=where, instead_of=CLASSES[other])
    order = w.argsort(descending=True).tolist()
    assert [n.index for n in found.sample.neurons] == order[:3]
    for n in found.sample.neurons:
        assert n.contribution == pytest.approx((w[n.index] / w.abs().sum()).item(), abs=1e-6)
        drawn = c[n.index] if where == "contribution" else a.detach()[0, n.index]
        grown = interpolate(drawn[None, None].clamp(min=0), (SIDE, SIDE), mode="bilinear")[0, 0]
        torch.testing.assert_close(n.map, grown)
    general = record.class_w[predicted] - record.class_w[other]
    order = general.argsort(descending=True).tolist()
    assert [n.index for n in found.cls.neurons] == order[:3] and found.right_r is None
    shown = logits.softmax(0)
    head = (
        f'Predicted "{CLASSES[predicted]}" ({shown[predicted]:.2f}) rather than "{CLASSES[other]}"'
    )
    assert str(found).startswith(head.replace("(0.", "(."))
    assert found.to_dict()["instead_of"]["probability"] == pytest.approx(shown[other].item())


def test_a_class_rather_than_itself_is_refused(made):
    predicted = made.explain(Noise()(3), "1").predicted_name
    with pytest.raises(ValueError, match=f"instead_of is '{predicted}', the predicted class"):
        made.explain(Noise()(3), "1", instead_of=predicted)
    other = CLASSES[(CLASSES.index(predicted) + 1) % 3]
    with pytest.raises(ValueError, match=f"instead_of is '{other}', that of the class track"):
        made.explain(Noise()(3), "1", cls=other, instead_of=other)
    with pytest.raises(ValueError, match="no class 'trees'"):
        made.explain(Noise()(3), "1", instead_of="trees")


def test_an_explanation_says_which_share_its_neurons_carry(made):
    found = made.explain(Noise()(3), "1", 2)
    w = run_model(made.target, made.layers["1"], Noise()(3)).w
    share = (w.sort(descending=True).values[:2].sum() / w.sum()).item()
    assert found.sample.share == found.to_dict()["sample"]["share"] == pytest.approx(share)
    words = f"2 of {len(w)} neurons carry {share:.2f} of all contributions".replace("0.", ".")
    assert words in str(found)
    assert "1 of 6 neurons carries " in str(made.explain(Noise()(3), "3", 1))


def test_class_track_of_any_class_by_name_and_by_index(made):
    by_name, by_index = (made.explain(Noise()(3), "1", cls=cls) for cls in ("tree", 1))
    assert by_name.to_dict() == by_index.to_dict()
    assert by_name.cls.class_name == "tree" and by_name.cls.class_index == 1
    assert by_name.sample.class_index == by_name.predicted, "the sample track stays with the image"


@pytest.mark.parametrize(
    "options, message",
    [({"cls": "trees"}, "no class 'trees'; the nearest are 'tree'"), ({"cls": 3}, "Class 3 does"),
     ({"cls": -1}, "The class is -1"), ({"cls": 1.5}, "The class is 1.5; give a whole number"),
     ({"cls": True}, "The class is True; give a whole number"),
     ({"layer": "2"}, "no layer '2'; the nearest are 'logits', '3', '1'"),
     ({"top": 0}, "top is 0"),
     ({"top": 2.5}, "top is 2.5; give a whole"), ({"percentile": 100}, "percentile is 100")],
)  # fmt: skip
def test_what_does_not_exist_is_named(made, options, message):
    with pytest.raises(ValueError, match=message):
        made.explain(Noise()(3), **options)


NUMBERS = ["k", "k_minor", "shown", "rounds", "thumbnail", "batch_size", "seed"]


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("value", [-1, 1.5, "3"])
def test_numbers_are_checked_before_the_first_pass(name, value):
    encoder = Projection()
    expected = f"{name.removesuffix('_minor')} is {value!r}; give a whole number, at least"
    with pytest.raises(ValueError, match=expected):
        built(encoder=encoder, **{name: value})
    assert not encoder.calls


def test_preprocessing_that_fails_names_the_image_to_explain(made, tmp_path):
    def fails(image):
        raise OSError("no profile")

    Noise()(3).save(path := tmp_path / "x.png")
    other = replace(made, target=replace(made.target, preprocess=fails))
    with pytest.raises(ValueError, match=r"x\.png' failed with OSError: no profile"):
        other.explain(path)


def test_two_classes_of_one_name_need_an_index():
    made = built(
        tiny(classes=("crane", "tree", "crane")), images(classes=("crane", "tree", "crane"))
    )
    with pytest.raises(ValueError, match=r"\[0, 2\] are all called 'crane'"):
        made.explain(Noise()(3), cls="crane")
    assert made.explain(Noise()(3), cls=2).cls.class_index == 2


def test_a_file_and_an_upload_pass_the_checks_of_probe_images(made, tmp_path):
    path = tmp_path / "picture.png"
    Noise()(3).save(path)
    expected = made.explain(Noise()(3)).to_dict()
    assert made.explain(path).to_dict() == made.explain(str(path)).to_dict() == expected
    assert made.explain(path.read_bytes()).to_dict() == expected
    with pytest.raises(ValueError, match="'upload' cannot be used: it is no intact"):
        made.explain(b"<script>")
    Image.new("I;16", (SIDE, SIDE)).save(path)
    for sixteen in (path, Image.open(path)):
        with pytest.raises(ValueError, match="I;16"):
            made.explain(sixteen)
    with pytest.raises(TypeError, match="is a list"):
        made.explain([1, 2])


def test_the_image_is_the_input_of_the_network(made):
    """Breaks if normalisation is not undone, or the crop is not the network's."""
    picture = Noise()(3)
    assert made.explain(picture).image.tobytes() == picture.tobytes()

    def letterbox(image):
        x = torch.zeros(3, SIDE, SIDE, dtype=torch.float64)
        x[:, 2:8] = preprocess(image)[:, :6]
        return x

    target = tiny(transform=letterbox)
    seen = pil_to_tensor(targets.denormalize(target, picture, letterbox(picture)))
    assert torch.equal(seen[:, 2:8], pil_to_tensor(picture)[:, :6])
    assert not seen[:, :2].any() and not seen[:, 8:].any(), "padding is black"


def test_logits_that_are_not_finite_are_an_error(made):
    broken = tiny()
    with torch.no_grad():
        broken.model[6].bias.fill_(torch.nan)
    with pytest.raises(ValueError, match="not finite"):
        replace(made, target=broken).explain(Noise()(3))


# Labels -------------------------------------------------------------------------------------


def test_a_class_without_images_is_unknown_and_said_to_be():
    """Breaks if nan contributions of an empty class choose neurons."""
    made = built(tiny(bias=(0, 0, 9.0)), images(labels=[i % 2 for i in range(24)]))
    assert made.class_count.tolist() == [12, 12, 0]
    assert all(layer.class_w[2].isnan().all() for layer in made.layers.values())
    with pytest.raises(ValueError, match="has no images of the class 'house'"):
        made.explain(Noise()(3), "1", cls="house")
    found = made.explain(Noise()(3), "1")
    assert found.predicted_name == "house" and found.sample.neurons
    assert found.cls.neurons == () and math.isnan(found.r) and not found.cls.heatmap.any()
    assert 'no class side, since the atlas has no images of the class "house"' in str(found)
    assert found.to_dict()["r"] is None
    assert not math.isnan(made.explain(Noise()(3), "3", cls="boat").r)


@pytest.mark.parametrize("signed", [False, True])
def test_the_weights_of_a_linear_head_stand_in_for_a_class_without_images(signed):
    target = tiny(bias=(0, 0, 9.0))
    made = built(target, images(labels=[i % 2 for i in range(24)]), signed=signed)
    weight = target.model[6].weight[2].detach()
    expected = (weight if signed else weight.abs()).argsort(descending=True)[:3].tolist()
    for chosen in (None, "house"):
        found = made.explain(Noise()(3), "3", 3, cls=chosen)
        assert [neuron.index for neuron in found.cls.neurons] == expected
        assert found.cls.by_weights and not found.sample.by_weights
        assert '"house" (the weights of the linear head, since the atlas has no images' in str(
            found
        )
    assert not made.explain(Noise()(3), "3", cls="boat").cls.by_weights


# Where r stands -----------------------------------------------------------------------------


@pytest.mark.parametrize("layer, signed", [("1", False), ("1", True), ("3", False)])
def test_r_of_right_predictions_leaves_each_image_out_of_its_class_mean(layer, signed):
    """Breaks if an image is compared with a mean that contains it, or a wrong one is counted."""
    made = built(layers=[layer], signed=signed)
    target, record = made.target, made.layers[layer]
    runs = [run_model(target, record, Noise()(i), signed) for i in range(24)]
    right = [i for i in range(24) if runs[i].predicted == i % 3]
    assert 2 < len(right) < 24
    for k in (1, 3, 8):
        expected = []
        for i in right:
            others = [j for j in range(i % 3, 24, 3) if j != i]
            x = torch.stack([preprocess(Noise()(j)) for j in others])
            mean = contribute(target, x, layer, i % 3, signed).w.mean(0)
            heat = [maps.heatmap(runs[i].maps(0), w, k, SIDE) for w in (runs[i].w, mean)]
            expected.append(maps.similarity(*heat).item())
        expected = torch.tensor(sorted(expected), dtype=torch.float64)
        assert torch.allclose(record.right_r[k - 1], expected, atol=1e-6, equal_nan=True)


def test_tested_images_are_at_most_200_and_of_all_classes(monkeypatch):
    """Breaks if every n-th image is taken where classes alternate."""
    labels, seen = [i % 3 for i in range(600)], []
    module = sys.modules["wwwlib.atlas.build"]  # wwwlib.atlas.build is the function
    original = module._to_others

    def watched(found, own, *others):
        seen.extend(own.tolist())
        return original(found, own, *others)

    monkeypatch.setattr(module, "_to_others", watched)
    built(probe=images(600, labels), layers=["3"], rounds=0)
    counts = [seen.count(c) for c in range(3)]
    assert sum(counts) == 200 and min(counts) >= 66


def test_an_r_stands_among_right_predictions_with_as_many_neurons(made):
    record, count = made.layers["1"], made.layers["1"].right_r.shape[1]
    for top in (1, 5, 8):
        assert same(made.explain(Noise()(3), "1", top).right_r, record.right_r[top - 1])
    assert count and made.explain(Noise()(3), "1", 9).right_r is None
    found = made.explain(Noise()(3), "1")
    other = made.explain(Noise()(3), "1", cls=(found.predicted + 1) % 3)
    assert other.right_r is None, "those are of the predicted class"
    unlabelled = built(probe=images(labels=[None] * 24), layers=["1"])
    assert unlabelled.layers["1"].right_r is None
    assert unlabelled.explain(Noise()(3), "1").r_words.startswith("r = ")


@pytest.mark.parametrize(
    "r, count, expected",
    [
        (0.87, 200, "r = .87, lower than 12 % of 200 right predictions"),
        (0.99876, 1000, "r = .9988, lower than 0 % of 1000 right predictions"),
        (1.0, 20, "r = 1.0000, lower than 0 % of 20 right predictions"),
        (-0.5, 20, "r = -.50, lower than 100 % of 20 right predictions"),
        (0.87, 19, "r = .87"),
        (math.nan, 200, "r is not defined, since a heatmap is zero"),
    ],
)
def test_no_word_judges_an_r(r, count, expected):
    known = torch.arange(count, dtype=torch.float64) / count
    assert replace(explanation(r=r), right_r=known).r_words == expected
    assert replace(explanation(r=r), right_r=None).r_words == expected.split(", lower")[0]


def far(z, others, scale):
    """Distance to the nearest of others, neuron by neuron: the slow version of `likeness`."""
    apart = [sum(((a - b) / s) ** 2 for a, b, s in zip(z, o, scale, strict=True)) for o in others]
    return min(apart).sqrt().item()


@pytest.mark.parametrize("spread", [0.0, 0.3, 3.0])
def test_likeness_is_the_rank_of_the_nearest_distance(spread):
    torch.manual_seed(1)
    known = torch.randn(30, 6).double() + 4
    z = known[3] + spread * torch.randn(6).double() - 2 * spread
    scale = (known - known.mean(0)).square().mean(0).sqrt()
    rest = [[o for j, o in enumerate(known) if j != i] for i in range(30)]
    apart = [far(one, others, scale) for one, others in zip(known, rest, strict=True)]
    expected = (1 + sum(d >= far(z, known, scale) for d in apart)) / 31
    assert likeness(z, known) == pytest.approx(expected)


def test_an_image_unlike_the_probe_set_is_called_so(made):
    """Breaks if images of the probe set are flagged, or if a far one is not."""
    few = made.explain(Noise()(3), "1")
    assert few.likeness > 0.5 and not few.warning, "24 images cannot tell that one in 100 is rare"
    many = built(probe=images(240), layers=["1"], rounds=0)
    assert many.layers["1"].usual_z.shape[0] == 200
    far_off = many.explain(Image.new("RGB", (SIDE, SIDE), "red"), "1")
    assert far_off.likeness == 1 / 201
    assert far_off.warning in far_off.to_sentence()
    assert not many.explain(Noise()(3), "1").warning
    assert replace(far_off, likeness=math.nan).warning == ""
    unlabelled = built(probe=images(labels=[None] * 24), layers=["1"])
    assert unlabelled.layers["1"].usual_z.shape[0] == 24


def predictions(target, probe):
    with torch.no_grad():
        x = torch.stack([preprocess(probe.image(i)) for i in range(len(probe))])
        return target.model(x).argmax(1).tolist()


def test_unlabelled_images_count_for_their_prediction():
    target, bare = tiny(), images(labels=[None] * 24)
    predicted = predictions(target, bare)
    known = built(target, images(labels=predicted))
    guessed = built(target, bare)
    assert (known.labelled, guessed.labelled) == ("labels", "predictions")
    assert same(guessed.class_count, known.class_count)
    for name in ("1", "3"):
        torch.testing.assert_close(
            guessed.layers[name].class_w, known.layers[name].class_w, equal_nan=True
        )


def test_labels_and_predictions_mix_image_by_image():
    target = tiny()
    some = [i % 3 if i % 4 else None for i in range(24)]
    filled = [
        p if s is None else s for s, p in zip(some, predictions(target, images()), strict=True)
    ]
    mixed, known = built(target, images(labels=some)), built(target, images(labels=filled))
    assert mixed.labelled == "mixed" and same(mixed.class_count, known.class_count)
    for name in ("1", "3"):
        torch.testing.assert_close(
            mixed.layers[name].class_w, known.layers[name].class_w, equal_nan=True
        )


def test_the_class_side_can_come_from_other_images():
    """Breaks if `labelled` is ignored, or if it changes what neurons are called."""
    other = images(12, labels=[(i + 1) % 3 for i in range(12)])
    made, apart = built(), built(labelled=other)
    alone = built(probe=other)
    for name in ("1", "3"):
        assert same(apart.layers[name].major, made.layers[name].major)
        assert same(apart.layers[name].class_w, alone.layers[name].class_w)
        assert not same(apart.layers[name].class_w, made.layers[name].class_w)


def test_labels_are_brought_to_the_numbers_of_the_network():
    """Breaks if a folder with some classes, or in another order, counts for the wrong ones."""
    target = tiny()
    turned = match_labels(images(labels=[0, 1] * 12, classes=("house", "boat")), target)
    assert turned.labels == (2, 0) * 12 and turned.fingerprint != images().fingerprint
    with pytest.warns(UserWarning, match="1 of the 1 classes .* 24 of 24 images .*: 'car'; pred"):
        assert set(match_labels(images(classes=("car",), labels=[0] * 24), target).labels) == {None}


@pytest.mark.parametrize(
    ("theirs", "ours", "partners", "lost"),
    [
        (("bee", "cat", "lion", "owl"), ("ant", "cat", "dog", "owl"), (None, 1, None, 3), "'lion'"),
        (("boat", "home", "tree"), CLASSES, (0, None, 1), "'home'"),
        (("a", "b", "c"), CLASSES, (None, None, None), "'a', 'b', 'c'"),
        (("boat", "house", "tree"), CLASSES, (0, 2, 1), None),
        (("cafe\u0301", "tree"), ("tree", "caf\xe9", "a"), (1, 0), None),
        (("tree", "tree", "tree"), ("tree", "tree line", "boat"), (0, 1, None), "'tree'"),
        (("tree", "tree", "tree line"), ("tree", "tree line", "a"), (0, None, 1), "'tree'"),
    ],
)
def test_labels_go_by_the_names_of_classes_one_by_one(theirs, ours, partners, lost):
    """Breaks if a class takes the label of another one that has its place in the other list."""
    given, target = images(labels=[*range(len(theirs))] * 4, classes=theirs), tiny(classes=ours)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert match_labels(given, target).labels == partners * 4
    assert len(said) == (lost is not None)
    for one in said:
        expected = f"{partners.count(None) * 4} of {len(given)} images have no label: .*{lost}"
        assert re.search(expected, str(one.message))
    again = match_labels(match_labels(given, target, warn=False), target)
    assert again.labels == partners * 4, "matched images stay as they are"


def test_a_class_is_found_whatever_joins_the_words_of_its_name():
    """Breaks if labels of Places365 are dropped for a slash or an underscore, or names merge."""
    target = tiny(classes=("arena hockey", "army base", "alley"))
    scenes = images(classes=("arena/hockey", "army_base", "alley"))
    assert match_labels(scenes, target) is scenes
    turned = images(labels=[0, 1] * 12, classes=("alley", "arena-hockey"))
    assert match_labels(turned, target).labels == (2, 0) * 12
    two = tiny(classes=("ice cream", "ice-cream", "alley"))
    assert match_labels(images(labels=[0] * 24, classes=("ice-cream",)), two).labels == (1,) * 24
    with pytest.warns(UserWarning, match="no single class .*'ice_cream'"):
        assert set(match_labels(images(labels=[0] * 24, classes=("ice_cream",)), two).labels) == {
            None
        }


def test_the_class_of_an_image_is_told_in_the_words_of_the_network():
    """Breaks if a right prediction is called wrong for an underscore, or a class is lost."""
    target = tiny(classes=("arena hockey", "army base", "alley"))
    scenes = images(labels=[0, 1] * 12, classes=("alley", "arena/hockey"))
    names = [class_name(scenes, i, target.classes) for i in (0, 1)]
    assert names == ["alley", "arena hockey"] and shown_classes(scenes, target) == [0, 2]
    alike = images(labels=[1] * 24, classes=("arena/hockey", "barracks", "alley"))
    assert class_name(alike, 0, target.classes) == "barracks", "not known, though in its place"
    other = images(labels=[0] * 24, classes=("tench",))
    assert class_name(other, 0, target.classes) == "tench", "not known to the network"
    assert shown_classes(other, target) == [0, 1, 2], "by chance"
    assert class_name(images(labels=[None] * 24), 0, target.classes) is None


def test_imagenet_keeps_its_numbers_for_a_network_that_spells_two_cranes_apart():
    """Breaks if 134, a bird, is looked up by a name that the network gives to a machine alone."""
    names = [lemmas[0] for lemmas in imagenet_synsets().values()]
    spelled = [*names]
    spelled[134] = "crane bird"
    target = tiny(classes=spelled)
    asked = images(labels=[134, 517, 0] * 8, classes=tuple(names))
    assert match_labels(asked, target) is asked
    with pytest.warns(UserWarning, match="no single class .*'crane'"):
        some = match_labels(images(classes=("crane", "tench", "goldfish")), tiny(classes=names))
    assert some.labels == (None, 0, 1) * 8


def test_images_without_a_label_of_the_network_are_left_out_or_refused():
    """Breaks if a prediction is called wrong for the number that a folder gave its class."""
    target = tiny()
    some = images(labels=[0, None, 1] * 8, classes=("house", "boat"))
    found = labelled_subset(some, target)
    assert len(found) == 16 and found.labels == (2, 0) * 8
    assert found.names[:2] == ("noise 0", "noise 2")
    assert labelled_subset(images(), target).fingerprint == images().fingerprint
    part = labelled_subset(images(labels=[0, 1] * 12, classes=("boat", "car")), target)
    assert len(part) == 12 and set(part.labels) == {0}
    with pytest.raises(ValueError, match=r"None of 24 .* has the classes 'bus', 'car': put"):
        labelled_subset(images(labels=[0, 1] * 12, classes=("bus", "car")), target)
    with pytest.raises(ValueError, match=r"'noise' has no labels: put"):
        labelled_subset(images(labels=[None] * 24), target)


# Saving and loading -------------------------------------------------------------------------


def test_a_saved_atlas_comes_back_as_it_was(made, tmp_path):
    made.save(tmp_path)
    loaded = atlas.Atlas.load(tmp_path, made.target)
    assert list(loaded.layers) == ["1", "3", "logits"]
    assert same(loaded, made)
    for layer in made.layers:
        assert (
            loaded.explain(Noise()(3), layer).to_dict() == made.explain(Noise()(3), layer).to_dict()
        )
    assert not list(tmp_path.rglob("*.pkl")) and not list(tmp_path.rglob("*.tmp"))
    made.save(tmp_path)
    assert same(atlas.Atlas.load(tmp_path, made.target), made), "an atlas can be saved again"


@pytest.mark.parametrize("suffix", ["json", "safetensors"])
@pytest.mark.parametrize("harm", ["edited", "truncated"])
def test_a_damaged_atlas_is_noticed(made, tmp_path, suffix, harm):
    made.save(tmp_path)
    (path,) = tmp_path.rglob(f"*.{suffix}")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data) if harm == "edited" else bytes(data[:-9]))
    with pytest.raises(ValueError, match=r"damaged .*save the atlas again"):
        atlas.Atlas.load(tmp_path, made.target)


def test_another_network_or_no_atlas_is_refused(made, tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no atlas in"):
        atlas.Atlas.load(tmp_path, made.target)
    made.save(tmp_path)
    with pytest.raises(ValueError, match="with other weights"):
        atlas.Atlas.load(tmp_path, tiny(seed=1))
    with pytest.raises(ValueError, match="with other preprocessing"):
        atlas.Atlas.load(tmp_path, tiny(transform=lambda image: preprocess(image) * 2))
    with pytest.raises(ValueError, match="other class names"):
        atlas.Atlas.load(tmp_path, tiny(classes=("boat", "tree", "home")))
    assert atlas.Atlas.load(tmp_path, tiny()).explain(Noise()(3))


# The store ----------------------------------------------------------------------------------


def test_a_killed_class_pass_goes_on_and_ends_with_the_same_numbers(tmp_path):
    """Breaks if a resumed pass forgets or repeats a batch."""
    target, key = tiny(), {"batch_size": 5, "progress": False, "checkpoint_seconds": 0}
    whole, count = class_contributions(target, images(), ["1", "3"], **key)
    for cut in (3, 12, 23):
        store, seen = Store(tmp_path / str(cut)), []
        with pytest.raises(RuntimeError, match="power cut"):
            class_contributions(target, images(fail_at=(cut,)), ["1", "3"], store=store, **key)
        hook = target.model.register_forward_hook(
            lambda _, x, __, seen=seen: seen.append(len(x[0]))
        )
        again, counted = class_contributions(target, images(), ["1", "3"], store=store, **key)
        hook.remove()
        fixed = 5  # images of the fingerprint
        assert sum(seen) - fixed == 24 - cut // 5 * 5, "what was done is not done again"
        assert same(again, whole) and same(counted, count)


def test_a_second_build_reads_nothing_again(tmp_path):
    """Breaks if a part goes around the store; another alpha must not look at images either."""
    encoder, target, store = Projection(), tiny(), Store(tmp_path)
    first = built(target, encoder=encoder, store=store)
    calls, seen = encoder.calls, []
    target.model.register_forward_hook(lambda _, x, __: seen.append(len(x[0])))
    second = built(target, encoder=encoder, store=store)
    third = built(target, encoder=encoder, store=store, alpha=0.1)
    assert max(seen) == 8, "only images for fingerprints and linear heads run again"
    assert same(second, first) and same(first, built(target)), "with and without a store"
    assert encoder.calls == calls + 4, "a fixed image for each of four passes"
    assert sum(map(len, third.layers["1"].major.names)) > sum(
        map(len, first.layers["1"].major.names)
    )


# Names --------------------------------------------------------------------------------------


def test_names_come_from_exemplars_and_minor_names_from_crops(made):
    """Breaks if features are averaged over the wrong images, or crops are named as images."""
    encoder, probe = Projection(), images()
    for shown, v, record in (
        (probe, made.layers["1"].v, made.layers["1"].exemplars),
        (crops(probe), made.layers["1"].minor_v, made.layers["1"].minor_exemplars),
    ):
        for neuron in range(5):
            if record.status[neuron]:
                assert not v[neuron].any(), "a dead neuron has no features"
                continue
            total = torch.zeros(16)
            for i in record.index[neuron].tolist():
                total += encoder.encode_images(encoder.preprocess(shown.image(i))[None])[0]
            torch.testing.assert_close(v[neuron], total / 4)


def test_the_atlas_has_the_stability_of_its_names():
    """Breaks if names are tested on other images, words or exemplars than those that made them."""
    probe, encoder, words = images(), Projection(), ConceptSet(WORDS)
    record = built(layers=("1",), rounds=7, seed=3).layers["1"]
    deep = exemplars.collect(tiny(), probe, ["1"], 24, progress=False)["1"]
    v = embed_exemplars(encoder, probe, deep, progress=False)
    found = concepts.stability(v, deep.index, 24, *words.embed(encoder), 4, rounds=7, seed=3)
    assert torch.equal(record.stability, found.share)
    assert 0 < record.stability.mean() < 1
    assert [WORDS[j] for j in found.top if j >= 0] == [n[0] for n in record.major.names if n]
    assert built(layers=("1",), rounds=0).layers["1"].stability is None


def test_names_are_tested_verified_saved_and_shown(tmp_path):
    """Every name's test follows it into tables, explanations and files; crops test minor names."""
    others = subset(images(54), range(24, 54))
    inside = Truth(crops(others), WORDS, torch.rand(150, len(WORDS)) < 0.4)
    truth = Truth(others, WORDS, torch.rand(30, len(WORDS)) < 0.4, crops=inside)
    book = built(layers=("1", "logits"), test=truth)
    for layer, record in book.layers.items():
        z = evaluation.activations(book.target, others, [layer], progress=False)[layer]
        part = evaluation.activations(book.target, inside.images, [layer], progress=False)[layer]
        found = evaluation.name_tests(record.major.names, z, truth)
        assert same_numbers(record.major.tests.auroc, found.auroc)
        assert record.major.tests.best == found.best
        small = evaluation.name_tests(record.minor.names, part, inside)
        assert same_numbers(record.minor.tests.auroc, small.auroc)
        loose = concepts.discover(record.v, book.t, book.t0, WORDS, 0.4)
        assert record.verified.names == evaluation.verify(loose, z, truth).names
        table = book.names(layer)
        assert table.test.tolist() == [found.words(i) for i in range(len(record))]
        assert table.auroc.tolist() == pytest.approx(found.auroc.tolist(), nan_ok=True)
        assert table.verified.tolist() == record.verified.names
    book.save(tmp_path)
    again = atlas.Atlas.load(tmp_path, book.target)
    assert again.names("1").equals(book.names("1"))
    record = book.layers["1"]
    for neuron in again.explain(Noise()(3), "1").sample.neurons:
        assert neuron.test == record.major.test_words(neuron.index)
        hidden = record.minor.supported(neuron.index) is False
        assert neuron.minor == (() if hidden else tuple(record.minor.names[neuron.index]))
    with pytest.raises(ValueError, match="is also in"):
        built(layers=("1",), test=Truth(images(), WORDS, torch.rand(24, len(WORDS)) < 0.4))


def same_numbers(one, other):
    return torch.equal(one.nan_to_num(nan=-1), other.nan_to_num(nan=-1))


def test_thumbnails_are_those_of_the_best_images(made):
    best = made.layers["1"].exemplars.index[0, 0].item()
    assert best in made.thumbnails and made.thumbnails[best].size == (64, 64)
    assert made.thumbnails.index.tolist() == sorted(made.thumbnails.index.tolist())
    crop = made.layers["3"].minor_exemplars.index[0, 0].item()
    assert made.minor_thumbnails[crop].mode == "RGB"
    with pytest.raises(KeyError, match="no thumbnail of image 999"):
        made.thumbnails[999]


def test_a_dead_neuron_abstains_and_explains_nothing():
    target = tiny()
    with torch.no_grad():
        target.model[0].weight[2] = 0
        target.model[0].bias[2] = 0
    made = built(targets.wrap(target.model, preprocess, CLASSES, "tiny"))
    assert made.layers["1"].major.abstained[2] and made.layers["1"].major.names[2] == []
    last = made.explain(Noise()(3), "1", top=9).sample.neurons[-1]
    assert last.index == 2 and last.contribution == 0 and not last.region.any()


def neuron(index=12, names=("sail",), share=0.41):
    region = torch.zeros(9, 9, dtype=torch.bool)
    region[:3, :2] = True
    return atlas.Neuron(index, names, (), share, (1,), (2,), region, region.double())


def explanation(neurons=None, r=0.93, cls=0, label=None, name="boat"):
    neurons = neurons or (neuron(),)
    sample = atlas.Track("sample", 0, name, 0.97, neurons, torch.ones(9, 9), 128)
    general = replace(sample, kind="class", class_index=cls, class_name=("boat", "tree")[cls])
    picture = Image.new("RGB", (9, 9))
    return atlas.Explanation(picture, label, 0, name, 0.97, "1", sample, general, r)


def test_the_sentence_says_what_where_why_and_how_sure():
    two = (neuron(), neuron(3, (), 0.2))
    assert explanation(two).to_sentence() == (
        'Predicted "boat" (.97): neuron 12 ("sail"; untested), .41 of the contribution, active in '
        "the upper left; neuron 3 (no concept), .20 of the contribution, active in the upper left; "
        "2 of 128 neurons carry .61 of all contributions. "
        "Heatmaps of the class and the image: r = .93."
    )
    other = explanation(r=0.2, cls=1, label="tree").to_sentence()
    assert other.startswith('Predicted "boat" (.97), true class "tree": neuron 12 ("sail"; unt')
    assert other.endswith('Heatmaps of the class "tree" and the image: r = .20.')
    assert "r is not defined" in explanation(r=math.nan).to_sentence()
    assert "(1.00)" in replace(explanation(), probability=0.9999).to_sentence()


@pytest.mark.parametrize(
    "test, supported", [("untested", None), ("AUROC .98, 1st of 103", True), ("AUROC .5", False)]
)
def test_every_name_stands_beside_its_test(test, supported):
    found = explanation((replace(neuron(), test=test, supported=supported),))
    assert f'neuron 12 ("sail"; {test}),' in found.to_sentence()
    record = found.to_dict()["sample"]["neurons"][0]
    assert (record["test"], record["supported"]) == (test, supported)


@pytest.mark.parametrize(
    "name, expected",
    [('a"b""', r'"a\"b\"\""'), ('back\\slash"', r'"back\\slash\""'), ("\n2\nlines\t", '"2 lines"'),
     ("<b>", '"<b>"'), ("\u202eevil", '"evil"'), ("Wörter 雪", '"Wörter 雪"'), ("*", '"*"')],
)  # fmt: skip
def test_no_name_ends_its_own_quotes_or_begins_a_line(name, expected):
    assert quoted(name) == expected
    both = explanation((neuron(1), neuron(names=(name,))))
    assert f"neuron 12 ({expected}; untested), .41" in both.to_sentence()


def test_the_record_is_json_with_regions_as_boxes(made):
    record = explanation().to_dict()["sample"]["neurons"][0]
    assert record["region"] == {"box": [0, 0, 2, 3], "area": pytest.approx(6 / 81),
                              "position": "upper left"}  # fmt: skip
    for layer in made.layers:
        found = made.explain(Noise()(3), layer, cls=1, label="tree")
        text = json.dumps(found.to_dict(), allow_nan=False)
        assert json.loads(text) == found.to_dict() and len(text) < 20_000


def test_markup_in_names_is_data(tmp_path):
    """Breaks if a name is changed, or leaves its place, on its way through a file."""
    words = ConceptSet(['<script>alert("x")</script>', "../../etc", "$float", "a\u00adb", "*"])
    made = atlas.build(
        tiny(), images(), Projection(), words, ["1"], k=4, alpha=0.01, progress=False
    )
    made.save(tmp_path)
    loaded = atlas.Atlas.load(tmp_path, made.target)
    assert loaded.words == words.words and same(loaded, made)


# Real networks ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["world/conv", "world/vit"])
def test_every_kind_of_layer_of_the_small_networks_is_explained(name):
    """Breaks if a layer of tokens, maps or logits is laid or weighed otherwise than others."""
    target = targets.load(name, weights="random")
    nn.init.normal_(
        target.model.get_submodule("fc" if name == "world/conv" else "heads.head").weight
    )
    layers = (
        ["layer2", "layer4"]
        if name == "world/conv"
        else ["encoder.layers.encoder_layer_1", "encoder.ln"]
    )
    probe = images(6, labels=range(6), classes=target.classes)
    made = built(target, probe, layers=[*layers, "logits"], k=2)
    assert [layer.exact for layer in made.layers.values()] == [False, True, True]
    blind = [layer for layer in made.layers if made.where(layer) is None]
    assert blind == ([] if name == "world/conv" else ["encoder.ln"])
    for layer in filter(made.where, made.layers):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # an untrained network may weigh nothing
            found = made.explain(Noise()(3), layer, cls=1)
        assert found.image.size == (64, 64) and found.sample.heatmap.shape == (64, 64)
        assert len(found.sample.neurons) == 5 and found.sample.neurons[0].contribution > 0


@pytest.mark.skipif(
    not (DATA / "conv.safetensors").is_file(), reason="data/world/conv.safetensors is not trained"
)
def test_the_world_explains_itself(tmp_path):
    """Breaks if names of final neurons do not fit their class in a network that is nearly right."""
    from wwwlib import language, world

    if not (DATA / "clip" / "open_clip_model.safetensors").is_file():
        pytest.skip("the small CLIP in data/world/clip is not trained")
    target, probe = targets.load("world/conv"), world.image_set(96, seed=5)
    encoder = language.open_clip(f"local-dir:{DATA / 'clip'}")
    words = ConceptSet(target.classes)
    made = atlas.build(target, probe, encoder, words, ["layer4", "logits"], k=2, progress=False)
    right = [c in names for c, names in zip(target.classes, made.layers["logits"].major.names,
                                            strict=True)]  # fmt: skip
    assert sum(right) >= 18
    found = made.explain(world.image_set(1, seed=6).image(0), "layer4")
    assert found.r > 0 and len(found.sample.neurons) == 5
