"""A classifier with everything that its explanation depends on, and the geometry of its input."""

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from wwwlib.images import class_names
from wwwlib.registry import check_known, one_of, whole_number
from wwwlib.store import digest, tensor_digest
from wwwlib.targets.examine import Adapter, adapted, fixed_batch, identity, reads_class_token

LOGITS = "logits"  # the name of the final layer, everywhere
LAYOUTS = ("BNHW", "BHWN", "BTN", "BN")
_TUPLES = (nn.RNNBase, nn.MultiheadAttention)  # modules that return tuples

Preprocess = Callable[[Image.Image], Tensor]


@dataclass(frozen=True, eq=False, repr=False)
class Target:
    """A classifier f, its preprocessing, its class names, and the layout of its layers.

    Attributes
    ----------
    name : str
        Used in tables and in the keys of artifacts.
    model : nn.Module
        In evaluation mode; maps x (B, 3, H, W) to logits (B, C).
    preprocess : callable
        From a PIL RGB image to (3, H, W).
    classes : tuple of str
        C names, in the order of the logits.
    digest : str
        SHA-256 of the weights at the time of wrapping.
    layouts : dict of str to str
        One of `LAYOUTS` for each layer whose shape does not determine its layout.
    prefix_tokens : int or None
        Number of tokens before the patch tokens (class token, registers); None for networks
        without tokens.
    grid : (int, int) or None
        Rows and columns of patch tokens; None stands for a square grid.
    class_token : bool
        Whether the first prefix token represents the whole image: whether the head reads it.
    outputs : {"softmax", "sigmoid"}
        The function that turns logits into probabilities; "sigmoid" if classes do not exclude each
        other.
    virtual : dict of str to nn.Module
        Layers that `with_directions` added, whose output is codes.
    given : dict of str to tuple of str
        Names of the neurons of such layers whose directions have one, such as probes of concepts.
    """

    name: str
    model: nn.Module
    preprocess: Preprocess
    classes: tuple[str, ...]
    digest: str
    layouts: Mapping[str, str] = field(default_factory=dict)
    prefix_tokens: int | None = None
    grid: tuple[int, int] | None = None
    class_token: bool = True
    outputs: str = "softmax"
    virtual: Mapping[str, nn.Module] = field(default_factory=dict)
    given: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"Target({self.name!r}: {len(self.classes)} classes, on {self.device})"

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        first = next(chain(self.model.parameters(), self.model.buffers()), None)
        return torch.device("cpu") if first is None else first.device

    def to(self, device: str | torch.device) -> "Target":
        """Move the model to a device, in place as `nn.Module.to` does, and return the target."""
        self.model.to(device)
        return self

    @property
    def network(self) -> nn.Module:
        """The classifier as it was given, whose modules are the layers."""
        return self.model.network if isinstance(self.model, Adapter) else self.model

    def probabilities(self, logits: Tensor) -> Tensor:
        """Return the probabilities (B, C) of logits (B, C)."""
        return logits.softmax(-1) if self.outputs == "softmax" else logits.sigmoid()

    def layers(self) -> tuple[str, ...]:
        """Return the names of the layers that `activations.capture` takes, ending in "logits".

        All modules with a `forward` method, in order of definition; containers that are never
        called, such as `nn.ModuleList`, and modules that return tuples are left out.
        """
        names = (
            name
            for name, module in self.network.named_modules()
            if name not in ("", LOGITS)
            and type(module).forward is not nn.Module.forward
            and not isinstance(module, _TUPLES)
        )
        return (*names, *self.virtual, LOGITS)

    def module(self, layer: str) -> nn.Module:
        """Return the module of a layer; the whole model for "logits".

        Raises
        ------
        ValueError
            If there is no such layer; the message lists the most similar names.
        """
        if layer == LOGITS:
            return self.model
        check_known(f"{self.name} has no layer {layer!r}", layer, self.layers())
        return self.virtual.get(layer) or self.network.get_submodule(layer)

    def key(self) -> dict:
        """Return what an artifact computed with this target depends on, as JSON values.

        Preprocessing and network are identified by their results on fixed images of several sizes,
        too: code, plain attributes and non-persistent buffers change these alone.

        Raises
        ------
        ValueError
            If preprocessing the same image twice gives different results, or logits depend on
            chance or on the other images of a batch.
        """
        inputs, outputs = identity(self.model, self.preprocess, self.name)
        return {
            "name": self.name,
            "weights": self.digest,
            "architecture": digest(_stable_repr(self.model)),
            "preprocess": [_stable_repr(self.preprocess), inputs],
            "layouts": dict(self.layouts),
            "tokens": [self.prefix_tokens, self.grid, self.class_token],
            "outputs": [self.outputs, outputs],
        }


def wrap(
    model: nn.Module,
    preprocess: Preprocess,
    classes: Iterable[str],
    name: str,
    layouts: Mapping[str, str] | None = None,
    prefix_tokens: int | None = None,
    grid: Sequence[int] | None = None,
    outputs: str = "softmax",
) -> Target:
    """Make a target of any classifier.

    Parameters
    ----------
    model : nn.Module
        Maps (B, 3, H, W) to logits (B, C), or to probabilities: where all outputs lie in [0, 1] and
        add up to 1, their logarithms are the logits. It is switched to evaluation mode and run once
        on two fixed images.
    preprocess : callable
        Maps a PIL RGB image to (3, H, W), deterministically.
    classes : iterable of str
        The C class names; their number is checked when logits are captured.
    name : str
        A name for tables and keys.
    layouts : dict of str to str, optional
        Maps a layer to "BNHW", "BHWN" (channels last), "BTN" (tokens) or "BN", where the shape of
        its output is ambiguous.
    prefix_tokens : int, optional
        Number of tokens before the patch tokens. Detected for transformers of torchvision and timm.
    grid : (int, int), optional
        Rows and columns of the patch tokens. Detected likewise.
    outputs : {"softmax", "sigmoid"}
        What turns logits into probabilities; "sigmoid" for classes that do not exclude each other,
        and for a single output. Where it is part of the network, it is undone.

    Raises
    ------
    TypeError, ValueError
        If an argument is invalid; the message names it.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}, but must be a torch.nn.Module.")
    classes = class_names(classes)
    if not classes:
        raise ValueError("classes is empty; give the class names, in the order of the logits.")
    model = getattr(model, "_orig_mod", model)  # torch.compile has no hooks
    if any(isinstance(part, torch.jit.ScriptModule) for part in model.modules()):
        raise TypeError(f"{name} is TorchScript, without hooks; pass the module it was made from.")
    _check_materialized(model, name)
    model.eval()
    x = fixed_batch(preprocess, name)
    model_with_logits = adapted(model, x, len(classes), name, outputs)
    found_prefix, found_grid = _token_geometry(model, x.shape[2:])
    prefix_tokens = found_prefix if prefix_tokens is None else prefix_tokens
    target = Target(
        name=name,
        model=model_with_logits,
        preprocess=preprocess,
        classes=classes,
        digest=tensor_digest({k: v for k, v in model.state_dict().items() if torch.is_tensor(v)}),
        layouts=dict(layouts or {}),
        prefix_tokens=prefix_tokens,
        grid=found_grid if grid is None else cast(tuple[int, int], tuple(grid)),  # checked below
        class_token=reads_class_token(model_with_logits, x, prefix_tokens or 0),
        outputs=outputs,
    )
    _check_overrides(target)
    return target


def _check_materialized(model: nn.Module, name: str) -> None:
    for key, tensor in chain(model.named_parameters(), model.named_buffers()):
        if tensor.is_meta or nn.parameter.is_lazy(tensor):
            raise ValueError(f"The tensor {key!r} of {name} has no values yet; load weights.")


def _check_overrides(target: Target) -> None:
    for layer, layout in target.layouts.items():
        target.module(layer)
        one_of(f"layouts[{layer!r}]", layout, LAYOUTS)
    if target.prefix_tokens is None and target.grid is not None:
        raise ValueError(f"grid is {target.grid}; give prefix_tokens, too (0 for none).")
    if target.prefix_tokens is not None:
        whole_number("prefix_tokens", target.prefix_tokens, 0)
    if target.grid is not None and (len(target.grid) != 2 or min(target.grid) < 1):
        raise ValueError(f"grid is {target.grid}; give (rows, columns), both at least 1.")


def _token_geometry(model: nn.Module, size: Any) -> tuple[int | None, tuple[int, int] | None]:
    """Return prefix tokens and grid of torchvision's and timm's transformers, else None twice."""
    torchvision = sys.modules.get("torchvision.models")  # imported if the model is one of its own
    if torchvision and isinstance(model, torchvision.VisionTransformer):
        side = model.image_size // model.patch_size
        return 1, (side, side)
    if hasattr(model, "unroll"):  # Hiera: tokens in another order than the patches
        return None, None
    config = getattr(model, "pretrained_cfg", None)  # timm
    embed = getattr(model, "patch_embed", getattr(model, "stem", None))
    grid, side = (getattr(embed, name, None) for name in ("grid_size", "patch_size"))
    if grid is None and config and isinstance(side, int):
        grid = [pixels // side for pixels in size]
    elif grid and (usual := getattr(embed, "img_size", None)):  # some take other sizes, too
        grid = [n * pixels // side for n, pixels, side in zip(grid, size, usual, strict=True)]
    prefix = getattr(model, "num_prefix_tokens", None)
    if prefix is None:
        heads = any(hasattr(part, "num_heads") for part in model.modules())
        if not config or not (grid or heads):
            return None, None
        prefix = int(getattr(model, "cls_token", None) is not None)
    return int(prefix), grid and (int(grid[0]), int(grid[1]))


def _stable_repr(thing: object) -> str:
    """Return the repr without memory addresses, which differ from one run to the next."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(thing))


# The input as an image ------------------------------------------------------------------------


def denormalize(target: Target, image: Image.Image, x: Tensor) -> Image.Image:
    """Return the preprocessed image with its normalisation undone.

    Normalisation is affine in each pixel's colour for nearly all networks. The preprocessed
    versions of images of one colour and the same size then determine it, also the order of the
    channels, and which pixels (padding) do not depend on the image. Where the result contradicts
    this, as for normalisation by the statistics of each image, the input gets the mean and contrast
    of the resized original, so that it is cropped as the network's; where the two do not even look
    alike, the resized original is returned.

    Parameters
    ----------
    target : Target
    image : PIL.Image.Image
        The original image, RGB.
    x : Tensor, shape (3, H, W)
        ``target.preprocess(image)``.

    Returns
    -------
    PIL.Image.Image
        RGB, W x H pixels; black where the input does not depend on the image.
    """
    levels = [(v,) * 3 for v in (0, 51, 255)] + [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    constant = (Image.new("RGB", image.size, level) for level in levels)
    x, colour = x.double(), _colours(x.double(), *(target.preprocess(c).double() for c in constant))
    if colour is None:
        small = image.resize((x.shape[2], x.shape[1]), Image.Resampling.BICUBIC)
        plain = torch.from_numpy(np.array(small)).permute(2, 0, 1).to(x) / 255
        (a, u), (b, v) = ((y.mean((1, 2), True), y.std((1, 2), keepdim=True)) for y in (x, plain))
        unit = (x - a) / u
        alike = (unit * (plain - b) / v).mean((1, 2)).min() > 0.3
        colour = unit * v + b if alike else plain
    pixels = (colour.clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
    return Image.fromarray(pixels.cpu().contiguous().numpy())


def _colours(x: Tensor, black: Tensor, dark: Tensor, white: Tensor, *pure: Tensor) -> Tensor | None:
    """Return x (3, H, W) as RGB in [0, 1]; None unless normalisation is affine in each colour."""
    span = white - black
    if not (span.isfinite().all() and span.flatten(1).any(1).all()):
        return None
    whole = torch.where(span == 0, torch.inf, span)  # padding becomes black
    mix = torch.stack([((one - black) / whole).sum((1, 2)) for one in pure], 1)
    mix = mix / (span != 0).sum((1, 2)).unsqueeze(1)  # share of each colour in each channel
    grey = (mix - mix[0]).abs().max() < 0.02
    straight = torch.allclose(dark, black + 0.2 * span, atol=0.01 * span.abs().max().item())
    if not straight or not (grey or mix.det().abs() > 0.05):
        return None
    colour = (x - black) / whole
    colour = colour if grey else torch.einsum("ij,jhw->ihw", mix.inverse(), colour)
    inside = ((colour > -0.3) & (colour < 1.3)).double().mean() > 0.99  # bicubic overshoots
    return colour if inside else None
