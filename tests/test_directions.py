"""Directions as a layer of their own: values, gradients, ablation, and the verbs that take them."""

import json
import re
import sys
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file
from sklearn.decomposition import MiniBatchDictionaryLearning, MiniBatchNMF, sparse_encode
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from torch import nn
from torchvision.transforms.functional import pil_to_tensor

from wwwlib import atlas, contributions, evaluation, images, language, maps, targets, world
from wwwlib.activations import capture
from wwwlib.explorer import Model, Pictures
from wwwlib.explorer.markup import histogram
from wwwlib.explorer.report import report
from wwwlib.store import Store
from wwwlib.studies import dictionaries, interventions
from wwwlib.studies.dictionaries import Linear, Positions
from wwwlib.targets import with_directions

LAYERS = {"world/conv": "layer3", "world/vit": "encoder.layers.encoder_layer_1"}


def dictionary(width, count=11, k=None, seed=0):
    """Random directions that are neither orthogonal nor complete, with a bias."""
    torch.manual_seed(seed)
    weight, directions = torch.randn(count, width), torch.randn(count, width) / width**0.5
    return Linear(weight / width**0.5, torch.randn(count) / 10, directions, torch.randn(width), k)


@pytest.fixture(scope="module", params=LAYERS)
def case(request):
    target = targets.load(request.param)
    target.model.double()
    probe = world.image_set(6)
    x = torch.stack([target.preprocess(probe.image(i)) for i in range(6)]).double()
    layer = LAYERS[request.param]
    with torch.no_grad(), capture(target, [layer]) as captured:
        target.model(x)
    own = dictionary(captured[layer].neurons, k=4)
    return SimpleNamespace(
        target=target, made=with_directions(target, layer, own, "sae"), x=x, layer=layer,
        virtual=f"{layer}@sae", own=own, captured=captured[layer],
    )  # fmt: skip


def test_the_layer_has_the_codes_of_every_position(case):
    a = case.captured.maps
    with torch.no_grad(), capture(case.made, [case.virtual, case.layer]) as captured:
        logits = case.made.model(case.x)
    expected = torch.stack(
        [case.own.encode(one.flatten(1).T).T.unflatten(1, a.shape[2:]) for one in a]
    )
    assert torch.allclose(captured[case.virtual].maps, expected)
    assert torch.allclose(captured[case.virtual].z, expected.mean((2, 3)))
    assert torch.equal(captured[case.layer].raw, case.captured.raw)
    with torch.no_grad():
        assert torch.equal(logits, case.target.model(case.x)), "unchanged codes change nothing"


def test_the_given_network_stays_as_it_is(case):
    assert case.virtual not in case.target.layers() and case.virtual in case.made.layers()
    assert case.made.layers()[-1] == "logits"
    assert not case.target.module(case.layer)._forward_hooks
    assert case.target.key() != case.made.key()
    other = with_directions(
        case.target, case.layer, dictionary(case.captured.neurons, seed=1), "sae"
    )
    assert other.digest != case.made.digest


def test_encoders_that_differ_anywhere_have_keys_of_their_own():
    """Breaks if the store takes one dictionary's results for another's."""
    target, own, codes = targets.load("world/conv"), dictionary(96, k=4), torch.ones(11)
    far = [replace(own, offset=shift * codes) for shift in (-30, -40, -4e5, -5e5)]
    far += [replace(own, standardised=True), replace(own, k=5)]

    def above(level):
        jump = SimpleNamespace(directions=torch.eye(96), bias=torch.zeros(96))
        jump.encode = lambda a: a * (a > level)  # a setting that no attribute shows
        return jump

    class Encoder(nn.Module):
        def __init__(self, level):
            super().__init__()
            self.directions, self.bias = torch.eye(96), torch.zeros(96)
            self.level = nn.Parameter(torch.tensor(level))

        def encode(self, a):
            return a * (a > self.level)

    far += [above(5.0), above(8.0), Encoder(1e7), Encoder(2e7)]
    keys = [with_directions(target, "layer3", one).digest for one in far]
    assert len({*keys}) == len(far)
    assert with_directions(target, "layer3", replace(far[0])).digest == keys[0]


def test_rounding_of_the_processor_does_not_change_the_key():
    """Breaks if an atlas that one processor wrote is of other weights for another one."""
    target, own = targets.load("world/conv"), dictionary(96, k=4)

    class Rounded(Linear):
        def encode(self, a):
            return super().encode(a.double()).to(a)

    other = Rounded(**vars(own))
    some = torch.randn(300, 96)
    assert not torch.equal(other.encode(some), own.encode(some)), "it rounds in another way"
    keys = {with_directions(target, "layer3", one).digest for one in (own, other)}
    assert len(keys) == 1
    unlike = type("Unlike", (Linear,), {"encode": lambda self, a: 1.01 * Linear.encode(self, a)})
    assert with_directions(target, "layer3", unlike(**vars(own))).digest not in keys


def test_contributions_are_codes_times_the_gradient_along_directions(case):
    """Their sum and the part of the bias, the error and other tokens is the layer's signed sum."""
    found = contributions.contribute(case.made, case.x, case.virtual, signed=True)
    base = contributions.contribute(case.target, case.x, case.layer, signed=True, linear=False)
    g = base.activations.to_maps(base.gradient)
    codes = found.activations.maps
    expected = torch.einsum("bmhw,md,bdhw->bm", codes, case.own.directions.double(), g)
    assert torch.allclose(found.w, expected) and not found.exact
    rest = case.captured.maps - torch.einsum("bmhw,md->bdhw", codes, case.own.directions.double())
    outside = base.w.sum(1) - (case.captured.maps * g).sum((1, 2, 3))
    total = found.w.sum(1) + (rest * g).sum((1, 2, 3)) + outside
    assert torch.allclose(total, base.w.sum(1))
    drawn = maps.contribution(case.made, case.x, case.virtual)
    assert torch.allclose(drawn.sum((2, 3)), found.w)


def test_ablation_subtracts_the_part_of_a_direction(case):
    found = contributions.ablation(case.made, case.x, case.virtual, neurons=[2, 7], signed=True)
    with torch.no_grad():
        logits = case.target.model(case.x)
    c, a = logits.argmax(1), case.captured.maps
    for column, m in enumerate((2, 7)):
        codes = torch.stack([case.own.encode(one.flatten(1).T)[:, m] for one in a])
        part = (
            codes.unflatten(1, a.shape[2:])[:, None]
            * case.own.directions[m].double()[:, None, None]
        )

        def without(raw, part=part):
            if raw.ndim == 4:
                return raw - part
            gone = raw.clone()
            gone[:, case.captured.prefix :] -= part.flatten(2).transpose(1, 2)
            return gone

        with torch.no_grad(), contributions.replaced_output(case.target, case.layer, without):
            left = case.target.model(case.x)
        expected = (logits - left).gather(1, c[:, None])[:, 0]
        assert torch.allclose(found[:, column], expected)


def test_two_dictionaries_stand_side_by_side(case):
    both = with_directions(case.made, case.layer, dictionary(case.captured.neurons, 5), "other")
    with torch.no_grad(), capture(both, [case.virtual, f"{case.layer}@other"]) as captured:
        both.model(case.x)
    with torch.no_grad(), capture(case.made, case.virtual) as alone:
        case.made.model(case.x)
    assert torch.equal(captured[case.virtual].raw, alone[case.virtual].raw)
    assert captured[f"{case.layer}@other"].neurons == 5


def test_a_copy_of_the_target_has_virtual_layers_of_its_own(case):
    """Breaks if the hook of a copied network passes codes through the layers of the first."""
    copied = deepcopy(case.made)
    assert copied.virtual[case.virtual] is not case.made.virtual[case.virtual]
    shuffled = next(interventions.randomised(case.made, stages=400))
    for one in (copied, with_directions(copied, case.layer, case.own, "two"), shuffled):
        with torch.no_grad(), capture(one, case.virtual) as captured:
            one.model(case.x)
        assert captured[case.virtual].neurons == 11


def test_codes_that_nothing_reads_are_not_computed(case):
    seen = []
    own = case.own
    encode = lambda a: seen.append(len(a)) or own.encode(a)  # noqa: E731
    given = SimpleNamespace(directions=own.directions, bias=own.bias, encode=encode)
    made = with_directions(case.target, case.layer, given, "noted")
    seen.clear()
    contributions.contribute(made, case.x, case.layer)
    assert not seen
    contributions.contribute(made, case.x, f"{case.layer}@noted", linear=False)
    assert len(seen) == 1


def prepare(image):
    return pil_to_tensor(image.resize((18, 16))).float() / 255


@pytest.mark.parametrize("layout", ["BHWN", "BN"])
def test_channels_last_and_vectors_are_read(layout):
    class Last(nn.Module):
        def forward(self, x):
            return x.movedim(1, -1)

    class First(nn.Module):
        def forward(self, x):
            return x.movedim(-1, 1)

    torch.manual_seed(0)
    parts = [
        nn.Conv2d(3, 4, 3),
        Last(),
        First(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    ]
    net = nn.Sequential(*parts)
    target = targets.wrap(net, prepare, ["a", "b"], "small", layouts={"1": "BHWN"})
    layer = {"BHWN": "1", "BN": "4"}[layout]
    own, x = dictionary(4, 6), torch.rand(2, 3, 16, 18)
    made = with_directions(target, layer, own)
    found = contributions.ablation(made, x, f"{layer}@directions", signed=True)
    taylor = contributions.taylor(made, x, f"{layer}@directions", signed=True)
    assert torch.allclose(found, taylor, atol=1e-5), "what follows is linear"


class Parts(nn.Module):
    """Maps (B, 4, 4, 4), a linear layer on their last axis, one that is not called, one twice."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.last, self.flat = nn.Conv2d(3, 4, 4, 4), nn.Linear(4, 4), nn.Flatten()
        self.unused, self.twice, self.head = nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)

    def forward(self, x):
        a = self.last(self.twice(self.twice(self.conv(x))).movedim(1, -1))
        return self.head(a.mean((1, 2)))


def test_as_many_rows_as_neurons_are_read_as_capture_reads_them():
    """Breaks if a map (B, 4, 4, 4) is read channels first by its shape, but last by capture."""
    target, x = targets.wrap(Parts(), prepare, ["a", "b"], "square"), torch.rand(2, 3, 16, 18)
    made = with_directions(target, "last", Linear(*(torch.eye(4), torch.zeros(4)) * 2))
    with torch.no_grad(), capture(made, ["last", "last@directions"]) as captured:
        made.model(x)
    assert captured["last"].layout == "BHWN"
    assert torch.equal(captured["last@directions"].maps, captured["last"].maps)
    taylor = contributions.taylor(made, x, "last@directions", signed=True)
    assert torch.allclose(taylor, contributions.taylor(target, x, "last", signed=True))


@pytest.mark.parametrize("layer, count", [("unused", 0), ("twice", 2)])
def test_a_layer_that_is_not_called_once_is_refused(layer, count):
    target = targets.wrap(Parts(), prepare, ["a", "b"], "square")
    with pytest.raises(ValueError, match=f"'{layer}' of square is called {count} times"):
        with_directions(target, layer, dictionary(4))


def test_what_capture_refuses_is_refused():
    """Maps without the proportions of the input, whose second axis has as many as directions."""
    net = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.Flatten(), nn.Unflatten(1, (4, 2, 8)))
    net.extend([nn.Flatten(), nn.Linear(64, 2)])
    target = targets.wrap(net, prepare, ["a", "b"], "small")
    with pytest.raises(ValueError, match="pass layouts="):
        with_directions(target, "2", dictionary(4))


def test_every_verb_takes_directions(tmp_path):
    target = with_directions(targets.load("world/conv"), "layer4", dictionary(128, 9, 3), "sae")
    probe, clip = world.image_set(48), language.encoder("world")
    words, known = language.concept_set("world", target), world.truth(48, 900)
    book = atlas.build(target, probe, clip, words, ["layer4@sae"], k=4, test=known, progress=False)
    assert len(book.names()) == 9 and book.names().auroc.notna().any()
    found = book.explain(world.image_set(2, 7).image(0))
    assert found.layer == "layer4@sae" and found.sample.neurons
    book.save(tmp_path)
    again = atlas.Atlas.load(tmp_path, target)
    assert again.explain(world.image_set(2, 7).image(0)).to_sentence() == found.to_sentence()
    with pytest.raises(ValueError, match="built for"):
        atlas.Atlas.load(tmp_path, targets.load("world/conv"))


def test_given_names_are_taken_over_and_tested(tmp_path):
    """Names of probes are neither chosen again nor lost, whatever the concept set has."""
    names = ("red", "Rotes & <b>Buntes</b>", "sky", " sky\n")
    own = replace(dictionary(128, 4), names=names)
    bare = targets.load("world/conv")
    target = with_directions(bare, "layer4", own, "probes")
    assert target.key() == with_directions(bare, "layer4", dictionary(128, 4), "probes").key()
    probe, clip, known = world.image_set(48), language.encoder("world"), world.truth(48, 900)
    words = language.ConceptSet(["boat", "sky", "sail"])
    layers = ["layer4@probes", "layer4"]
    book = atlas.build(target, probe, clip, words, layers, k=4, test=known, progress=False)
    record = book.layer("layer4@probes")
    assert record.given and not book.layer("layer4").given
    names = (*names[:3], "sky")
    assert record.major.names == [[name] for name in names]
    z = evaluation.activations(target, known.images, ["layer4@probes"], progress=False)
    z = z["layer4@probes"].numpy()
    for i, name in enumerate(names):
        images_of = [clip.preprocess(probe.image(j)) for j in record.exemplars.index[i].tolist()]
        shown = clip.encode_images(torch.stack(images_of))
        text, bare_text = clip.encode_texts([f"A photo of a {name}", "A photo of a"])
        expected = (shown @ text - shown @ bare_text).mean().item()
        assert record.major.scores[i] == pytest.approx([expected], abs=1e-5)
        if name in known.words:
            area = roc_auc_score(known.present[:, known.words.index(name)], z[:, i])
            assert record.major.tests.auroc[i].item() == pytest.approx(area)
    assert record.major.test_words(1) == "untested"
    assert {n for row in record.minor.names for n in row} <= {*words.words}
    assert book.names("layer4@probes").stability.isna().all()
    assert book.names("layer4").stability.notna().any()

    book.save(tmp_path)
    again = atlas.Atlas.load(tmp_path, target)
    assert again.words == words.words and again.layer("layer4@probes").given
    assert again.layer("layer4@probes").major.names == record.major.names
    assert again.layer("layer4").major.names == book.layer("layer4").major.names
    model = Model({"conv": again}, {"world": Pictures(probe)}, clip, layer="layer4@probes")
    for alpha in (0.5, 1.0):
        model.alpha = alpha
        own = model.explanation().sample.neurons
        assert [n.names for n in own] == [(names[n.index],) for n in own]
        assert [name for name, _ in model.page(1).names] == [names[1]]
        assert histogram(model.page(1))[2].endswith("none is selected"), "of the concept set"
    found = model.search("sky")
    assert all(one.share > 0 for one in found)
    page = tmp_path / "page.html"
    report({"conv": again}, page, images.subset(probe, range(2)))
    text = page.read_text()
    data = json.loads(re.search(r'type="application/json"[^>]*>(.*?)</script>', text)[1])
    grouped = {name for one in data["views"][0]["groups"] for name, *_ in one["names"]}
    assert grouped and grouped <= {*names}, "given names, not those that test images choose"
    assert "names given with the directions" in text and "<b>Buntes" not in text


@pytest.mark.parametrize("name, fault", [("sk\0y", "control"), ("sky" * 200, "600 characters")])
def test_given_names_that_are_no_concepts_are_refused_before_a_pass(name, fault, monkeypatch):
    own = replace(dictionary(128, 2), names=("red", name))
    target = with_directions(targets.load("world/conv"), "layer4", own, "probes")
    words, clip = language.ConceptSet(["boat"]), language.encoder("world")
    monkeypatch.setattr(sys.modules["wwwlib.atlas.build"], "collect", pytest.fail)
    with pytest.raises(ValueError, match=f"names of directions.*{fault}"):
        atlas.build(target, world.image_set(4), clip, words, ["layer4@probes"], k=1)


def test_a_dictionary_without_names_may_say_none():
    own = dictionary(128, 3)
    for names in (None, [], ()):
        given = SimpleNamespace(**{**vars(own), "encode": own.encode, "names": names})
        made = with_directions(targets.load("world/conv"), "layer4", given)
        assert not made.given["layer4@directions"]


@pytest.mark.parametrize("names", [("red",), ("red", "", "sky"), ("red", 3, "sky"), "red", "sky"])
def test_names_that_are_not_one_for_each_direction_are_refused(names):
    own = replace(dictionary(128, 3), names=names)
    with pytest.raises(ValueError, match=r"are not one text for each of the 3 directions"):
        with_directions(targets.load("world/conv"), "layer4", own)


@pytest.mark.parametrize(
    "layer, change, message",
    [
        ("layer9", {}, "no layer 'layer9'"),
        ("logits", {}, "give a hidden layer"),
        ("layer3", {}, r"layer3.*directions \(11, 128\)"),
        ("layer4", {"bias": torch.zeros(3)}, r"bias \(3,\)"),
        ("layer4", {"encode": lambda a: a}, r"encode .*320, 128.*, not codes \(320, 11\)"),
        ("layer4", {"encode": lambda a: (a, a)}, r"encode returns tuple for 320 positions"),
    ],
)
def test_a_dictionary_that_does_not_fit_is_refused(layer, change, message):
    own = dictionary(128)
    given = SimpleNamespace(directions=own.directions, bias=own.bias, encode=own.encode)
    vars(given).update(change)
    with pytest.raises(ValueError, match=message):
        with_directions(targets.load("world/conv"), layer, given)


# Dictionaries -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("store"))
    target = targets.load("world/conv")
    return Positions(target, world.image_set(40), "layer4", per_image=8, store=store)


def test_shards_hold_positions_of_every_image_once(shards):
    a, target = shards[0], shards.target
    assert len(shards) == 1 and a.shape == (40 * 8, 128)
    x = torch.stack([target.preprocess(shards.images.image(i)) for i in range(40)])
    with torch.no_grad(), capture(target, "layer4") as captured:
        target.model(x)
    every = captured["layer4"].maps.flatten(2).transpose(1, 2).flatten(0, 1)
    near = torch.cdist(a.double(), every.double())
    assert near.min(1).values.max() < 1e-4 and len({*near.argmin(1).tolist()}) > 250
    with pytest.raises(IndexError):
        shards[1]


def test_a_topk_encoder_keeps_the_largest_positive_codes():
    own, a = dictionary(6, 9, 3), torch.randn(20, 6)
    codes = own.encode(a)
    for row, one in zip(codes, a, strict=True):
        values = [
            float((one - own.bias) @ w + o) for w, o in zip(own.weight, own.offset, strict=True)
        ]
        kept = sorted(range(9), key=lambda j: -values[j])[:3]
        expected = [max(0.0, v) if j in kept else 0.0 for j, v in enumerate(values)]
        assert row.tolist() == pytest.approx(expected, abs=1e-6)


def test_training_reconstructs_more_and_goes_on_where_it_stopped(shards, monkeypatch):
    """Breaks if a run that was interrupted ends with other weights than one that was not."""
    how = {"latents": 32, "k": 4, "batch": 64, "progress": False}
    first, last = (dictionaries.train_topk(shards, epochs=n, **how) for n in (1, 12))
    a = shards[0]
    assert dictionaries.quality(last, a)["R2"] > dictionaries.quality(first, a)["R2"] > 0
    assert dictionaries.quality(last, a)["L0"] <= 4
    whole = dictionaries.train_topk(shards, epochs=3, seed=1, **how)
    original, calls = dictionaries._revive, []

    def stop(*given):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        original(*given)

    elsewhere = Positions(**{**vars(shards), "store": Store(shards.store.root / "again")})
    monkeypatch.setattr(dictionaries, "_revive", stop)
    with pytest.raises(KeyboardInterrupt):
        dictionaries.train_topk(elsewhere, epochs=3, seed=1, **how)
    monkeypatch.setattr(dictionaries, "_revive", original)
    resumed = dictionaries.train_topk(elsewhere, epochs=3, seed=1, **how)
    assert torch.equal(resumed.directions, whole.directions)


def test_a_step_descends_the_errors_of_all_nested_parts():
    """Adam's first step on the summed shares of variance, position by position, in float64."""
    own, a = dictionary(6, 9), torch.randn(20, 6).double()
    parts = {n: getattr(own, n).double() for n in dictionaries._PARTS}
    sides = {f"{m} {n}": torch.zeros_like(one) for n, one in parts.items() for m in ("m", "v")}
    sides |= {"uses": torch.zeros(9), "t": torch.zeros((), dtype=torch.float64)}
    leaves = {n: one.clone().requires_grad_() for n, one in parts.items()}
    loss = torch.zeros((), dtype=torch.float64)
    mean, uses = a.mean(0), torch.zeros(9)
    variance = sum(((x - mean) ** 2).sum() for x in a)
    for x in a:
        codes = leaves["weight"] @ (x - leaves["bias"]) + leaves["offset"]
        kept = [j for j in codes.argsort(descending=True)[:3].tolist() if codes[j] > 0]
        uses[kept] += 1
        for size in (2, 5, 9):
            made = sum(
                (codes[j] * leaves["directions"][j] for j in kept if j < size), torch.zeros(6)
            )
            loss = loss + ((x - made - leaves["bias"]) ** 2).sum() / variance
    loss.backward()
    dictionaries._descend(parts, sides, a, 3, 0.01, (2, 5, 9))
    for name, one in leaves.items():
        expected = one.detach() - 0.01 * one.grad / (one.grad.abs() + 1e-8)
        if name == "directions":
            expected = expected / expected.norm(dim=1, keepdim=True)
        torch.testing.assert_close(parts[name], expected)
    assert torch.equal(sides["uses"], uses)


def test_nested_parts_reconstruct_alone(shards):
    """Breaks if the first latents of a Matryoshka autoencoder are no better than any others."""
    how = {"latents": 64, "k": 6, "epochs": 30, "batch": 64, "progress": False}
    a, r2 = shards[0], []
    for nested in ((), (8, 24)):
        own = dictionaries.train_topk(shards, nested=nested, **how)
        rest = a - own.encode(a)[:, :8] @ own.directions[:8] - own.bias
        r2.append(1 - (rest.square().sum() / (a - a.mean(0)).square().sum()).item())
    assert r2[1] > r2[0] + 0.05
    with pytest.raises(ValueError, match=r"nested is \[8, 64\]; give .* from 1 to 63"):
        dictionaries.train_topk(shards, nested=(8, 64), **how)


@pytest.mark.parametrize(
    "change", [{"k": 0}, {"latents": 0}, {"epochs": 0}, {"batch": 2.5}, {"nested": (0,)}]
)
def test_numbers_that_train_nothing_are_refused(shards, change):
    (name,) = change
    with pytest.raises(ValueError, match=rf"{name} is .*give a whole number, at least 1"):
        dictionaries.train_topk(shards, progress=False, **change)
    with pytest.raises(ValueError, match="per_image is 0"):
        replace(shards, per_image=0)


def test_latents_without_use_start_again(monkeypatch):
    parts = dict(zip(dictionaries._PARTS, vars(dictionary(6, 9)).values(), strict=False))
    sides = {f"{m} {n}": torch.ones_like(one) for n, one in parts.items() for m in ("m", "v")}
    sides["uses"] = torch.tensor([1.0] * 7 + [0.0] * 2)
    before, sizes = {n: one.clone() for n, one in parts.items()}, []
    encode = lambda self, a: sizes.append(len(a)) or Linear.encode(self, a)  # noqa: E731
    noted = type("Noted", (Linear,), {"encode": encode})
    monkeypatch.setattr(dictionaries, "Linear", noted)
    dictionaries._revive(parts, sides, torch.randn(40_000, 6), 3)
    assert max(sizes) < 20_000 and sum(sizes) == 40_000, "a shard of any size fits into memory"
    assert torch.equal(parts["directions"][:7], before["directions"][:7])
    assert not torch.isclose(parts["directions"][7:], before["directions"][7:]).any()
    assert torch.allclose(parts["directions"][7:].norm(dim=1), torch.ones(2))
    assert not sides["uses"].any() and not sides["m directions"][7:].any()


def test_other_dictionaries_reconstruct_as_they_should():
    torch.manual_seed(0)
    a = torch.rand(200, 5) @ torch.rand(5, 12)
    quality = {
        "pca": dictionaries.quality(dictionaries.principal(a, 5), a),
        "nmf": dictionaries.quality(dictionaries.factorise(a, 5), a),
    }
    assert quality["pca"]["R2"] > 0.9999 and quality["nmf"]["R2"] > 0.9
    more = dictionaries.factorise(a, 20)  # than neurons
    assert more.directions.shape == (20, 12) and (more.directions >= 0).all()
    own = dictionaries.principal(a, 5)
    assert dictionaries.stability(own, own) == pytest.approx(1)
    unlike = dictionaries.random_directions(a, 5, seed=1)
    assert dictionaries.stability(own, unlike) < 0.95
    assert dictionaries.quality(dictionaries.random_directions(a, 7, 2), a)["L0"] <= 2


def test_standardised_dictionaries_reconstruct_with_mean_and_deviation():
    a, eye = torch.randn(50, 8) * 3 + torch.randn(50, 1) * 5 + 7, torch.eye(8)
    for bias in (torch.zeros(8), torch.rand(8)):
        own = Linear(eye, torch.zeros(8), eye, bias, standardised=True)
        assert dictionaries.quality(own, a)["R2"] == pytest.approx(1, abs=1e-6)


def test_quality_is_finite_without_variance():
    """Breaks if a constant layer gives a number that JSON does not have."""
    a, zero = torch.full((30, 4), 0.1), torch.zeros(4)
    exact = Linear(torch.eye(4), zero, torch.eye(4), zero)
    assert dictionaries.quality(exact, a) == {"R2": 1, "L0": 4, "dead": 0}
    nothing = Linear(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, 4), zero)
    assert dictionaries.quality(nothing, a) == {"R2": 0, "L0": 0, "dead": 0}


def test_factors_take_no_positions_and_more_codes_than_atoms():
    a = torch.rand(60, 6)
    for own in (dictionaries.factorise(a, 3), dictionaries.factorise(a, 3, k=8)):
        assert own.encode(a[:0]).shape == (0, 3) and own.encode(a).shape == (60, 3)
    with pytest.raises(ValueError, match="k is 0"):
        dictionaries.factorise(a, 3, k=0)


def test_factors_and_atoms_are_those_of_scikit_learn():
    """Its own classes, from the activations clamped at zero, or less their mean."""
    torch.manual_seed(0)
    a = torch.rand(200, 5) @ torch.rand(5, 12) - 1
    x = a.double().numpy().clip(min=0)
    model = MiniBatchNMF(
        5, random_state=3, init="nndsvda", batch_size=4_096, transform_max_iter=30
    ).fit(x)
    own = dictionaries.factorise(a, 5, seed=3)
    torch.testing.assert_close(own.directions, torch.from_numpy(model.components_).float())
    torch.testing.assert_close(own.encode(a), torch.from_numpy(model.transform(x)).float())

    x = (a - a.mean(0)).double().numpy()
    how = {"fit_algorithm": "cd", "max_iter": 10, "transform_n_nonzero_coefs": 2}
    model = MiniBatchDictionaryLearning(7, random_state=3, **how).fit(x)
    own = dictionaries.factorise(a, 7, seed=3, k=2)
    torch.testing.assert_close(own.directions, torch.from_numpy(model.components_).float())
    codes = sparse_encode(x, model.components_, algorithm="omp", n_nonzero_coefs=2)
    torch.testing.assert_close(own.encode(a), torch.from_numpy(codes).float())
    torch.testing.assert_close(own.bias, a.mean(0))
    quality = dictionaries.quality(own, a)
    assert quality["R2"] > 0.8 and quality["L0"] <= 2 and (codes < 0).any()


def saved(path, layout, width=6, count=9):
    """Write random weights in a published layout, with settings beside them; returns both."""
    torch.manual_seed(3)
    state = {"W_enc": torch.randn(width, count), "b_enc": torch.randn(count)}
    state |= {"W_dec": torch.randn(count, width), "b_dec": torch.randn(width)}
    if layout == "overcomplete":
        state = {
            "encoder.final_block.0.weight": torch.randn(count, width),
            "encoder.final_block.0.bias": torch.randn(count),
            "dictionary._weights": torch.randn(count, width),
            "dictionary.multiplier": torch.tensor(0.3),
        }
    save_file(state, path)
    settings = {"normalize_activations": "none", "activation_fn_str": "relu"}
    return state, settings | {"activation_fn_kwargs": {}}


def reconstruction(own, a):
    return own.encode(a) @ own.directions + own.bias


def test_published_autoencoders_reconstruct_as_their_own_code_does(tmp_path):
    """The formulas of both libraries, written out: ReLU, the k largest, layer normalisation."""
    path, a = tmp_path / "sae.safetensors", torch.randn(40, 6) * 3 + 1
    state, settings = saved(path, "prisma")
    beside = tmp_path / "config.json"
    beside.write_text(json.dumps(settings))
    w, b, v, c = (state[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec"))
    expected = ((a - c) @ w + b).relu() @ v + c
    torch.testing.assert_close(reconstruction(dictionaries.load(path), a), expected)

    settings |= {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 2}}
    beside.write_text(json.dumps(settings | {"normalize_activations": "layer_norm"}))
    own = dictionaries.load(path)
    deviation = a.std(1, keepdim=True)
    x = (a - a.mean(1, keepdim=True)) / (deviation + 1e-5)
    codes = (x - c) @ w + b
    codes = torch.where(codes >= codes.sort(1).values[:, -2:-1], codes.relu(), 0)
    expected = (codes @ v + c) * deviation + a.mean(1, keepdim=True)
    added = c * deviation + a.mean(1, keepdim=True)  # the part that no direction has
    torch.testing.assert_close(own.encode(a) @ own.directions + added, expected)
    assert ((own.encode(a) > 0).sum(1) <= 2).all()

    state, _ = saved(path, "overcomplete")
    weight, offset, directions, multiplier = state.values()
    expected = (a @ weight.T + offset).relu() @ (directions * multiplier.exp())
    torch.testing.assert_close(reconstruction(dictionaries.load(path), a), expected)
    assert ((dictionaries.load(path, k=3).encode(a) > 0).sum(1) <= 3).all()


def test_autoencoders_of_other_kinds_are_refused(tmp_path):
    path, beside = tmp_path / "sae.safetensors", tmp_path / "config.json"
    _, settings = saved(path, "prisma")
    with pytest.raises(FileNotFoundError, match=r"config.json.*standardised"):
        dictionaries.load(path)
    assert dictionaries.load(path, standardised=False).k == 9
    for change in (
        {"normalize_activations": "constant_norm_rescale"},
        {"activation_fn_str": "tanh"},
        {"activation_fn_str": "topk"},  # without k it would be ReLU
    ):
        beside.write_text(json.dumps(settings | change))
        with pytest.raises(ValueError, match=next(iter(change.values()))):
            dictionaries.load(path)
    beside.write_text(json.dumps({n: own for n, own in settings.items() if "normalize" not in n}))
    with pytest.raises(ValueError, match="has None"):
        dictionaries.load(path)
    beside.write_text(json.dumps(settings | {"activation_fn_kwargs": None}))
    assert dictionaries.load(path).k == 9
    save_file({"W_enc": torch.zeros(2, 3), "b_gate": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match=r"holds W_enc, b_gate; the layouts that are read"):
        dictionaries.load(path)


def test_probes_separate_concepts_along_their_normals():
    """Each direction is the normal that scikit-learn fits to standardised activations."""
    a = torch.randn(80, 5) * torch.tensor([1.0, 2, 3, 0.1, 1]) + 4
    present = torch.stack([a[:, 0] > 4.5, a[:, 3] > 4], 1)
    own = dictionaries.probes(a, present)
    for j in range(2):
        scaled = StandardScaler().fit(a)
        scaled.scale_ = a.std(0).numpy()
        fit = LogisticRegression(class_weight="balanced", max_iter=1_000)
        fit.fit(scaled.transform(a), present[:, j])
        normal = torch.from_numpy(fit.coef_[0]) / a.std(0)
        torch.testing.assert_close(own.directions[j], (normal / normal.norm()).float())
        assert roc_auc_score(present[:, j], own.encode(a)[:, j]) > 0.95
    torch.testing.assert_close(own.encode(a).mean(0), torch.zeros(2), atol=1e-5, rtol=0)


def test_codes_of_photographs_are_evaluated_like_neurons(shards):
    own = dictionaries.principal(shards[0], 6)
    made = with_directions(shards.target, "layer4", own, "pca")
    some = images.subset(shards.images, range(8))
    z = evaluation.activations(made, some, ["layer4@pca"], progress=False)["layer4@pca"]
    assert z.shape == (8, 6) and z.isfinite().all()
