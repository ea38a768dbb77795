"""A rehearsal: every step of a profile on images of noise with random weights, quickly.

It shows, before days of work, that a profile runs from end to end on this machine. Its figures mean
nothing, and everything that it writes says so. Files stand where the real ones would, below a
data folder of the rehearsal's own; networks have the true architecture.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
from PIL import Image
from profiles import House, Profile, load

BANNER = "REHEARSAL: random weights and images, figures mean nothing"
IMAGES = 112  # taken from each probe set: CLIP-Dissect looks at 100
WEIGHTS = ("weights", "also_weights")
LOCAL = "open_clip:local-dir:"


def adapted(profile: Profile, house: House) -> Profile:
    """Return a profile with random weights, a random CLIP and few images in place of its own."""
    common = {name: _stand_in(name, v, house) for name, v in profile.common.items()}
    common |= {"probe_count": IMAGES} if "probe_root" in common else {}
    common |= {"batch_size": 16, "workers": 0, "device": _device()}
    notebooks = {
        book: {name: _stand_in(name, v, house) for name, v in values.items()}
        for book, values in profile.notebooks.items()
    }
    return replace(
        profile, description=BANNER, minutes=None, needs=(), common=common, notebooks=notebooks
    )


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _stand_in(name: str, value: Any, house: House) -> Any:
    if isinstance(value, list):
        return [_stand_in(name, one, house) for one in value]
    if name in WEIGHTS and not str(value).startswith(str(house.data)):
        return "random"
    if name == "sentences":
        return None  # a sentence encoder cannot be random without a vocabulary: it is left out
    if isinstance(value, str) and value.startswith("open_clip:") and not value.startswith(LOCAL):
        model = value.removeprefix("open_clip:").partition("/")[0]
        return f"{LOCAL}{house.data / 'clip' / model}"
    return value


def furnish(profile: Profile, house: House) -> None:
    """Write the stand-ins that a profile's values name, once."""
    done = house.data / "furnished.json"
    wanted = sorted({text for text in _texts(profile) if str(house.data) in text})
    if done.exists() and json.loads(done.read_text("utf-8")) == wanted:
        return
    shutil.rmtree(house.data, ignore_errors=True)
    house.data.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, write in _PARTS.items():
        if any(part in text for text in wanted):
            write(house.data, rng)
    for text in wanted:
        if text.startswith(LOCAL):
            _clip(Path(text.removeprefix(LOCAL)))
    done.write_text(json.dumps(wanted), encoding="utf-8")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, Profile):
        yield from _texts([value.common, value.notebooks])
    elif isinstance(value, dict):
        yield from _texts(list(value.values()))
    elif isinstance(value, list):
        for one in value:
            yield from _texts(one)
    elif isinstance(value, str):
        yield value


def _noise(path: Path, rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    coarse.resize((64, 64)).save(path, quality=80)


def _imagenet(data: Path, rng: np.random.Generator, root: str = "imagenet/val") -> None:
    from wwwlib.images import imagenet_synsets

    for i, wnid in enumerate(imagenet_synsets()):
        for j in range(2):
            name = f"ILSVRC2012_val_{2 * i + j + 1:08d}.JPEG"
            _noise(data / root / wnid / name, rng)


def _imagenette(data: Path, rng: np.random.Generator) -> None:
    _imagenet(data, rng, "imagenette/imagenette2-320/val")


def _places(data: Path, rng: np.random.Generator) -> None:
    scenes = [f"/a/scene_{i}" for i in range(365)]
    root = data / "places365"
    for i, scene in enumerate(scenes):
        _noise(root / "val" / scene.rpartition("/")[2] / f"Places365_val_{i + 1:08d}.jpg", rng)
    lines = [f"{scene} {i}" for i, scene in enumerate(scenes)]
    (root / "categories_places365.txt").write_text("\n".join(lines), encoding="utf-8")


def _places_weights(data: Path, rng: np.random.Generator) -> None:
    """Write random weights in the form of the published checkpoint."""
    import torch
    from torchvision import models

    state = models.resnet18(num_classes=365).state_dict()
    old = {f"module.{name}": v for name, v in state.items() if "num_batches" not in name}
    path = data / "weights" / "resnet18_places365.pth.tar"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"epoch": 1, "arch": "resnet18", "state_dict": old}, path)


def _words(data: Path, rng: np.random.Generator) -> None:
    from wwwlib.language import imagenet_classes

    folder = data / "words"
    folder.mkdir(parents=True, exist_ok=True)
    words = [names.split(", ")[0] for names in list(imagenet_classes().values())[::5]]
    (folder / "broden_labels_clean.txt").write_text("\n".join(words), encoding="utf-8")
    rows = ["unit,label", *(f"{i},{words[i % len(words)]}" for i in range(1000))]
    (folder / "netdissect_resnet50_imagenet_fc.csv").write_text("\n".join(rows), encoding="utf-8")


def _wordnet(data: Path, rng: np.random.Generator) -> None:
    from wwwlib.language import imagenet_classes

    lines = [
        f"{wnid[1:]} 03 n 01 {names.split(', ')[0].replace(' ', '_')} 0 000 | a stand-in"
        for wnid, names in sorted(imagenet_classes().items())[::4]
    ]
    (data / "wordnet").mkdir(parents=True, exist_ok=True)
    (data / "wordnet" / "data.noun").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _broden(data: Path, rng: np.random.Generator) -> None:
    """Write images with one colour mask each, in Broden's layout."""
    root = data / "broden1_224"
    rows = ["image,split,ih,iw,sh,sw,color,object"]
    for i in range(IMAGES):
        split = "val" if i % 2 else "train"
        _noise(root / "images" / f"{i:04d}.jpg", rng)
        rows.append(f"{i:04d}.jpg,{split},64,64,32,32,{i % 4 + 1},{i % 3 + 5}")
    (root / "index.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    kinds = [(i, f"thing{i}", "color(9)" if i < 5 else "object(9)") for i in range(1, 8)]
    labels = ["number,name,category", *(f"{i},{name},{kind}" for i, name, kind in kinds)]
    (root / "label.csv").write_text("\n".join(labels) + "\n", encoding="utf-8")


_PARTS = {
    "/imagenet/": _imagenet,
    "/imagenette": _imagenette,
    "/places365": _places,
    "/weights/resnet18_places365": _places_weights,
    "/words/": _words,
    "/wordnet": _wordnet,
    "/broden1_224": _broden,
}


def _clip(folder: Path) -> None:
    """Write a random CLIP of the architecture by which its folder is called."""
    import open_clip
    import torch
    from safetensors.torch import save_model

    torch.manual_seed(0)
    logging.disable(logging.WARNING)  # open_clip's, that the weights are random
    model = open_clip.create_model(folder.name)
    logging.disable(logging.NOTSET)
    folder.mkdir(parents=True, exist_ok=True)
    how = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    config = {"model_cfg": open_clip.get_model_config(folder.name), "preprocess_cfg": how}
    (folder / "open_clip_config.json").write_text(json.dumps(config), encoding="utf-8")
    save_model(model, str(folder / "open_clip_model.safetensors"))


def begin(house: House, profile: Profile, out: str | None) -> tuple[House, Profile]:
    """Return a house with a data folder of the rehearsal's own, and the profile adapted to it."""
    title = f"{profile.name}-rehearsal"
    staged = replace(house, stage=house.run(out or title) / "data")
    rehearsed = adapted(load(staged, profile.name), staged)
    return staged, replace(rehearsed, name=title)


def stamp(draft: Path, folder: Path) -> dict[str, str]:
    """Say in an executed notebook, cell by cell, and in its results that they mean nothing.

    Returns
    -------
    dict
        The same word for the manifest.
    """
    results = folder / "results.json"
    if draft.exists():
        _stamp_notebook(draft)
    if results.exists():
        found = json.loads(results.read_text(encoding="utf-8"))
        results.write_text(json.dumps({"rehearsal": BANNER, **found}, indent=2), encoding="utf-8")
    return {"rehearsal": BANNER}


def _stamp_notebook(draft: Path) -> None:
    book = nbformat.read(draft, as_version=4)
    for cell in book.cells:
        if cell.cell_type == "code" and cell.outputs:
            said = nbformat.v4.new_output("stream", name="stdout", text=f"{BANNER}\n")
            cell.outputs.insert(0, said)
    book.cells.insert(0, nbformat.v4.new_markdown_cell(f"# {BANNER}"))
    nbformat.write(book, draft)
