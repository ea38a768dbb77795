"""Contributions of a batch against a bare forward pass of the same batch.

    python tests/bench/bench_contributions.py [--repeats 7] [--batch 16] [--size 224]

Prints a table and one JSON line. Before a linear head contributions are read off one forward pass;
elsewhere they take a forward pass that keeps its graph and a backward pass down to the layer, all
layers at once or one at a time. Each repeat times every way once, so that a busy machine slows
them all; ratios are taken within a repeat, and their median is reported.
"""

import argparse
import json
import statistics
import time

import torch

from wwwlib import targets
from wwwlib.contributions import contribute, contribute_all, head

LAYERS = {
    "torchvision/resnet18": ("layer4", ["maxpool", "layer1", "layer2", "layer3"]),
    "torchvision/vit_b_16": (
        "encoder.ln",
        [f"encoder.layers.encoder_layer_{i}" for i in (0, 5, 11)],
    ),
}
GOALS = {"exact": 1.2, "first order": 3.5}


def prepare(name):
    """Return a target with random weights, none of them zero, and the linear head of its end."""
    target = targets.load(name, "random")
    if name.endswith("vit_b_16"):
        torch.nn.init.normal_(target.model.heads.head.weight)  # zeros at first
    return target, head(target, LAYERS[name][0])


def ways(name, batch, size):
    """Return what is timed: a call for each row of the table, the bare pass first."""
    target, linear = prepare(name)
    x = torch.randn(batch, 3, size, size)
    last, deep = LAYERS[name]
    gradients = dict.fromkeys(deep, False)

    def bare():
        with torch.inference_mode():
            target.model(x)

    calls = {"bare": bare, f"exact {last}": lambda: contribute(target, x, last, linear=linear)}
    for layer in deep:
        calls[f"first order {layer}"] = lambda layer=layer: contribute(
            target, x, layer, linear=False
        )
    calls["first order, all of these"] = lambda: contribute_all(target, x, deep, linear=gradients)
    return calls


def seconds(call):
    """Return the wall-clock seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(calls, repeats):
    """Return the median ratio of each way to the bare pass, and the bare pass's seconds."""
    turns = [{way: seconds(call) for way, call in calls.items()} for _ in range(repeats + 1)]
    turns = turns[1:]  # the first turn warms up
    ratios = {
        way: statistics.median(turn[way] / turn["bare"] for turn in turns)
        for way in calls
        if way != "bare"
    }
    return ratios, statistics.median(turn["bare"] for turn in turns)


def main():
    """Measure, and print a table and a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--targets", nargs="+", default=list(LAYERS), choices=list(LAYERS))
    given = parser.parse_args()
    found = {}
    for name in given.targets:
        ratios, bare = measure(ways(name, given.batch, given.size), given.repeats)
        print(f"{name}, {given.batch} images of {given.size} pixels: bare pass {bare:.2f} s")
        for way, ratio in ratios.items():
            goal = next(goal for kind, goal in GOALS.items() if way.startswith(kind))
            print(f"  {way:50} {ratio:5.2f} x  (goal: at most {goal})")
        found[name] = {way: round(ratio, 3) for way, ratio in ratios.items()}
    print(json.dumps({"bench": "contributions", "threads": torch.get_num_threads()} | found))


if __name__ == "__main__":
    main()
