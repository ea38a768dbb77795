"""CLIP-Dissect's similarity function against literal loops in float64, and in bounded memory."""

import math
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.transforms.functional import pil_to_tensor

from wwwlib import evaluation, exemplars, targets, world
from wwwlib.activations import capture
from wwwlib.baselines import clip_dissect
from wwwlib.store import Store

IMAGES, CONCEPTS, NEURONS, DIM, K = 23, 11, 5, 6, 7
WORDS = [f"w{j}" for j in range(CONCEPTS)]


def case(dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    v, t = F.normalize(draw(IMAGES, DIM), dim=1), F.normalize(draw(CONCEPTS, DIM), dim=1)
    return v.to(dtype), t.to(dtype), draw(IMAGES, NEURONS).to(dtype)


def most_active(z, k=K):
    """The record that `exemplars.collect` would make of these activations."""
    value, index = z.sort(dim=0, descending=True, stable=True)
    status = torch.where(z.amax(0) > z.amin(0), exemplars.OK, exemplars.CONSTANT)
    empty = torch.zeros(1, z.shape[1])
    kept = index[:k].T.contiguous(), value[:k].T.contiguous(), status.to(torch.int8)
    return exemplars.Exemplars(*kept, empty, empty, torch.zeros(1), len(z))


def matrix(table, words=WORDS):
    """Spread a table with every concept in it over (N, M)."""
    rows = []
    for names, scores in zip(table.names, table.scores, strict=True):
        by_name = dict(zip(names, scores, strict=True))
        assert scores == sorted(scores, reverse=True)
        rows.append([by_name[word] for word in words])
    return torch.tensor(rows, dtype=torch.float64)


# The literal versions


def product(v, t):
    """P: one cosine at a time."""
    return [[sum(x * y for x, y in zip(a, b, strict=True)) for b in t] for a in v]


def softmax(row, temperature):
    powers = [math.exp(temperature * value) for value in row]
    return [power / sum(powers) for power in powers]


def literal_wpmi(v, t, index, weights, temperature, lam):
    p = [softmax(row, temperature) for row in product(v.tolist(), t.tolist())]
    expected = [
        [
            math.prod(1 + w * (p[o][m] - 1) for w, o in zip(weights, row, strict=True))
            for m in range(len(t))
        ]
        for row in index.tolist()
    ]
    prior = [sum(row[m] for row in expected) / len(expected) for m in range(len(t))]
    return [[math.log(e) - lam * math.log(q) for e, q in zip(row, prior, strict=True)]
            for row in expected]  # fmt: skip


def falling(first, last, count):
    return [first + (last - first) * o / (count - 1) for o in range(count)]


def with_settings(v, t, exemplars, k, membership, temperature=10.0, **lam):
    settings = {"MEMBERSHIP": membership, "TEMPERATURE": temperature}
    with mock.patch.multiple(clip_dissect, **settings):
        return clip_dissect.soft_wpmi(v, t, exemplars, WORDS[: len(t)], k, **lam)


CASES = {
    "soft wpmi": (
        lambda v, t, z, k: clip_dissect.soft_wpmi(v, t, most_active(z), WORDS, k),
        lambda v, t, z: literal_wpmi(v, t, most_active(z).index, falling(0.998, 0.97, K), 10, 1),
    ),
    "soft wpmi, other settings": (
        lambda v, t, z, k: with_settings(v, t, most_active(z), k, (1.0, 0.0), 2, lam=0.6),
        lambda v, t, z: literal_wpmi(v, t, most_active(z).index, falling(1, 0, K), 2, 0.6),
    ),
    "certain membership": (
        lambda v, t, z, k: with_settings(v, t, most_active(z), k, (1.0, 1.0), lam=0.6),
        lambda v, t, z: literal_wpmi(v, t, most_active(z).index, [1.0] * K, 10, 0.6),
    ),
}
each = pytest.mark.parametrize("name", CASES)


@each
def test_equals_the_literal_loops_in_float64(name):
    ours, literal = CASES[name]
    expected = torch.tensor(literal(*case()), dtype=torch.float64)
    torch.testing.assert_close(matrix(ours(*case(), CONCEPTS)), expected, rtol=1e-10, atol=1e-12)


@each
def test_float32_is_float64_up_to_rounding(name):
    ours, _ = CASES[name]
    exact, rounded = matrix(ours(*case(), CONCEPTS)), matrix(ours(*case(torch.float32), CONCEPTS))
    torch.testing.assert_close(rounded, exact, rtol=1e-4, atol=1e-5)


@each
@pytest.mark.parametrize("block", [1, 40, 300])
def test_blocks_do_not_change_the_result(name, block, monkeypatch):
    ours, _ = CASES[name]
    whole = ours(*case(), CONCEPTS)
    monkeypatch.setattr(clip_dissect, "BLOCK", block)
    parts = ours(*case(), CONCEPTS)
    torch.testing.assert_close(matrix(parts), matrix(whole), rtol=1e-12, atol=1e-12)


@each
def test_top_k_is_the_start_of_the_whole_ranking(name):
    ours, _ = CASES[name]
    every, three = ours(*case(), CONCEPTS), ours(*case(), 3)
    assert three.names == [names[:3] for names in every.names]
    assert three.scores == [scores[:3] for scores in every.scores]
    assert three.threshold.tolist() == [scores[-1] for scores in three.scores]


@each
def test_a_constant_neuron_abstains_and_does_not_disturb_the_others(name):
    """It must not enter the layer's prior either."""
    ours, _ = CASES[name]
    v, t, z = case()
    table = ours(v, t, torch.cat([z[:, :2], torch.zeros(IMAGES, 1).double(), z[:, 2:]], 1), 2)
    alone = ours(v, t, z, 2)
    assert table.abstained.tolist() == [False, False, True, False, False, False]
    assert table.names == [*alone.names[:2], [], *alone.names[2:]]
    assert table.threshold[2] == 0
    constant = ours(v, t, torch.zeros(IMAGES, 2).double(), 1)
    assert constant.names == [[], []]


def test_equal_concepts_keep_their_order():
    v, t, z = case()
    twice = torch.cat([t, t])
    words = [*WORDS, *(f"{word} again" for word in WORDS)]
    table = clip_dissect.soft_wpmi(v, twice, most_active(z), words, 2)
    assert all(second == f"{first} again" for first, second in table.names)


def test_the_prior_is_that_of_the_layer():
    """Without it (lam = 0) a neuron's score does not depend on the other neurons; with it, yes."""
    v, t, z = case()

    def scores(z, lam):
        return clip_dissect.soft_wpmi(v, t, most_active(z), WORDS, CONCEPTS, lam=lam).scores[0]

    assert scores(z, 0) == pytest.approx(scores(z[:, :1], 0))
    assert scores(z[:, :1], 1) == pytest.approx([0] * CONCEPTS, abs=1e-12)
    assert scores(z, 1) != pytest.approx([0] * CONCEPTS, abs=1e-3)


def test_rare_probabilities_do_not_underflow():
    """exp(-1000) is 0 in any float; its logarithm must survive."""
    v = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
    t = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    z = torch.tensor([[1.0], [0.0]])
    table = with_settings(v, t, most_active(z, 1), 2, (1.0, 1.0), 500, lam=0)
    assert table.scores == [[0.0, -1000.0]]


class Largest(TorchDispatchMode):
    """Notes how many elements the largest tensor that any operation makes has."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for one in made if isinstance(made, tuple | list) else [made]:
            if isinstance(one, torch.Tensor):
                self.elements = max(self.elements, one.numel())
        return made


def test_memory_does_not_grow_with_images_times_concepts(monkeypatch):
    """Breaks if P (I, M), (N, M) scores or (N, K, M) likelihoods are ever held."""
    count, concepts, neurons, dim = 300, 1_000, 12, 4
    monkeypatch.setattr(clip_dissect, "BLOCK", 6_000)
    v = F.normalize(torch.randn(count, dim), dim=1)
    t = F.normalize(torch.randn(concepts, dim), dim=1)
    z = torch.randn(count, neurons)
    with Largest() as largest:
        clip_dissect.soft_wpmi(v, t, most_active(z, 100), list(map(str, range(concepts))), 5)
    assert largest.elements <= 2 * max(t.numel(), z.numel())
    assert 10 * largest.elements < min(count, 100 * neurons) * concepts


def test_a_planted_concept_is_found():
    """Each neuron is excited by one concept, with noise."""
    v, t = torch.eye(12).repeat(20, 1), torch.eye(12)
    v = F.normalize(v + 0.1 * torch.randn(v.shape), dim=1)
    z = v @ t[[7, 2, 9]].T + 0.02 * torch.randn(len(v), 3)
    found = clip_dissect.soft_wpmi(v, t, most_active(z, 10), list(map(str, range(12))))
    assert found.names == [["7"], ["2"], ["9"]]


def small(image):
    return pil_to_tensor(image.resize((64, 64))) / 255


def test_activations_are_z_of_every_image_in_order():
    model = nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.Flatten(), nn.Linear(256, 3))
    target = targets.wrap(model, small, ("a", "b", "c"), "test")
    probe = world.image_set(7)
    made = evaluation.activations(target, probe, ["0", "logits"], batch_size=3, progress=False)
    for i in range(len(probe)):
        with torch.no_grad(), capture(target, ["0", "logits"]) as taken:
            target.model(target.preprocess(probe.image(i))[None])
        for layer, z in made.items():
            torch.testing.assert_close(z[i], taken[layer].z[0], rtol=1e-4, atol=1e-5)


def test_activations_of_all_layers_are_read_once_and_kept(tmp_path):
    """Two layers in one pass; each comes from the store alone later, and no image is read."""
    seen, store, probe = [], Store(tmp_path), world.image_set(6)

    def preprocess(image):
        seen.append(image.size)
        return small(image)

    model = nn.Sequential(nn.Conv2d(3, 4, 8, 8), nn.Flatten(), nn.Linear(256, 3))
    target = targets.wrap(model, preprocess, ("a", "b", "c"), "test")
    first = evaluation.activations(target, probe, ["0", "logits"], progress=False, store=store)
    assert seen.count((64, 64)) == 6, "its key looks at an image of another size"
    for layer in ("logits", "0"):
        again = evaluation.activations(target, probe, [layer], progress=False, store=store)
        assert torch.equal(again[layer], first[layer])
    assert seen.count((64, 64)) == 6


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"k": 0}, "k is 0, but there are 11 concepts"),
        ({"k": 12}, "give 1 to 11"),
        ({"words": WORDS[1:]}, "10 words do not fit"),
        ({"v": torch.zeros(22, DIM)}, "features of 22 images and activations on 23"),
        ({"t": torch.zeros(CONCEPTS, DIM + 1)}, "do not fit"),
    ],
)
def test_what_does_not_fit_is_refused(change, sentence):
    v, t, z = case()
    given = {"v": v, "t": t, "words": WORDS, "k": 1} | change
    with pytest.raises(ValueError, match=sentence):
        clip_dissect.soft_wpmi(exemplars=most_active(z), **given)
