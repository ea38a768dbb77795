"""The exemplar pass against a bare forward pass over the same loader.

    python tests/bench/bench_pass.py [--images 192] [--repeats 5] [--device cuda --workers 8]

Prints a table and one JSON line. Both sides decode, preprocess and forward the same images in the
same batches; the pass also captures two layers, keeps the top 40 of every neuron, and sums by
class. Times are medians over repeats that take turns, so a noisy machine disturbs both alike. On a
CUDA device the peak of its memory stands beside them.
"""

import argparse
import json
import statistics
import time

import torch

from wwwlib import exemplars, images, targets, world


def seconds(call):
    """Return the wall-clock seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


@torch.inference_mode()
def bare(target, probe, batch_size, workers):
    """Forward every image and keep nothing."""
    pin = target.device.type == "cuda"
    for _, x in images.batches(probe, target.preprocess, batch_size, workers, pin_memory=pin):
        target.model(x.to(target.device, non_blocking=True))
    if pin:
        torch.cuda.synchronize()


def peak(target, call):
    """Return the most memory of the device that a call takes, in MB; None where nobody counts."""
    counted = target.device.type == "cuda"
    if counted:
        torch.cuda.reset_peak_memory_stats()
    call()
    return torch.cuda.max_memory_allocated() / 1e6 if counted else None


def main():
    """Time both and print their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=192)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--target", default="torchvision/resnet18")
    parser.add_argument("--layers", nargs="+", default=["layer4", "logits"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    target = targets.load(options.target, "random").to(options.device)
    probe = world.image_set(options.images)
    given = {"batch_size": options.batch, "workers": options.workers}
    calls = {
        "bare forward": lambda: bare(target, probe, **given),
        "exemplar pass": lambda: exemplars.collect(
            target, probe, options.layers, 40, **given, progress=False
        ),
    }
    memory = {name: peak(target, call) for name, call in calls.items()}  # warms up, too
    times = {name: [] for name in calls}
    for _ in range(options.repeats):
        for name, call in calls.items():
            times[name].append(seconds(call))
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, value in medians.items():
        most = "" if memory[name] is None else f", at most {memory[name]:,.0f} MB of the device"
        print(f"{name:>15}: {value:6.2f} s, {options.images / value:6.1f} images a second{most}")
    ratio = medians["exemplar pass"] / medians["bare forward"]
    print(f"{'ratio':>15}: {ratio:6.2f} (goal: at most 1.15)")
    found = {"ratio": round(ratio, 3), "device MB": memory}
    print(json.dumps({"bench": "exemplar pass", **found, **vars(options)}))


if __name__ == "__main__":
    main()
