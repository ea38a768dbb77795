"""The networks of the concept world: two small targets and a small CLIP.

Both targets end like ResNet-50 and ViT-B/16 (pooling or class token, then one linear layer), so
that everything that holds for those can be tried on them in seconds.
"""

from collections import OrderedDict
from pathlib import Path

import torch
from torch import nn

from wwwlib.registry import check_known
from wwwlib.targets import Target, library, wrap
from wwwlib.world.painting import SIZE
from wwwlib.world.vocabulary import CLASSES, DATA

MEAN = STD = (0.5, 0.5, 0.5)


def _block(inputs, outputs, stride):
    from torchvision.ops import Conv2dNormActivation

    first = Conv2dNormActivation(inputs, outputs, stride=stride, inplace=False)
    return nn.Sequential(*first, *Conv2dNormActivation(outputs, outputs, inplace=False))


def conv() -> nn.Sequential:
    """Build the convolutional target: four stages of 32 to 128 channels, pooling, one layer."""
    sizes = (3, 32, 2), (32, 64, 2), (64, 96, 2), (96, 128, 1)
    blocks = {f"layer{i}": _block(*size) for i, size in enumerate(sizes, start=1)}
    head = {"pool": nn.AdaptiveAvgPool2d(1), "flatten": nn.Flatten()}
    return nn.Sequential(OrderedDict(blocks | head, fc=nn.Linear(128, len(CLASSES))))


def vit() -> nn.Module:
    """Build the transformer: torchvision's, 8 x 8 patches from a convolutional stem, 3 blocks."""
    from torchvision.models.vision_transformer import ConvStemConfig, VisionTransformer

    sizes = {"image_size": SIZE, "patch_size": 8, "num_layers": 3, "num_heads": 4}
    sizes |= {"hidden_dim": 96, "mlp_dim": 192, "num_classes": len(CLASSES)}
    strides = (32, 2), (64, 2), (64, 1), (96, 2)
    stem = [ConvStemConfig(width, kernel_size=3, stride=stride) for width, stride in strides]
    return VisionTransformer(**sizes, conv_stem_configs=stem)


NETWORKS = {"conv": conv, "vit": vit}


def preprocess() -> nn.Module:
    """Return the transform from a PIL image to the networks' input, (3, SIZE, SIZE) in [-1, 1]."""
    from torchvision.transforms import v2

    scaled = [v2.PILToTensor(), v2.Resize((SIZE, SIZE), antialias=True)]
    return v2.Compose([*scaled, v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])


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
    check_known(f"There is no target 'world/{name}'", f"world/{name}", known)
    model = NETWORKS[name.removesuffix("-biased")]()
    file = DATA / f"{name}.safetensors" if weights is None else weights
    usual = "restore it from the repository, train it again with `make world`, or pass 'random'"
    # Half precision on disk.
    library.fill_from_file(f"world/{name}", model, file, library.megabytes(model) / 2, usual)
    return wrap(model, preprocess(), CLASSES, f"world/{name}")


def encoder_folder() -> Path:
    """Return the open_clip folder of the world's CLIP."""
    return DATA / "clip"
