"""The concept world: unchanging pixels, exact masks, captions that are true.

A change of a shape, a colour or the order of random draws breaks the digests below, and with them
every shipped weight: train again with `make world` before renewing them.
"""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import train_world

from wwwlib import world
from wwwlib.store import file_digest
from wwwlib.world.painting import SHAPES, SIZE, THING_SHAPES
from wwwlib.world.vocabulary import COLOURS, PARTS, THINGS

RECORD = world.DATA / "training.json"
SCENES = [world.sample(i, seed=5) for i in range(120)]


@pytest.fixture(scope="module")
def pictures():
    """`SCENES`, painted."""
    return [world.render(scene) for scene in SCENES]


def test_an_image_is_the_same_bytes_on_every_machine():
    """Breaks when a drawing, a colour or the random stream changes in any way."""
    pixels = b"".join(world.render_image(world.sample(i, 100)).tobytes() for i in range(96))
    assert hashlib.sha256(pixels).hexdigest() == (
        "25161b334c27ffbb4537d1db01511a32ec8bf494c0597cdb901b3eb48d126356"
    )


def test_a_scene_does_not_depend_on_which_were_sampled_before(pictures):
    world.sample(3, seed=9)
    assert world.sample(17, seed=5) == SCENES[17]
    assert world.render(SCENES[17]).image.tobytes() == pictures[17].image.tobytes()


def test_seeds_differ():
    assert world.sample(0, seed=1) != world.sample(0, seed=2)


def test_render_image_is_render_without_masks(pictures):
    assert all(
        world.render_image(scene).tobytes() == picture.image.tobytes()
        for scene, picture in zip(SCENES[:20], pictures[:20], strict=True)
    )


def test_masks_agree_with_painting_one_thing_at_a_time(pictures):
    """The literal way: a concept's pixels are those that change when it is painted differently."""
    for scene, picture in zip(SCENES[:24], pictures[:24], strict=True):
        recoloured = world.render(replace(scene, colour=_other(scene.colour)))
        changed = (np.asarray(recoloured.image) != np.asarray(picture.image)).any(-1)
        subject = picture.masks[scene.subject]
        # Half a pixel of blur lies along the edge, where a mask of whole pixels must decide.
        assert not (changed & ~_grown(subject)).any()


def test_masks_are_exact_for_whole_and_part(pictures):
    for scene, picture in zip(SCENES, pictures, strict=True):
        subject = picture.masks[scene.subject]
        for part in scene.parts:
            if part in picture.masks and part not in THINGS:
                assert not (picture.masks[part] & ~subject).any(), (scene, part)


def test_every_pixel_is_scene_or_thing_or_subject(pictures):
    for scene, picture in zip(SCENES, pictures, strict=True):
        seen = picture.masks[scene.subject] | picture.masks[scene.scene]
        if scene.thing:
            seen |= picture.masks.get(scene.thing.name, False)
        assert seen.mean() > 0.97  # pixels shared by three at their corners belong to none


def test_a_colour_mask_holds_the_pixels_nearest_to_that_colour(pictures):
    picture, names = pictures[0], list(COLOURS)
    pixels = np.asarray(picture.image, float)
    for y in range(0, SIZE, 7):
        for x in range(0, SIZE, 7):
            gaps = [sum((pixels[y, x] - COLOURS[name]) ** 2) for name in names]
            own = names[gaps.index(min(gaps))]
            assert [n for n in names if n in picture.masks and picture.masks[n][y, x]] == [own]


def test_hidden_parts_have_no_mask():
    scene = next(s for s in SCENES if s.missing)
    masks = world.render(replace(scene, thing=None)).masks
    assert not set(scene.missing) & masks.keys()


def test_the_scene_can_be_changed_and_the_rest_kept():
    scene = replace(SCENES[3], thing=None)
    there, here = world.render(scene), world.render(replace(scene, scene=_other_scene(scene)))
    subject = there.masks[scene.subject]
    assert (here.masks[scene.subject] == subject).all()
    assert scene.scene not in here.masks


def test_subjects_stand_away_from_the_centre(pictures):
    """Breaks when the centre of the image becomes a good guess, which needs no map."""
    centre = [
        p.masks[s.subject][SIZE // 2, SIZE // 2] for s, p in zip(SCENES, pictures, strict=True)
    ]
    assert np.mean(centre) < 0.2


def test_context_bias_ties_classes_to_their_homes():
    tied = [world.sample(i, 1, context_bias=1.0) for i in range(100)]
    assert all(scene.scene == world.HOME[scene.subject] for scene in tied)
    free = [world.sample(i, 1) for i in range(600)]
    assert 0.04 < np.mean([s.scene == world.HOME[s.subject] for s in free]) < 0.14
    swapped = [world.sample(i, 1, swap=True) for i in range(200)]
    assert not any(scene.scene == world.HOME[scene.subject] for scene in swapped)


def test_the_size_of_the_world():
    assert len(world.CLASSES) >= 24
    assert len(set(world.VOCABULARY)) == len(world.VOCABULARY) >= 300
    assert len(world.UNSEEN) >= 200
    assert not set(world.UNSEEN) & set(world.SEEN)
    assert set(THING_SHAPES) < set(THINGS)


def test_most_parts_are_shared_between_classes():
    """A part of one class only cannot be distinguished from that class."""
    owners = {
        part: {n for n, strokes in SHAPES.items() if part in {s.part for s in strokes}}
        for part in PARTS
    }
    assert all(owners.values())
    assert sum(len(names) > 1 for names in owners.values()) >= 0.8 * len(PARTS)


def test_every_word_of_the_world_is_painted_somewhere(pictures):
    words = {word for words in world.CATEGORIES.values() for word in words}
    seen, i = set().union(*(picture.masks for picture in pictures)), 0
    while seen < words and i < 400:
        seen |= world.render(world.sample(i, 6)).masks.keys()
        i += 1
    assert seen == words


def test_captions_are_true():
    """Each word of the world that a caption uses is in the picture or is a synonym of its class."""
    for scene in SCENES:
        true = {scene.subject, *world.SYNONYMS[scene.subject], *scene.parts, scene.colour}
        true |= {scene.scene, scene.finish}
        true |= {scene.thing.name, scene.thing.colour} if scene.thing else set()
        for variant in range(12):
            words = set(world.caption(scene, variant).split())
            assert words & set(world.SEEN) <= true, (scene, variant)


def test_no_caption_is_the_bare_template_or_names_an_unseen_noun():
    for scene in SCENES:
        for variant in range(20):
            text = world.caption(scene, variant)
            assert text.strip() != "a photo of a"
            assert not set(text.split()) & set(world.UNSEEN)


def test_the_wrong_answers_of_training_are_not_the_nouns_of_the_test():
    """Else the claim that no unseen noun wins a neuron would have been trained for."""
    nouns = train_world.negative_nouns()
    assert not set(nouns) & set(world.VOCABULARY)
    assert len(nouns) > 10_000


def test_unseen_nouns_are_nouns_of_wordnet(wordnet):
    synsets = [line.split() for line in wordnet.open() if not line.startswith("  ")]
    nouns = {
        word.lower() for fields in synsets for word in fields[4 : 4 + 2 * int(fields[3], 16) : 2]
    }
    assert set(world.UNSEEN) | set(world.CLASSES) <= nouns


def test_the_networks_take_what_preprocess_gives(pictures):
    x = world.preprocess()(pictures[0].image)
    assert x.shape == (3, SIZE, SIZE)
    assert x.dtype == torch.float32
    assert -1 <= x.min() < 0 < x.max() <= 1
    for build in world.NETWORKS.values():
        assert build().eval()(x[None]).shape == (1, len(world.CLASSES))


def test_shipped_weights_are_the_ones_on_record():
    """Breaks when a weight file is replaced without its record, or the other way round."""
    record = json.loads(RECORD.read_text())
    for name, entry in record.items():
        path = "clip/open_clip_model" if name == "clip" else name
        assert file_digest(world.DATA / f"{path}.safetensors") == entry["sha256"]


@pytest.mark.parametrize("name", ["conv-biased", "vit-biased"])
def test_the_biased_pair_leans_on_the_scenery_but_not_wholly(name):
    """Breaks if the pair is good without its scenery, or nothing without it.

    In either case its errors would have one cause only.
    """
    record = json.loads(RECORD.read_text())[name]
    home, swapped = record["accuracy"], record["accuracy, swapped contexts"]
    assert home > 0.9
    assert 0.1 < swapped < home - 0.4


@pytest.fixture(scope="module")
def small_sets(tmp_path_factory):
    """Return a folder with small versions of all sets of images, and their settings."""
    folder = tmp_path_factory.mktemp("sets")
    with pytest.MonkeyPatch.context() as patch:
        sizes = {
            name: (128 if "train" in name else 24, *rest)
            for name, (_, *rest) in train_world.SETS.items()
        }
        patch.setattr(train_world, "SETS", sizes)
        train_world.render_sets(folder)
    return folder, sizes


@pytest.mark.parametrize("biased", [False, True])
def test_a_target_is_trained_from_drawing_to_record(monkeypatch, tmp_path, small_sets, biased):
    """Breaks if a set that a training needs is not drawn, or the pair mixes up its sets."""
    folder, sizes = small_sets
    monkeypatch.setattr(train_world, "DATA", tmp_path)
    monkeypatch.setitem(train_world.RECIPES, "conv", {"epochs": 2, "rate": 3e-3})
    loaded, load = [], train_world.load_set
    monkeypatch.setattr(train_world, "load_set", lambda *a: loaded.append(a[1]) or load(*a))
    record = train_world.train_target(folder, "conv", biased)
    kind = "conv-biased" if biased else "conv"
    assert file_digest(tmp_path / f"{kind}.safetensors") == record["sha256"]
    assert 0 <= record["accuracy"] <= 1
    expected = ["train-biased", "test-home"] if biased else ["train", "test"]
    assert loaded == [*expected, "test-swapped"]
    biases = [sizes[name][2] for name in loaded[:2]]
    assert biases == ([train_world.BIAS, 1.0] if biased else [0.0, 0.0])


def test_shipped_files_are_small():
    assert sum(path.stat().st_size for path in world.DATA.rglob("*") if path.is_file()) < 12e6


@pytest.fixture
def wordnet():
    path = Path("/usr/share/wordnet/data.noun")
    if not path.exists():
        pytest.skip(f"{path} is not there: Debian's package wordnet-base has it")
    return path


def _other(colour):
    return next(name for name in ("red", "blue") if name != colour)


def _other_scene(scene):
    return next(name for name in world.SCENES if name != scene.scene)


def _grown(mask):
    """Return the mask and its eight neighbours."""
    padded = np.pad(mask, 1)
    shifts = [padded[y : y + SIZE, x : x + SIZE] for y in range(3) for x in range(3)]
    return np.any(shifts, axis=0)


def test_crops_have_the_words_of_what_covers_them():
    """Literally: the share of the crop's pixels that each mask covers."""
    part = [world.sample(i, train_world.TRAINING_SEED) for i in range(12)]
    boxes, shown = train_world.crops(part)
    size = world.image_set(1).image(0).width
    quarters = {
        (x, y, x + size // 2, y + size // 2) for x in (0, size // 2) for y in (0, size // 2)
    }
    quarters.add((size // 4, size // 4, 3 * size // 4, 3 * size // 4))
    assert {tuple(box) for box in boxes[::2].tolist()} <= quarters
    for scene, (left, top, right, bottom), row in zip(part, boxes.tolist(), shown, strict=True):
        expected = set()
        for word, mask in world.render(scene).masks.items():
            inside = [mask[y][x] for y in range(top, bottom) for x in range(left, right)]
            if sum(inside) / len(inside) > 0.02:
                expected |= set(world.SYNONYMS.get(word, (word,)))
        assert {word for word, there in zip(world.SEEN, row, strict=True) if there} == expected


def test_the_clip_is_trained_from_drawing_to_record(monkeypatch, tmp_path, small_sets):
    """Breaks if a step does not fit the next, or tokens that no caption has are trained."""
    folder, sizes = small_sets
    monkeypatch.setattr(train_world, "SETS", sizes)
    (tmp_path / "clip").mkdir()
    config = world.DATA / "clip" / "open_clip_config.json"
    (tmp_path / "clip" / config.name).write_bytes(config.read_bytes())
    monkeypatch.setattr(train_world, "DATA", tmp_path)
    monkeypatch.setattr(train_world, "CLIP_EPOCHS", (1, 1, 2))
    kept, keep = {}, train_world.keep_other_tokens

    def watched(model, tokenizer, texts):
        keep(model, tokenizer, texts)
        kept.update(model=model, before=model.token_embedding.weight.detach().clone())
        kept["learned"] = tokenizer(texts).unique()

    monkeypatch.setattr(train_world, "keep_other_tokens", watched)
    record = train_world.train_clip(folder)
    assert file_digest(tmp_path / "clip" / "open_clip_model.safetensors") == record["sha256"]
    assert 0 <= record["zero-shot accuracy"] <= 1
    after = kept["model"].token_embedding.weight.detach()
    ratio = (after / kept["before"]).double()
    others = torch.ones(len(after), dtype=torch.bool)
    others[kept["learned"]] = False
    assert others.sum() > 40_000
    torch.testing.assert_close(ratio[others], ratio[others][0, 0].expand_as(ratio[others]))
    assert ratio[~others].std() > 0.01, "those of captions are trained"


def test_the_contrastive_loss_is_the_literal_one_corrected_for_frequent_captions():
    """A softmax for each image over all texts, and for each text of an image over the images."""
    generator = torch.Generator().manual_seed(0)
    v, t = (torch.randn(n, 5, generator=generator).double() for n in (3, 7))
    often = [4.0, 1.0, 9.0, 1.0, 2.0, 1.0, 1.0]
    model = SimpleNamespace(
        visual=SimpleNamespace(head=lambda features: features),
        encode_text=lambda tokens, normalize: torch.nn.functional.normalize(t[tokens], dim=1),
        logit_scale=torch.tensor(np.log(6.0)),
    )
    loss = train_world.contrastive_loss(model, v, torch.arange(7), torch.tensor(often).log())
    unit_v, unit_t = (x.numpy() / np.linalg.norm(x.numpy(), axis=1)[:, None] for x in (v, t))
    similar = np.exp(6.0 * unit_v @ unit_t.T)
    expected = 0.0
    for i in range(3):
        over_texts = sum(similar[i, j] / often[j] ** train_world.CORRECTION for j in range(7))
        expected -= np.log(similar[i, i] / often[i] ** train_world.CORRECTION / over_texts) / 6
        expected -= np.log(similar[i, i] / similar[:, i].sum()) / 6
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_captions_of_crops_hold_its_words_and_mostly_begin_with_an_object():
    words = ["petal", "flower", "sky", "grey"]
    made = [train_world.describe(words, np.random.RandomState([i, 1])) for i in range(600)]
    assert all(any(word in text for word in words) for text in made)
    first = [min(words, key=lambda word: text.find(word) % 1000) for text in made]
    expected = train_world.LEADS + (1 - train_world.LEADS) / len(words)
    assert first.count("flower") / len(made) == pytest.approx(expected, abs=0.05)
    alone = {train_world.describe(["grey"], np.random.RandomState([i, 1])) for i in range(40)}
    assert {text.removesuffix(" and ") for text in alone} == alone, "no caption ends in and"
