"""Collect exemplars into the store ahead of the notebooks, on as many GPUs as there are.

The store is that of `Store.default`, in the folder WWW_STORE:

    python papermill_runs/collect.py world/conv world --layers layer4 logits
    torchrun --nproc-per-node 8 papermill_runs/collect.py torchvision/resnet50 imagenet ./val
    python papermill_runs/collect.py torchvision/resnet50 imagenet ./val --ray 8
"""

import argparse
import os
import sys

import torch

from wwwlib import targets
from wwwlib.exemplars import PRECISIONS, collect
from wwwlib.images import DECODERS, crops
from wwwlib.store import Store, tensor_digest
from wwwlib.studies import datasets
from wwwlib.targets import LOGITS


def main(argv=None) -> int:
    """Collect exemplars into the store; returns the exit code."""
    given = _arguments(argv)
    try:
        target = targets.load(given.target, weights=given.weights).to(given.device)
        probe = datasets.load(given.probe, given.root, given.count, given.seed, given.least_side)
        probe = crops(probe) if given.crops else probe
        options = {n: getattr(given, n) for n in ("batch_size", "workers", "decoder", "actors")}
        what = given.layers, given.k, given.precision
        found = collect(target, probe, *what, store=Store.default(), **options)
    except (ValueError, OSError, ImportError) as error:
        print(error, file=sys.stderr)
        return 2
    if os.environ.get("RANK", "0") == "0":
        for layer, one in found.items():
            tensors = {name: value for name, value in vars(one).items() if name != "images"}
            print(f"{layer}: {len(one.index)} neurons, exemplars {tensor_digest(tensors)[:16]}")
    return 0


def _arguments(argv):
    gpus = torch.cuda.device_count()
    own = f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % gpus}" if gpus else "cpu"
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    add = parser.add_argument
    add("target", help="a network, such as torchvision/resnet50 or world/conv")
    add("probe", help=f"world, or one of {', '.join(datasets.FOLDERS)}")
    add("root", nargs="?", help="folder or URL of the images")
    add("--weights", help="a file, or what targets.load takes")
    add("--layers", nargs="+", default=[LOGITS], metavar="LAYER")
    add("--k", type=int, default=40, help="exemplars per neuron")
    add("--count", type=int, help="so many images, evenly spaced")
    add("--least-side", type=int, metavar="PIXELS", help="decode larger JPEG files at a fraction")
    add("--seed", type=int, default=0, help="of the world")
    add("--crops", action="store_true", help="take five crops of each image")
    add("--batch-size", type=int, default=64)
    add("--workers", type=int, default=0, help="processes that decode")
    add("--precision", choices=PRECISIONS, default="float32")
    add("--decoder", choices=DECODERS, default="pillow", help="torchvision: on the device")
    add("--device", default=own, help="such as cpu or cuda; default: this process's GPU, or cpu")
    add("--ray", type=int, default=0, dest="actors", metavar="ACTORS", help="work on a Ray cluster")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
