"""The method on a GPU: the same results as on a CPU, and no more memory than it needs.

Skipped where there is no CUDA device. ``WWW_GPU=cpu`` runs all but the measures of memory on the
CPU, where they must hold, too.
"""

import os

import pytest
import torch

from wwwlib import concepts, contributions, evaluation, exemplars, language, maps, targets, world
from wwwlib.studies import dictionaries

DEVICE = os.environ.get("WWW_GPU") or ("cuda" if torch.cuda.is_available() else "")
pytestmark = pytest.mark.skipif(not DEVICE, reason="no CUDA device; WWW_GPU=cpu tests these tests")
on_cuda = pytest.mark.skipif(DEVICE != "cuda", reason="memory is counted on a CUDA device only")
NETWORKS = {
    "world/conv": ("layer4", "layer3"),
    "world/vit": ("encoder.ln", "encoder.layers.encoder_layer_1"),
}
each_network = pytest.mark.parametrize("name", NETWORKS)


@pytest.fixture(autouse=True)
def exact():
    """Convolutions in float32 as on a CPU, without TF32; products have it off by default."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def both(name):
    return targets.load(name), targets.load(name).to(DEVICE)


def inputs(target, count=12):
    probe = world.image_set(count, 7)
    return torch.stack([target.preprocess(probe.image(i)) for i in range(count)])


def near(one, other, part=1e-3):
    """Check that two tensors differ by less than a part of the largest value."""
    one, other = (x.detach().double().cpu().nan_to_num(0) for x in (one, other))
    assert (one - other).abs().max() <= part * one.abs().max().clamp(min=1e-6)


@each_network
def test_exemplars_are_those_of_a_cpu(name):
    """Breaks if sums or ranks are taken in another order, or batches are lost."""
    layers, probe = [*NETWORKS[name], "logits"], world.image_set(96)
    found = [
        exemplars.collect(one, probe, layers, 8, batch_size=32, progress=False)
        for one in both(name)
    ]
    for layer in layers:
        one, other = found[0][layer], found[1][layer]
        near(one.value, other.value)
        assert (one.index == other.index).float().mean() > 0.97, "all but near-ties"


@each_network
def test_contributions_and_their_maps_are_those_of_a_cpu(name):
    here, there = both(name)
    x, layer = inputs(here), NETWORKS[name][1]
    for compute in (contributions.taylor, maps.contribution):
        one, other = compute(here, x, layer), compute(there, x.to(DEVICE), layer)
        assert other.device.type == DEVICE
        near(one, other)
    few = range(8)
    one = contributions.ablation(here, x[:2], layer, neurons=few)
    near(one, contributions.ablation(there, x[:2].to(DEVICE), layer, neurons=few))


@each_network
def test_directions_are_those_of_a_cpu(name):
    """Codes of one dictionary, and the error of an autoencoder that the device trained."""
    layer, found = NETWORKS[name][1], []
    for device, target in zip(("cpu", DEVICE), both(name), strict=True):
        shards = dictionaries.Positions(target, world.image_set(64), layer, 8)
        trained = dictionaries.train_topk(shards, 32, 4, device=device, batch=64, progress=False)
        pca = dictionaries.principal(shards[0], 16)
        made = targets.with_directions(target, layer, pca, "pca")
        x = inputs(target).to(device)
        w = contributions.taylor(made, x, f"{layer}@pca", signed=True)
        without = contributions.ablation(made, x[:2], f"{layer}@pca", neurons=range(4))
        found.append((w, without, dictionaries.quality(trained, shards[0])["R2"]))
    for one, other in zip(found[0][:2], found[1][:2], strict=True):
        near(one, other)  # whatever the signs of components
    assert abs(found[0][2] - found[1][2]) < 0.05 and found[1][2] > 0.3


def test_regions_and_heatmaps_are_those_of_a_cpu():
    torch.manual_seed(0)
    a, w = torch.rand(3, 16, 7, 7), torch.rand(3, 16)
    near(maps.resize(a, 56), maps.resize(a.to(DEVICE), 56), 1e-5)
    one, other = maps.region(a, 90.0, 56), maps.region(a.to(DEVICE), 90.0, 56).cpu()
    assert (one != other).float().mean() < 1e-3, "all but cells at the threshold"
    here, there = (maps.heatmap(a.to(d), w.to(d), 5, 56) for d in ("cpu", DEVICE))
    near(here, there, 1e-5)
    near(*(maps.similarity(m, torch.ones_like(m)) for m in (here, there)))


def test_scores_and_names_are_those_of_a_cpu():
    torch.manual_seed(0)
    v, t = torch.randn(64, 20, 512), torch.randn(4_000, 512)
    v, t = (x / x.norm(dim=-1, keepdim=True) for x in (v, t))
    near(concepts.score(v, t), concepts.score(v.to(DEVICE), t.to(DEVICE)), 1e-4)


@pytest.mark.parametrize(
    "measure", ["auroc", "mad", "average_precision", "pearson"], ids=lambda name: name
)
def test_measures_of_names_are_those_of_a_cpu(measure):
    torch.manual_seed(0)
    z, present = torch.randn(300, 24), torch.rand(300, 9) < 0.2
    compute = getattr(evaluation, measure)
    near(compute(z, present), compute(z.to(DEVICE), present.to(DEVICE)), 1e-5)


def test_features_of_the_encoder_are_those_of_a_cpu():
    probe, texts = world.image_set(8), ["a boat", "the sea at night"]
    here, there = language.encoder("world"), language.encoder("world", DEVICE)
    near(here.encode_texts(texts), there.encode_texts(texts))
    x = torch.stack([here.preprocess(probe.image(i)) for i in range(8)])
    near(here.encode_images(x), there.encode_images(x.to(DEVICE)))


def peak(call):
    """Return the bytes that a call takes on the device beyond what is there."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    return torch.cuda.max_memory_allocated() - before


@on_cuda
def test_memory_does_not_grow_with_images():
    target = targets.load("world/conv").to(DEVICE)
    how = {"batch_size": 32, "progress": False}
    took = [
        peak(lambda n=n: exemplars.collect(target, world.image_set(n), ["layer4"], 8, **how))
        for n in (64, 64, 512)  # the first one warms up
    ]
    assert took[2] < 1.2 * took[1], took


@on_cuda
def test_scoring_wordnet_holds_one_block_at_a_time():
    v = torch.randn(1_000, 512, device=DEVICE)
    t = torch.randn(82_115, 512, device=DEVICE)
    assert peak(lambda: concepts.score(v[:, None], t)) < 1.5e9, "the scores alone take 0.33 GB"
