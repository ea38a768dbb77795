"""Scoring against the bare matrix product of the same shape, in time and in memory.

    python tests/bench/bench_scoring.py [--repeats 7]

Prints a table and one JSON line. Scoring is all of `concepts.discover`: the mean over exemplars,
the product, the template term, the selection, and the lookup of names. Time is the median over
repeats that take turns; memory is the growth of a fresh process's peak over its inputs.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import time

import torch

from wwwlib.concepts import discover

NEURONS, EXEMPLARS, WORDS, DIM = 1_000, 40, 82_115, 512


def inputs():
    """Return random unit-norm features of exemplars, concepts and template, and the words."""
    generator = torch.Generator().manual_seed(0)
    v = unit(torch.empty(NEURONS, EXEMPLARS, DIM).normal_(generator=generator))
    t = unit(torch.empty(WORDS, DIM).normal_(generator=generator))
    t0 = unit(torch.empty(1, DIM).normal_(generator=generator))[0]
    return v, t, t0, [f"word {j}" for j in range(WORDS)]


def unit(x):
    """Normalise rows in place, so that making the inputs sets no peak of its own."""
    return x.div_(x.norm(dim=-1, keepdim=True))


def seconds(call):
    """Return the wall-clock seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure_time(repeats):
    """Return the median seconds of the bare product and of scoring, taken in turns."""
    v, t, t0, words = inputs()
    mean = v.mean(1)
    calls = {"bare": lambda: mean @ t.T, "discover": lambda: discover(v, t, t0, words)}
    taken = {name: [] for name in calls}
    for turn in range(repeats + 1):  # the first turn warms up
        for name, call in calls.items():
            spent = seconds(call)
            if turn:
                taken[name].append(spent)
    ratios = [b / a for a, b in zip(taken["bare"], taken["discover"], strict=True)]
    return {name: statistics.median(times) for name, times in taken.items()} | {
        "ratio": statistics.median(ratios)
    }


def peak():
    """Return this process's peak resident memory in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure_memory(result):
    """Put the growth of this process's peak during scoring, in bytes, into a queue."""
    v, t, t0, words = inputs()
    v[:2].mean(1) @ t[:2].T  # what the first product allocates once is no cost of scoring
    before = peak()
    discover(v, t, t0, words)
    result.put(peak() - before)


def main():
    """Measure, and print a table and a JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=measure_memory, args=(queue,))
    process.start()
    extra = queue.get()
    process.join()
    found = measure_time(repeats) | {"extra_gb": extra / 1e9, "threads": torch.get_num_threads()}
    shape = f"{NEURONS:,} neurons x {EXEMPLARS} exemplars x {WORDS:,} words x {DIM} dimensions"
    print(f"{shape}, {found['threads']} threads, median of {repeats}")
    print(f"  bare matrix product   {found['bare']:7.2f} s")
    print(f"  concepts.discover     {found['discover']:7.2f} s")
    print(f"  ratio                 {found['ratio']:7.2f}    (goal: at most 1.6)")
    print(f"  peak extra memory     {found['extra_gb']:7.2f} GB (goal: under 1.5)")
    print(json.dumps({"bench": "scoring"} | {key: round(x, 4) for key, x in found.items()}))


if __name__ == "__main__":
    main()
