"""Importing wwwlib and building a target, against importing torch alone.

    python tests/bench/bench_import.py [--repeats 7]

Each side runs in its own process, by turns; the medians and their ratio (goal 1.3) are printed.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

SIDES = {
    "import torch": "import torch",
    "import wwwlib and build a target": """
import torch, wwwlib
from wwwlib import targets
model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten(), torch.nn.LazyLinear(2))
model(torch.zeros(1, 3, 8, 8))
targets.wrap(model, lambda image: torch.zeros(3, 8, 8), ["a", "b"], "mine")
""",
}


def seconds(source):
    """Return the wall-clock seconds of a new interpreter that runs some code."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", source], check=True)
    return time.perf_counter() - start


def main():
    """Time both sides by turns and print their medians and ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    taken = {name: [] for name in SIDES}
    for _ in range(repeats):
        for name, source in SIDES.items():
            taken[name].append(seconds(source))
    median = {name: statistics.median(values) for name, values in taken.items()}
    bare, ours = median.values()
    print("\n".join(f"{name:35s} {value:6.2f} s" for name, value in median.items()))
    print(json.dumps({"seconds": median, "ratio": round(ours / bare, 2)}))


if __name__ == "__main__":
    main()
