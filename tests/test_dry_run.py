"""Dry runs: nothing real is needed, every step has something to work on, all of it is marked."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import dry_run
import nbformat
import numpy as np
import pytest
import torch
from dry_run import BANNER
from parameters import texts
from PIL import Image
from profiles import Profile, Project, load, plan

from wwwlib import language, targets
from wwwlib.store import file_digest
from wwwlib.studies import datasets, figures, literature, metrics

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = "netdissect_resnet50_imagenet_fc", "clip_dissect_resnet50_imagenet_broden"

DOWNLOADED = "openai", "IMAGENET1K", "mpnet"


def profile(common, **notebooks):
    return Profile("tiny", needs=("a need",), common=common, notebooks=notebooks)


@pytest.fixture
def staged(tmp_path):
    return Project(ROOT, stand_ins=tmp_path / "data")


def test_weights_encoders_and_counts_are_replaced(staged):
    common = {
        "target": "torchvision/resnet50", "weights": "IMAGENET1K_V2", "probe_root": "x",
        "encoder": "open_clip:ViT-B-32-quickgelu/openai", "workers": 8, "alpha": 0.9,
    }  # fmt: skip
    own = f"{staged.data}/weights/resnet18_places365.pth.tar"
    books = {
        "a": {
            "tested": None,
            "silenced": 96,
            "ks": [40, 5, 80],
            "also_encoders": ["open_clip:RN50/openai"],
        },
        "b": {"target": "timm/vit", "sentences": "mpnet", "also": ["torchvision/vit_b_16"]},
        "c": {"weights": own, "also": ["timm/x"], "also_weights": [None]},
    }
    found = dry_run.adapted(profile(common, **books), staged)
    assert found.common["weights"] == str(staged.data / "random/torchvision-resnet50.safetensors")
    clip = f"open_clip:local-dir:{staged.data}/clip"
    assert found.common["encoder"] == f"{clip}/ViT-B-32-quickgelu"
    assert found.common["probe_count"] == dry_run.IMAGES and found.common["workers"] == 0
    assert found.common["alpha"] == 0.9 and found.needs == [] and found.description == BANNER
    few = {name: dry_run.SMALL[name] for name in ("tested", "silenced")} | {"ks": [20, 5]}
    assert found.notebooks["a"] == few | {"also_encoders": [f"{clip}/RN50"]}
    vit = str(staged.data / "random/timm-vit.safetensors")
    expected = {"target": "timm/vit", "weights": vit, "also": []}
    expected["sentences"] = str(staged.data / dry_run.SENTENCES)
    assert found.notebooks["b"] == expected
    assert found.notebooks["c"] == books["c"] | {"also_weights": ["random"]}


@pytest.mark.parametrize("name", ["paper", "classroom"])
def test_nothing_of_a_profile_is_left_that_would_be_downloaded(staged, name):
    """Breaks if a setting is added that a dry run does not replace, or cannot give its notebook."""
    found = dry_run.adapted(load(staged, name), staged)
    for job in plan(staged, found, [], {}):
        values = job.effective
        assert str(values["weights"]).startswith(str(staged.data)), job.name
        given = list(texts([*job.given.values()]))
        assert not [t for t in given if any(one in t for one in DOWNLOADED)], job.name
        assert all(one.startswith("world/") for one in values.get("also", [])), job.name
        assert values.get("probe_count") == dry_run.IMAGES, job.name


def furnished(staged, *texts):
    dry_run.furnish(profile({"texts": [f"{staged.data}/{text}" for text in texts]}), staged)


def test_stand_ins_have_the_form_of_the_real_thing(staged):
    """Breaks if the stand-ins have another form than the data of the real run."""
    words = "words/broden_labels_clean.txt"
    furnished(staged, words, "wordnet", "broden1_224", "imagenette", "imagenet/val", "places365")
    labels = [staged.data / "words" / f"{file}.csv" for file in PUBLISHED]
    for layer, neurons in {"logits": 1000, "layer4": 2048}.items():
        assert literature.label_rows("torchvision/resnet50", layer, neurons, *labels), layer
    scenes = staged.data / "places365"
    probe = datasets.load("places365", scenes)
    truth = metrics.places365_truth(scenes / "categories_places365.txt", "paper")
    assert len(probe) == dry_run.IMAGES and len(probe.classes) == len(truth) == 365
    assert {*dry_run.SHOWN[:2]} <= {*probe.labels}, "classes that Figure 3 shows"
    assert ["outdoor"] in truth, "the two readings differ"
    for kind, root in (("imagenet", "imagenet/val"), ("imagenette", "imagenette")):
        probe = datasets.load(kind, staged.data / root, dry_run.IMAGES)
        assert set(probe.labels) == set(dry_run.SHOWN)
        assert min(map(probe.labels.count, dry_run.SHOWN)) >= 10, "class sides from many images"
    from wwwlib.baselines.network_dissection import broden

    shown = broden(staged.data / "broden1_224")
    masks = shown.masks
    assert len(shown) == dry_run.IMAGES and len(masks(0)) == 2
    target = targets.load("world/conv")
    for spec in (f"broden:{staged.data / words}", f"wordnet:{staged.data}/wordnet"):
        assert len(language.concept_set(spec, target).words) > 100


def test_stand_ins_are_written_once_and_anew_when_others_are_named(staged):
    furnished(staged, "wordnet")
    nouns = staged.data / "wordnet" / "data.noun"
    nouns.write_text("touched")
    furnished(staged, "wordnet")
    assert nouns.read_text() == "touched"
    furnished(staged, "wordnet", "words/list.txt")
    assert nouns.read_text() != "touched" and (staged.data / "words").is_dir()


def test_a_random_network_names_some_of_the_classes_shown_and_no_others(tmp_path):
    """Breaks if it has no right answer or no error to explain, or differs from run to run."""
    path, rng = dry_run.network(tmp_path, "torchvision/resnet18"), np.random.default_rng(3)
    dry_run._network(path)
    net = targets.load("torchvision/resnet18", path)
    x = torch.stack([net.preprocess(dry_run._picture(rng)) for _ in range(24)])
    with torch.inference_mode():
        seen = set(net.model(x).argmax(1).tolist())
    assert len(seen) > 1 and seen <= set(dry_run.SHOWN)
    first = path.read_bytes()
    dry_run._network(path)
    assert path.read_bytes() == first


def test_the_random_sentence_encoder_is_read_as_a_real_one_would_be(staged):
    """Breaks if a folder of sentence-transformers cannot be read, or its features are no units."""
    furnished(staged, dry_run.SENTENCES)
    encode = metrics.sentence_encoder(staged.data / dry_run.SENTENCES)
    texts = ["great white shark", "tench", "tench"]
    u = encode(texts)
    assert u.shape == (3, 768) and torch.allclose(u.norm(dim=1), torch.ones(3))
    assert torch.allclose(u[1], u[2]) and u[0] @ u[1] < 0.99


@pytest.mark.parametrize(("name", "size"), [("ViT-B-16-quickgelu", 512), ("RN50", 1024)])
def test_a_random_clip_reads_and_gives_what_the_real_one_does(tmp_path, name, size):
    """Breaks if its images, texts or features have other sizes, or it has as many weights."""
    dry_run._clip(tmp_path / name)
    clip = language.encoder(f"{dry_run.LOCAL}{tmp_path / name}")
    assert (clip.dim, clip.context_length) == (size, 77)
    x = clip.preprocess(Image.new("RGB", (64, 64)))[None]
    assert x.shape == (1, 3, 224, 224) and clip.encode_images(x).shape == (1, size)
    blocks = clip.network.state_dict()
    assert not [one for one in blocks if "resblocks.1." in one or "layer1.1." in one]


def outputs(book):
    return [cell.outputs for cell in book.cells if cell.cell_type == "code" and cell.outputs]


def test_the_stamp_is_on_every_output_and_in_the_results(tmp_path):
    v4 = nbformat.v4
    said = v4.new_output("stream", name="stdout", text="F1 = 0.9")
    cells = [v4.new_code_cell("1", outputs=[said]), v4.new_code_cell("2")]
    nbformat.write(v4.new_notebook(cells=cells), tmp_path / "a.ipynb")
    (tmp_path / "results.json").write_text('{"scalars": {"F1": 0.9}}')
    assert dry_run.stamp(tmp_path / "a.ipynb", tmp_path) == {"dry_run": BANNER}
    book = nbformat.read(tmp_path / "a.ipynb", as_version=4)
    assert book.cells[0].source == f"# {BANNER}"
    assert [[one.text for one in each] for each in outputs(book)] == [[f"{BANNER}\n", "F1 = 0.9"]]
    results = json.loads((tmp_path / "results.json").read_text())
    assert results == {"dry_run": BANNER, "scalars": {"F1": 0.9}}
    page = tmp_path / "explorer.html"
    page.write_text("<html><body>\nAnswer: boat")
    beside = tmp_path / "explorer-provenance.json"
    beside.write_text('{"sha256": "of the page without the mark"}')
    dry_run.stamp(tmp_path / "a.ipynb", tmp_path)
    assert BANNER in page.read_text()
    made = {"dry_run": BANNER, "sha256": file_digest(page)}
    assert json.loads(beside.read_text()) == made
    empty = tmp_path / "failed"
    assert dry_run.stamp(empty / "none.ipynb", empty) == {"dry_run": BANNER}


def marked(png):
    """Whether the banner's red, 60 % of it on white, is on a figure."""
    pixels = np.asarray(Image.open(png).convert("RGB")).astype(int)
    return bool((abs(pixels - (255, 102, 102)).max(2) < 8).sum() > 50)


def test_a_figure_of_a_dry_run_is_marked(tmp_path, monkeypatch):
    """Breaks if a figure copied out of a dry run looks like a result."""
    from matplotlib.figure import Figure

    plain = figures.save(Figure(), tmp_path, "plain", "Nothing.")
    monkeypatch.setenv("WWW_DRY_RUN", BANNER)
    shown = figures.save(Figure(), tmp_path, "marked", "Nothing.")
    assert not marked(plain.png) and marked(shown.png)
    assert shown.alt == f"{BANNER}: Nothing."
    assert plain.pdf.read_bytes() != shown.pdf.read_bytes()


@pytest.fixture
def ran_dry(tmp_path):
    """Dry run of a notebook of the classroom without a network; returns the folder of the run."""
    out = f"dry-run-{os.getpid()}"
    folder = ROOT / "papermill_runs" / "runs" / out
    more = {"WWW_STORE": str(tmp_path / "store"), "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}

    def run(only):
        words = ["run.py", "--dry-run", "classroom", "--only", only, "--out", out]
        command = [sys.executable, ROOT / "papermill_runs" / words[0], *words[1:]]
        done = subprocess.run(command, env={**os.environ, **more}, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return folder

    yield run
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["00_start_here", "01_concept_discovery", "02_localization"])
def test_a_dry_run_ends_and_marks_everything(ran_dry, name):
    folder = ran_dry(name[:2])
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["dry_run"] == BANNER == manifest["notebooks"][name]["dry_run"]
    assert manifest["notebooks"][name]["state"] == "done"
    assert json.loads((folder / name / "results.json").read_text())["dry_run"] == BANNER
    book = nbformat.read(folder / f"{name}.ipynb", as_version=4)
    assert BANNER in book.cells[0].source
    assert outputs(book) and all(each[0].text == f"{BANNER}\n" for each in outputs(book))
    drawn = sorted((folder / name).glob("*.png"))
    assert drawn and all(marked(png) for png in drawn)
    pages = [o.data["text/html"] for each in outputs(book) for o in each[1:] if "data" in o
             and "<img" in o.data.get("text/html", "")]  # fmt: skip
    assert pages and all(f'alt="{BANNER}' in page for page in pages)
