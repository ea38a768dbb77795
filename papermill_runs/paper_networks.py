"""Networks that the paper's code prepares in another way than their authors."""

from dataclasses import replace

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torchvision.transforms import Compose, Normalize

from wwwlib import targets

VIT = "timm/vit_base_patch16_224.augreg2_in21k_ft_in1k"
ORIGINALS = {"../papermill_runs/paper_networks.py:vit_b16": VIT}  # as their authors prepare them


def vit_b16(weights: str | None = None) -> targets.Target:
    """Return timm's ViT-B/16 for images with ImageNet's mean and standard deviation.

    The network was trained with a mean and standard deviation of .5. With other numbers it receives
    pixels of another scale; the paper's scores are those of this preprocessing.
    """
    own = targets.load(VIT, weights)
    steps = [step for step in own.preprocess.transforms if not isinstance(step, Normalize)]
    theirs = Normalize(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    return replace(own, preprocess=Compose([*steps, theirs]))
