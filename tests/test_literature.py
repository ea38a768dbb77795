"""Labels that others published: read in order, in two readings, and scored as the paper did."""

import csv

import paper_networks
import pytest
import torch
from PIL import Image

from wwwlib import language, scores, targets
from wwwlib.studies import literature, metrics

TABLES = literature.PATH
HIDDEN = "layer,unit,description\nlayer1,0,red\nlayer1,1,blue sky\nlayer2,0,dogs\n"


def written(path, *lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_network_dissection_by_hand(tmp_path):
    """Units count from 1 and stand in any order; -s and -c go, a hyphen elsewhere stays."""
    path = written(
        tmp_path / "fc.csv",
        "unit,category,label,score",
        "3,color,dark_red-c,0.1",
        "1,scene,T-junction_road-s,0.25",
        "2,object,,0",
    )
    assert literature.read_labels(path) == [["T-junction_road-s"], [], ["dark_red-c"]]
    assert literature.read_labels(path, stripped=True) == [["T-junction road"], [], ["dark red"]]


def test_layers_by_hand(tmp_path):
    """Commas inside quotes belong to the description, and "nan" is a name like any other."""
    rows = ("conv1,1,Zebra stripes", 'conv1,0,"Red, blue"', "fc,0,snow_field", "fc,1,nan")
    path = written(tmp_path / "milan.csv", "layer,unit,description", *rows)
    assert literature.read_labels(path, "conv1") == [["Red, blue"], ["Zebra stripes"]]
    assert literature.read_labels(path, "fc", stripped=True) == [["snow field"], ["nan"]]


def test_files_that_would_shift_names_are_refused(tmp_path):
    path = tmp_path / "x.csv"
    for units in ((0, 2), (1, 1), (2, 3), ()):
        written(path, "unit,label,score", *(f"{unit},cat,1" for unit in units))
        with pytest.raises(ValueError, match="without gaps or repetitions"):
            literature.read_labels(path)
    written(path, "unit,label,score", "1.0,cat,.1")
    with pytest.raises(ValueError, match=r"has the unit '1.0'; expected whole numbers"):
        literature.read_labels(path)


def test_wrong_files_and_arguments_are_refused(tmp_path):
    path = written(tmp_path / "x.csv", "layer,unit,description", "fc,0,cat")
    with pytest.raises(ValueError, match="no layer 'layer4', only fc"):
        literature.read_labels(path, "layer4")
    with pytest.raises(ValueError, match="no column 'label', only layer, unit, similarity"):
        literature.read_labels(written(tmp_path / "z.csv", "layer,unit,similarity", "fc,0,1"))
    with pytest.raises(FileNotFoundError, match="no file"):
        literature.read_labels(tmp_path / "y.csv", "fc")


@pytest.mark.real
def test_published_clip_dissect_layers_are_read(real):
    path = real / "published" / "clip_dissect_resnet50_imagenet_broden.csv"
    sizes = {"conv1": 64, "layer1": 256, "layer2": 512, "layer3": 1024, "layer4": 2048}
    assert {layer: len(literature.read_labels(path, layer)) for layer in sizes} == sizes
    assert literature.read_labels(path, "conv1")[:2] == [["red"], ["snorkeling"]]


@pytest.fixture(scope="module")
def rows(real):
    """The final layer's names in both readings, and the truth."""
    path = real / "published" / "netdissect_resnet50_imagenet_fc.csv"
    raw, stripped = (literature.read_labels(path, stripped=one) for one in (False, True))
    return raw, stripped, language.synonyms(real / "labels" / "imagenet_labels.txt")


@pytest.mark.real
def test_network_dissection_scores_as_in_the_papers_table(rows):
    raw, stripped, truth = rows
    assert scores.f1(raw, truth).mean == pytest.approx(paper("F1"), abs=5e-5)
    assert scores.hit_rate(raw, truth).mean == pytest.approx(paper("hit rate"), abs=1e-9)
    assert scores.f1(stripped, truth).mean == pytest.approx(0.0116, abs=5e-5)
    assert scores.hit_rate(stripped, truth).mean == pytest.approx(0.015, abs=1e-9)


@pytest.mark.real
def test_network_dissection_has_the_papers_mpnet_cosine(rows, real_weights):
    raw, stripped, truth = rows
    sentence = metrics.sentence_encoder(real_weights / "all-mpnet-base-v2")
    words = sorted({language.fold(w) for row in [*raw, *stripped, *truth] for w in row}, key=len)
    features = dict(zip(words, sentence(words), strict=True))  # each word once for both readings

    def encode(asked):
        return torch.stack([features[word] for word in asked])

    score = scores.text_cosine(raw, truth, encode)
    assert score.mean == pytest.approx(paper("mpnet cos"), abs=5e-5)
    assert score.stderr == pytest.approx(0.0049, abs=5e-5)
    assert scores.text_cosine(stripped, truth, encode).mean == pytest.approx(0.3129, abs=5e-5)


def paper(metric):
    """Return Network Dissection's figure for ResNet-50 (Table 2)."""
    setting = ["2", "ResNet-50", "Broden", "Broden", "Network Dissection", metric]
    with TABLES.open(newline="", encoding="utf-8") as file:
        found = [row for row in csv.reader(file) if row[:6] == setting]
    assert len(found) == 1
    return float(found[0][6])


def test_every_figure_of_the_paper_says_where_it_was_read():
    """A figure without a source is a rumour; two for one cell, a mistake."""
    with TABLES.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    columns = "table target probe concepts method metric value stderr source"
    assert list(rows[0]) == columns.split()
    cells = [tuple(row[name] for name in columns.split()[:6]) for row in rows]
    assert len(set(cells)) == len(cells)
    for row in rows:
        assert row["source"] and row["table"] in {"2", "3", "4", "5"}
        assert 0 <= float(row["value"]) <= 1 and float(row["stderr"] or 0) >= 0


def test_published_labels_are_answers_in_two_readings(tmp_path):
    path = tmp_path / "fc.csv"
    path.write_text("unit,label,score\n1,red-c,0.1\n2,snow_field-s,0.2\n3,red-c,0.1\n")
    raw, stripped = literature.label_rows("torchvision/resnet50", "logits", 3, path).values()
    assert raw.names == [["red-c"], ["snow_field-s"], ["red-c"]]
    assert raw.words == ("red-c", "snow_field-s") and raw.size == 1
    assert stripped.words == ("red", "snow field")


def test_the_papers_settings_are_recognised_and_no_other():
    assert literature.setting("torchvision/resnet50", "imagenet", 50_000, "broden:a/b.txt") == (
        "ResNet-50", "ImageNet val", "Broden"
    )  # fmt: skip
    assert literature.setting("torchvision/resnet50", "imagenet", 640, "broden:x") is None
    assert literature.setting("world/conv", "world", 2400, "world") is None
    places = ("torchvision/resnet18", "places365", 36_500, "wordnet")
    assert literature.setting(*places, "places365:x") == (
        "ResNet-18 (Places365)", "Places365 test", "WordNet nouns"
    )  # fmt: skip
    assert literature.setting(*places) is None, "the paper's ResNet-18 knows scenes"


def test_the_papers_figures_are_looked_up(tmp_path):
    known = literature.paper_scores(("ResNet-50", "ImageNet val", "Broden"))
    assert known["Network Dissection", "mpnet cos"] == (0.2989, 0.005)
    assert known["Network Dissection", "F1"] == (0.001, 0.001)
    assert known["MILAN(b)", "hit rate"] == (0.001, None), "it has images and words of its own"
    assert known["WWW", "CLIP cos"] == (0.7758, 0.004)
    nouns = literature.paper_scores(("ResNet-50", "ImageNet val", "WordNet nouns"))
    rows = [nouns[row, "F1"][0] for row in (literature.BARE, literature.TEMPLATE, "WWW")]
    assert rows == [0.3265, 0.3361, 0.4197]
    assert literature.paper_scores(None) == {}


def test_the_papers_row_stands_below_ours_and_has_no_blank():
    """Only what was read in the paper is written; the other cells say that it is not known."""
    cells = {"CLIP-Dissect top 5": {"F1": "0.1", "set size": "5"}, "MILAN": {"F1": "not run"}}
    known = {("CLIP-Dissect", "F1"): (0.25, None), ("WWW", "F1"): (0.5, 0.01)}
    found = literature.with_paper(cells, known, literature.row_names("broden:x"))
    assert list(found) == ["CLIP-Dissect top 5", "CLIP-Dissect top 5: the paper", "MILAN"]
    assert found["CLIP-Dissect top 5: the paper"] == {"F1": "0.2500", "set size": "not known"}
    assert literature.row_names("imagenet")["CLIP-Dissect top 1"] == "CLIP-Dissect"


def test_the_papers_figures_stand_beside_the_published_labels_that_reproduce_them():
    """Our own run of a method is another; where nothing is published, it is all there is."""
    told = "Network Dissection as published"
    names = literature.row_names("broden", ["WWW", "Network Dissection", told, "MILAN"])
    assert names[told] == "Network Dissection" and "Network Dissection" not in names
    assert names["MILAN"] == "MILAN(b)" and names["WWW"] == "WWW"
    assert (
        literature.row_names("broden", ["MILAN as published"])["MILAN as published"] == "MILAN(b)"
    )


# Labels as rows of a table --------------------------------------------------------------------


@pytest.fixture
def hidden(tmp_path):
    path = tmp_path / "milan.csv"
    path.write_text(HIDDEN)
    return path


def test_published_labels_are_rows_of_their_own_network_only(tmp_path, hidden):
    other = tmp_path / "cd.csv"
    other.write_text("layer,unit,description,similarity\nlayer1,0,red,.1\nlayer1,1,sea,.2\n")
    rows = literature.label_rows("torchvision/resnet50", "layer1", 2, None, other, hidden)
    assert list(rows) == ["CLIP-Dissect as published", "MILAN as published"]
    assert rows["CLIP-Dissect as published"].words == ("red", "sea")
    assert rows["MILAN as published"].names == [["red"], ["blue sky"]]
    assert rows["MILAN as published"].words is None, "MILAN chose from no list"
    assert literature.label_rows("torchvision/resnet50", "layer1", 3, None, other, hidden) == {}
    assert literature.label_rows("world/conv", "layer1", 2, None, other, hidden) == {}
    labels = tmp_path / "fc.csv"
    labels.write_text("unit,label,score\n1,red-c,0.1\n")
    final = literature.label_rows("torchvision/resnet50", "logits", 1, labels, other, hidden)
    assert list(final) == ["Network Dissection as published", "Network Dissection stripped"]


def test_the_authors_final_layer_is_ours(tmp_path):
    """MILAN's file calls the logits fc."""
    path = tmp_path / "milan.csv"
    path.write_text(f"{HIDDEN}fc,0,Living things\nfc,1,Fish\n")
    rows = literature.label_rows("torchvision/resnet50", "logits", 2, None, None, path)
    assert rows["MILAN as published"].names == [["Living things"], ["Fish"]]


def test_network_dissections_hidden_layers_lie_in_a_file_each(tmp_path):
    """One path names them all."""
    for layer, label in (("fc", "red-c"), ("layer4", "street-s")):
        (tmp_path / f"nd_{layer}.csv").write_text(f"unit,label,score\n1,{label},0.1\n")
    paths = str(tmp_path / "nd_{layer}.csv")
    told = {
        layer: literature.label_rows("torchvision/resnet50", layer, 1, paths)
        for layer in ("logits", "layer4", "layer3")
    }
    assert told["layer3"] == {}
    assert told["logits"]["Network Dissection as published"].names == [["red-c"]]
    hidden = told["layer4"]["Network Dissection stripped"]
    assert hidden.names == [["street"]]
    one = str(tmp_path / "nd_fc.csv")
    assert literature.label_rows("torchvision/resnet50", "layer4", 1, one) == {}, (
        "of the final layer only"
    )


@pytest.mark.real
def test_clip_dissects_published_labels_of_resnet50(real):
    """Five layers of known width; every unit has one of Broden's words."""
    path = real / "published" / "clip_dissect_resnet50_imagenet_broden.csv"
    widths = {"conv1": 64, "layer1": 256, "layer2": 512, "layer3": 1024, "layer4": 2048}
    for layer, width in widths.items():
        found = literature.label_rows("torchvision/resnet50", layer, width, None, path)
        assert list(found) == ["CLIP-Dissect as published"]


def test_the_paper_s_transformer_differs_from_timm_s_in_its_normalisation_alone(monkeypatch):
    torch.manual_seed(0)
    own = targets.load("timm/vit_base_patch16_224.augreg2_in21k_ft_in1k", "random")
    monkeypatch.setattr(paper_networks.targets, "load", lambda name, weights: own)
    theirs = paper_networks.vit_b16()
    image = Image.effect_mandelbrot((300, 260), (-2, -1, 1, 1), 50).convert("RGB")
    x = own.preprocess(image) * 0.5 + 0.5  # pixels in [0, 1]
    mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    assert torch.allclose(theirs.preprocess(image), (x - mean) / std, atol=1e-5)
    assert theirs.model is own.model and theirs.key() != own.key()
