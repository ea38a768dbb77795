"""A column of the paper's Table 2 on generated JPEG files: time, memory, and what limits it.

    python tests/bench/bench_gpu.py [--device cuda] [--images 50000] [--workers 8] [--limit 480]

Files of ImageNet's size are generated (2,000, each read as often as it takes), ResNet-50 and CLIP
ViT-B/32 have random weights, so the scores mean nothing. The steps are those of the table:
exemplars of the final layer, their features, scores of ImageNet's words, F1 and hit rate. Reading
alone and the network alone are measured beside them, on some images. Prints a table and one JSON
line with device and versions, and ends with code 1 if it took longer than the limit, in seconds.
"""

import argparse
import json
import logging
import os
import platform
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import open_clip
import torch
from bench_stages import generate

from wwwlib import concepts, exemplars, images, language, scores, targets
from wwwlib.language.encoders import OpenClipEncoder
from wwwlib.store import versions
from wwwlib.studies.metrics import truth

FILES, K, SOME = 2_000, 40, 2_048
CLIP = "ViT-B-32-quickgelu"


def write_files(folder, count, processes):
    """Write JPEG files, each process into a folder of its own."""
    parts = [folder / f"{i:03}" for i in range(processes)]
    for part in parts:
        part.mkdir()
    each = [count // processes + (i < count % processes) for i in range(processes)]
    with ProcessPoolExecutor(processes) as pool:
        [*pool.map(generate, parts, each)]


def random_clip(name, device):
    """Return a CLIP with random weights."""
    logging.disable(logging.WARNING)  # open_clip's, that they are random
    model, _, transform = open_clip.create_model_and_transforms(name)
    logging.disable(logging.NOTSET)
    return OpenClipEncoder(name, model, transform, open_clip.get_tokenizer(name), device)


class Clock:
    """Seconds of each step, ended when the device is idle."""

    def __init__(self, device):
        self.device, self.seconds, self.last = device, {}, time.perf_counter()

    def __call__(self, name):
        if self.device == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds[name], self.last = now - self.last, now


def read_only(target, probe, batch, workers):
    """Return images a second that are read and prepared, without a network."""
    start, count = time.perf_counter(), 0
    for indices, _ in images.batches(probe, target.preprocess, batch, workers):
        count += len(indices)
    return count / (time.perf_counter() - start)


@torch.inference_mode()
def run_only(target, batch, device, times):
    """Return images a second that the network runs, on noise that lies on the device."""
    x = torch.randn(batch, 3, 224, 224, device=device)
    target.model(x)
    clock = Clock(device)
    clock("warm")
    for _ in range(times):
        target.model(x)
    clock("network")
    return batch * times / clock.seconds["network"]


def column(target, encoder, probe, words, options):
    """Return the scores of WWW in one concept set, and the seconds of its steps."""
    how = {"batch_size": options.batch, "workers": options.workers, "progress": False}
    clock = Clock(options.device)
    found = exemplars.collect(target, probe, ["logits"], min(K, len(probe)), **how)["logits"]
    clock("exemplars")
    v = language.embed_exemplars(encoder, probe, found, **how)
    clock("features")
    t, t0 = words.embed(encoder)
    clock("words")
    names = concepts.discover(v.to(options.device), t.to(options.device), t0.to(options.device),
                              words.words).names  # fmt: skip
    clock("names")
    known = truth("imagenet", target)
    made = {"F1": scores.f1(names, known).mean, "hit rate": scores.hit_rate(names, known).mean}
    clock("scores")
    return made, clock.seconds


def limited_by(read, run, whole):
    """Say what limits a pass: reading, the network, or neither."""
    if whole > 0.7 * min(read, run):
        return "decoding" if read < run else "the network"
    return "neither decoding nor the network alone"


def main():
    """Measure, print, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--files", type=int, default=FILES)
    parser.add_argument("--words", type=int, help="take so many; default: all")
    parser.add_argument("--target", default="torchvision/resnet50")
    parser.add_argument("--clip", default=CLIP)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--limit", type=float, default=480.0)
    options = parser.parse_args()
    start, device = time.perf_counter(), options.device
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device; --device cpu --images 64 --words 9 tries it without")
    target = targets.load(options.target, "random").to(device)
    encoder = random_clip(options.clip, device)
    words = language.ConceptSet(language.concept_set("imagenet", target).words[: options.words])
    with tempfile.TemporaryDirectory() as place:
        write_files(Path(place), min(options.files, options.images), os.cpu_count() or 1)
        files = images.folder(place, progress=False)
        probe = images.subset(files, [i % len(files) for i in range(options.images)])
        generated = time.perf_counter() - start
        some = images.subset(probe, range(min(SOME, len(probe))))
        read = read_only(target, some, options.batch, options.workers)
        run = run_only(target, options.batch, device, 20 if device == "cuda" else 1)
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        made, seconds = column(target, encoder, probe, words, options)
    whole, spent = options.images / seconds["exemplars"], time.perf_counter() - start
    found = {
        "bench": "gpu",
        "machine": torch.cuda.get_device_name() if device == "cuda" else platform.processor(),
        "cores": os.cpu_count(),
        "versions": versions(),
        "seconds": {"files": generated, **seconds, "all": spent},
        "images a second": {"read": read, "network": run, "pass": whole},
        "limited by": limited_by(read, run, whole),
        "device GB": torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else None,
        "scores of random weights": made,
        **vars(options),
    }
    for name in ("machine", "seconds", "images a second", "limited by", "device GB"):
        print(f"{name:>16}: {found[name]}")
    print(json.dumps(found))
    return int(spent > options.limit)


if __name__ == "__main__":
    sys.exit(main())
