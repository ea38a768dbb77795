"""Time and memory of the measures of names, for many neurons, concepts and images.

    python tests/bench/bench_evaluation.py [--images 50000] [--neurons 2048] [--concepts 1200]

Activations and presence are random; each image shows five concepts on average. Times are beside
that of a forward pass of ResNet-50 over as many images, measured on a batch of 16.
"""

import argparse
import resource
import time

import torch
from torchvision.models import resnet50

from wwwlib import evaluation
from wwwlib.studies import examination

MEASURES = {
    "AUROC": evaluation.auroc,
    "MAD": evaluation.mad,
    "Pearson": evaluation.pearson,
    "F1, IoU, AUPRC": examination.binary,
    "average precision": evaluation.average_precision,
}


def gigabytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("images", 50_000), ("neurons", 2_048), ("concepts", 1_200)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    x, model = torch.rand(16, 3, 224, 224, device=given.device), resnet50().eval().to(given.device)
    with torch.inference_mode():
        model(x)
        start = time.perf_counter()
        model(x).sum().item()
    forward = (time.perf_counter() - start) / 16 * given.images
    print(f"forward pass of ResNet-50: {forward:,.0f} s for {given.images:,} images")
    z = torch.randn(given.images, given.neurons, device=given.device).relu()
    present = torch.rand(given.images, given.concepts) < 5 / given.concepts
    present = present.to(given.device)
    before = gigabytes()
    for name, measure in MEASURES.items():
        start = time.perf_counter()
        found = measure(z, present)
        found = sum(found.values()) if isinstance(found, dict) else found
        found.nansum().item()
        seconds = time.perf_counter() - start
        print(f"{name:18} {seconds:7.1f} s, {seconds / forward:.3f} of the forward pass")
    print(f"peak memory {gigabytes():.2f} GB, {gigabytes() - before:.2f} GB beside the input")


if __name__ == "__main__":
    main()
