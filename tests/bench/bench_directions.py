"""Cost of directions: training of an autoencoder, and encoding within a pass over images.

    python tests/bench/bench_directions.py [--device cuda]

Training: 1,024 latents, 8 active, on 16 positions of each of 2,400 images of the concept world,
four epochs. Encoding: the exemplar pass over the codes of as many latents against the same pass
over the layer, for `world/conv` layer4 and, with 12,288 latents, a block of ViT-B/16 (random
weights) at 224 pixels. Both sides of a ratio take turns; medians.
"""

import argparse
import json
import statistics
import time

import torch

from wwwlib import exemplars, images, targets, world
from wwwlib.studies import dictionaries


def passes(target, layer, dictionary, given, repeats, **options):
    """Return the median seconds of the exemplar pass over a layer and over the codes of it."""
    coded, times = targets.with_directions(target, layer, dictionary, "sae"), {}
    sides = {"without": (target, layer), "with codes": (coded, f"{layer}@sae")}
    for repeat in range(repeats + 1):
        for name, (own, read) in sides.items():
            start = time.perf_counter()
            exemplars.collect(own, given, [read], 5, progress=False, **options)
            if repeat:  # the first is a warm-up
                times.setdefault(name, []).append(time.perf_counter() - start)
    return {name: statistics.median(own) for name, own in times.items()}


def main():
    """Print a line for each figure, and one of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    conv, probe = targets.load("world/conv").to(given.device), world.image_set(2_400)
    shards = dictionaries.Positions(conv, probe, "layer4", 16)
    start = time.perf_counter()
    topk = dictionaries.train_topk(shards, 1_024, 8, device=given.device, progress=False)
    found = {"training, s": time.perf_counter() - start}
    some = images.subset(probe, range(960))
    cases = {"world/conv layer4, 1,024 latents": (conv, "layer4", topk, some, 64)}
    vit, block = targets.load("torchvision/vit_b_16", "random"), "encoder.layers.encoder_layer_8"
    wide = dictionaries.random_directions(torch.randn(64, 768), 12_288, 32)
    few = images.subset(probe, range(48))
    cases["ViT-B/16 block 9, 12,288 latents"] = (vit.to(given.device), block, wide, few, 16)
    for name, (target, layer, dictionary, own, batch) in cases.items():
        times = passes(target, layer, dictionary, own, given.repeats, batch_size=batch)
        found[name] = times["with codes"] / times["without"]
    for name, value in found.items():
        print(f"{name:34} {value:7.2f}")
    rounded = {name: round(value, 3) for name, value in found.items()}
    print(json.dumps({"bench": "directions", "device": given.device, **rounded}))


if __name__ == "__main__":
    main()
