"""Explaining one image against one forward and backward pass of the same network.

    python tests/bench/bench_explain.py [--repeats 15]

Prints a table and one JSON line. Explaining is all of `Atlas.explain`: preprocessing, the network,
both tracks with maps and regions, and the picture as it was preprocessed. The reference is what
`loss.backward()` costs: one forward pass and the gradients of all weights. Times are medians over
repeats that take turns, on an untrained ResNet-18 and 24 images of noise.
"""

import argparse
import json
import statistics
import time

import torch
from PIL import Image
from torch.nn.functional import normalize

from wwwlib import atlas, targets
from wwwlib.images import ImageSet
from wwwlib.language import ConceptSet

LAYERS = ("layer2", "layer3", "layer4", "logits")


class Projection:
    """An encoder without weights, for names that mean nothing."""

    name, dim = "projection", 8

    def preprocess(self, image):
        """Return the image in 4 x 4 pixels."""
        pixels = torch.frombuffer(bytearray(image.resize((4, 4)).tobytes()), dtype=torch.uint8)
        return pixels.view(4, 4, 3).permute(2, 0, 1) / 255

    def encode_images(self, pixels):
        """Return the first of the pixels, at unit norm."""
        return normalize(pixels.flatten(1)[:, : self.dim], dim=1)

    def encode_texts(self, texts):
        """Return random unit vectors."""
        generator = torch.Generator().manual_seed(0)
        return normalize(torch.randn(len(texts), self.dim, generator=generator), dim=1)


def noise(i):
    """Return image i, 500 x 375 pixels of noise."""
    generator = torch.Generator().manual_seed(i)
    pixels = torch.randint(0, 256, (375, 500, 3), generator=generator, dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


def build():
    """Return the atlas of an untrained ResNet-18 whose classes all have an image, or may have."""
    target = targets.load("torchvision/resnet18", weights="random")
    names, labels = tuple(f"noise {i}" for i in range(24)), (None,) * 24
    probe = ImageSet("noise", "bench-explain", names, labels, target.classes, noise)
    words = ConceptSet([f"word {j}" for j in range(50)])
    return atlas.build(target, probe, Projection(), words, LAYERS, k=4, progress=False)


def forward_and_backward(target, image):
    """Do what one step of training does, but for the step."""
    x = target.preprocess(image).unsqueeze(0)
    target.model.zero_grad()
    logits = target.model(x)
    logits[0, logits.argmax()].backward()


def seconds(call):
    """Return the wall-clock seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(made, repeats):
    """Return the median seconds of the reference and of explaining with each layer, in turns."""
    image = noise(0)
    calls = {"forward + backward": lambda: forward_and_backward(made.target, image)}
    for layer in made.layers:
        calls[layer] = lambda layer=layer: made.explain(image, layer)
    taken = {name: [] for name in calls}
    for turn in range(repeats + 2):  # the first two turns warm up
        for name, call in calls.items():
            spent = seconds(call)
            if turn > 1:
                taken[name].append(spent)
    return {name: statistics.median(times) for name, times in taken.items()}


def main():
    """Measure, and print a table and a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    found = measure(build(), repeats)
    bare = found["forward + backward"]
    print(
        f"ResNet-18, one image of 224 x 224, {torch.get_num_threads()} threads, median of {repeats}"
    )
    for name, spent in found.items():
        goal = "" if spent == bare else "   (goal: at most 3)"
        print(f"  {name:20} {1000 * spent:8.1f} ms   ratio {spent / bare:5.2f}{goal}")
    ratios = {name: round(spent / bare, 3) for name, spent in found.items()}
    print(json.dumps({"bench": "explain", "seconds": round(bare, 4), "ratio": ratios}))


if __name__ == "__main__":
    main()
