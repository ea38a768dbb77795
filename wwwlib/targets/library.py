"""Targets by name: ``torchvision/resnet50``, ``timm/vit_base_patch16_224``, ``world/conv``.

Each library has its own builder, weights, preprocessing and class names. Weights from files are
read without unpickling anything but tensors. A library is imported when a name asks for it.
`recognize` finds preprocessing and class names of a network that timm or torchvision built.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from wwwlib.images import class_names
from wwwlib.registry import EXTENSIONS, call, check_known, existing_file
from wwwlib.targets.target import Preprocess, Target, wrap

Weights = str | Path | None
Names = Sequence[str] | None
RANDOM = "random"
HUB = "hf-hub:"


def load(
    name: str, weights: Weights = None, *, classes: Iterable[str] | None = None, **geometry: Any
) -> Target:
    """Build a target by name.

    Parameters
    ----------
    name : str
        ``torchvision/<model>``, ``timm/<model>`` (with or without a pretrained tag),
        ``timm/hf-hub:<organisation>/<model>``, a network of an extension, such as ``world/conv``,
        ``world/vit`` or ``world/conv-biased``, or ``path/to/file.py:function``, which is called
        and returns a module of timm or torchvision, a `Target`, or (module, preprocess, classes).
    weights : str or path, optional
        A file (``.safetensors``, or ``.pth`` with nothing but tensors); "random" for an untrained
        network; for torchvision also "DEFAULT" or another name of its weights. None stands for the
        library's default pretrained weights, downloaded unless cached.
    classes : iterable of str, optional
        Class names, where they differ from the library's (``resnet18`` trained on Places365).
    **geometry
        `layouts`, `prefix_tokens`, `grid` and `outputs` of `wrap`.

    Returns
    -------
    Target
        On the CPU, in evaluation mode.

    Raises
    ------
    ValueError
        If the name is unknown (the message lists similar ones), or the weights do not fit.
    FileNotFoundError
        If the weights are missing and cannot be downloaded; the message gives the file, its size
        and where to put it.
    """
    classes, name = None if classes is None else class_names(classes), str(name)
    if ".py:" in name:
        return _own(name, weights, classes, geometry)
    builders = {"torchvision": _torchvision, "timm": _timm, **dict.fromkeys(EXTENSIONS, _extension)}
    library, _, entry = name.partition("/")
    if library not in builders or not entry:
        raise ValueError(
            f"The target {name!r} is not of the form library/model with library one of "
            f"{', '.join(builders)}; use targets.wrap for a network of your own."
        )
    target = builders[library](name, entry, weights, classes, geometry)
    for part in target.model.modules():
        if isinstance(part, nn.Conv2d):  # the memory order in which convolutions are fastest
            part.to(memory_format=torch.channels_last)
    return target


def _torchvision(name: str, entry: str, weights: Weights, classes: Names, geometry: Any) -> Target:
    from torchvision import models

    check_known(f"There is no target {name!r}", entry, models.list_models(module=models))
    choices = models.get_model_weights(entry)
    wanted = str(weights or "DEFAULT").removeprefix(f"{choices.__name__}.")
    published = wanted in choices.__members__
    # The preprocessing of a file is that of the published weights with its name, or the default.
    named = (c for c in choices if Path(c.url).name == Path(wanted).name)
    chosen = choices[wanted] if published else next(named, choices.DEFAULT)
    model = models.get_model(entry, weights=None, **_architecture(entry, chosen, classes))
    if published:
        _fill(model, _torchvision_weights(name, chosen), str(chosen))
    else:
        names = ", ".join(repr(choice) for choice in choices.__members__)
        usual = f"pass weights=None for the usual ones, one of {names}, or 'random'"
        fill_from_file(name, model, weights or wanted, chosen.meta["_file_size"], usual)
    classes = classes or chosen.meta["categories"]
    return wrap(model, chosen.transforms(), classes, name, **geometry)


def _architecture(entry: str, chosen: Any, classes: Names) -> dict:
    """Return the arguments that torchvision itself derives from pretrained weights."""
    arguments = {} if classes is None else {"num_classes": len(classes)}
    if entry in ("googlenet", "inception_v3"):
        arguments |= {"transform_input": True, "aux_logits": True, "init_weights": False}
    if entry.startswith("vit_"):
        arguments |= {"image_size": chosen.meta["min_size"][0]}
    return arguments


def _torchvision_weights(name: str, chosen: Any) -> dict[str, Tensor]:
    try:
        state = chosen.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except OSError as error:
        cache = Path(torch.hub.get_dir()) / "checkpoints" / Path(chosen.url).name
        raise FileNotFoundError(
            f"The weights of {name} could not be downloaded ({error}): download {chosen.url} "
            f"({chosen.meta['_file_size']:.0f} MB) elsewhere and put it at {str(cache)!r}, or pass "
            "weights=<file>."
        ) from error
    # Published DenseNets still have the layer names of before 2018, norm.1 for norm1.
    for key in [key for key in state if re.search(r"denselayer\d+\.\w+\.[12]\.", key)]:
        state[re.sub(r"\.([12])\.", r"\1.", key)] = state.pop(key)
    return state


def _timm(name: str, entry: str, weights: Weights, classes: Names, geometry: Any) -> Target:
    import timm

    architecture, _, tag = entry.partition(".")
    if not entry.startswith(HUB):
        unknown = f"There is no target {name!r}"
        check_known(unknown, architecture, timm.list_models())
        if tag:
            check_known(unknown, entry, timm.list_pretrained(f"{architecture}.*"))
    sizes = {} if classes is None or weights is None else {"num_classes": len(classes)}
    model = _timm_model(name, entry, weights is None, sizes)
    if weights is not None:
        usual = "pass weights=None for timm's own or 'random'"
        fill_from_file(name, model, weights, megabytes(model), usual)
    own = _of_timm(model)
    classes = classes or own.classes
    if classes is None:
        outputs = getattr(model, "num_classes", "?")
        raise ValueError(f"{name} has {outputs} outputs without names; pass classes=.")
    return wrap(model, own.preprocess, classes, name, **geometry)


def _timm_model(name: str, entry: str, pretrained: bool, sizes: dict) -> nn.Module:
    import timm

    try:
        return timm.create_model(entry, pretrained=pretrained, **sizes)
    except Exception as error:  # the hub, its cache and its network each have their own errors
        if entry.startswith(HUB):
            raise FileNotFoundError(
                f"The network {name} could not be downloaded ({type(error).__name__}); check its "
                "name and the connection, or pass weights=<file> with a model of timm's own."
            ) from error
        model = timm.create_model(entry, pretrained=False)
        config: Any = model.pretrained_cfg  # not a tensor or module, as PyTorch's stubs have it
        source = config.get("hf_hub_id") or config.get("url")
        where = f"model.safetensors of {source}" if source else "a weights file (timm has none)"
        raise FileNotFoundError(
            f"The weights of {name} could not be downloaded ({type(error).__name__}): download "
            f"{where} (about {megabytes(model):.0f} MB) elsewhere and pass weights=<file>."
        ) from error


def _extension(name: str, entry: str, weights: Weights, classes: Names, geometry: Any) -> Target:
    if classes is not None or geometry:
        raise ValueError(f"{name} has its own classes and preprocessing; give weights at most.")
    return call(f"{EXTENSIONS[name.partition('/')[0]]}:target", "network", entry, weights)


def _own(name: str, weights: Weights, classes: Names, geometry: dict) -> Target:
    """Build a target by a function of one's own."""
    made = call(name, "network")
    if isinstance(made, Target):
        made = made.network, made.preprocess, made.classes
    model, preprocess, own = made if isinstance(made, tuple) else (made, None, None)
    if weights is not None:
        fill_from_file(name, model, weights, megabytes(model), "leave weights out")
    return from_module(model, preprocess, classes or own, name, **geometry)


def from_module(
    model: nn.Module,
    preprocess: Preprocess | None = None,
    classes: Sequence[str] | None = None,
    name: str | None = None,
    **geometry: Any,
) -> Target:
    """Make a target of a module; what is not given is taken from timm or torchvision.

    Parameters
    ----------
    model : nn.Module
    preprocess, classes, name
        As in `wrap`.
    **geometry
        Other parameters of `wrap`.

    Raises
    ------
    ValueError
        If preprocessing or class names are neither given nor published with the network.
    """
    found = recognize(model) if preprocess is None or classes is None else None
    if found is not None:
        preprocess = preprocess or found.preprocess
        classes = classes if classes is not None else found.classes
    name = name or (found.name if found else type(model).__name__)
    if preprocess is None or classes is None:
        missing = ["preprocess="] * (preprocess is None) + ["classes="] * (classes is None)
        raise ValueError(
            f"This {type(model).__name__} does not have published weights of timm or torchvision "
            f"from which to take preprocessing and class names; pass {' and '.join(missing)}."
        )
    return wrap(model, preprocess, classes, name, **geometry)


def megabytes(model: nn.Module) -> float:
    """Return the size of a model's state dict in MB."""
    return sum(p.numel() * p.element_size() for p in model.state_dict().values()) / 1e6


# Networks of these libraries -------------------------------------------------------------------


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
    preprocess: Preprocess
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
        return _of_timm(model)
    if type(model).__module__.startswith("torchvision.models."):
        return _of_torchvision(model)
    return None


def _of_timm(model: nn.Module) -> Published:
    from timm import data

    config: Any = model.pretrained_cfg  # as in _timm_pretrained
    name = ".".join(filter(None, (config.get("architecture"), config.get("tag"))))
    preprocess = data.create_transform(**data.resolve_model_data_config(model), is_training=False)
    subset = data.infer_imagenet_subset(model)  # the one with as many classes
    labels = data.ImageNetInfo(subset).label_descriptions() if subset else None
    classes = None if labels is None else tuple(text.split(", ")[0] for text in labels)
    return Published(f"timm/{name}", preprocess, classes)


def _of_torchvision(model: nn.Module) -> Published | None:
    found = list(_candidates(model))
    if len({repr(weights.transforms()) for _, weights in found}) > 1:
        found = [(name, weights) for name, weights in found if _is_cached(model, weights)]
    if not found:
        return None
    name, weights = found[0]
    return Published(f"torchvision/{name}", weights.transforms(), weights.meta["categories"])


def _candidates(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield name and weights of torchvision's classifiers of this module and size."""
    models = sys.modules["torchvision.models"]
    size = sum(parameter.numel() for parameter in model.parameters())
    for name in models.list_models(module=models):
        if models.get_model_builder(name).__module__ == type(model).__module__:
            for weights in models.get_model_weights(name):
                if weights.meta["num_params"] == size:
                    yield name, weights


def _is_cached(model: nn.Module, weights: Any) -> bool:
    """Whether a checkpoint in torch's cache has the first parameter of the model."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    if not path.is_file():
        return False
    state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    name, parameter = next(model.named_parameters())
    return name in state and torch.equal(state[name], parameter.detach().cpu())


# Weights from files ---------------------------------------------------------------------------


def read_weights(path: str | Path, hint: str = "") -> dict[str, Tensor]:
    """Read a state dict from ``.safetensors``, ``.pth`` and the like.

    A checkpoint that wraps it under "state_dict" or "model", or has no other one, is unwrapped.

    Parameters
    ----------
    path : path
        The file; everything but ``.safetensors`` is read with ``weights_only=True``.
    hint : str
        What to do if it is missing, as the end of the message.

    Returns
    -------
    dict of str to Tensor
        On the CPU.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, or holds anything but tensors and plain values.
    """
    path = existing_file(path, f"the weights{hint}")
    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)  # anything: it is checked below
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises nearly anything on invalid bytes
        raise ValueError(
            f"The weights file {str(path)!r} is damaged, or holds more than tensors, which could "
            f"run code ({type(error).__name__}); get it again, or save its state_dict."
        ) from error
    entries = state if isinstance(state, Mapping) else {}
    inner = {name: one for name, one in entries.items() if _is_state(one)}
    for wrapper in ("state_dict", "model", *(inner if len(inner) == 1 else ())):
        state = inner.get(wrapper, state) if state is entries else state
    if not _is_state(state):
        raise ValueError(
            f"The weights file {str(path)!r} has no single state dict, names with a tensor each, "
            f"but {shorten(repr([*entries]), 200)}; save one."
        )
    return state


def _is_state(found: object) -> bool:
    """Whether it is a state dict: names with a tensor each."""
    pairs = [*found.items()] if isinstance(found, Mapping) else []
    return bool(pairs) and all(isinstance(n, str) and torch.is_tensor(v) for n, v in pairs)


def fill_from_file(
    name: str, model: nn.Module, weights: str | Path, megabytes: float, usual: str
) -> None:
    """Load a weights file into a model; the name "random" leaves the model as it is.

    Parameters
    ----------
    name : str
        The target, for error messages.
    model : nn.Module
    weights : str or path
        The file, or "random".
    megabytes : float
        Size of the file that is expected.
    usual : str
        What to do instead, as the end of a sentence.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If a tensor is missing, left over, or of another shape; the message names the first.
    """
    size = f"about {megabytes:.1f} MB"
    hint = f" for {name}: put its state dict there (.pth or .safetensors, {size}), or {usual}"
    if str(weights) != RANDOM:
        _fill(model, read_weights(weights, hint), repr(str(weights)))


def _fill(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    expected, roots = model.state_dict(), sorted({name.partition(".")[0] for name in state})
    state = _without_wrappers(state, expected)
    for name, tensor in state.items():
        if name in expected and (fault := _fault(name, tensor, expected[name])):
            raise ValueError(f"The weights from {source} hold {fault}; get them again.")
    try:
        model.load_state_dict(state)
    except (RuntimeError, AssertionError) as error:
        complaint = shorten(" ".join(str(error).splitlines()[1:]), 240, placeholder=" ...")
        raise ValueError(
            f"The weights from {source}, below {', '.join(roots)[:80]}, do not fit the network or "
            f"its classes ({complaint}); give those of this network alone."
        ) from error


def _without_wrappers(state: Mapping[str, Tensor], expected: Mapping) -> Mapping[str, Tensor]:
    """Remove the prefix, such as "module." and "_orig_mod.", of most of the expected names.

    What does not have it, such as a criterion or the counter of `AveragedModel`, is left out; of
    two networks in one file neither is chosen.
    """
    ends = ((n, n[i:]) for n in state for i in range(len(n)) if not i or n[i - 1] == ".")
    prefixes = Counter(name.removesuffix(rest) for name, rest in ends if rest in expected)
    (prefix, most), (_, second) = [*prefixes.most_common(2), ("", 0), ("", 0)][:2]
    if not prefix or 2 * second > most:
        return state
    return {n.removeprefix(prefix): tensor for n, tensor in state.items() if n.startswith(prefix)}


def _fault(name: str, tensor: Tensor, expected: Tensor) -> str | None:
    """Return what is wrong with a tensor of weights, None if nothing is."""
    if tensor.is_meta or tensor.layout != torch.strided:
        return f"{name!r} as {'meta' if tensor.is_meta else tensor.layout}, expected all its values"
    if tensor.is_floating_point() != expected.is_floating_point() or tensor.is_complex():
        return f"{name!r} as {tensor.dtype}, expected {expected.dtype}"
    tensor = tensor.to(expected.dtype)
    if tensor.is_floating_point() and not tensor.isfinite().all() and expected.isfinite().all():
        return f"values in {name!r} that are not finite as {expected.dtype}"
    if name.endswith("running_var") and (tensor < 0).any():
        return f"negative variances in {name!r}"
    return None
