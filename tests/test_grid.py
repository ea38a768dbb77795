"""The paper's grid: which networks, probe sets and truths a profile's parameters stand for."""

import pytest
import torch

from wwwlib import images, language, world
from wwwlib.baselines.falcon import Captions
from wwwlib.baselines.network_dissection import Dissection
from wwwlib.concepts import ConceptTable
from wwwlib.scores import Answer
from wwwlib.studies import grid, line_up, published, released

PLACES = "/a/airfield 0\n/b/balcony/exterior 1\n/c/car_interior 2\n"
HIDDEN = "layer,unit,description\nlayer1,0,red\nlayer1,1,blue sky\nlayer2,0,dogs\n"


def test_networks_may_share_a_name_but_not_their_weights(tmp_path):
    """Weights and truths that are missing are the library's own and the first one's."""
    names = ["world/conv", "timm/test_resnet", "timm/test_resnet"]
    path = tmp_path / "places.txt"
    path.write_text(PLACES)
    weights = [None, "random", "random"]
    truths = ["classes", f"places365:{path}", f"places365:{path}"]
    found = grid.networks(names, weights, ["layer4", "layer1", "layer2"], truths)
    assert [net.name for net in found] == [
        "world/conv", "timm/test_resnet (random)", "timm/test_resnet (random)"
    ]  # fmt: skip
    assert found[1].target.classes == ("airfield", "balcony exterior", "car interior")
    assert found[1].truth == [["airfield"], ["exterior"], ["car_interior"]]
    assert found[0].truth[2] == list(world.SYNONYMS[world.CLASSES[2]])
    plain = grid.networks(["world/conv", "world/vit"], [], ["layer4", "encoder"], ["classes"])
    assert [net.spec for net in plain] == ["classes", "classes"]


def test_parameters_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="There are 1 networks and 2 hidden layers"):
        grid.networks(["world/conv"], [], ["a", "b"], ["classes"])
    with pytest.raises(ValueError, match="There are 2 weights for 1"):
        grid.networks(["world/conv"], [None, None], ["layer4"], ["classes"])
    with pytest.raises(ValueError, match="Two probe sets are called"):
        grid.probes(["world", "world"], [], 4)


def test_only_classes_that_the_probe_set_shows_are_asked_for():
    (net,) = grid.networks(["world/conv"], [], ["layer4"], ["classes"])
    probe = world.image_set(48)
    few = images.subset(probe, [i for i in range(48) if probe.label(i) in (3, 7)])
    assert list(net.asked_for(few)) == [3, 7]
    assert net.asked_for(few)[7] == net.truth[7]


def test_a_probe_set_of_other_classes_asks_for_all(tmp_path):
    (net,) = grid.networks(["world/conv"], [], ["layer4"], ["classes"])
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        world.image_set(1).image(0).save(tmp_path / name / "0.png")
    assert len(net.asked_for(images.folder(tmp_path))) == 24


def test_probe_sets_go_by_their_names():
    found = grid.probes(["world"], [None], 6, seed=4)
    assert list(found) == ["world-4"] and len(found["world-4"]) == 6


def test_masks_are_of_two_worlds_or_there_are_none():
    (one, _), (other, _) = grid.masked("world", None, 5, seed=2)
    assert len(one) == len(other) == 5 and one.fingerprint != other.fingerprint
    assert grid.masked("imagenet", None, 5) == []


# Labels that others published


@pytest.fixture
def hidden(tmp_path):
    path = tmp_path / "milan.csv"
    path.write_text(HIDDEN)
    return path


def test_layers_of_a_file(hidden):
    assert published.layers(hidden) == {"layer1": 2, "layer2": 1}


def test_published_labels_are_rows_of_their_own_network_only(tmp_path, hidden):
    other = tmp_path / "cd.csv"
    other.write_text("layer,unit,description,similarity\nlayer1,0,red,.1\nlayer1,1,sea,.2\n")
    rows = released.rows("torchvision/resnet50", "layer1", 2, None, other, hidden)
    assert list(rows) == ["CLIP-Dissect as published", "MILAN as published"]
    assert rows["CLIP-Dissect as published"].words == ("red", "sea")
    assert rows["MILAN as published"].names == [["red"], ["blue sky"]]
    assert rows["MILAN as published"].words is None, "MILAN chose from no list"
    assert released.rows("torchvision/resnet50", "layer1", 3, None, other, hidden) == {}
    assert released.rows("world/conv", "layer1", 2, None, other, hidden) == {}
    labels = tmp_path / "fc.csv"
    labels.write_text("unit,label,score\n1,red-c,0.1\n")
    final = released.rows("torchvision/resnet50", "logits", 1, labels, other, hidden)
    assert list(final) == ["Network Dissection as published", "Network Dissection stripped"]
    assert not any(own.informed for own in final.values())


def test_the_authors_final_layer_is_ours(tmp_path):
    """MILAN's file calls the logits fc."""
    path = tmp_path / "milan.csv"
    path.write_text(f"{HIDDEN}fc,0,Living things\nfc,1,Fish\n")
    rows = released.rows("torchvision/resnet50", "logits", 2, None, None, path)
    assert rows["MILAN as published"].names == [["Living things"], ["Fish"]]


def test_network_dissections_hidden_layers_lie_in_a_file_each(tmp_path):
    """One path names them all; it was told by which masks the truth is chosen."""
    for layer, label in (("fc", "red-c"), ("layer4", "street-s")):
        (tmp_path / f"nd_{layer}.csv").write_text(f"unit,label,score\n1,{label},0.1\n")
    paths = str(tmp_path / "nd_{layer}.csv")
    told = {
        layer: released.rows("torchvision/resnet50", layer, 1, paths)
        for layer in ("logits", "layer4", "layer3")
    }
    assert told["layer3"] == {}
    assert told["logits"]["Network Dissection as published"].names == [["red-c"]]
    hidden = told["layer4"]["Network Dissection stripped"]
    assert hidden.names == [["street"]] and hidden.informed
    one = str(tmp_path / "nd_fc.csv")
    assert released.rows("torchvision/resnet50", "layer4", 1, one) == {}, "of the final layer only"


@pytest.mark.real
def test_clip_dissects_published_labels_of_resnet50(real):
    """Five layers of known width; every unit has one of Broden's words."""
    path = real / "published" / "clip_dissect_resnet50_imagenet_broden.csv"
    found = released.by_layer(path)
    widths = {layer: len(own["CLIP-Dissect as published"].names) for layer, own in found.items()}
    assert widths == {"conv1": 64, "layer1": 256, "layer2": 512, "layer3": 1024, "layer4": 2048}


# FALCON and MILAN in the line-up


class Encoder:
    """Features of texts from their lengths."""

    name, dim = "lengths", 2

    def encode_texts(self, texts):
        rows = torch.tensor([[float(len(text)), 1.0] for text in texts])
        return torch.nn.functional.normalize(rows, dim=1)


def test_a_corpus_by_its_name(tmp_path):
    file = tmp_path / "captions.txt"
    file.write_text("a red boat\na dog\n")
    assert line_up.corpus(str(file), Encoder()).texts == ("a red boat", "a dog")
    assert isinstance(line_up.corpus("world", Encoder()), Captions)
    with pytest.raises(FileNotFoundError):
        line_up.corpus(str(tmp_path), Encoder())


def test_definitions_are_sentences_about_the_classes():
    found = line_up.imagenet_definitions()
    assert len(found) == 1000 and found[0].startswith("tench, freshwater dace-like game fish")


def test_milan_answers_in_the_words_of_the_concept_set():
    said = ConceptTable([["two red boats"], []], [[0.5], []], torch.zeros(2), torch.tensor([0, 1]))
    (answer,) = line_up.reading(said, ["boat", "sea"]).values()
    assert answer == Answer([["boat"], []], ("boat", "sea"))
    assert line_up.reading(said, ["boat"], informed=True)["MILAN"].informed
    assert line_up.reading(None, ["boat"]) == {}


def test_the_truth_of_hidden_neurons_is_the_best_concept_with_its_synonyms():
    iou = torch.tensor([[0.1, 0.3], [0.0, 0.0], [0.02, 0.01]], dtype=torch.float64)
    found = Dissection(("sky", "boat"), ("object", "object"), iou, torch.zeros(3))
    known = line_up.best_concepts(found, ["sky"], {"boat": ("boat", "sailboat")})
    assert known == {0: ["boat", "sailboat"], 2: ["sky"]}


def test_brodens_labels_are_spelled_as_in_the_concept_set():
    """For truth and row alike: red-c stays where the set holds it, swimming_pool-s nowhere."""
    iou = torch.eye(3, dtype=torch.float64)
    labels = ("swimming_pool-s", "red-c", "snow_field")
    found = Dissection(labels, ("scene", "color", "scene"), iou, torch.zeros(3))
    broden, plain = ["Swimming pool", "red-c", "red", "snow_field"], ["red", "pool"]
    for words, want in ((broden, [["swimming pool"], ["red-c"], ["snow_field"]]),
                        (plain, [["swimming pool"], ["red"], ["snow field"]])):  # fmt: skip
        assert list(line_up.best_concepts(found, words).values()) == want
        row = line_up.dissected(found, words)
        assert row.names == want and row.words == tuple(own[0] for own in want)


@pytest.mark.real
def test_labels_of_broden_are_within_reach_of_its_clean_list(real):
    """Those of published ResNet-50 rows, nearly all of which the list spells otherwise."""
    words = language.from_file(real / "labels" / "broden_labels_clean.txt").words
    path = real / "published" / "netdissect_resnet50_imagenet_fc.csv"
    labels = published.network_dissection(path).names
    held = {language.fold(word) for word in words}
    raw = sum(language.fold(own[0]) in held for own in labels)
    clean = sum(language.fold(own[0]) in held for own in line_up.spelled(labels, words))
    assert raw < 0.6 * len(labels) and clean > 0.95 * len(labels)
