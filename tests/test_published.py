"""Labels that others published: read in order, in two readings, and scored as the paper did."""

import csv
import math
from pathlib import Path

import pytest
import torch

from wwwlib import language, scores
from wwwlib.studies import published

TABLES = Path(__file__).resolve().parents[1] / "data" / "paper_tables.csv"


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
    raw = published.network_dissection(path)
    assert raw.names == [["T-junction_road-s"], [], ["dark_red-c"]]
    assert raw.scores == [[0.25], [], [0.1]]
    assert raw.abstained.tolist() == [False, True, False]
    stripped = published.network_dissection(path, "stripped")
    assert stripped.names == [["T-junction road"], [], ["dark red"]]
    assert published.stripped(raw).names == stripped.names


def test_clip_dissect_and_milan_by_hand(tmp_path):
    """Commas inside quotes belong to the description; MILAN has no scores."""
    columns = "layer,unit,description"
    rows = ("conv1,1,Zebra stripes", 'conv1,0,"Red, blue"', "fc,0,snow_field")
    milan = written(tmp_path / "milan.csv", columns, *rows)
    assert published.milan(milan, "conv1").names == [["Red, blue"], ["Zebra stripes"]]
    assert math.isnan(published.milan(milan, "conv1").scores[0][0])
    assert published.milan(milan, "fc", "stripped").names == [["snow field"]]
    clip = written(tmp_path / "clip.csv", f"{columns},similarity", *(f"{row},.5" for row in rows))
    assert published.clip_dissect(clip, "conv1").scores == [[0.5], [0.5]]


def test_files_that_would_shift_names_are_refused(tmp_path):
    path = tmp_path / "x.csv"
    for units in ((0, 2), (1, 1), (2, 3), ()):
        written(path, "unit,label,score", *(f"{unit},cat,1" for unit in units))
        with pytest.raises(ValueError, match="without gaps or repetitions"):
            published.network_dissection(path)


def test_a_cell_that_is_no_number_is_named(tmp_path):
    path = written(tmp_path / "x.csv", "unit,label,score", "0,cat,")
    with pytest.raises(ValueError, match=r"has '' in the column 'score', where a number belongs"):
        published.network_dissection(path)
    written(path, "unit,label,score", "1.0,cat,.1")
    with pytest.raises(ValueError, match=r"has '1.0' in the column 'unit', where a whole number"):
        published.network_dissection(path)
    assert published.network_dissection(written(path, "unit,label,score", "0,,")).names == [[]]


def test_wrong_files_and_arguments_are_refused(tmp_path):
    path = written(tmp_path / "x.csv", "layer,unit,description", "fc,0,cat")
    with pytest.raises(ValueError, match="no column 'similarity', only layer, unit, description"):
        published.clip_dissect(path, "fc")
    with pytest.raises(ValueError, match="no layer 'layer4', only fc"):
        published.milan(path, "layer4")
    with pytest.raises(ValueError, match="'clean' is unknown"):
        published.milan(path, "fc", "clean")
    with pytest.raises(FileNotFoundError, match="no file"):
        published.milan(tmp_path / "y.csv", "fc")


@pytest.mark.real
def test_published_clip_dissect_layers_are_read(real):
    path = real / "published" / "clip_dissect_resnet50_imagenet_broden.csv"
    sizes = {"conv1": 64, "layer1": 256, "layer2": 512, "layer3": 1024, "layer4": 2048}
    assert {layer: len(published.clip_dissect(path, layer)) for layer in sizes} == sizes
    assert published.clip_dissect(path, "conv1").names[:2] == [["red"], ["snorkeling"]]


@pytest.fixture(scope="module")
def rows(real):
    """The final layer's names in both readings, and the truth."""
    path = real / "published" / "netdissect_resnet50_imagenet_fc.csv"
    raw, stripped = (published.network_dissection(path, reading) for reading in published.READINGS)
    return raw.names, stripped.names, language.synonyms(real / "labels" / "imagenet_labels.txt")


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
    sentence = language.sentence_encoder(real_weights / "all-mpnet-base-v2")
    words = sorted({language.fold(w) for row in [*raw, *stripped, *truth] for w in row}, key=len)
    features = dict(zip(words, sentence(words), strict=True))  # each word once for both readings

    def encode(asked):
        return torch.stack([features[word] for word in asked])

    score = scores.text_cosine(raw, truth, encode)
    assert score.mean == pytest.approx(paper("mpnet cos"), abs=5e-5)
    assert score.stderr == pytest.approx(0.0049, abs=5e-5)
    assert scores.text_cosine(stripped, truth, encode).mean == pytest.approx(0.3129, abs=5e-5)


def paper(metric):
    """Return Network Dissection's figure for ResNet-50, ImageNet val and Broden (Table 2)."""
    setting = ["2", "ResNet-50", "ImageNet val", "Broden", "Network Dissection", metric]
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
