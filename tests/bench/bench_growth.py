"""How time and memory grow with images, neurons and words: once, four times, sixteen times as many.

    python tests/bench/bench_growth.py [--plot FILE.png]

Each size is measured in a fresh process: seconds, and the growth of its peak memory over its
inputs. Images go through the exemplar pass of `world/conv`; neurons and words through
`concepts.discover`. What grows in proportion has a slope of one; memory should not grow with images
at all, and with neurons and words only up to the block of scores that is held at once.
"""

import argparse
import json
import multiprocessing
import resource
import time

import torch

TIMES = (1, 4, 16)
IMAGES, NEURONS, WORDS, EXEMPLARS, DIM = 320, 512, 10_000, 10, 512


def peak():
    """Return this process's peak resident memory in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def unit(*shape):
    """Return random unit-norm rows, normalised in place so that making them sets no peak."""
    x = torch.empty(shape).normal_()
    return x.div_(x.norm(dim=-1, keepdim=True))


def prepare_pass(images):
    """Return a call of the exemplar pass over that many images."""
    from wwwlib import exemplars, targets

    target = targets.load("world/conv")
    options = {"k": EXEMPLARS, "batch_size": 32, "progress": False}
    exemplars.collect(target, noise(64), ["layer4", "logits"], **options)
    return lambda: exemplars.collect(target, noise(images), ["layer4", "logits"], **options)


def noise(count):
    """Return images of noise, so that neither a disk nor a painter is measured."""
    from PIL import Image

    from wwwlib.images import ImageSet

    def read(i):
        return Image.effect_noise((64, 64), 40 + i % 50).convert("RGB")

    return ImageSet("noise", f"noise {count}", ("noise",) * count, (None,) * count, (), read)


def prepare_scoring(neurons, words):
    """Return a call that names that many neurons from that many words."""
    from wwwlib.concepts import discover

    v, t, t0 = unit(neurons, EXEMPLARS, DIM), unit(words, DIM), unit(1, DIM)[0]
    named = [f"word {j}" for j in range(words)]
    discover(v[:2], t[:2], t0, named[:2])
    return lambda: discover(v, t, t0, named)


PREPARE = {
    "images": lambda times: prepare_pass(IMAGES * times),
    "neurons": lambda times: prepare_scoring(NEURONS * times, WORDS),
    "words": lambda times: prepare_scoring(NEURONS, WORDS * times),
}


def measure(axis, times, result):
    """Put seconds and the growth of the peak in MB into a queue; for a process of its own."""
    torch.manual_seed(0)
    call = PREPARE[axis](times)
    before, start = peak(), time.perf_counter()
    call()
    seconds = time.perf_counter() - start
    result.put((seconds, (peak() - before) / 1e6))


def apart(axis, times):
    """Measure one size in a fresh process."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=measure, args=(axis, times, queue))
    process.start()
    found = queue.get()
    process.join()
    return found


def plot(found, path):
    """Draw time and memory against size, one line an axis."""
    from wwwlib.plots import style

    with style.in_style():
        from matplotlib import pyplot as plt

        figure, (left, right) = plt.subplots(1, 2, figsize=(style.WIDTH, 2.8), layout="constrained")
        drawn = zip(found.items(), style.SERIES, style.MARKS, style.LINES, strict=False)
        for (axis, rows), colour, mark, line in drawn:
            seconds, memory = zip(*rows, strict=True)
            look = {"marker": mark, "color": colour, "linestyle": line, "label": axis}
            left.plot(TIMES, [s / seconds[0] for s in seconds], **look)
            right.plot(TIMES, [max(m, 0.1) for m in memory], **look)
        left.plot(TIMES, TIMES, color="0.6", linewidth=4, zorder=0, label="in proportion")
        left.set(ylabel="time, relative to the first", yscale="log")
        right.set(ylabel="peak memory beyond inputs, MB", yscale="log")
        for ax in (left, right):
            ax.set(xscale="log", xlabel="times as many")
            ax.set_xticks(TIMES, [f"×{n}" for n in TIMES])
        left.set_yticks(TIMES, [f"×{n}" for n in TIMES])
        right.set_yticks([1, 10, 100, 1000], ["1", "10", "100", "1,000"])
        for ax in (left, right):
            ax.minorticks_off()
        left.legend()
        figure.savefig(path, dpi=style.DPI)


def main():
    """Measure every axis at every size, print a table and a JSON line, and draw if asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plot", help="write a figure")
    options = parser.parse_args()
    found = {axis: [apart(axis, times) for times in TIMES] for axis in PREPARE}
    start = {"images": IMAGES, "neurons": NEURONS, "words": WORDS}
    for axis, rows in found.items():
        for times, (seconds, memory) in zip(TIMES, rows, strict=True):
            count = f"{start[axis] * times:,} {axis}"
            print(f"{count:>16}: {seconds:7.2f} s  {memory:8.1f} MB")
    if options.plot:
        plot(found, options.plot)
    print(json.dumps({"bench": "growth", "times": TIMES, **found}))


if __name__ == "__main__":
    main()
