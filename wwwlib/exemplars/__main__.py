"""Put exemplars into the store ahead of the notebooks, on as many GPUs as there are.

    python -m wwwlib.exemplars world/conv world --layers layer4 logits
    torchrun --nproc-per-node 8 -m wwwlib.exemplars torchvision/resnet50 imagenet ./val
    python -m wwwlib.exemplars torchvision/resnet50 imagenet ./val --ray 8

The same command may be started any number of times, on any machine that sees the store (WWW_STORE):
all of them share the work, and one that dies is stood in for.
"""

import argparse
import os
import sys
from dataclasses import fields

import torch

from wwwlib import images, targets
from wwwlib.exemplars.collecting import PRECISIONS, collect
from wwwlib.store import Store, tensor_digest


def main(argv=None):
    """Do what the command line says; returns the exit code."""
    asked = _arguments(argv)
    try:
        network = targets.load(asked.target, weights=asked.weights).to(_device(asked))
        probe = images.load(asked.probe, asked.root, asked.count, asked.seed, asked.least_side)
        if asked.crops:
            probe = images.crops(probe)
        found = _collect(asked, network, probe)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    if _rank() == 0:
        for layer, one in found.items():
            tensors = {f.name: getattr(one, f.name) for f in fields(one) if f.name != "images"}
            print(f"{layer}: {len(one.index)} neurons, exemplars {tensor_digest(tensors)[:16]}")
    return 0


def _arguments(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", help="a network, such as torchvision/resnet50 or world/conv")
    parser.add_argument("probe", help=f"world, or one of {', '.join(images.FOLDERS)}")
    parser.add_argument("root", nargs="?", help="folder or URL of the images")
    parser.add_argument("--weights", help="a file, or what targets.load takes")
    parser.add_argument("--layers", nargs="+", default=["logits"], metavar="LAYER")
    parser.add_argument("--k", type=int, default=40, help="exemplars per neuron")
    parser.add_argument("--count", type=int, help="so many images, evenly spaced")
    parser.add_argument(
        "--least-side", type=int, metavar="PIXELS", help="decode larger JPEG files at a fraction"
    )
    parser.add_argument("--seed", type=int, default=0, help="which world")
    parser.add_argument("--crops", action="store_true", help="look at five crops of each image")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=0, help="processes that decode")
    parser.add_argument("--precision", choices=PRECISIONS, default="float32")
    parser.add_argument(
        "--decoder", choices=images.DECODERS, default="pillow", help="torchvision: on the device"
    )
    parser.add_argument("--device", help="cpu, cuda, ...; default: this process's own GPU, or cpu")
    parser.add_argument("--ray", type=int, metavar="ACTORS", help="work on a Ray cluster")
    return parser.parse_args(argv)


def _collect(asked, network, probe):
    options = {"k": asked.k, "batch_size": asked.batch_size, "precision": asked.precision}
    if asked.ray is not None:
        if asked.decoder != "pillow":
            raise ValueError(
                f"--decoder is {asked.decoder}, but with --ray tasks decode, which have no GPU; "
                "leave one of the two out."
            )
        try:
            from wwwlib.exemplars.on_ray import collect_on_ray  # an extra, not for everybody
        except ImportError as error:
            raise ValueError(
                f"--ray needs the extra `ray` ({error}): pip install '.[ray]'."
            ) from error
        options |= {"actors": asked.ray, "gpus": int(torch.cuda.is_available())}
        return collect_on_ray(network, probe, asked.layers, store=Store.default(), **options)
    options |= {"workers": asked.workers, "progress": _rank() == 0, "decoder": asked.decoder}
    return collect(network, probe, asked.layers, store=Store.default(), **options)


def _rank():
    return int(os.environ.get("RANK", "0"))


def _device(asked):
    own = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    return asked.device or own


if __name__ == "__main__":
    sys.exit(main())
