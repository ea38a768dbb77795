"""How long the explorer takes to answer each of its controls.

    python tests/bench/bench_explorer.py [--repeats 9] [--words 311]

Prints a table and one JSON line. Each control of the page is moved to a value that it has not had,
and everything that hangs on it is told again: HTML and pictures included, the browser left out.
Only another picture, or a changed one, runs the network; what that costs is the reference, and no
control that leaves the picture alone should come near it. Times are medians over repeats, on
`world/conv`; `--words` fills its vocabulary up with invented words.
"""

import argparse
import json
import statistics
import time

import torch

from wwwlib import atlas, language, targets, world
from wwwlib.explorer import Pictures, explorer

SEED, GOAL = 7, 200  # milliseconds
VALUES = {
    "picture": lambda page, i: page._choose_image(i + 1),
    "scene": lambda page, i: move(page, "scene", world.SCENES[i % len(world.SCENES)]),
    "class": lambda page, i: move(page, "cls", i),
    "alpha": lambda page, i: move(page, "alpha", 0.9 - 0.01 * i),
    "k": lambda page, i: move(page, "top", 1 + i % 8),
    "percentile": lambda page, i: move(page, "percentile", 60 + i),
    "neuron": lambda page, i: move(page, "neuron", i + 1),
    "word": lambda page, i: move(page, "word", world.VOCABULARY[i]),
}


def move(page, name, value):
    """Move a control, as a hand would."""
    page.choices[name].value = value


def scene(i):
    """Return the description of picture i, for the controls that repaint it."""
    return world.sample(i, SEED)


def build(count):
    """Return the explorer of `world/conv`, named from so many words."""
    clip = language.encoder("world")
    invented = [f"word {i}" for i in range(count - len(world.VOCABULARY))]
    words = language.ConceptSet([*world.VOCABULARY, *invented])
    probe = world.image_set(240)
    book = atlas.build(
        targets.load("world/conv"), probe, clip, words, ["layer3", "layer4"], k=10, progress=False
    )
    return explorer({"conv": book}, {"world": Pictures(world.image_set(64, SEED), scene)}, clip)


def measure(page, repeats):
    """Return the median milliseconds from moving each control to the last word of the answer."""
    found = {}
    for name, change in VALUES.items():
        taken = []
        for i in range(repeats + 1):  # the first one warms up
            start = time.perf_counter()
            change(page, i)
            taken.append(1000 * (time.perf_counter() - start))
        found[name] = statistics.median(taken[1:])
    return found


def main():
    """Measure, and print a table and a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--words", type=int, default=len(world.VOCABULARY))
    options = parser.parse_args()
    found = measure(build(options.words), options.repeats)
    print(f"{options.words:,} words, {torch.get_num_threads()} threads; goal: {GOAL} ms")
    for name, spent in found.items():
        print(f"  {name:12} {spent:7.1f} ms   {spent / found['picture']:5.2f} of another picture")
    rows = {name: round(spent, 1) for name, spent in found.items()}
    print(json.dumps({"bench": "explorer", "milliseconds": rows, **vars(options)}))


if __name__ == "__main__":
    main()
