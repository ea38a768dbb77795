"""Dry runs: every step of a profile on images of noise with random weights, quickly.

They show, before days of work, that a profile runs from end to end on this machine. Their figures
mean nothing, and everything that they write is marked. Stand-ins for data sets, networks and
encoders are written below a data folder of the dry run's own, in the form in which the real ones
are published; networks have the true architecture, encoders a smaller one. Four classes are shown,
and a network predicts no others, so that there are right answers, errors, and classes with many
images.
"""

from __future__ import annotations

import json
import shutil
import string
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import torch
from paper_networks import ORIGINALS
from parameters import texts
from PIL import Image
from profiles import Profile, Project, load
from safetensors.torch import save_file, save_model

from wwwlib import targets
from wwwlib.images import imagenet_synsets
from wwwlib.store import file_digest

BANNER = "DRY RUN: random weights and images, figures mean nothing"
SHOWN = (0, 217, 482, 701)  # classes of ImageNet, of Imagenette's ten
EACH = 12  # images of each of them
IMAGES = EACH * len(SHOWN)  # taken from each probe set
DEEPEST = IMAGES // 2 - 4  # most exemplars a neuron: notebook 06 takes them from half of the images
SMALL = {  # parameters that cost passes through the network, large enough for every step
    "probe_count": IMAGES, "tested": 24, "silenced": 8, "compared": [2, 4, 2],
    "pictured": [*SHOWN[:2]], "example": 10, "dissect_k": DEEPEST, "show": 2,
}  # fmt: skip
LOCAL = "open_clip:local-dir:"
NARROW = 64  # width of CLIP's stand-ins
RANDOM, SENTENCES = "random", "sentences"  # folders of the networks' weights, of the encoder


def begin(project: Project, profile: Profile, out: str | None) -> tuple[Project, Profile]:
    """Return the project with a data folder of the dry run's own, and the profile adapted to it."""
    title = f"{profile.name}-dry-run"
    staged = Project(project.root, stand_ins=project.run(out or title) / "data")
    return staged, replace(adapted(load(staged, profile.name), staged), name=title)


def adapted(profile: Profile, project: Project) -> Profile:
    """Return a profile with random weights, a random CLIP and few images in place of its own."""
    target = profile.common.get("target")
    common = _section(profile.common, target, project.data)
    common |= {"probe_count": IMAGES} if "probe_root" in common else {}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    common |= {"batch_size": 16, "workers": 0, "device": device, "dissect_k": DEEPEST, "rounds": 4}
    books = {name: _section(own, target, project.data) for name, own in profile.notebooks.items()}
    parts = {"description": BANNER, "common": common, "notebooks": books}
    return replace(profile, minutes={}, needs=[], **parts)


def _section(values: Mapping[str, Any], target: str | None, data: Path) -> dict[str, Any]:
    found = {name: _stand_in(name, value, data) for name, value in values.items()}
    target, weights = found.get("target", target), str(values.get("weights"))
    named = {"target", "weights"} & values.keys() and not weights.startswith(str(data))
    if named and target and not target.startswith("world/"):
        found["weights"] = str(network(data, target))
    if "also" in found and "also_weights" not in found:
        found["also"] = []  # their weights would be the library's own, which are not random
    return found


def _stand_in(name: str, value: Any, data: Path) -> Any:
    if name in SMALL:
        return SMALL[name]
    if name == "ks":
        return [*dict.fromkeys(min(k, DEEPEST) for k in value)]
    if isinstance(value, list):
        return [_stand_in(name, one, data) for one in value]
    if name == "target":
        return ORIGINALS.get(value, value)
    if name == "also_weights":
        return "random"
    if name == "sentences" and value:
        return str(data / SENTENCES)
    if isinstance(value, str) and value.startswith("open_clip:") and not value.startswith(LOCAL):
        return f"{LOCAL}{data / 'clip' / value.removeprefix('open_clip:').partition('/')[0]}"
    return value


def network(data: Path, target: str) -> Path:
    """Return the path of the random weights of a target of torchvision or timm."""
    return data / RANDOM / f"{target.replace('/', '-', 1)}.safetensors"


def stamp(draft: Path, folder: Path) -> dict[str, str]:
    """Mark an executed notebook, cell by cell, and its results; return the mark of its record."""
    if draft.exists():
        book = nbformat.read(draft, as_version=4)
        for cell in book.cells:
            if cell.cell_type == "code" and cell.outputs:
                mark = nbformat.v4.new_output("stream", name="stdout", text=f"{BANNER}\n")
                cell.outputs.insert(0, mark)
        book.cells.insert(0, nbformat.v4.new_markdown_cell(f"# {BANNER}"))
        nbformat.write(book, draft)
    for page in folder.glob("*.html"):
        text = page.read_text(encoding="utf-8")
        mark = f"<body>\n<p><strong>{BANNER}</strong></p>"
        page.write_text(text.replace("<body>", mark, 1), encoding="utf-8")
        beside = page.with_name(f"{page.stem}-provenance.json")
        made = json.loads(beside.read_text(encoding="utf-8"))
        made |= {"dry_run": BANNER, "sha256": file_digest(page)}
        beside.write_text(json.dumps(made, indent=2), encoding="utf-8")
    results = folder / "results.json"
    with suppress(OSError, ValueError, TypeError):  # absent, or not what `manifest.results` accepts
        found = json.loads(results.read_text(encoding="utf-8"))
        results.write_text(json.dumps({"dry_run": BANNER, **found}, indent=2), encoding="utf-8")
    return {"dry_run": BANNER}


def furnish(profile: Profile, project: Project) -> None:
    """Write the stand-ins that a profile's values name, once for this state of the file."""
    data, done = project.data, project.data / "furnished.json"
    wanted = sorted({t for t in texts([profile.common, profile.notebooks]) if str(data) in t})
    made = json.dumps([file_digest(Path(__file__)), *wanted])
    if done.exists() and done.read_text("utf-8") == made:
        return
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, write in _PARTS.items():
        if any(part in text for text in wanted):
            write(data, rng)
    for path in [text.removeprefix(LOCAL) for text in wanted]:
        for folder, write in {"clip": _clip, RANDOM: _network, SENTENCES: _sentences}.items():
            if path.startswith(str(data / folder)):
                write(Path(path))
    done.write_text(made, encoding="utf-8")


# Each function below writes one stand-in.


def _write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _picture(rng: np.random.Generator, path: Path | None = None) -> Image.Image:
    picture = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).resize((64, 64))
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path, quality=80)
    return picture


def _imagenet(data: Path, rng: np.random.Generator, root: str = "imagenet/val") -> None:
    wnids = list(imagenet_synsets())
    for number, i in enumerate(np.repeat(SHOWN, EACH), start=1):
        _picture(rng, data / root / wnids[i] / f"ILSVRC2012_val_{number:08d}.JPEG")


def _places(data: Path, rng: np.random.Generator) -> None:
    scenes = [f"/a/scene_{i}" + "/outdoor" * (i % 7 == 0) for i in range(365)]
    several = [i for i in SHOWN if i < len(scenes) for _ in range(EACH)]
    single = [i for i in range(len(scenes)) if i not in SHOWN][: IMAGES - len(several)]
    root = data / "places365"
    for number, i in enumerate(several + single, start=1):
        folder = scenes[i].removeprefix("/a/").replace("/", "-")
        _picture(rng, root / "val" / folder / f"Places365_val_{number:08d}.jpg")
    _write(root / "categories_places365.txt", [f"{s} {i}" for i, s in enumerate(scenes)])


def _places_weights(data: Path, rng: np.random.Generator) -> None:
    """Write random weights in the form of the published checkpoint."""
    from torchvision import models

    state = models.resnet18(num_classes=365).state_dict()
    old = {f"module.{name}": v for name, v in state.items() if "num_batches" not in name}
    path = data / "weights" / "resnet18_places365.pth.tar"
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"epoch": 1, "arch": "resnet18", "state_dict": old}, path)


def _words(data: Path, rng: np.random.Generator) -> None:
    folder, words = data / "words", [lemmas[0] for lemmas in imagenet_synsets().values()][::5]
    _write(folder / "broden_labels_clean.txt", words)
    rows = [f"{i},{words[i % len(words)]},0.1" for i in range(1000)]
    _write(folder / "netdissect_resnet50_imagenet_fc.csv", ["unit,label,score", *rows])
    layers, header = {"layer3": 1024, "layer4": 2048}, "layer,unit,description,similarity"
    rows = [f"{y},{i},{words[i % len(words)]},0.2" for y, n in layers.items() for i in range(n)]
    _write(folder / "clip_dissect_resnet50_imagenet_broden.csv", [header, *rows])
    rows = [row.rpartition(",")[0] for row in [*rows, *(f"fc,{i},word,0" for i in range(1000))]]
    _write(folder / "milan_resnet50_imagenet.csv", ["layer,unit,description", *rows])


def _wordnet(data: Path, rng: np.random.Generator) -> None:
    nouns = {wnid[1:]: lemmas[0].replace(" ", "_") for wnid, lemmas in imagenet_synsets().items()}
    lines = [f"{offset} 03 n 01 {noun} 0 000 | a stand-in" for offset, noun in nouns.items()]
    _write(data / "wordnet" / "data.noun", sorted(lines)[::4])


def _broden(data: Path, rng: np.random.Generator) -> None:
    """Write images with one colour mask each, in Broden's layout."""
    root, rows = data / "broden1_224", []
    for i in range(IMAGES):
        _picture(rng, root / "images" / f"{i:04d}.jpg")
        split = "val" if i % 2 else "train"
        rows.append(f"{i:04d}.jpg,{split},64,64,32,32,{i % 4 + 1},{i % 3 + 5}")
    _write(root / "index.csv", ["image,split,ih,iw,sh,sw,color,object", *rows])
    labels = [f"{i},thing{i},{'color' if i < 5 else 'object'}(9)" for i in range(1, 8)]
    _write(root / "label.csv", ["number,name,category", *labels])


def _network(path: Path) -> None:
    """Write random weights, the same each time, with which a network predicts all classes shown."""
    torch.manual_seed(0)
    made = targets.load(path.stem.replace("-", "/", 1), "random")
    state = {name: tensor.contiguous() for name, tensor in made.model.state_dict().items()}
    last = [name for name, tensor in state.items() if tensor.shape == (len(made.classes),)][-1]
    rng, shown = np.random.default_rng(1), [*SHOWN]
    with torch.inference_mode():
        logits = made.model(torch.stack([made.preprocess(_picture(rng)) for _ in range(16)]))
    # Untrained it would predict one class for every image: the last bias levels those shown.
    level = state[last] - logits.mean(0)
    state[last] = torch.full_like(level, -100.0)
    state[last][shown] = level[shown]
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, path)


def _clip(folder: Path) -> None:
    """Write a random CLIP with the input and output of the one by which its folder is called."""
    import open_clip

    torch.manual_seed(0)
    config = open_clip.get_model_config(folder.name)
    images, texts = config["vision_cfg"], config["text_cfg"]
    # Thousands of words pass through the text tower, which with its true size takes minutes.
    texts |= {"layers": 1, "width": NARROW, "heads": 1}
    if isinstance(images["layers"], list):  # a ResNet
        images["layers"] = [1] * len(images["layers"])
    else:
        images |= {"layers": 1, "width": NARROW, "head_width": NARROW}
    model = open_clip.CLIP(**config)
    normalisation = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    whole = {"model_cfg": config, "preprocess_cfg": normalisation}
    _write(folder / "open_clip_config.json", [json.dumps(whole)])
    save_model(model, str(folder / "open_clip_model.safetensors"))


def _sentences(folder: Path) -> None:
    """Write a sentence encoder with all-mpnet's width: the mean of random features of letters."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding
    from transformers import MPNetTokenizer

    torch.manual_seed(0)
    letters = [*string.ascii_lowercase, *string.digits, *"-'."]
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>", *letters]
    _write(folder / "vocab.txt", pieces + [f"##{letter}" for letter in letters])
    tokenizer = MPNetTokenizer(str(folder / "vocab.txt"))
    SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=768)]).save(str(folder))


_PARTS = {  # of a path, and what writes it with the others of its data set
    "/imagenet/": _imagenet,
    "/imagenette": lambda data, rng: _imagenet(data, rng, "imagenette/imagenette2-320/val"),
    "/places365": _places,
    "/weights/resnet18_places365": _places_weights,
    "/words/": _words,
    "/wordnet": _wordnet,
    "/broden1_224": _broden,
}
