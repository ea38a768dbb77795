"""Targets by name: ``torchvision/resnet50``, ``timm/vit_base_patch16_224``, ``world/conv``.

Each library brings its own builder, weights, preprocessing and class names; all end in `wrap`.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import timm
import torch
from timm.data import (
    ImageNetInfo,
    create_transform,
    infer_imagenet_subset,
    resolve_model_data_config,
)
from torch import nn
from torchvision import models

from wwwlib.images import imagenet_synsets
from wwwlib.registry import EXTENSIONS, extension
from wwwlib.targets.target import Target, nearest, wrap
from wwwlib.targets.weights import fill, read_weights

RANDOM = "random"


def load(
    name: str,
    weights: str | Path | None = None,
    *,
    classes: Iterable[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Target:
    """Build a target by name.

    Parameters
    ----------
    name : str
        ``torchvision/<model>``, ``timm/<model>`` (with or without a pretrained tag), or
        ``world/conv``, ``world/vit``, ``world/conv-biased``, ``world/vit-biased``.
    weights : str or path, optional
        A file (``.safetensors``, or ``.pth`` with nothing but tensors); "random" for an untrained
        network; for torchvision also "DEFAULT" or another name of its weights. None means the
        library's default pretrained weights, fetched from the network unless cached.
    classes : iterable of str, optional
        Class names, where they are not the library's own (``resnet18`` trained on Places365).
    mean, std : sequence of 3 floats, optional
        Normalise with these instead of the network's own values. The paper's code fed ViT-B/16
        the mean and standard deviation of ResNet-50.

    Returns
    -------
    Target
        On the CPU, in evaluation mode.

    Raises
    ------
    ValueError
        If the name is unknown (the nearest are named), or the weights do not fit.
    FileNotFoundError
        If the weights are missing and cannot be fetched; the sentence says which file to put
        where, and how large it is.
    """
    builders = {"torchvision": _torchvision, "timm": _timm, **dict.fromkeys(EXTENSIONS, _extension)}
    library, _, model_name = name.partition("/")
    if library not in builders or not model_name:
        raise ValueError(
            f"The target {name!r} is not of the form library/model with library one of "
            f"{', '.join(builders)}; use targets.wrap for a network of your own."
        )
    normalise = {"mean": mean, "std": std}
    normalise = {key: tuple(value) for key, value in normalise.items() if value is not None}
    for key, value in normalise.items():
        if len(value) != 3:
            raise ValueError(f"{key} is {value}; give three numbers, for red, green and blue.")
    classes = None if classes is None else tuple(classes)
    target = builders[library](name, model_name, weights, classes, normalise)
    # The order in which convolutions are fastest; values and shapes stay as they are.
    target.model.to(memory_format=torch.channels_last)
    return target


def _torchvision(name, model_name, weights, classes, normalise) -> Target:
    check_known(name, model_name, models.list_models(module=models))
    choices = models.get_model_weights(model_name)
    wanted = str(weights or "DEFAULT").removeprefix(f"{choices.__name__}.")
    chosen = _torchvision_choice(choices, wanted)
    model = models.get_model(model_name, weights=None, **_architecture(model_name, chosen, classes))
    if wanted in choices.__members__:
        fill(model, _torchvision_weights(name, chosen), str(chosen))
    else:
        names = ", ".join(repr(choice) for choice in choices.__members__)
        usual = f"pass weights=None for the usual ones, one of {names}, or 'random'"
        fill_from_file(name, model, weights, chosen.meta["_file_size"], usual)
    return wrap(model, chosen.transforms(**normalise), classes or chosen.meta["categories"], name)


def _torchvision_choice(choices, wanted: str):
    """Return the library's weights that were asked for, or whose preprocessing a file needs."""
    if wanted in choices.__members__:
        return choices[wanted]
    file_name = Path(wanted).name
    return next((c for c in choices if Path(c.url).name == file_name), choices.DEFAULT)


def _architecture(model_name: str, chosen, classes) -> dict:
    """Return the arguments that torchvision itself derives from pretrained weights."""
    arguments = {} if classes is None else {"num_classes": len(classes)}
    if model_name in ("googlenet", "inception_v3"):
        arguments |= {"transform_input": True, "aux_logits": True, "init_weights": False}
    if model_name.startswith("vit_"):
        arguments |= {"image_size": chosen.meta["min_size"][0]}
    return arguments


def _torchvision_weights(name, chosen) -> dict[str, torch.Tensor]:
    try:
        state = chosen.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except OSError as error:
        cache = Path(torch.hub.get_dir()) / "checkpoints" / Path(chosen.url).name
        raise FileNotFoundError(
            f"The weights of {name} could not be fetched ({error}): download {chosen.url} "
            f"({chosen.meta['_file_size']:.0f} MB) elsewhere and put it at {str(cache)!r}, or pass "
            "weights=<file>."
        ) from error
    # Published DenseNets still have the layer names of before 2018, norm.1 for norm1.
    for key in [key for key in state if re.search(r"denselayer\d+\.\w+\.[12]\.", key)]:
        state[re.sub(r"\.([12])\.", r"\1.", key)] = state.pop(key)
    return state


def _timm(name, model_name, weights, classes, normalise) -> Target:
    architecture, _, tag = model_name.partition(".")
    check_known(name, architecture, timm.list_models())
    if tag:
        check_known(name, model_name, timm.list_pretrained(f"{architecture}.*"))
    if weights is None:
        model = _timm_pretrained(name, model_name)
    else:
        sizes = {} if classes is None else {"num_classes": len(classes)}
        model = timm.create_model(model_name, pretrained=False, **sizes)
        usual = "pass weights=None for timm's own or 'random'"
        fill_from_file(name, model, weights, megabytes(model), usual)
    config = resolve_model_data_config(model, args=normalise)
    preprocess = create_transform(**config, is_training=False)
    return wrap(model, preprocess, classes or _imagenet_names(name, model), name)


def _timm_pretrained(name, model_name) -> nn.Module:
    try:
        return timm.create_model(model_name, pretrained=True)
    except Exception as error:  # the hub, its cache and its network each have their own errors
        model = timm.create_model(model_name, pretrained=False)
        source = model.pretrained_cfg.get("hf_hub_id") or model.pretrained_cfg.get("url")
        where = f"model.safetensors of {source}" if source else "a weights file (timm has none)"
        raise FileNotFoundError(
            f"The weights of {name} could not be fetched ({type(error).__name__}): download "
            f"{where} (about {megabytes(model):.0f} MB) elsewhere and pass weights=<file>."
        ) from error


def _imagenet_names(name, model) -> tuple[str, ...]:
    """Return the names of the ImageNet edition with as many classes as the model."""
    subset = infer_imagenet_subset(model)
    if subset == "imagenet-1k":
        return tuple(lemmas[0] for lemmas in imagenet_synsets().values())
    if subset is None:
        raise ValueError(
            f"{name} has {getattr(model, 'num_classes', 'unnamed')} outputs, for which there are "
            "no class names; pass classes=."
        )
    return tuple(text.split(", ")[0] for text in ImageNetInfo(subset).label_descriptions())


def _extension(name, model_name, weights, classes, normalise) -> Target:
    if classes is not None or normalise:
        raise ValueError(f"{name} has its own classes, mean and std; leave these arguments out.")
    return extension(name.partition("/")[0]).target(model_name, weights)


def check_known(name: str, found: str, names: Sequence[str]) -> None:
    """Raise if `found` is none of `names`, naming the nearest."""
    if found not in names:
        raise ValueError(f"There is no target {name!r}; the nearest are {nearest(found, names)}.")


def fill_from_file(name, model, weights, megabytes, usual) -> None:
    """Read and fill in a weights file, or say which file was expected; leave "random" as it is."""
    if str(weights) == RANDOM:
        return
    path = Path(weights).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no weights file {str(path)!r} for {name}: put its state dict there (.pth or "
            f".safetensors, about {megabytes:.1f} MB), or {usual}."
        )
    fill(model, read_weights(path), repr(str(path)))


def megabytes(model: nn.Module) -> float:
    """Return the size of a model's state dict."""
    return sum(p.numel() * p.element_size() for p in model.state_dict().values()) / 1e6
