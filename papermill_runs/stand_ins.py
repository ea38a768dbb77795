"""What stands in for data sets, networks and encoders in a rehearsal: noise, and random weights.

Files stand where the real ones would, below a data folder of the rehearsal's own, in the form in
which they are published; networks have the true architecture. Ten classes are shown, and a network
names no others, so that there are right answers, errors, and classes with many images.
"""

from __future__ import annotations

import json
import logging
import shutil
import string
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from PIL import Image
from profiles import House, Profile

IMAGES = 112  # taken from each probe set: CLIP-Dissect looks at 100
SHOWN = (0, 217, 482, 491, 497, 566, 569, 571, 574, 701)  # of ImageNet: Imagenette's ten
EACH = 12  # images of each of them
LOCAL = "open_clip:local-dir:"
RANDOM = "random"  # folder of the networks' weights
SENTENCES = "sentences"  # folder of the sentence encoder


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
        elif Path(text) == house.data / SENTENCES:
            _sentences(Path(text))
        elif Path(text).parent == house.data / RANDOM:
            _network(Path(text))
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
    _picture(rng).save(path, quality=80)


def _picture(rng: np.random.Generator) -> Image.Image:
    coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
    return coarse.resize((64, 64))


def _imagenet(data: Path, rng: np.random.Generator, root: str = "imagenet/val") -> None:
    from wwwlib.images import imagenet_synsets

    wnids = list(imagenet_synsets())
    for number, i in enumerate(np.repeat(SHOWN, EACH), start=1):
        _noise(data / root / wnids[i] / f"ILSVRC2012_val_{number:08d}.JPEG", rng)


def _imagenette(data: Path, rng: np.random.Generator) -> None:
    _imagenet(data, rng, "imagenette/imagenette2-320/val")


def _places(data: Path, rng: np.random.Generator) -> None:
    scenes = [f"/a/scene_{i}" + "/outdoor" * (i % 7 == 0) for i in range(365)]
    root = data / "places365"
    several = [i for i in SHOWN if i < len(scenes) for _ in range(EACH)]
    single = [i for i in range(len(scenes)) if i not in SHOWN][: IMAGES - len(several)]
    for number, i in enumerate(several + single, start=1):
        folder = scenes[i].removeprefix("/a/").replace("/", "-")
        _noise(root / "val" / folder / f"Places365_val_{number:08d}.jpg", rng)
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
    from wwwlib.images import imagenet_synsets

    folder = data / "words"
    folder.mkdir(parents=True, exist_ok=True)
    words = [lemmas[0] for lemmas in list(imagenet_synsets().values())[::5]]
    (folder / "broden_labels_clean.txt").write_text("\n".join(words), encoding="utf-8")
    rows = ["unit,label,score", *(f"{i},{words[i % len(words)]},0.1" for i in range(1000))]
    (folder / "netdissect_resnet50_imagenet_fc.csv").write_text("\n".join(rows), encoding="utf-8")
    units = [(layer, i) for layer, n in (("layer3", 1024), ("layer4", 2048)) for i in range(n)]
    rows = [f"{layer},{i},{words[i % len(words)]},0.2" for layer, i in units]
    rows = "\n".join(["layer,unit,description,similarity", *rows])
    (folder / "clip_dissect_resnet50_imagenet_broden.csv").write_text(rows, encoding="utf-8")


def _wordnet(data: Path, rng: np.random.Generator) -> None:
    from wwwlib.images import imagenet_synsets

    lines = [
        f"{wnid[1:]} 03 n 01 {lemmas[0].replace(' ', '_')} 0 000 | a stand-in"
        for wnid, lemmas in sorted(imagenet_synsets().items())[::4]
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


def network(data: Path, target: str) -> Path:
    """Return where the random weights of a target of torchvision or timm are."""
    return data / RANDOM / f"{target.replace('/', '-', 1)}.safetensors"


def _network(path: Path) -> None:
    """Write random weights, the same each time, with which a network names all classes shown.

    Untrained as it is, it would name one class, whatever it sees: the last bias levels those that
    are shown, and puts the others out of reach.
    """
    import torch
    from safetensors.torch import save_file

    from wwwlib import targets

    torch.manual_seed(0)
    made = targets.load(path.stem.replace("-", "/", 1), "random")
    state = {name: tensor.contiguous() for name, tensor in made.model.state_dict().items()}
    last = [name for name, tensor in state.items() if tensor.shape == (len(made.classes),)][-1]
    rng, shown = np.random.default_rng(1), [*SHOWN]
    with torch.inference_mode():
        logits = made.model(torch.stack([made.preprocess(_picture(rng)) for _ in range(16)]))
    level = state[last] - logits.mean(0)
    state[last] = torch.full_like(level, -100.0)
    state[last][shown] = level[shown]
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path)


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


def _sentences(folder: Path) -> None:
    """Write a random sentence encoder that reads letter by letter: all-mpnet's kind, two layers."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import MPNetConfig, MPNetModel, MPNetTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.manual_seed(0)
    letters = [*string.ascii_lowercase, *string.digits, *"-'."]
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>", *letters]
    pieces += [f"##{letter}" for letter in letters]
    model = MPNetModel(MPNetConfig(vocab_size=len(pieces), num_hidden_layers=2))
    with TemporaryDirectory() as parts:
        words = Path(parts) / "vocab.txt"
        words.write_text("\n".join(pieces), encoding="utf-8")
        for part in (model, MPNetTokenizer(str(words))):
            part.save_pretrained(parts)
        modules = [Transformer(parts), Pooling(model.config.hidden_size)]
        SentenceTransformer(modules=modules).save(str(folder))
