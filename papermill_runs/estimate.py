"""Estimate what a profile costs on one GPU: time, room on disk, memory of the device.

A dry run ends with it. Costs of one image are measured: reading and the arithmetic of ResNet-50 on
a GPU (``tests/bench/RESULTS.md``), the arithmetic, weights and outputs of every network here.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from paper_networks import ORIGINALS
from PIL import Image
from profiles import Job
from torch.utils.flop_counter import FlopCounterMode

from wwwlib import targets

# Measured on one H200, which computes as an H100 does, with more memory: `bench_stages.py`.
READ = 513  # images a second: read, decoded by Pillow and prepared, by 8 processes
RUN = 7_400  # images a second that ResNet-50 runs forward, in float32
IMAGES = {"imagenet": 50_000, "places365": 36_500, "imagenette": 3_925, "broden": 63_305}
WIDTH, CROPS, BACKWARD = 512, 5, 2  # of CLIP's features; of an image; in forward runs
# Passes over all probe images, by notebook; "crops" are also embedded, and so are "exemplars".
PASSES = {
    "01": ("exemplars", "crops"),
    "02": ("exemplars",),
    "03": ("exemplars", "contributions"),
    "04": ("exemplars",),
    "05": ("exemplars", "crops"),
    "06": ("exemplars", "contributions"),
    "07": ("exemplars", "crops", "contributions"),
}
FORMULA = (
    "Time of a pass: images x max(1 / read, operations / run), where read is "
    f"{READ} images a second (8 processes) and run the operations a second of {RUN:,} images of "
    "ResNet-50, both measured on one H200. Operations: of the network, 5 times for crops, 3 times "
    "where gradients are taken, and of CLIP for exemplars and crops. To this come the seconds of "
    "the dry run, as what does not depend on images. Disk: what is needed, and 4 bytes x 512 for "
    "each image and crop that is embedded. Memory: weights, and the outputs of all modules for a "
    "batch, at most. Passes that repeat ablations and tests on some images are not in it."
)


@dataclass(frozen=True)
class Cost:
    """Costs of a network: operations of one image, bytes of its weights, and of all outputs."""

    operations: int
    weights: int
    outputs: int


@cache
def cost(name: str, encoder: bool = False) -> Cost:
    """Measure a network with random weights; nothing is downloaded."""
    if encoder:
        import open_clip

        logging.disable(logging.WARNING)  # open_clip's, that the weights are random
        model = open_clip.create_model(name).visual
        logging.disable(logging.NOTSET)
        size = model.image_size if isinstance(model.image_size, tuple) else (model.image_size,) * 2
        x = torch.zeros(1, 3, *size)
    else:
        net = targets.load(ORIGINALS.get(name, name), "random")
        model, x = net.model, net.preprocess(Image.new("RGB", (256, 256)))[None]
    outputs = []
    hooks = [
        one.register_forward_hook(lambda _, __, y: outputs.append(y.numel()) and None)
        for one in model.modules()
        if not [*one.children()] and not isinstance(one, torch.nn.Identity)
    ]
    with FlopCounterMode(display=False) as counter:  # with gradients: fused kernels are not counted
        model.eval()(x)
    for hook in hooks:
        hook.remove()
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    return Cost(counter.get_total_flops(), weights, 4 * sum(outputs))


def seconds(job: Job) -> tuple[float, float]:
    """Return the seconds of a notebook's passes over all images, and those of the device in it."""
    own, per = job.effective, 1 / (RUN * cost("torchvision/resnet50").operations)
    images = own.get("probe_count") or IMAGES.get(own["probe"], 0)
    net, clip = cost(own["target"]).operations, _encoder(own)
    whole, device = 0.0, 0.0
    for kind in PASSES.get(job.name[:2], ()):
        runs = {"exemplars": 1, "crops": CROPS, "contributions": 1 + BACKWARD}[kind]
        both = [runs * net] + ([runs * clip] if kind != "contributions" else [])
        whole += sum(images * max(1 / READ, one * per) for one in both)
        device += sum(images * one * per for one in both)
    return whole, device


def _encoder(own: dict[str, Any]) -> int:
    named = re.fullmatch(r"open_clip:(?:local-dir:.*/)?([\w-]+)(?:/\w+)?", own.get("encoder", ""))
    return cost(named[1], True).operations if named else 0


def size(sizes: Iterable[str]) -> float:
    """Return the bytes that texts such as "over 6.3 GB" add up to."""
    found = [re.search(r"([\d.]+) ([kMGT])B", text.replace(",", "")) for text in sizes]
    units = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
    return sum(float(one[1]) * units[one[2]] for one in found if one)


def embedded(job: Job) -> int:
    """Return how many images and crops a notebook embeds, at most."""
    images = job.effective.get("probe_count") or IMAGES.get(job.effective.get("probe"), 0)
    kinds = PASSES.get(job.name[:2], ())
    return images * (("exemplars" in kinds) + CROPS * ("crops" in kinds))


def text(jobs: list[Job], sizes: Iterable[str], fixed: float) -> str:
    """Return the estimate of a profile.

    Parameters
    ----------
    jobs : list of Job
        Of the real profile.
    sizes : iterable of str
        Of the data and weights that it needs, see `check`.
    fixed : float
        Seconds that the dry run took.
    """
    passing = [job for job in jobs if PASSES.get(job.name[:2])]
    if not passing:
        return "None of these notebooks passes over all images: there is nothing to estimate."
    rows = {job.name: seconds(job) for job in passing}
    whole, device = (sum(one) for one in zip(*rows.values(), strict=True))
    if not whole:
        return "How many images there are shows only when they are read: there is no estimate."
    longest = max(rows, key=lambda name: rows[name][0])
    memory = max(
        net.weights + job.effective.get("batch_size", 64) * net.outputs
        for job in passing
        for net in [cost(job.effective["target"])]
    )
    kept = 4 * WIDTH * sum(map(embedded, passing))
    lines = [
        "On one H100, by an estimate:",
        f"  time    {(whole + fixed) / 3600:.1f} hours: {whole / 3600:.1f} for passes over images, "
        f"{fixed / 3600:.1f} for the rest, as here; the longest is {longest}",
        f"  device  computes {device / whole:.0%} of the passes; else it waits for images",
        f"  disk    {size(sizes) / 1e9:.1f} GB of data, {kept / 1e9:.1f} GB of features",
        f"  memory  at most {memory / 1e9:.0f} GB of the device",
        f"  {FORMULA}",
    ]
    return "\n".join(lines)
