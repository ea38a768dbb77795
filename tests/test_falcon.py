"""FALCON, step by step against plain loops, and on the concept world."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.transforms.functional import pil_to_tensor

from wwwlib import language, maps, targets, world
from wwwlib.baselines import falcon
from wwwlib.baselines.falcon import corpus, groups
from wwwlib.language.concept_sets import read_lines
from wwwlib.store import Store


def unit(*shape):
    return F.normalize(torch.randn(*shape, dtype=torch.float64), dim=-1)


# Groups -------------------------------------------------------------------------------------


def literal_groups(z, sigmas, least):
    rows = [[value / sum(v * v for v in row) ** 0.5 for value in row] for row in z.tolist()]
    flat = [value for row in rows for value in row]
    mean = sum(flat) / len(flat)
    std = (sum((value - mean) ** 2 for value in flat) / len(flat)) ** 0.5
    found = {}
    for i, row in enumerate(rows):
        on = tuple(n for n, value in enumerate(row) if value > mean + sigmas * std)
        if on:
            found.setdefault(on, set()).add(i)
    return {on: images for on, images in found.items() if len(images) >= least}


@pytest.mark.parametrize("sigmas, least", [(1.0, 2), (1.5, 3), (2.0, 2)])
def test_groups_share_exactly_the_same_features(sigmas, least):
    z = torch.rand(80, 6, dtype=torch.float64) ** 4
    found = groups.find_groups(z, sigmas, least)
    assert {g.features: set(g.images) for g in found} == literal_groups(z, sigmas, least)
    assert found, "an example without a group shows nothing"
    sizes = [len(g.images) for g in found]
    assert sizes == sorted(sizes, reverse=True)
    f = F.normalize(z, dim=1)
    for group in found:
        strength = [float(f[i, list(group.features)].sum()) for i in group.images]
        assert strength == sorted(strength, reverse=True)


def test_a_group_has_more_than_ten_images_unless_told_otherwise():
    z = torch.zeros(300, 30)
    z[torch.arange(300), torch.arange(300) % 30] = 1.0  # ten images for each of thirty neurons
    assert groups.find_groups(z) == []
    assert len(groups.find_groups(z, least=10)) == 30


@pytest.mark.parametrize("z, least, message", [(torch.rand(4), 2, "z has shape"),
                                            (torch.rand(4, 2), 1, "least is 1")])  # fmt: skip
def test_invalid_arguments_of_groups_are_refused(z, least, message):
    with pytest.raises(ValueError, match=message):
        groups.find_groups(z, 1.0, least)


def test_counter_examples_are_alike_in_all_other_features():
    z = torch.rand(60, 8, dtype=torch.float64)
    group = falcon.Group((1, 4), (0, 5, 9))
    f = F.normalize(z, dim=1)
    others = [n for n in range(8) if n not in group.features]
    centre = [sum(float(f[i, n]) for i in group.images) / 3 for n in others]
    cosine = {}
    for i in range(60):
        if all(float(f[i, n]) < float(f.mean()) for n in group.features):
            row = [float(f[i, n]) for n in others]
            dot = sum(a * b for a, b in zip(row, centre, strict=True))
            cosine[i] = dot / (sum(a * a for a in row) * sum(b * b for b in centre)) ** 0.5
    least = sorted(cosine.values())[len(cosine) // 2]  # half of the candidates are too far away
    expected = [i for i in sorted(cosine, key=lambda i: -cosine[i]) if cosine[i] >= least]
    assert groups.counter_examples(z, group, 100, least) == expected
    assert groups.counter_examples(z, group, 3, least) == expected[:3]


# Regions ------------------------------------------------------------------------------------


def literal_region(m, threshold):
    """Flood-fill every strong cell, and put a box around the largest pool."""
    strong = m > threshold * m.max()
    left, pools = {tuple(p) for p in strong.nonzero().tolist()}, []
    while left:
        pool, edge = set(), [min(left)]
        while edge:
            y, x = edge.pop()
            if (y, x) in left:
                left.remove((y, x))
                pool.add((y, x))
                edge += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
        pools.append(pool)
    best = max(pools, key=len)
    rows, columns = [y for y, _ in best], [x for _, x in best]
    return min(columns), min(rows), max(columns) + 1, max(rows) + 1


@pytest.mark.parametrize("seed", range(8))
def test_the_box_lies_around_the_largest_strong_region(seed):
    cam = torch.rand(7, 5, generator=torch.Generator().manual_seed(seed))
    size = (28, 40)
    m = maps.resize(cam[None, None], size)[0, 0]
    assert groups.largest_region(cam, size, 0.7) == literal_region(m, 0.7)


def test_a_map_of_zeros_keeps_the_whole_image():
    assert groups.largest_region(torch.zeros(4, 4), (30, 20)) == (0, 0, 20, 30)
    with pytest.raises(ValueError, match="threshold is 1"):
        groups.largest_region(torch.ones(4, 4), (30, 20), 1.0)


def test_a_groups_cam_is_the_sum_of_its_maps_where_features_are_their_means():
    """Grad-CAM of pooled maps needs no network after them: the gradient is the same everywhere."""
    target = targets.load("world/conv")
    x = torch.stack([target.preprocess(world.image_set(2).image(i)) for i in range(2)])
    cam = groups.group_cam(target, x, "layer4", [3, 17])
    with torch.no_grad():
        kept = []
        hook = target.model.layer4.register_forward_hook(lambda *args: kept.append(args[2]))
        target.model(x)
        hook.remove()
    a = kept[0]
    expected = (a[:, 3] + a[:, 17]).clamp(min=0) / (a.shape[2] * a.shape[3])
    torch.testing.assert_close(cam, expected)


def test_cohesion_is_the_mean_cosine_of_all_pairs():
    v = unit(7, 5)
    pairs = [float(v[i] @ v[j]) for i in range(7) for j in range(i)]
    assert groups.cohesion(v) == pytest.approx(sum(pairs) / len(pairs))


def test_images_are_cut_as_the_network_saw_them():
    """Boxes are in pixels of the network's input, not of the file."""

    def half(image):
        return pil_to_tensor(image.resize((32, 32))).float() / 255

    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2))
    target, probe = targets.wrap(model, half, ["a", "b"], "half"), world.image_set(3)
    cut = groups.crop_to_boxes(target, probe, [2, 0], [(4, 6, 14, 26), (0, 0, 32, 32)])
    assert [cut.image(i).size for i in range(2)] == [(10, 20), (32, 32)]
    seen = np.asarray(probe.image(2).resize((32, 32)))
    assert np.array_equal(np.asarray(cut.image(0)), seen[6:26, 4:14])
    other = groups.crop_to_boxes(target, probe, [2, 0], [(4, 6, 14, 26), (0, 0, 32, 31)])
    assert cut.fingerprint != other.fingerprint


# Words --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "caption, expected",
    [("A striped RED boat, beside 3 houses!",
      ["striped", "red", "boat", "striped red boat", "house"]),
     ("there is something on the beach", ["beach"]),
     ("dogs running over old stone fences", ["dog", "run", "old", "stone", "fence",
                                             "old stone fence"]),
     ("", []), ("??? 42", [])],
)  # fmt: skip
def test_captions_become_lemmas_and_phrases(caption, expected):
    assert sorted(corpus.terms(caption)) == sorted(expected)


@pytest.mark.parametrize("module", ["textblob.en", "lemminflect"])
def test_a_missing_package_is_named_with_its_extra(module, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=r"wwwlib\[baselines\]"):
        corpus.terms(f"a boat without {module}")


def test_that_a_picture_is_one_is_not_worth_a_word():
    """Every caption contains such a word."""
    for caption in ("a photo of a boat", "a drawing of a boat", "here we see a boat",
                    "images that show boats"):  # fmt: skip
        assert corpus.terms(caption) == ("boat",), caption


def test_words_are_scored_by_the_best_caption_that_holds_them():
    captions = [["red boat", "boat"], ["sea", "boat"], ["red house", "sea"]]
    similarity = torch.tensor([[0.2, 0.5], [0.9, 0.3], [0.6, 0.1]], dtype=torch.float64)
    found = corpus.word_scores(captions, similarity)
    expected = {"boat": (0.5 + 0.3 + 0) / 3, "red": (0.2 + 0 + 0.6) / 3, "sea": (0.9 + 0.1) / 3,
                "house": 0.6 / 3, "red boat": 0.2 / 3, "red house": 0.6 / 3}  # fmt: skip
    assert found == pytest.approx(expected)


def test_words_of_counter_examples_are_dropped():
    scores = {"boat": 0.5, "sea": 0.4, "sail": 0.4, "white": 0.3, "odd": -0.1}
    counter = {"sea": 0.1, "white": 0.09}
    assert list(corpus.contrast(scores, counter)) == ["boat", "sail", "white"]
    assert list(corpus.contrast(scores, {}, top=2)) == ["boat", "sail"]


# Captions -----------------------------------------------------------------------------------


class Letters:
    """An encoder that counts letters: near means spelt alike."""

    name, dim = "letters", 26

    def encode_texts(self, texts):
        rows = [[text.count(chr(97 + i)) + 0.01 for i in range(26)] for text in texts]
        return F.normalize(torch.tensor(rows), dim=1)


TEXTS = ("a red boat", "a house", "the sea", "trees and more trees", "a boat", "zebra", "a red bus")


def literal_nearest(v, t, count):
    rows = []
    for one in v.tolist():
        s = [sum(a * b for a, b in zip(one, row, strict=True)) for row in t.tolist()]
        rows.append(sorted(range(len(s)), key=lambda j: (-s[j], j))[:count])
    return rows


def test_the_nearest_captions_are_found(tmp_path):
    encoder = Letters()
    v = encoder.encode_texts(["boats", "red", "zoo"])
    (tmp_path / "captions.txt").write_text("\n".join([*TEXTS, TEXTS[0]]))
    corpus = falcon.corpus.captions(read_lines(tmp_path / "captions.txt"), encoder)
    assert corpus.texts == TEXTS
    found, cosine = corpus.nearest(v, 3)
    rows = literal_nearest(v, corpus.t, 3)
    assert found == [[TEXTS[j] for j in row] for row in rows]
    assert torch.allclose(cosine, (v @ corpus.t.T).gather(1, torch.tensor(rows)))


def test_shards_are_searched_block_by_block(tmp_path, monkeypatch):
    """Two files, blocks of two rows: the same result as from memory, file numbers in order."""
    import pandas as pd

    encoder, corpus = Letters(), falcon.corpus.captions(TEXTS, Letters())
    monkeypatch.setattr("wwwlib.baselines.falcon.corpus._BLOCK", 2)
    for number, rows in (("2", slice(0, 5)), ("10", slice(5, 7))):
        (tmp_path / "text_emb").mkdir(exist_ok=True)
        (tmp_path / "metadata").mkdir(exist_ok=True)
        t = (3 * corpus.t[rows]).half().numpy()  # half precision, not of unit norm
        np.save(tmp_path / "text_emb" / f"text_emb_{number}.npy", t)
        table = pd.DataFrame({"caption": TEXTS[rows], "url": "x"})
        table.to_parquet(tmp_path / "metadata" / f"metadata_{number}.parquet")
    v, opened = encoder.encode_texts(["boats", "red", "zoo"]), falcon.corpus.shards(tmp_path)
    found, cosine = opened.nearest(v, 3)
    expected, exact = corpus.nearest(v, 3)
    assert found == expected
    assert torch.allclose(cosine, exact, atol=1e-3)  # half precision keeps three digits
    with pytest.raises(ValueError, match="the encoder's have 5 dimensions"):
        opened.nearest(torch.rand(1, 5), 1)


def test_a_folder_without_shards_says_what_belongs_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"0 files text_emb_\*\.npy"):
        falcon.corpus.shards(tmp_path)


# All together -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def explained(tmp_path_factory):
    """FALCON on the final layer of world/conv, from 480 images."""
    target, clip = targets.load("world/conv"), language.encoder("world")
    corpus = falcon.corpus.captions(world.training_captions(480), clip)
    options = {"cam_layer": "layer4", "sigmas": 3.0, "cohesive": 0.5, "progress": False}
    options["store"] = Store(tmp_path_factory.mktemp("store"))
    probe = world.image_set(480, seed=0)
    return target, falcon.falcon(target, "logits", probe, clip, corpus, **options)


def test_groups_of_logits_are_classes_and_words_are_about_them(explained):
    target, found = explained
    assert found.neurons == 24 and len(found.groups) >= 20
    assert all(len(e.group.features) == 1 for e in found.groups)
    table, right = found.table(), 0
    assert len(table) == 24
    for neuron, names in enumerate(table.names):
        best = found.best(neuron)
        assert names == (list(best.words) if best else [])
        assert bool(table.abstained[neuron]) == (not names)
        right += target.classes[neuron] in names
    assert right >= 6, f"{right} of 24 classes among the words of their neurons"  # chance: below 1


def test_groups_that_do_not_hold_together_get_no_words(explained):
    for each in explained[1].groups:
        assert each.interpretable == (each.cohesion > 0.5)
        if not each.interpretable:
            assert not each.words and not each.counter


def test_the_best_group_of_a_neuron_has_the_fewest_features():
    def group(features, count, words):
        own = falcon.Group(features, tuple(range(count)))
        return falcon.GroupExplanation(own, (), 0.9, True, (), words)

    found = falcon.Falcon(
        "layer",
        4,
        (
            group((0, 1), 30, {"pair": 0.5}),
            group((1,), 12, {"x": 1}),
            group((0, 2), 20, {"b": 0.1}),
            group((3,), 9, {}),
        ),
    )
    assert found.table().names == [["pair"], ["x"], ["b"], []]
    assert found.table().abstained.tolist() == [False, False, False, True]


def test_class_tokens_are_drawn_on_the_block_before():
    """A block's class token does not depend on its own patch tokens: there the map is zero."""
    target, probe = targets.load("world/vit"), world.image_set(4)
    x = torch.stack([target.preprocess(probe.image(i)) for i in range(4)])
    layer, before = "encoder.layers.encoder_layer_1", "encoder.layers.encoder_layer_0"
    assert not groups.group_cam(target, x, layer, [3, 5]).any()
    assert groups.find_cam_layer(target, x, layer) == before
    assert groups.group_cam(target, x, layer, range(64), before).any()
    assert groups.find_cam_layer(target, x, "logits", layer) == layer
    last = "encoder.layers.encoder_layer_2"
    assert groups.find_cam_layer(target, x, "logits", last) == layer
    assert groups.find_cam_layer(target, x, before) is None, "before the first block there is none"
    conv = targets.load("world/conv")
    assert groups.find_cam_layer(conv, x, "logits", "layer4") == "layer4"


@pytest.mark.parametrize(
    "layer, drawn",
    [("encoder.layers.encoder_layer_1", "encoder.layers.encoder_layer_0"),
     ("encoder.layers.encoder_layer_0", None)],
)  # fmt: skip
def test_the_record_says_where_boxes_come_from(layer, drawn):
    target, clip = targets.load("world/vit"), language.encoder("world")
    corpus, options = falcon.corpus.captions(["a boat"], clip), {"sigmas": 2.0, "least": 2}
    found = falcon.falcon(
        target, layer, world.image_set(96), clip, corpus, progress=False, **options
    )
    assert found.cam_layer == drawn and found.groups
    whole = [box == (0, 0, 64, 64) for each in found.groups for box in each.boxes]
    assert all(whole) if drawn is None else not all(whole)


def test_a_second_run_asks_the_store(tmp_path):
    """Other captions, and a network that must not be run on more than the first image."""
    target, clip, store = targets.load("world/conv"), language.encoder("world"), Store(tmp_path)
    probe, options = (
        world.image_set(96),
        {"cam_layer": "layer4", "sigmas": 2.0, "least": 2, "store": store},
    )
    options |= {"cohesive": 0.0, "progress": False}
    corpus = falcon.corpus.captions(["a boat"], clip)
    first = falcon.falcon(target, "logits", probe, clip, corpus, **options)
    assert any(each.counter for each in first.groups)
    seen = []

    def only_first(i):
        seen.append(i)
        return world.image_set(96).image(i)

    again = falcon.falcon(
        target, "logits", replace(probe, reader=only_first), clip, corpus, **options
    )
    assert set(seen) == {0}
    assert [each.boxes for each in again.groups] == [each.boxes for each in first.groups]
    assert [each.words for each in again.groups] == [each.words for each in first.groups]


def test_one_image_is_no_group():
    target, clip = targets.load("world/conv"), language.encoder("world")
    with pytest.raises(ValueError, match="most is 1; give a whole number, at least 2"):
        falcon.falcon(target, "logits", world.image_set(4), clip, None, most=1)


def test_logits_have_no_maps_to_draw_on():
    target, clip = targets.load("world/conv"), language.encoder("world")
    corpus = falcon.corpus.captions(["a boat"], clip)
    with pytest.raises(ValueError, match="'logits' of world/conv has no maps"):
        falcon.falcon(
            target, "logits", world.image_set(96), clip, corpus, sigmas=1.0, least=2, progress=False
        )
