"""Methods side by side on one layer, and the paper's own figures beside them."""

import pytest
import torch

from wwwlib import concepts, language, targets, world
from wwwlib.baselines import clip_dissect, milan
from wwwlib.baselines.network_dissection import Dissection
from wwwlib.exemplars import Exemplars
from wwwlib.scores import Answer
from wwwlib.store import Store
from wwwlib.studies import line_up, paper, released, remarks, tables

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
    found = line_up.line_up(v, top, WORDS, Encoder(), k=4, dissect_k=6, alpha=0.6)
    t, t0 = WORDS.embed(Encoder())
    own = torch.stack([v[row[:4]] for row in top.index])
    own[3] = 0
    alone = concepts.discover(own, t, t0, WORDS.words, 0.6).names
    assert found["WWW"].names == alone and alone[3] == []
    bare = Encoder().encode_texts(list(WORDS.words))
    rival = clip_dissect.soft_wpmi(v, bare, line_up.first(top, 6), WORDS.words, 9).names
    assert found["CLIP-Dissect top 1"].names == [names[:1] for names in rival]
    assert found["CLIP-Dissect top 5"].names == [names[:5] for names in rival]


def test_equal_k_is_equal_neuron_by_neuron():
    """A neuron about which WWW is silent keeps one name; a dead one has none from anybody."""
    v, top = layer()
    found = line_up.line_up(v, top, WORDS, Encoder(), k=4, dissect_k=6, alpha=0.6)
    sizes = [len(names) for names in found["WWW"].names]
    assert len(set(sizes)) > 2, "the example shows something only if sizes differ"
    equal = [len(names) for names in found[line_up.EQUAL].names]
    assert equal == [0 if i == 3 else max(1, size) for i, size in enumerate(sizes)]
    assert found[line_up.EQUAL].size is None and found["CLIP-Dissect top 5"].size == 5


def test_fewer_words_than_names_asked_for():
    v, top = layer()
    words = language.ConceptSet(["a", "b"])
    found = line_up.line_up(v, top, words, Encoder(), k=4, dissect_k=6)
    assert found["CLIP-Dissect top 5"].size == 2
    assert {len(names) for names in found["CLIP-Dissect top 5"].names} == {0, 2}


def test_features_are_those_that_the_encoder_would_give():
    """Compared with `embed_exemplars`' rule: zeros for the dead and for what is missing."""
    v, top = layer()
    top.index[5, 2:] = -1
    found = line_up.exemplar_features(v, top)
    for n in range(7):
        for o in range(8):
            i = int(top.index[n, o])
            want = v[i] if n != 3 and i >= 0 else torch.zeros(6)
            assert torch.equal(found[n, o], want)


def test_features_of_a_probe_set_are_kept(tmp_path):
    """The second call asks the store, not the encoder."""

    class Eye(Encoder):
        seen = 0

        def preprocess(self, image):
            small = list(image.resize((1, 2)).tobytes())
            return torch.tensor(small, dtype=torch.float32).reshape(3, 2, 1)

        def encode_images(self, pixels):
            Eye.seen += len(pixels)
            return torch.nn.functional.normalize(pixels.flatten(1) + 1, dim=1)

    d_probe, store = world.image_set(5), Store(tmp_path)
    fresh = line_up.probe_features(Eye(), d_probe, 2)
    kept = [line_up.probe_features(Eye(), d_probe, 2, store=store) for _ in range(2)]
    assert Eye.seen == 10 and fresh.shape == (5, 6)
    assert all(torch.equal(fresh, one) for one in kept)


def test_network_dissection_answers_and_how_well_it_fits():
    """Three neurons: a detector, one just below the threshold of .04, one that meets no mask."""
    iou = torch.tensor([[0.1, 0.3], [0.039, 0.0], [0.0, 0.0]], dtype=torch.float64)
    found = Dissection(("sky", "sea"), ("object", "object"), iou, torch.zeros(3))
    answer = line_up.dissected(found, [], informed=True)
    assert answer.names == [["sea"], [], []] and answer.words == ("sky", "sea")
    assert answer.informed and answer.size is None
    assert line_up.fits(found) == {"neurons": 3, "median of best IoU": 0.039, "detectors": 1}


def test_published_labels_are_answers_in_two_readings(tmp_path):
    path = tmp_path / "fc.csv"
    path.write_text("unit,label,score\n1,red-c,0.1\n2,snow_field-s,0.2\n3,red-c,0.1\n")
    raw, stripped = released.dissection(path).values()
    assert raw.names == [["red-c"], ["snow_field-s"], ["red-c"]]
    assert raw.words == ("red-c", "snow_field-s") and raw.size == 1
    assert stripped.words == ("red", "snow field")


def test_first_exemplars_and_no_more_than_there_are():
    _, top = layer()
    assert torch.equal(line_up.first(top, 3).index, top.index[:, :3])
    with pytest.raises(ValueError, match="k is 9, but 8 exemplars were collected"):
        line_up.first(top, 9)


def test_the_papers_settings_are_recognised_and_no_other():
    assert paper.setting("torchvision/resnet50", "imagenet", 50_000, "broden:a/b.txt") == (
        "ResNet-50", "ImageNet val", "Broden"
    )  # fmt: skip
    assert paper.setting("torchvision/resnet50", "imagenet", 640, "broden:x") is None
    assert paper.setting("world/conv", "world", 2400, "world") is None
    places = ("torchvision/resnet18", "places365", 36_500, "wordnet")
    assert paper.setting(*places, "places365:x") == (
        "ResNet-18 (Places365)", "Places365", "WordNet nouns"
    )  # fmt: skip
    assert paper.setting(*places) is None, "the paper's ResNet-18 knows scenes"


def test_the_papers_figures_are_looked_up(tmp_path):
    known = paper.figures(("ResNet-50", "ImageNet val", "Broden"))
    assert known["Network Dissection", "mpnet cos"] == (0.2989, 0.005)
    assert known["Network Dissection", "F1"] == (0.001, None)
    assert paper.figures(None) == {}


def test_the_papers_row_stands_below_ours_and_has_no_blank():
    """Only what was read in the paper is written; the other cells say that it is not known."""
    cells = {"CLIP-Dissect top 5": {"F1": "0.1", "set size": "5"}, "MILAN": {"F1": "not run"}}
    known = {("CLIP-Dissect", "F1"): (0.25, None), ("WWW", "F1"): (0.5, 0.01)}
    found = paper.beside(cells, known, paper.row_names("broden:x"))
    assert list(found) == ["CLIP-Dissect top 5", "CLIP-Dissect top 5: the paper", "MILAN"]
    assert found["CLIP-Dissect top 5: the paper"] == {"F1": "0.2500", "set size": "not known"}
    assert paper.row_names("imagenet")["CLIP-Dissect top 1"] == "CLIP-Dissect"


def test_the_papers_figures_stand_beside_the_published_labels_that_reproduce_them():
    """Our own run of a method is another; where nothing is published, it is all there is."""
    told = "Network Dissection as published"
    names = paper.row_names("broden", ["WWW", "Network Dissection", told, "MILAN"])
    assert names[told] == "Network Dissection" and "Network Dissection" not in names
    assert names["MILAN"] == "MILAN" and names["WWW"] == "WWW"
    assert paper.row_names("broden", ["MILAN as published"])["MILAN as published"] == "MILAN"


def test_only_in_the_papers_setting_is_a_row_said_to_compare():
    assert paper.remark(None, "broden:x") == []
    assert "only top 5 compares" in paper.remark(("a", "b", "Broden"), "broden:x")[0]


def noted(methods, layer="logits", target="world/conv", **settings):
    """The remarks of a table with some rows, another of which was not run."""
    given = {method: Answer([["a"]], ["a"]) for method in methods}
    table = tables.assemble("t", {**given, "WWW": Answer()}, [["a"]], {})
    options = {"dissect_k": 100, **settings}
    return " ".join(remarks.about(table, targets.load(target), layer, **options))


def test_remarks_are_true_of_the_run():
    """Each follows from a setting, and changes with it."""
    assert "100 images a neuron, as its authors do" in noted([line_up.EQUAL])
    told = noted([line_up.EQUAL], dissect_k=1)
    assert "1 image a neuron, while its authors take 100" in told and "as its authors" not in told
    told = noted(["FALCON"], "layer4", grouping={"sigmas": 2.5}, drawn="layer4")
    assert "above 2.5 standard deviations" in told and "above 0.8 (its authors': 5 and 0.8)" in told
    assert "it cuts images as the maps of layer4 say" in told and "independent" not in told
    told = noted(["FALCON"], "layer4", drawn="layer3")
    assert "Of the maps of layer4 its features are independent" in told
    assert "it cuts none, for want of a map" in noted(["FALCON"])
    assert "sees no part" in noted(["Network Dissection"])
    assert "sees no part" not in noted(["Network Dissection"], "layer4")


def test_what_milan_sees_through_is_said():
    describer = milan.load()
    assert "through world/conv, the network under study itself" in noted(
        ["MILAN"], describer=describer
    )
    told = noted(["MILAN"], "encoder", "world/vit", describer=describer)
    assert "world/conv, not world/vit, which is under study" in told and "two readings" in told


def test_rows_are_matched_by_their_whole_name():
    """Nothing that is true of a method here is said of its published labels."""
    told = noted(
        ["MILAN as published", "Network Dissection as published", "CLIP-Dissect as published"]
    )
    assert told == " ".join(remarks._ELSEWHERE)
    assert noted([]) == ""
