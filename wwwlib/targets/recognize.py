"""Preprocessing and class names of networks that timm or torchvision built."""

import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn


class Published(NamedTuple):
    """What a library publishes with a network.

    Attributes
    ----------
    name : str
        Name for `load`.
    preprocess : callable
        Maps a PIL RGB image to (3, H, W).
    classes : sequence of str or None
        Class names; None if the number of outputs is not that of a known data set.
    """

    name: str
    preprocess: Callable
    classes: Sequence[str] | None


def recognize(model: nn.Module) -> Published | None:
    """Return preprocessing and class names of a network that timm or torchvision built.

    timm's networks hold their configuration. torchvision's do not: they are compared with the
    metadata of its published weights by module and number of parameters and, where preprocessing
    differs between the weights of one network, with the checkpoints in torch's cache.

    Parameters
    ----------
    model : nn.Module

    Returns
    -------
    Published or None
        None if the network is not one of theirs, or its weights are ambiguous.
    """
    if hasattr(model, "pretrained_cfg"):
        return _timm(model)
    if type(model).__module__.startswith("torchvision.models."):
        return _torchvision(model)
    return None


def imagenet_names(model: nn.Module) -> tuple[str, ...] | None:
    """Return the class names of the ImageNet subset with as many classes as a timm model."""
    from timm.data import ImageNetInfo, infer_imagenet_subset

    subset = infer_imagenet_subset(model)
    if subset is None:
        return None
    return tuple(text.split(", ")[0] for text in ImageNetInfo(subset).label_descriptions())


def _timm(model: nn.Module) -> Published:
    from timm.data import create_transform, resolve_model_data_config

    config = model.pretrained_cfg
    name = ".".join(filter(None, (config.get("architecture"), config.get("tag"))))
    preprocess = create_transform(**resolve_model_data_config(model), is_training=False)
    return Published(f"timm/{name}", preprocess, imagenet_names(model))


def _torchvision(model: nn.Module) -> Published | None:
    found = list(_candidates(model))
    if len({repr(weights.transforms()) for _, weights in found}) > 1:
        found = [(name, weights) for name, weights in found if _is_cached(model, weights)]
    if not found:
        return None
    name, weights = found[0]
    return Published(f"torchvision/{name}", weights.transforms(), weights.meta["categories"])


def _candidates(model: nn.Module) -> Iterator[tuple[str, object]]:
    """Yield name and weights of torchvision's classifiers of this module and size."""
    models = sys.modules["torchvision.models"]
    size = sum(parameter.numel() for parameter in model.parameters())
    for name in models.list_models(module=models):
        if models.get_model_builder(name).__module__ == type(model).__module__:
            for weights in models.get_model_weights(name):
                if weights.meta["num_params"] == size:
                    yield name, weights


def _is_cached(model: nn.Module, weights) -> bool:
    """Whether a checkpoint in torch's cache has the first parameter of the model."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    if not path.is_file():
        return False
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    name, parameter = next(model.named_parameters())
    return name in state and torch.equal(state[name], parameter.detach().cpu())
