"""The exemplar pass against a bare forward pass over the same loader.

    python tests/bench/bench_pass.py [--images 192] [--repeats 5]

Prints a table and one JSON line. Both sides decode, preprocess and forward the same images in the
same batches; the pass also captures two layers, keeps the top 40 of every neuron, and sums by
class. Times are medians over repeats that take turns, so a noisy machine disturbs both alike.
"""

import argparse
import json
import statistics
import time

import torch

from wwwlib import exemplars, images, targets

BATCH = 32


def seconds(call):
    """Return the wall-clock seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@torch.inference_mode()
def bare(target, probe):
    """Forward every image and keep nothing."""
    for _, x in images.batches(probe, target.preprocess, BATCH):
        target.model(x.to(target.device))


def main():
    """Time both and print their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--target", default="torchvision/resnet18")
    parser.add_argument("--layers", nargs="+", default=["layer4", "logits"])
    options = parser.parse_args()
    target, probe = targets.load(options.target, "random"), images.world(options.images)

    def collect():
        exemplars.collect(target, probe, options.layers, 40, BATCH, progress=False)

    times = {"bare forward": [], "exemplar pass": []}
    bare(target, probe)
    for _ in range(options.repeats):
        times["bare forward"].append(seconds(lambda: bare(target, probe)))
        times["exemplar pass"].append(seconds(collect))
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, value in medians.items():
        print(f"{name:>15}: {value:6.2f} s, {options.images / value:6.1f} images a second")
    ratio = medians["exemplar pass"] / medians["bare forward"]
    print(f"{'ratio':>15}: {ratio:6.2f} (goal: at most 1.15)")
    print(json.dumps({"bench": "exemplar pass", "ratio": round(ratio, 3), **vars(options)}))


if __name__ == "__main__":
    main()
