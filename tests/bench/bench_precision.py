"""What half precision and channels-last cost and change: seconds, exemplars and names.

    python tests/bench/bench_precision.py [--target world/conv] [--images 2400] [--device cpu]

Prints a table and one JSON line. Every row is one exemplar pass over the concept world's images;
its exemplars and the names that follow from them are compared with those of the plain pass, neuron
by neuron. How fast a precision is depends on the device: run this on the one that you use.
"""

import argparse
import json
import time

import torch

from wwwlib import concepts, exemplars, images, language, targets
from wwwlib.studies import datasets

LAYERS = ("layer3", "layer4", "logits")
WAYS = {
    "float32": ("float32", torch.contiguous_format),
    "float32, channels last": ("float32", torch.channels_last),
    "bfloat16, channels last": ("bfloat16", torch.channels_last),
    "float16, channels last": ("float16", torch.channels_last),
}


def main():
    """Take every way once after a warm-up, compare with the first, and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="world/conv")
    parser.add_argument("--layers", nargs="+", default=LAYERS)
    parser.add_argument("--images", type=int, default=2400)
    parser.add_argument("--k", type=int, default=40)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    target = targets.load(options.target).to(options.device)
    probe, clip = datasets.load("world", count=options.images), language.encoder("world")
    words = language.concept_set("world", target)
    t, t0 = words.embed(clip)
    v = language.image_features(clip, probe, range(len(probe)), progress=False)
    plain, rows = None, {}
    for name, (precision, layout) in WAYS.items():
        target.model.to(memory_format=layout)
        call = {"k": options.k, "progress": False, "precision": precision}
        exemplars.collect(target, images.subset(probe, range(64)), options.layers, **call)
        start = time.perf_counter()
        found = exemplars.collect(target, probe, options.layers, **call)
        seconds = time.perf_counter() - start
        named = {
            layer: concepts.discover(v[one.index.clamp_min(0)].mean(1), t, t0, words.words)
            for layer, one in found.items()
        }
        plain = plain or (seconds, found, named)
        rows[name] = {"time": seconds / plain[0], **compare(found, named, *plain[1:])}
    columns = list(next(iter(rows.values())))
    print(f"{'':24}" + "".join(f"{column:>22}" for column in columns))
    for name, row in rows.items():
        print(f"{name:24}" + "".join(f"{row[column]:22.3f}" for column in columns))
    print(json.dumps({"bench": "precision", "rows": rows, **vars(options)}))


def compare(found, named, plain, usual):
    """Return the mean shares of exemplars, top names and whole sets of names that are the same."""
    same = {"exemplars kept": [], "same top name": [], "same set of names": []}
    for layer, one in found.items():
        for row, before in zip(one.index.tolist(), plain[layer].index.tolist(), strict=True):
            same["exemplars kept"].append(len({*row} & {*before}) / len(row))
        for names, before in zip(named[layer].names, usual[layer].names, strict=True):
            same["same top name"].append(float(names[:1] == before[:1]))
            same["same set of names"].append(float({*names} == {*before}))
    return {name: sum(values) / len(values) for name, values in same.items()}


if __name__ == "__main__":
    main()
