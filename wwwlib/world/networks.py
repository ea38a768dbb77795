"""The networks of the concept world: two small targets and a small CLIP.

Both targets end like ResNet-50 and ViT-B/16 (pooling or class token, then one linear layer), so
that everything that holds for those can be tried on them in seconds.
"""

from collections import OrderedDict
from pathlib import Path

import torch
from torch import nn

from wwwlib.targets import Target, library, wrap
from wwwlib.world.painting import SIZE
from wwwlib.world.vocabulary import CLASSES, DATA

MEAN = STD = (0.5, 0.5, 0.5)


def _block(inputs, outputs, stride):
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


def conv():
    """Build the convolutional target: four stages of 32 to 128 channels, pooling, one layer."""
    return nn.Sequential(
        OrderedDict(
            layer1=_block(3, 32, 2),
            layer2=_block(32, 64, 2),
            layer3=_block(64, 96, 2),
            layer4=_block(96, 128, 1),
            pool=nn.AdaptiveAvgPool2d(1),
            flatten=nn.Flatten(),
            fc=nn.Linear(128, len(CLASSES)),
        )
    )


def vit():
    """Build the transformer: torchvision's, 8 x 8 patches from a convolutional stem, 3 blocks."""
    from torchvision.models.vision_transformer import ConvStemConfig, VisionTransformer

    return VisionTransformer(
        image_size=SIZE,
        patch_size=8,
        num_layers=3,
        num_heads=4,
        hidden_dim=96,
        mlp_dim=192,
        num_classes=len(CLASSES),
        conv_stem_configs=[
            ConvStemConfig(out_channels=width, kernel_size=3, stride=stride)
            for width, stride in ((32, 2), (64, 2), (64, 1), (96, 2))
        ],
    )


NETWORKS = {"conv": conv, "vit": vit}


def preprocess():
    """Return the transform from a PIL image to the networks' input, (3, SIZE, SIZE) in [-1, 1]."""
    from torchvision.transforms import v2

    return v2.Compose(
        [
            v2.PILToTensor(),
            v2.Resize((SIZE, SIZE), antialias=True),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )


def target(name: str, weights: str | Path | None = None) -> Target:
    """Load one of the world's targets.

    Parameters
    ----------
    name : {"conv", "vit", "conv-biased", "vit-biased"}
    weights : path, optional
        A safetensors file, or "random"; by default the weights that come with the world.

    Raises
    ------
    ValueError
        If the name is unknown or the weights do not fit.
    FileNotFoundError
        If the weight file does not exist.
    """
    known = [f"world/{kind}{bias}" for kind in NETWORKS for bias in ("", "-biased")]
    library.check_known(f"world/{name}", f"world/{name}", known)
    model = NETWORKS[name.removesuffix("-biased")]()
    file = DATA / f"{name}.safetensors" if weights is None else weights
    usual = "restore it from the repository, train it again with `make world`, or pass 'random'"
    megabytes = library.megabytes(model) / 2  # half precision on disk
    library.fill_from_file(f"world/{name}", model, file, megabytes, usual)
    return wrap(model, preprocess(), CLASSES, f"world/{name}")


def encoder_folder() -> Path:
    """Return the open_clip folder of the world's CLIP."""
    return DATA / "clip"
