"""The short way: what `wwwlib.build` makes of models, folders, data sets, words and names."""

import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import timm
import torch
from matplotlib.figure import Figure
from PIL import Image
from test_atlas import Projection
from torch import nn
from torchvision import models
from torchvision.transforms.functional import pil_to_tensor

import wwwlib
from wwwlib import images, short_way, targets
from wwwlib.store import Store
from wwwlib.studies import datasets

CLASSES = ("boat", "tree", "house")
WORDS = ("sail", "leaf", "roof", "night", "sea")
SIDE = 12


def picture(i):
    generator = torch.Generator().manual_seed(i)
    pixels = torch.randint(0, 256, (SIDE, SIDE, 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


def preprocess(image):
    return pil_to_tensor(image.resize((SIDE, SIDE))).float() / 127.5 - 1


class Net(nn.Sequential):
    """Two convolutions, pooling and one linear layer."""

    def __init__(self):
        torch.manual_seed(0)
        super().__init__(
            nn.Conv2d(3, 5, 3, stride=2), nn.ReLU(), nn.Conv2d(5, 6, 3), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3),
        )  # fmt: skip


class Pairs(torch.utils.data.Dataset):
    def __len__(self):
        return 24

    def __getitem__(self, i):
        return picture(i), i % 3


@pytest.fixture
def photos(tmp_path):
    """A folder of pictures, one subfolder per class."""
    for i in range(24):
        folder = tmp_path / "photos" / CLASSES[i % 3]
        folder.mkdir(parents=True, exist_ok=True)
        picture(i).save(folder / f"{i:02d}.png")
    return tmp_path / "photos"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WWW_STORE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def build(photos, **options):
    own = {"concepts": WORDS, "encoder": Projection(), "preprocess": preprocess}
    own |= {"classes": CLASSES, "k": 4, "progress": False}
    return wwwlib.build(Net(), photos, **own | options)


def test_from_a_folder_to_names_explanation_figure_and_back(photos, cache, tmp_path, capsys):
    """The example of the README, with a small network."""
    book = build(photos, layers=["3"])
    table = book.names("3")
    assert isinstance(table, pd.DataFrame)
    assert list(table.columns) == [
        "neuron", "names", "scores", "stability", "test", "auroc", "rank", "p", "pearson", "best",
        "best_auroc", "verified", "verified_auroc",
    ]  # fmt: skip
    assert table.neuron.tolist() == list(range(6))
    for i, row in table.iterrows():
        assert row.names == book.layers["3"].major.names[i]
        assert row.scores == pytest.approx(book.layers["3"].major.scores[i], abs=5e-5)
        assert 0 <= row.stability <= 1
    table.to_csv(tmp_path / "names.csv")

    picture(99).save(tmp_path / "cat.png")
    e = book.explain(tmp_path / "cat.png")
    assert book.explain(picture(99)).to_dict() == e.to_dict()
    capsys.readouterr()
    print(e)
    printed = capsys.readouterr().out.strip()
    assert printed == e.to_sentence() and printed.startswith(f'Predicted "{e.predicted_name}" (.')
    figure = e.plot()
    assert isinstance(figure, Figure)
    figure.savefig(tmp_path / "cat.png")

    book.save(tmp_path / "book")
    again = wwwlib.load(tmp_path / "book", Net(), preprocess=preprocess, classes=CLASSES)
    assert again.names().equals(table)
    assert again.explain(picture(99)).to_dict() == e.to_dict()
    with pytest.raises(ValueError, match="network 'Net', which cannot be loaded by name"):
        wwwlib.load(tmp_path / "book")


def test_an_explanation_without_an_atlas_cannot_be_drawn(photos):
    from dataclasses import replace

    e = build(photos, store=False).explain(picture(99))
    with pytest.raises(ValueError, match="no atlas with images"):
        replace(e, atlas=None).plot()


def test_stability_that_was_not_measured_is_nan(photos):
    table = build(photos, layers="1", rounds=0, store=False).names()
    assert table.stability.isna().all() and len(table) == 5


def test_a_dataset_is_a_probe_set(photos):
    """Breaks if labels of a data set without class names are not the network's numbers."""
    folder, pairs = (build(one, layers=["1", "3"], store=False) for one in (photos, Pairs()))
    assert pairs.labelled == "labels"
    for layer in ("1", "3"):
        ours, theirs = pairs.layers[layer], folder.layers[layer]
        torch.testing.assert_close(ours.class_w, theirs.class_w)
        assert ours.major.names == theirs.major.names
    assert pairs.class_count.tolist() == [8, 8, 8]


def test_truth_and_concepts_may_be_given_ready_made(photos, monkeypatch):
    given = images.folder(photos)
    truth = short_way._truth(given, None, Store(None))
    assert truth.words == given.classes
    assert truth.present.long().argmax(1).tolist() == [*given.labels]
    assert short_way._truth(truth, None, Store(None)) is truth
    words = short_way.ConceptSet(WORDS)
    assert short_way._concepts(words, None) is words
    world = SimpleNamespace(truth=lambda store: ("truth of the world", store))
    monkeypatch.setattr(short_way, "extension", {"world": world}.get)
    assert short_way._truth("world", None, "kept") == ("truth of the world", "kept")


def test_the_probe_set_can_be_an_image_set(photos):
    probe = images.folder(photos)
    assert build(probe, store=False).names().equals(build(photos, store=False).names())
    assert short_way.image_set(probe, None) is probe
    assert len(short_way.image_set("world", None)) == len(datasets.load("world"))


def test_a_first_run_names_its_store_and_a_second_one_reads_it(photos, cache, capsys):
    encoder = Projection()
    first = build(photos, encoder=encoder)
    assert f"{str(cache)!r}" in (said := capsys.readouterr().out) and "store=False" in said
    calls, files = encoder.calls, sorted(cache.rglob("*.json"))
    assert files
    second = build(photos, encoder=encoder)
    assert encoder.calls == calls + 2 and sorted(cache.rglob("*.json")) == files
    assert not capsys.readouterr().out
    assert second.names().equals(first.names())


def test_classes_have_an_order_or_are_refused():
    named = {2: "house", 0: "boat", 1: "tree"}
    assert short_way._target(Net(), preprocess, named).classes == CLASSES
    for wrong in (set(CLASSES), "boat", {1: "boat"}, [("boat", 0)]):
        with pytest.raises(ValueError, match=r"classes contains or is .*; give a list"):
            short_way._target(Net(), preprocess, wrong)


def test_the_store_can_be_switched_off_or_put_elsewhere(photos, cache, tmp_path, capsys):
    off = build(photos, store=False)
    assert not cache.exists() and not capsys.readouterr().out
    for store in (tmp_path / "here", str(tmp_path / "there"), Store(tmp_path / "anywhere")):
        assert build(photos, store=store).names().equals(off.names())
        folder = store.root if isinstance(store, Store) else store  # a Path has a root, too
        assert list(Path(folder).rglob("*.json"))
    assert not cache.exists()


@pytest.mark.parametrize("cuda, expected", [(True, "cuda"), (False, "cpu")])
def test_the_device_is_an_accelerator_if_there_is_one(monkeypatch, cuda, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    assert short_way._device(None) == torch.device(expected)
    assert short_way._device("cpu") == torch.device("cpu")


def test_the_device_is_given_once(photos, monkeypatch):
    """Breaks if the network or a named encoder stays elsewhere."""
    asked = []

    def encoder(spec, device):
        asked.append((spec, device))
        return Projection()

    monkeypatch.setattr(short_way.language, "encoder", encoder)
    moved = []
    monkeypatch.setattr(targets.Target, "to", lambda self, d: moved.append(d) or self)
    build(photos, encoder="ViT-B-32-quickgelu/openai", device="cpu", store=False)
    assert asked == [("ViT-B-32-quickgelu/openai", "cpu")]
    assert torch.device("cpu") in moved


def test_concepts_are_words_a_file_or_a_name(photos, tmp_path):
    (tmp_path / "words.txt").write_text("\n".join(WORDS))
    by_list = build(photos, store=False)
    for given in (tmp_path / "words.txt", str(tmp_path / "words.txt")):
        made = build(photos, concepts=given, store=False)
        assert made.words == WORDS and made.names().equals(by_list.names())
    assert build(photos, concepts="classes", store=False).words == CLASSES


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"concepts": "nowhere.txt"}, FileNotFoundError, "no file 'nowhere.txt'; give a text file"),
        ({"concepts": Path("nowhere")}, FileNotFoundError, "no file 'nowhere'; give a text file"),
        ({"encoder": None}, TypeError, "encoder= gave a NoneType, which lacks name, dim"),
        ({"images": ["a.png"]}, TypeError, "The images are a list; give a folder or a Dataset"),
        ({"labelled": 5}, TypeError, "The images are a int; give a folder or a Dataset"),
        ({"device": "gpu"}, ValueError, "device 'gpu' is not here; use 'cpu' or 'cuda'"),
        ({"device": "cuda:99"}, ValueError, "device 'cuda:99' is not here"),
    ],
)
def test_what_is_of_no_use_is_named(photos, options, error, text):
    with pytest.raises(error, match=text):
        build(options.pop("images", photos), store=False, **options)


def test_the_images_of_the_class_side_can_be_a_folder(photos):
    book = build(photos, labelled=str(photos), store=False)
    assert book.settings["class side"] == book.settings["probe"]


def test_the_layer_is_the_last_one_with_positions(photos):
    assert list(build(photos, store=False).layers) == ["3"]
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE**2, 4), nn.ReLU(), nn.Linear(4, 3))
    target = targets.wrap(flat, preprocess, CLASSES, "flat")
    with pytest.raises(ValueError, match="flat has an output of maps or tokens; give layers="):
        wwwlib.build(target, photos, concepts=WORDS, encoder=Projection(), store=False)


@pytest.mark.parametrize(
    "name, layer",
    [("torchvision/resnet18", "layer4"), ("timm/vit_tiny_patch16_224", "blocks.10"),
     ("world/conv", "layer4"), ("world/vit", "encoder.layers.encoder_layer_1")],
)  # fmt: skip
def test_the_default_layer_of_usual_networks(name, layer):
    weights = None if name.startswith("world/") else "random"
    assert wwwlib.maps.last_spatial_layer(targets.load(name, weights)) == layer


def test_a_network_of_timm_has_its_preprocessing_and_classes():
    made = timm.create_model("resnet18.a1_in1k")
    found, named = (
        short_way._target(made, None, None),
        targets.load("timm/resnet18.a1_in1k", "random"),
    )
    assert found.classes == named.classes and found.name == named.name
    assert found.key()["preprocess"][1] == named.key()["preprocess"][1]
    other = timm.create_model("resnet18.a1_in1k", num_classes=3)
    with pytest.raises(ValueError, match=r"This ResNet .* pass classes=\.$"):
        short_way._target(other, None, None)
    assert short_way._target(other, None, CLASSES).classes == CLASSES


def test_a_network_of_torchvision_is_recognised(tmp_path, monkeypatch):
    """Breaks if the preprocessing is that of other weights of the same network."""
    found = short_way._target(models.resnet18(), None, None)
    named = targets.load("torchvision/resnet18", "random")
    assert (found.name, found.classes) == (named.name, named.classes)
    assert found.key()["preprocess"][1] == named.key()["preprocess"][1]

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    small = models.mobilenet_v2()  # two published weights, resized to 256 and to 232
    with pytest.raises(ValueError, match=r"pass preprocess= and classes=\.$"):
        short_way._target(small, None, None)
    weights = models.MobileNet_V2_Weights.IMAGENET1K_V2
    (tmp_path / "checkpoints").mkdir()
    torch.save(small.state_dict(), tmp_path / "checkpoints" / weights.url.rpartition("/")[2])
    found = short_way._target(small, None, None)
    assert repr(found.preprocess) == repr(weights.transforms())


def test_another_network_needs_preprocessing_and_classes(photos):
    with pytest.raises(ValueError, match=r"This Net .* pass preprocess= and classes=\.$"):
        wwwlib.build(Net(), photos)
    with pytest.raises(ValueError, match=r"pass classes=\.$"):
        wwwlib.build(Net(), photos, preprocess=preprocess)
    with pytest.raises(TypeError, match="model is a int"):
        wwwlib.build(3, photos)
    with pytest.raises(NotADirectoryError):
        build(photos / "nowhere", store=False)


def test_a_network_by_name_comes_back_by_name(tmp_path):
    """World network and images, saved and loaded without passing the network."""
    probe, few = datasets.load("world", count=24), {"k": 2, "boxes": [(0, 0, 1, 1)], "rounds": 0}
    own = {"concepts": WORDS, "encoder": Projection(), "store": False, "progress": False}
    made = wwwlib.build("world/conv", probe, **own, **few)
    made.save(tmp_path)
    again = wwwlib.load(tmp_path)
    assert again.target.name == "world/conv" and again.names().equals(made.names())
    assert math.isfinite(again.explain(datasets.load("world", seed=3).image(0)).probability)


def test_importing_the_package_imports_no_library():
    code = (
        "import sys, wwwlib; assert 'torch' not in sys.modules; "
        "assert wwwlib.registry.EXTENSIONS and 'torch' not in sys.modules; "
        "assert 'build' in dir(wwwlib); print(wwwlib.no_such_thing)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "module 'wwwlib' has no attribute 'no_such_thing'" in done.stderr, done.stderr
