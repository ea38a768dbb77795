"""The two small targets of the world: a convolutional network and a vision transformer.

Both end as their big relatives do (pooling or class token, then one linear layer), so everything
that holds for ResNet-50 and ViT-B/16 can be tried on them in seconds.
"""

from collections import OrderedDict

import torch
from torch import nn
from torchvision.models.vision_transformer import ConvStemConfig, VisionTransformer
from torchvision.transforms import v2

from wwwlib.world.canvas import SIZE
from wwwlib.world.vocabulary import CLASSES

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
    """Return the transform from a PIL image to what the networks take, (3, 64, 64) in [-1, 1]."""
    return v2.Compose(
        [
            v2.PILToTensor(),
            v2.Resize((SIZE, SIZE), antialias=True),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
