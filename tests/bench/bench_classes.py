"""Sums of 21,841 classes against a bare forward pass over the same images.

    python tests/bench/bench_classes.py [--images 1024] [--repeats 3] [--device cuda]
    python tests/bench/bench_classes.py --network linear

Prints a table and one JSON line. The network is the smallest of timm that was trained on
ImageNet-21k (random weights, 1,280 neurons, 224 pixels), or linear layers of 1,024 neurons, far
cheaper than any network of so many classes. Predictions of random weights fall into few classes, so
the images have labels, each another one. Both sides forward the same images in the same batches;
the pass also keeps the best images of every neuron and the sums by class. Times are medians over
repeats that take turns, on the CPU in seconds of computation.
"""

import argparse
import json
import resource
import statistics
import time

import timm
import torch
from PIL import Image
from torch import nn
from torchvision.transforms.functional import to_tensor

from wwwlib import exemplars, images, targets
from wwwlib.images import ImageSet

CLASSES = 21_841


def small(image):
    """Return an image of any size as (3, 8, 8)."""
    return to_tensor(image.resize((8, 8)))


def large(image):
    """Return an image of any size as (3, 224, 224)."""
    return to_tensor(image.resize((224, 224)))


def network(name):
    """Return a network of random weights with its preprocessing and the layer that is read."""
    torch.manual_seed(0)
    if name == "mobilenet":
        model = timm.create_model("mobilenetv3_large_100", pretrained=False, num_classes=CLASSES)
        return model, large, "act2"
    wide = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 8192), nn.ReLU(), nn.Linear(8192, 1024))
    return nn.Sequential(wide, nn.ReLU(), nn.Linear(1024, CLASSES)), small, "1"


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
    parser.add_argument("--network", choices=["mobilenet", "linear"], default="mobilenet")
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    classes = tuple(f"class {i}" for i in range(CLASSES))
    model, preprocess, layer = network(options.network)
    target = targets.wrap(model, preprocess, classes, options.network).to(options.device)
    given = probe(options.images, classes)
    calls = {
        "bare forward": lambda: bare(target, given, options.batch),
        "exemplar pass": lambda: exemplars.collect(
            target, given, [layer], 40, batch_size=options.batch, progress=False
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
