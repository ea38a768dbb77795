"""Sums of 21,841 classes x 1,024 neurons against a bare forward pass over the same images.

    python tests/bench/bench_classes.py [--images 2048] [--repeats 3] [--device cuda]

Prints a table and one JSON line. Predictions of random weights fall into few classes, so the images
have labels, each another one. Both sides forward the same images in the same batches; the pass also
keeps the best images of every neuron and the sums by class. Times are medians over repeats that
take turns, on the CPU in seconds of computation.
"""

import argparse
import json
import resource
import statistics
import time

import torch
from PIL import Image
from torch import nn
from torchvision.transforms.functional import to_tensor

from wwwlib import exemplars, images, targets
from wwwlib.images import ImageSet

CLASSES = 21_841


def pixels(image):
    """Return an image of any size as (3, 8, 8)."""
    return to_tensor(image.resize((8, 8)))


def colour(i):
    """Return an image that no other index has."""
    return Image.new("RGB", (8, 8), (i % 256, i // 256 % 256, 128))


def probe(count, classes):
    """Return images of generated colours, the labels of which are spread over all classes."""
    names, labels = tuple(map(str, range(count))), tuple(i * 9_973 % CLASSES for i in range(count))
    return ImageSet("colours", f"colours-{count}", names, labels, classes, colour)


@torch.inference_mode()
def bare(target, given, batch_size):
    """Forward every image and keep nothing."""
    for _, x in images.batches(given, target.preprocess, batch_size):
        target.model(x.to(target.device))
    if target.device.type == "cuda":
        torch.cuda.synchronize()


def seconds(call, device):
    """Return the seconds of one call: of computation, so that other programs do not count."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    start = clock()
    call()
    return clock() - start


def main():
    """Time both and print their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.manual_seed(0)
    classes = tuple(f"class {i}" for i in range(CLASSES))
    wide = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 8192), nn.ReLU(), nn.Linear(8192, 1024))
    model = nn.Sequential(wide, nn.ReLU(), nn.Linear(1024, CLASSES))
    target = targets.wrap(model, pixels, classes, "linear layers").to(options.device)
    given = probe(options.images, classes)
    calls = {
        "bare forward": lambda: bare(target, given, options.batch),
        "exemplar pass": lambda: exemplars.collect(
            target, given, ["1"], 40, batch_size=options.batch, progress=False
        ),
    }
    times = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(options.repeats):
        for name, call in calls.items():
            times[name].append(seconds(call, options.device))
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, value in medians.items():
        print(f"{name:>15}: {value:6.2f} s, {options.images / value:6.1f} images a second")
    ratio = medians["exemplar pass"] / medians["bare forward"]
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"{'ratio':>15}: {ratio:6.2f} (goal: at most 1.2), at most {most:,.0f} MB")
    found = {"ratio": round(ratio, 3), "MB": round(most)}
    print(json.dumps({"bench": "sums by class", **found, **vars(options)}))


if __name__ == "__main__":
    main()
