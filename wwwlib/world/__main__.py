"""Train the networks that come with the world again: `python -m wwwlib.world`.

The five trainings share the cores, one thread each. Their accuracies and the weights' digests are
written to `training.json`, which `data/README.md` quotes.
"""

import argparse
import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from wwwlib.world.training import render_sets, train_clip, train_target
from wwwlib.world.vocabulary import DATA

# Longest first, so that the cores finish together.
TRAININGS = {
    "clip": train_clip,
    "vit": partial(train_target, kind="vit", biased=False),
    "vit-biased": partial(train_target, kind="vit", biased=True),
    "conv": partial(train_target, kind="conv", biased=False),
    "conv-biased": partial(train_target, kind="conv", biased=True),
}


def run(name, folder):
    """Train one network on one thread; returns its record."""
    torch.set_num_threads(1)
    start = time.monotonic()
    record = TRAININGS[name](folder)
    return {**record, "minutes": round((time.monotonic() - start) / 60, 1)}


def main():
    """Train the networks named on the command line, or all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(TRAININGS)}")
    names = parser.parse_args().names or list(TRAININGS)
    if unknown := set(names) - set(TRAININGS):
        parser.error(f"no such network: {', '.join(sorted(unknown))}; there are {list(TRAININGS)}")
    if not (DATA.parent / "README.md").exists():
        parser.error(f"{DATA} is part of an installed package; train in a checkout instead")
    path = DATA / "training.json"
    record = json.loads(path.read_text()) if path.exists() else {}
    with TemporaryDirectory() as folder, ProcessPoolExecutor(os.cpu_count()) as pool:
        render_sets(Path(folder))
        runs = pool.map(partial(run, folder=Path(folder)), names)
        record.update(zip(names, runs, strict=True))
    path.write_text(json.dumps(dict(sorted(record.items())), indent=2) + "\n")
    print(f"{path}: " + ", ".join(names))


if __name__ == "__main__":
    main()
