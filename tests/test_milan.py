"""MILAN against literal loops in float64, and against itself: trained twice, and as shipped."""

import itertools
import json
import math
from bisect import bisect_right
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import train_milan as training

from wwwlib import exemplars, store, targets, world
from wwwlib.activations import capture
from wwwlib.baselines import common, milan
from wwwlib.baselines.milan import exemplars as regions_of
from wwwlib.baselines.milan import networks
from wwwlib.concepts import ConceptTable

END, START = networks.END, networks.START
WORDS = ("<start>", "<end>", "red", "roofs", "boats")
V, WIDTH, EMBEDDING, FEATURES, K = len(WORDS), 6, 4, 7, 3


def decoder(seed=0, words=V):
    """A small untrained decoder with confident predictions, so that beams differ."""
    torch.manual_seed(seed)
    made = networks.Decoder(FEATURES, words, WIDTH, EMBEDDING).double().eval()
    made.out.weight.data *= 6
    made.mean.normal_()
    made.scale.uniform_(0.5, 2)
    return made


def language(seed=1, words=V):
    torch.manual_seed(seed)
    made = networks.LanguageModel(words, WIDTH, EMBEDDING).double().eval()
    made.out.weight.data *= 6
    return made


def seen(neurons=4):
    return torch.randn(neurons, K, FEATURES, dtype=torch.float64)


# The literal versions


def times(matrix, vector, bias=None):
    """Multiply lists."""
    bias = [0.0] * len(matrix) if bias is None else bias
    return [sum(a * b for a, b in zip(row, vector, strict=True)) + b0
            for row, b0 in zip(matrix, bias, strict=True)]  # fmt: skip


def linear(layer, vector):
    bias = None if layer.bias is None else layer.bias.tolist()
    return times(layer.weight.tolist(), vector, bias)


def softmax(scores):
    powers = [math.exp(value) for value in scores]
    return [power / sum(powers) for power in powers]


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def lstm(cell, x, h, c):
    """Gates in PyTorch's order: in, forget, new, out."""
    gates = [
        a + b
        for a, b in zip(
            times(cell.weight_ih.tolist(), x, cell.bias_ih.tolist()),
            times(cell.weight_hh.tolist(), h, cell.bias_hh.tolist()),
            strict=True,
        )
    ]
    n = len(h)
    i, f, g, o = (gates[j * n : (j + 1) * n] for j in range(4))
    c = [sigmoid(f[j]) * c[j] + sigmoid(i[j]) * math.tanh(g[j]) for j in range(n)]
    return [sigmoid(o[j]) * math.tanh(c[j]) for j in range(n)], c


def attended(attention, memory, h):
    scores = []
    for m in memory:
        pairs = zip(linear(attention.of_memory, m), linear(attention.of_state, h), strict=True)
        scores += linear(attention.score, [math.tanh(a + b) for a, b in pairs])
    return softmax(scores)


def literal_begin(net, exemplar_rows):
    memory = []
    for row in exemplar_rows:
        standard = [
            (x - m) / s for x, m, s in zip(row, net.mean.tolist(), net.scale.tolist(), strict=True)
        ]
        memory.append([max(value, 0.0) for value in linear(net.of_features, standard)])
    mean = [sum(column) / len(memory) for column in zip(*memory, strict=True)]
    start = [math.tanh(value) for value in linear(net.start, mean)]
    return memory, start[:WIDTH], start[WIDTH:]


def literal_step(net, word, h, c, memory=None):
    x = net.embed.weight.tolist()[word]
    context = []
    if memory is not None:
        shares = attended(net.attend, memory, h)
        context = [sum(s * m[j] for s, m in zip(shares, memory, strict=True)) for j in range(WIDTH)]
    h, c = lstm(net.cell, x + context, h, c)
    return [math.log(p) for p in softmax(linear(net.out, h + context))], h, c


def literal_log_p(net, tokens, h, c, memory=None):
    total, word = 0.0, START
    for following in tokens:
        log_p, h, c = literal_step(net, word, h, c, memory)
        total, word = total + log_p[following], following
        if following == END:
            break
    return total


def whole(length, words=V):
    """Every description of at most `length` words, its end among them."""
    for count in range(length):
        for start in itertools.product(range(END + 1, words), repeat=count):
            yield (*start, END)


# Networks


def test_pooling_is_the_mean_over_the_part_that_a_mask_leaves():
    """Breaks if a mask is not averaged down, or the mean is taken over the whole map."""
    stage = torch.randn(2, 3, 2, 3, dtype=torch.float64)
    parts = (torch.rand(2, 4, 4, 6) < 0.4).double()
    parts[1, 2] = 0
    made = networks.pool([stage], parts)
    for b, r, c in itertools.product(range(2), range(4), range(3)):
        top = bottom = 0.0
        for y, x in itertools.product(range(2), range(3)):
            block = parts[b, r, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].tolist()
            weight = sum(map(sum, block)) / 4
            top, bottom = top + weight * stage[b, c, y, x].item(), bottom + weight
        expected = top / bottom if bottom else 0.0
        assert made[b, r, c].item() == pytest.approx(expected, rel=1e-12, abs=1e-15)
    assert made[1, 2].eq(0).all()


def test_the_decoder_attends_and_steps_as_written_out():
    net, rows = decoder(), seen(2)
    memory, state = net.begin(rows)
    word = torch.tensor([START, START])
    literal = [literal_begin(net, row.tolist()) for row in rows]
    for following in ([2, 3], [4, 2], [END, 4]):
        shares = net.attend(memory, state[0])
        log_p, state = net.step(word, state, memory)
        for n, (own, h, c) in enumerate(literal):
            assert shares[n].tolist() == pytest.approx(attended(net.attend, own, h), rel=1e-9)
            expected, h, c = literal_step(net, word[n].item(), h, c, own)
            assert log_p[n].tolist() == pytest.approx(expected, rel=1e-9)
            literal[n] = own, h, c
        word = torch.tensor(following)


def test_the_order_of_exemplars_does_not_matter():
    net, rows = decoder(), seen()
    tokens = torch.randint(2, V, (4, 3))
    forward, backward = (
        networks.log_probability(net.step, state, tokens, memory)
        for memory, state in (net.begin(rows), net.begin(rows.flip(1)))
    )
    torch.testing.assert_close(forward, backward, rtol=1e-9, atol=0)


def test_a_description_has_the_product_of_its_words_until_its_end():
    net = language()
    tokens = torch.tensor([[2, END, 4, 4], [3, 3, 2, END], [END, END, END, END], [2, 3, 4, 2]])
    made = networks.log_probability(net.step, net.begin(4), tokens)
    zeros = [0.0] * WIDTH
    expected = [literal_log_p(net, row, zeros, zeros) for row in tokens.tolist()]
    assert made.tolist() == pytest.approx(expected, rel=1e-9)


def test_probabilities_of_all_descriptions_sum_to_one():
    """Whole descriptions of at most 3 words, and beginnings of 3 words that go on."""
    net = language()
    going = list(itertools.product([START, *range(2, V)], repeat=3))
    ends = [
        (*start, END)
        for count in range(3)
        for start in itertools.product([START, *range(2, V)], repeat=count)
    ]
    rows = torch.tensor([(*row, *[END] * (3 - len(row))) for row in [*ends, *going]])
    total = networks.log_probability(net.step, net.begin(len(rows)), rows).exp().sum()
    assert total.item() == pytest.approx(1, rel=1e-12)


# Search


@pytest.mark.parametrize("length", [2, 3, 4])
def test_a_wide_beam_is_exhaustive_search(length):
    """Breaks if an unfinished description comes out, or a finished one loses probability."""
    net, rows = decoder(), seen()
    memory, state = net.begin(rows)
    every = list(whole(length))
    tokens, total = networks.beam_search(net.step, state, memory, len(every) + 3, length)
    for n, row in enumerate(rows.tolist()):
        own, h, c = literal_begin(net, row)
        known = {text: literal_log_p(net, text, h, c, own) for text in every}
        best = sorted(every, key=lambda text: -known[text])
        made = [tuple(text[: text.index(END) + 1]) for text in tokens[n, : len(every)].tolist()]
        assert made == best
        assert total[n, : len(every)].tolist() == pytest.approx([known[t] for t in best], rel=1e-9)
        assert total[n, len(every) :].eq(-math.inf).all()


@pytest.mark.parametrize("beam", [1, 2, 5])
def test_a_narrow_beam_keeps_the_best_at_every_word(beam):
    net, rows, length = decoder(3), seen(), 4
    memory, state = net.begin(rows)
    tokens, total = networks.beam_search(net.step, state, memory, beam, length)
    for n, row in enumerate(rows.tolist()):
        own, h, c = literal_begin(net, row)
        kept = [((), 0.0, h, c)]
        for position in range(length):
            grown = []
            for text, log_p, h, c in kept:
                if END in text:
                    grown.append((text, log_p, h, c))
                    continue
                after, h2, c2 = literal_step(net, text[-1] if text else START, h, c, own)
                last = position == length - 1
                for word in [END] if last else range(END, V):
                    grown.append(((*text, word), log_p + after[word], h2, c2))
            kept = sorted(grown, key=lambda one: -one[1])[:beam]
        made = [tuple(text[: text.index(END) + 1]) for text in tokens[n].tolist()]
        assert made == [one[0] for one in kept]
        assert total[n].tolist() == pytest.approx([one[1] for one in kept], rel=1e-9)


def test_neurons_are_searched_apart():
    net, rows = decoder(), seen()
    memory, state = net.begin(rows)
    together, total = networks.beam_search(net.step, state, memory, 4, 3)
    for n in range(len(rows)):
        own = tuple(part[n : n + 1] for part in state)
        alone, value = networks.beam_search(net.step, own, memory[n : n + 1], 4, 3)
        assert alone[0].tolist() == together[n].tolist()
        torch.testing.assert_close(value[0], total[n], rtol=1e-12, atol=0)


# The choice


def test_mutual_information_is_likelihood_less_the_weighted_prior():
    texts = [["a", "b", "c"], [], ["a", "b", "c"]]
    log_p = torch.tensor([[-1.0, -2.0, -2.5], [-math.inf] * 3, [-1.0, -1.5, -math.inf]])
    log_prior = torch.tensor([[-1.0, -5.0, -9.0], [0.0] * 3, [-1.0, -3.0, -99.0]])
    found = milan.Candidates(texts, log_p, log_prior)
    for weight in (0.0, 0.2, 0.5):
        table = found.ranked(weight)
        for n in (0, 2):
            own = {
                text: log_p[n, j].item() - weight * log_prior[n, j].item()
                for j, text in enumerate(texts[n])
                if log_p[n, j] > -math.inf
            }
            best = max(own, key=own.get)
            assert table.names[n] == [best]
            assert table.scores[n] == pytest.approx([own[best]])
    assert found.ranked(0.0).names == [["a"], [], ["a"]]
    assert found.ranked(0.5).names[0] == ["c"]
    assert found.ranked(0.5).abstained.tolist() == [False, True, False]


# Masks and features


def small_world(count=24):
    return world.image_set(count, seed=3)


def collected(target, layer, probe, k=K):
    return exemplars.collect(target, probe, [layer], k=k, progress=False)[layer]


def conv():
    return targets.load("world/conv", weights="random")


def test_quantiles_equal_sorting_all_positions():
    target, probe = conv(), small_world()
    made = common.thresholds(target, probe, ["layer4"], 0.01, progress=False)["layer4"]
    with torch.no_grad(), capture(target, ["layer4"]) as taken:
        target.model(torch.stack([target.preprocess(probe.image(i)) for i in range(len(probe))]))
    for n, values in enumerate(taken["layer4"].maps.transpose(0, 1).flatten(1).tolist()):
        count, values = 0.01 * len(values), sorted(values)
        least = next(t for t in values if len(values) - bisect_right(values, t) <= count)
        assert made[n].item() == pytest.approx(least, rel=1e-5, abs=1e-7)


def test_a_mask_is_what_exceeds_the_quantile_once_enlarged():
    a = torch.tensor([[[0.0, 1.0], [2.0, 3.0]], [[0.0, 0.1], [0.2, 0.3]]])
    made = regions_of.threshold(a, torch.tensor([1.2, 0.9]), (4, 4))
    for y, x in itertools.product(range(4), range(4)):
        down, right = (min(max((p + 0.5) / 2 - 0.5, 0), 1) for p in (y, x))
        value = 2 * down + right  # the plane through the four cells
        assert made[0, y, x].item() == (value > 1.2)
    assert made[1].all(), "an image that nowhere exceeds it is shown whole"


@pytest.mark.parametrize("layer", ["layer3", "logits"])
def test_features_equal_one_exemplar_at_a_time(layer):
    """The encoder is another network than the target, and images are shared between neurons."""
    target, probe = targets.load("world/vit" if layer == "logits" else "world/conv"), small_world()
    describer = tiny()
    encoder, stages = describer.encoder, describer.stages
    found = collected(target, layer, probe)
    chosen = regions_of.choose(found, probe, K)
    options = {"batch_size": 5, "progress": False}
    made_masks = regions_of.masks(target, layer, chosen, 0.9, encoder, **options)
    made = regions_of.features(describer, chosen, made_masks, **options)
    if layer == "logits":
        assert made_masks.shape[2:] == (1, 1)
        made_masks = made_masks.expand(-1, -1, 64, 64)
    else:
        level = common.thresholds(target, probe, [layer], 0.1, progress=False)[layer]
    for n, k in itertools.product((0, len(made) - 1), range(K)):
        x = target.preprocess(probe.image(chosen.index[n, k].item()))[None]
        with torch.no_grad(), capture(target, [layer]) as taken:
            target.model(x)
        mask = torch.ones(64, 64, dtype=torch.bool)
        if layer != "logits":
            a = taken[layer].maps[:, n][None]
            large = F.interpolate(a, (64, 64), mode="bilinear", align_corners=False)[0, 0]
            mask = large > level[n]
            mask = mask if mask.any() else torch.ones_like(mask)
        differs = made_masks[n, k] != mask
        assert differs.float().mean() < 1e-3  # a pixel at the very quantile, rounded in a batch
        mask = made_masks[n, k]
        with torch.no_grad(), capture(encoder, stages) as taken:
            encoder.model(x)
        expected = []
        for stage in stages:
            a = taken[stage].maps[0].double()
            share = F.avg_pool2d(mask[None].double(), 64 // a.shape[1])[0]
            expected += [((channel * share).sum() / share.sum()).item() for channel in a]
        assert made[n, k].tolist() == pytest.approx(expected, rel=1e-4, abs=1e-6)


# The whole way


def tiny(encoder=None):
    """A describer of five words that has learned nothing."""
    torch.manual_seed(4)
    untrained = networks.Decoder(32 + 128, V, WIDTH, EMBEDDING)
    untrained.out.weight.data *= 9
    language_model = networks.LanguageModel(V, WIDTH, EMBEDDING)
    return networks.Describer(
        encoder or conv(), ("layer1", "layer4"), untrained, language_model, WORDS
    )


def described(target, probe, found, describer, weight=0.2, **options):
    options = {"progress": False, "k": K, "length": 3, "beam": 7, **options}
    return milan.candidates(target, "layer3", probe, found, describer, **options).ranked(weight)


def test_neurons_without_exemplars_abstain_and_the_others_keep_their_place():
    target, probe, describer = targets.load("world/conv"), small_world(), tiny()
    found = collected(target, "layer3", probe)
    status = found.status.clone()
    status[5] = exemplars.CONSTANT
    first = described(target, probe, found, describer)
    table = described(target, probe, replace(found, status=status), describer)
    expected = [[] if n == 5 else names for n, names in enumerate(first.names)]
    assert table.names == expected
    assert table.abstained.nonzero()[:, 0].tolist() == [
        n for n, names in enumerate(expected) if not names
    ]
    assert {len(scores) for scores in table.scores} <= {0, 1}


def test_all_neurons_abstain_without_exemplars():
    target, probe = targets.load("world/conv"), small_world()
    found = collected(target, "layer3", probe)
    dead = replace(found, status=torch.full_like(found.status, exemplars.CONSTANT))
    assert described(target, probe, dead, tiny()).abstained.all()


def test_the_store_serves_a_second_call_with_any_weight(tmp_path):
    target, probe, describer = targets.load("world/conv"), small_world(), tiny()
    found, kept = collected(target, "layer3", probe), store.Store(tmp_path)
    first = described(target, probe, found, describer, store=kept)

    def broken(i):
        raise AssertionError("no image should be read again")

    unreadable = replace(probe, reader=broken)
    again = described(target, unreadable, found, describer, store=kept)
    assert again.names == first.names
    assert again.scores == first.scores
    described(target, unreadable, found, describer, store=kept, weight=0.5)
    with pytest.raises(AssertionError):
        described(target, unreadable, found, describer, store=kept, beam=6)
    assert described(target, probe, found, describer).names == first.names


def test_a_describer_comes_back_from_its_file(tmp_path):
    describer = tiny(targets.load("world/conv"))
    milan.save(describer, tmp_path / "m.safetensors")
    back = milan.load(tmp_path / "m.safetensors")
    assert back.vocabulary == WORDS
    assert back.stages == describer.stages
    rows, tokens = torch.randn(2, K, 160), torch.tensor([[2, 3, END], [4, END, END]])
    for net in (describer.decoder, back.decoder):
        memory, state = net.begin(rows)
        loaded = networks.log_probability(net.step, state, tokens, memory)
    memory, state = describer.decoder.begin(rows)
    own = networks.log_probability(describer.decoder.step, state, tokens, memory)
    torch.testing.assert_close(loaded, own, rtol=2e-2, atol=2e-2)  # half precision on disk
    assert back.text([3, 4, END, 2]) == "roofs boats"


# Reading


def table(*texts):
    scores = [[-float(i)] if text else [] for i, text in enumerate(texts)]
    empty = torch.tensor([not text for text in texts])
    return ConceptTable([[t] if t else [] for t in texts], scores, torch.zeros(len(texts)), empty)


def test_words_of_a_concept_set_are_read_out_of_descriptions():
    descriptions = table(
        "Hot dogs on a leaf-green bus", "the leaves of BUSES", "a dog; a dog", "", "sky"
    )
    read = milan.words(descriptions, ["dog", "hot_dog", "bus", "leaf", "butterfly", "x"])
    assert read.names == [["hot_dog", "bus"], ["leaf", "bus"], ["dog"], [], []]
    assert read.scores == [[0.0, 0.0], [-1.0, -1.0], [-2.0], [], []]
    assert read.abstained.tolist() == [False, False, False, True, True]
    assert milan.words(table("butterflies"), ["butterfly"]).names == [["butterfly"]]
    assert milan.words(table("glass"), ["glas", "glass"]).names == [["glass"]]
    assert milan.words(table("boats"), []).names == [[]]


def test_every_phrase_of_the_world_is_read_as_its_concepts():
    """Breaks if a plural is made that the reading does not take apart."""
    singles = [(word,) for words in world.CATEGORIES.values() for word in words]
    pairs = [("red", "leaf"), ("wood", "bus"), ("sea", "butterfly"), ("church", "cross")]
    for key in [*singles, *pairs]:
        for phrase in training.phrases(key):
            read = milan.words(table(phrase), world.SEEN).names[0]
            names = {world.SYNONYMS.get(word, (word,)) for word in key}
            assert len(read) == len(key), (phrase, read)
            assert all(any(word in own for word in read) for own in names), (phrase, read)


# The world's regions


def test_regions_are_true_and_large_enough():
    for i in range(60):
        scene = world.sample(i, seed=6)
        shown = world.render(scene).masks
        for key, mask in training.regions(scene, shown).items():
            noun = key[-1]
            assert mask.sum() >= training.MIN_PIXELS
            assert (mask == shown[noun]).all()
            if len(key) == 2 and key[0] in world.CATEGORIES["colour"]:
                assert (shown[key[0]] & mask).sum() * 2 > mask.sum()
            elif len(key) == 2:
                assert key[0] in {scene.scene, scene.finish, scene.subject}


def test_blobs_lie_about_their_regions():
    """Breaks if a blob is empty, or drifts away from what it was made of."""
    scene = world.sample(1, seed=6)
    exact = np.stack(list(training.regions(scene, world.render(scene).masks).values()))
    for seed in range(20):
        blobs = training.simulated_maps(exact, np.random.RandomState(seed))
        assert blobs.shape == exact.shape
        assert blobs.any((1, 2)).all()
        near = F.max_pool2d(torch.from_numpy(exact)[None].float(), 17, 1, 8)[0].bool().numpy()
        assert (blobs & near).sum() > 0.9 * blobs.sum()


def test_descriptions_end_within_their_length():
    for key in [("sunset", "airplane"), ("airplane", "antenna"), ("turquoise", "antenna")]:
        for phrase in training.phrases(key):
            assert len(phrase.split()) < training.LENGTH


# Training


def test_training_repeats_itself():
    """Two steps on few pictures; breaks if anything draws from an unseeded source."""
    first, again, other = (training.train(30, 2, seed) for seed in (0, 0, 1))
    assert first.digest == again.digest != other.digest


def test_sets_share_their_concept_but_for_strangers():
    bank = training.Bank(
        torch.arange(40.0)[:, None, None].expand(-1, 3, 1).half(),
        {("boat",): torch.arange(5), ("red",): torch.arange(5, 9)},
    )
    sets = training.Sets(bank, training.vocabulary(bank))
    for key in bank.rows:
        for _ in range(50):
            rows = sets.exemplars(key)[:, 0].int().tolist()
            assert len(rows) == training.K
            own = sum(row in bank.rows[key].tolist() for row in rows)
            assert own >= training.K - training.OUTLIERS
    assert {sets.key() for _ in range(60)} == set(bank.rows)


# As shipped


def test_shipped_describer_is_the_one_on_record():
    record = json.loads((world.DATA / "training.json").read_text())["milan"]
    assert store.file_digest(world.DATA / "milan.safetensors") == record["sha256"]
    describer = milan.load()
    assert describer.vocabulary[:2] == networks.MARKS
    concepts = {word for words in world.CATEGORIES.values() for word in words}
    read = milan.words(table(*describer.vocabulary[2:]), concepts)
    assert {word for names in read.names for word in names} == concepts, "a word is missing"


@pytest.mark.parametrize("name", ["world/conv", "world/vit"])
def test_descriptions_of_the_final_layer_name_its_classes(name):
    """At least seven in ten; breaks if masks, features or words are mixed up."""
    target, probe = targets.load(name), world.image_set(600, seed=8)
    found = collected(target, "logits", probe, 15)
    proposed = milan.candidates(target, "logits", probe, found, milan.load(), progress=False)
    read = milan.words(proposed.ranked(), world.SEEN)
    right = [
        bool({*world.SYNONYMS[name]} & {*words})
        for name, words in zip(target.classes, read.names, strict=True)
    ]
    assert sum(right) >= 0.7 * len(right)


def cropped(image):
    """The middle half of an image, both ways, scaled up to what the world's networks take."""
    w, h = image.size
    return world.preprocess()(image.crop((w // 4, h // 4, w - w // 4, h - h // 4)))


def test_a_describer_that_sees_another_part_of_images_is_refused():
    target, probe = replace(targets.load("world/conv"), preprocess=cropped), small_world()
    found = collected(target, "layer3", probe)
    with pytest.raises(ValueError, match=r"uses the part \(0.25, 0.25, 0.75, 0.75\) and the desc"):
        milan.candidates(target, "layer3", probe, found, milan.load(), k=K, progress=False)


def test_plurals_are_read_in_the_singular():
    descriptions = table("two knives", "red leaves", "wolves", "glass houses", "berries")
    words = ["knife", "leaf", "wolf", "house", "berry"]
    assert milan.words(descriptions, words).names == [[word] for word in words]


# What users get wrong


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"k": K + 1}, "k is 4, but 3 exemplars were collected"),
        ({"k": 0}, "k is 0"),
        ({"quantile": 1.0}, "quantile is 1.0; it must lie between 0 and 1"),
        ({"weight": -0.1}, "weight is -0.1; it must be 0 or more"),
        ({"beam": 0}, "beam is 0; give a whole number, at least 1"),
        ({"length": 1}, "length is 1; give a whole number, at least 2"),
    ],
)
def test_arguments_out_of_range_are_named(options, sentence):
    target, probe = targets.load("world/conv"), small_world()
    found = collected(target, "layer3", probe)
    with pytest.raises(ValueError, match=sentence):
        described(target, probe, found, tiny(), **options)


def test_exemplars_of_another_layer_or_probe_set_are_refused():
    target, probe = targets.load("world/conv"), small_world()
    found = collected(target, "layer3", probe)
    with pytest.raises(ValueError, match=r"exemplars of 96 neurons, but 'layer4' of .* has 128"):
        milan.candidates(target, "layer4", probe, found, tiny(), k=K, progress=False)
    with pytest.raises(ValueError, match=r"collected from 24 images, but .* has 25"):
        described(target, small_world(25), found, tiny())


def test_files_that_are_no_describer_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file"):
        milan.load(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="is not a describer"):
        milan.load(world.DATA / "conv.safetensors")
    (tmp_path / "m.safetensors").write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="is not a describer"):
        milan.load(tmp_path / "m.safetensors")
    other = targets.load("world/conv", weights="random")
    milan.save(tiny(other), tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="other weights of world/conv"):
        milan.load(tmp_path / "other.safetensors")


def test_candidates_and_ranking_are_what_describe_does():
    target, probe, describer = targets.load("world/conv"), small_world(), tiny()
    found = collected(target, "layer3", probe)
    proposed = milan.candidates(
        target, "layer3", probe, found, describer, k=K, length=3, beam=7, progress=False
    )
    assert described(target, probe, found, describer).names == proposed.ranked(0.2).names
    live = next(n for n, texts in enumerate(proposed.texts) if texts)
    assert proposed.log_p[live].tolist() == sorted(proposed.log_p[live].tolist(), reverse=True)
