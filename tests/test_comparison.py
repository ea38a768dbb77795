"""Naming methods on equal terms: networks and probe sets, names of each method."""

from dataclasses import replace

import pytest
import torch

from wwwlib import concepts, language, world
from wwwlib.baselines import clip_dissect
from wwwlib.baselines.falcon import Captions
from wwwlib.baselines.network_dissection import Dissection
from wwwlib.concepts import ConceptTable
from wwwlib.exemplars import Exemplars
from wwwlib.studies import comparison, conclusions, literature
from wwwlib.studies.tables import MethodNames

PLACES = "/a/airfield 0\n/b/balcony/exterior 1\n/c/car_interior 2\n"
WORDS = language.ConceptSet([f"w{i}" for i in range(9)])


class Encoder:
    """Features of texts from their letters: other text, other feature."""

    name, dim = "letters", 6

    def encode_texts(self, texts):
        rows = []
        for text in texts:
            generator = torch.Generator().manual_seed(sum(map(ord, text)))
            rows.append(torch.randn(6, generator=generator))
        return torch.nn.functional.normalize(torch.stack(rows), dim=1)


def layer(neurons=7, count=20, k=8):
    v = torch.nn.functional.normalize(torch.randn(count, 6), dim=1)
    z = torch.rand(count, neurons)
    value, index = z.topk(k, dim=0)
    status = torch.zeros(neurons, dtype=torch.int8)
    status[3] = 1
    none = torch.zeros(2, neurons)
    return v, Exemplars(index.T, value.T, status, none, none, torch.zeros(2), count)


def test_www_and_clip_dissect_answer_as_they_do_alone():
    v, top = layer()
    found = comparison.www_and_clip_dissect(v, top, WORDS, Encoder(), k=4, dissect_k=6, alpha=0.6)
    t, t0 = WORDS.embed(Encoder())
    own = torch.stack([v[row[:4]] for row in top.index])
    own[3] = 0
    alone = concepts.discover(own, t, t0, WORDS.words, 0.6).names
    assert found["WWW"].names == alone and alone[3] == []
    bare = Encoder().encode_texts(list(WORDS.words))
    rival = clip_dissect.soft_wpmi(v, bare, top.first(6), WORDS.words, 9).names
    assert found["CLIP-Dissect top 1"].names == [names[:1] for names in rival]
    assert found["CLIP-Dissect top 5"].names == [names[:5] for names in rival]


def test_equal_k_is_equal_neuron_by_neuron():
    """A neuron about which WWW is silent keeps one name; a dead one has none from anybody."""
    v, top = layer()
    found = comparison.www_and_clip_dissect(v, top, WORDS, Encoder(), k=4, dissect_k=6, alpha=0.6)
    sizes = [len(names) for names in found["WWW"].names]
    assert len(set(sizes)) > 2, "the example shows something only if sizes differ"
    equal = [len(names) for names in found[conclusions.EQUAL].names]
    assert equal == [0 if i == 3 else max(1, size) for i, size in enumerate(sizes)]
    assert found[conclusions.EQUAL].size is None and found["CLIP-Dissect top 5"].size == 5


def test_fewer_words_than_names_asked_for():
    v, top = layer()
    words = language.ConceptSet(["a", "b"])
    found = comparison.www_and_clip_dissect(v, top, words, Encoder(), k=4, dissect_k=6)
    assert found["CLIP-Dissect top 5"].size == 2
    assert {len(names) for names in found["CLIP-Dissect top 5"].names} == {0, 2}


def test_features_are_those_that_the_encoder_would_give():
    """Compared with `embed_exemplars`' rule: zeros for the dead and for what is missing."""
    v, top = layer()
    top.index[5, 2:] = -1
    found = comparison.exemplar_features(v, top)
    for n in range(7):
        for o in range(8):
            i = int(top.index[n, o])
            want = v[i] if n != 3 and i >= 0 else torch.zeros(6)
            assert torch.equal(found[n, o], want)


def test_network_dissection_answers_and_how_well_it_fits():
    """Three neurons: a detector, one just below the threshold of .04, one that meets no mask."""
    iou = torch.tensor([[0.1, 0.3], [0.039, 0.0], [0.0, 0.0]], dtype=torch.float64)
    found = Dissection(("sky", "sea"), iou, torch.zeros(3))
    answer = comparison.dissection_names(found, [])
    assert answer.names == [["sea"], [], []] and answer.words == ("sky", "sea")
    assert answer.size is None


def test_first_exemplars_and_no_more_than_there_are():
    _, top = layer()
    assert torch.equal(top.first(3).index, top.index[:, :3])
    with pytest.raises(ValueError, match="k is 9, but 8 exemplars were collected"):
        top.first(9)


# Networks and probe sets ----------------------------------------------------------------------


def test_the_classes_of_a_network_are_those_of_its_truth(tmp_path):
    """Scenes are the classes of a network that publishes none of its own."""
    path = tmp_path / "places.txt"
    path.write_text(PLACES)
    target, truth = comparison.network("timm/test_resnet", "random", f"places365:{path}")
    assert target.classes == ("airfield", "balcony exterior", "car interior")
    assert truth == [["airfield"], ["exterior"], ["car_interior"]]
    _, truth = comparison.network("world/conv")
    assert truth[2] == list(world.SYNONYMS[world.CLASSES[2]])


def test_masks_are_of_two_worlds_or_there_are_none():
    one, other = comparison.masked_sets("world", None, 5, seed=2)
    assert len(one) == len(other) == 5 and one.fingerprint != other.fingerprint
    assert comparison.masked_sets("imagenet", None, 5) == []
    probe = world.image_set(9, 3)
    assert comparison.masked_sets("folder", None, 5, own=replace(probe, masks=None)) == []
    first, second = comparison.masked_sets("masks", None, 5, own=probe)
    assert {*first.names} | {*second.names} == {*probe.names} and len(first) + len(second) == 9
    assert first.masks(0).keys() == probe.masks(probe.names.index(first.names[0])).keys()


# FALCON and MILAN


def test_a_corpus_by_its_name(tmp_path):
    file = tmp_path / "captions.txt"
    file.write_text("a red boat\na dog\n")
    assert comparison.captions(str(file), Encoder()).texts == ("a red boat", "a dog")
    assert isinstance(comparison.captions("world", Encoder()), Captions)
    with pytest.raises(FileNotFoundError):
        comparison.captions(str(tmp_path), Encoder())


def test_definitions_are_sentences_about_the_classes():
    found = comparison.imagenet_definitions()
    assert len(found) == 1000 and found[0].startswith("tench, freshwater dace-like game fish")


def test_milan_answers_in_the_words_of_the_concept_set():
    said = ConceptTable([["two red boats"], []], [[0.5], []], torch.zeros(2), torch.tensor([0, 1]))
    assert comparison.milan_names(said, ["boat", "sea"]) == MethodNames(
        [["boat"], []], ("boat", "sea")
    )


def test_the_truth_of_hidden_neurons_is_the_best_concept_with_its_synonyms():
    iou = torch.tensor([[0.1, 0.3], [0.0, 0.0], [0.2, 0.01], [0.03, 0.0]], dtype=torch.float64)
    found = Dissection(("sky", "boat"), iou, torch.zeros(3))
    known = comparison.best_concepts(found, ["sky"], {"boat": ("boat", "sailboat")})
    assert known == {0: ["boat", "sailboat"], 2: ["sky"]}


def test_brodens_labels_are_spelled_as_in_the_concept_set():
    """For truth and row alike: red-c stays where the set holds it, swimming_pool-s nowhere."""
    iou = torch.eye(3, dtype=torch.float64)
    labels = ("swimming_pool-s", "red-c", "snow_field")
    found = Dissection(labels, iou, torch.zeros(3))
    broden, plain = ["Swimming pool", "red-c", "red", "snow_field"], ["red", "pool"]
    for words, want in ((broden, [["swimming pool"], ["red-c"], ["snow_field"]]),
                        (plain, [["swimming pool"], ["red"], ["snow field"]])):  # fmt: skip
        assert list(comparison.best_concepts(found, words).values()) == want
        row = comparison.dissection_names(found, words)
        assert row.names == want and row.words == tuple(own[0] for own in want)


@pytest.mark.real
def test_labels_of_broden_are_within_reach_of_its_clean_list(real):
    """Those of published ResNet-50 rows, nearly all of which the list spells otherwise."""
    words = language.from_file(real / "labels" / "broden_labels_clean.txt").words
    path = real / "published" / "netdissect_resnet50_imagenet_fc.csv"
    labels = literature.read_labels(path)
    held = {language.fold(word) for word in words}
    raw = sum(language.fold(own[0]) in held for own in labels)
    clean = sum(language.fold(own[0]) in held for own in comparison.match_spelling(labels, words))
    assert raw < 0.6 * len(labels) and clean > 0.95 * len(labels)
