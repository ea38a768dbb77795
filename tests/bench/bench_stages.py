"""Where a pass over JPEG files spends its time: decoding, copying, the network, and the rest.

    python tests/bench/bench_stages.py [--target torchvision/resnet50] [--images 256]
        [--workers 0 2] [--batch 32] [--device cpu] [--precision float32] [--decoder pillow]

JPEG files of the size of ImageNet's (500 x 375) are generated, opened as a probe set and read as
the exemplar pass reads them. Stages are timed one after the other, with the device idle in
between; the pass itself lets them overlap, so its own time stands beside their sum. Prints a table
and one JSON line.
"""

import argparse
import json
import tempfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from wwwlib import exemplars, images, targets
from wwwlib.activations import capture
from wwwlib.exemplars import PRECISIONS, _merge, _state


def generate(folder, count):
    """Write JPEG files of smooth noise, which compress about as photographs do."""
    generator = np.random.default_rng(0)
    for i in range(count):
        coarse = generator.integers(0, 256, (47, 63, 3), dtype=np.uint8)
        fine = generator.integers(0, 48, (375, 500, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC))
        Image.fromarray(smooth // 5 * 4 + fine).save(Path(folder) / f"{i:05}.jpg", quality=90)


class Stages:
    """Adds up seconds by stage, each of them ended when the device is idle."""

    def __init__(self, device):
        self.device, self.seconds, self.last = device, {}, time.perf_counter()

    def __call__(self, name):
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self.last
        self.last = now


@torch.inference_mode()
def measure(target, probe, layers, k, batch_size, workers, precision, decoder):
    """Return seconds by stage of one pass in which nothing overlaps."""
    device, dtype, state = target.device, PRECISIONS[precision], {}
    autocast = partial(torch.autocast, device.type, dtype, dtype is not torch.float32)
    options = {"pin_memory": device.type == "cuda", "decoder": decoder, "device": device}
    read = images.batches(probe, target.preprocess, batch_size, workers, **options)
    stage = Stages(device)
    for indices, x in read:
        stage("decode and preprocess")
        x = x.to(device, non_blocking=True)
        stage("copy")
        with autocast(), capture(target, layers) as taken:
            logits = target.model(x)
        stage("network")
        for layer in layers:
            z = taken[layer].z.float()
            own = _state(indices, z, logits.argmax(1))
            state[layer] = _merge(k, state[layer], own) if layer in state else own
        stage("the rest")
    return stage.seconds


def main():
    """Measure for every number of workers, and print shares and totals."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default="torchvision/resnet50")
    parser.add_argument("--layers", nargs="+", default=["layer3", "layer4", "logits"])
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--k", type=int, default=40)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--workers", nargs="+", type=int, default=[0, 2])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32", choices=PRECISIONS)
    parser.add_argument("--decoder", default="pillow", choices=images.DECODERS)
    options = parser.parse_args()
    target = targets.load(options.target, "random").to(options.device)
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        generate(folder, options.images)
        probe = images.folder(folder, progress=False)
        call = (options.layers, options.k)
        warm = images.subset(probe, range(min(len(probe), max(options.k, options.batch))))
        how = {"precision": options.precision, "decoder": options.decoder}
        how["batch_size"] = options.batch
        measure(target, warm, *call, workers=0, **how)
        for workers in options.workers:
            row = measure(target, probe, *call, workers=workers, **how)
            start = time.perf_counter()
            exemplars.collect(target, probe, *call, workers=workers, progress=False, **how)
            rows[workers] = {**row, "sum": sum(row.values()), "pass": time.perf_counter() - start}
    print(
        f"{options.target}, {options.images} images, {options.precision}, {options.device}, "
        f"decoded by {options.decoder}"
    )
    for workers, row in rows.items():
        shares = ", ".join(f"{n} {row[n] / row['sum']:.1%}" for n in list(row)[:-2])
        rate = options.images / row["pass"]
        print(
            f"  {workers} workers: {shares}; pass {row['pass']:.2f} s, {rate:.1f} images a second"
        )
    print(json.dumps({"bench": "stages", "rows": rows, **vars(options)}))


if __name__ == "__main__":
    main()
