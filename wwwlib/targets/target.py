"""A classifier with everything that its explanation depends on, and the geometry of its input."""

import difflib
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

import torch
from PIL import Image
from torch import Tensor, nn

from wwwlib.store import digest, tensor_digest

LOGITS = "logits"  # the name of the final layer, everywhere
LAYOUTS = ("BNHW", "BHWN", "BTN", "BN")

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
        Whether the first prefix token represents the whole image.
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

    def __repr__(self) -> str:
        return f"Target({self.name!r}: {len(self.classes)} classes, on {self.device})"

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        first = next(chain(self.model.parameters(), self.model.buffers()), None)
        return torch.device("cpu") if first is None else first.device

    def to(self, device: str | torch.device) -> "Target":
        """Move the model to a device, in place as `nn.Module.to` does, and return the target."""
        return replace(self, model=self.model.to(device))

    def layers(self) -> tuple[str, ...]:
        """Return the names of the layers that `activations.capture` takes, ending in "logits".

        All modules with a `forward` method, in order of definition; containers that are never
        called, such as `nn.ModuleList`, are left out.
        """
        names = (
            name
            for name, module in self.model.named_modules()
            if name and name != LOGITS and type(module).forward is not nn.Module.forward
        )
        return (*names, LOGITS)

    def module(self, layer: str) -> nn.Module:
        """Return the module of a layer; the whole model for "logits".

        Raises
        ------
        ValueError
            If there is no such layer; the message lists the most similar names.
        """
        if layer == LOGITS:
            return self.model
        if layer not in (layers := self.layers()):
            raise ValueError(
                f"{self.name} has no layer {layer!r}; the nearest are {nearest(layer, layers)}."
            )
        return self.model.get_submodule(layer)

    def key(self) -> dict:
        """Return what an artifact computed with this target depends on, as JSON values.

        Preprocessing is identified by its result on a fixed image in addition to its `repr`, which
        is the same for different lambdas.

        Raises
        ------
        ValueError
            If preprocessing the same image twice gives different results.
        """
        first, second = (tensor_digest({"x": self.preprocess(_test_image())}) for _ in range(2))
        if first != second:
            raise ValueError(
                f"{self.name}'s preprocessing gives another result each time; remove randomness."
            )
        return {
            "name": self.name,
            "weights": self.digest,
            "architecture": digest(_stable_repr(self.model)),
            "preprocess": [_stable_repr(self.preprocess), first],
            "layouts": dict(self.layouts),
            "tokens": [self.prefix_tokens, self.grid, self.class_token],
        }


def wrap(
    model: nn.Module,
    preprocess: Preprocess,
    classes: Iterable[str],
    name: str,
    layouts: Mapping[str, str] | None = None,
    prefix_tokens: int | None = None,
    grid: Sequence[int] | None = None,
) -> Target:
    """Make a target of any classifier.

    Parameters
    ----------
    model : nn.Module
        Maps (B, 3, H, W) to logits (B, C). It is switched to evaluation mode.
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

    Raises
    ------
    TypeError, ValueError
        If an argument is invalid; the message names it.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}, but must be a torch.nn.Module.")
    if not callable(preprocess):
        raise TypeError(f"preprocess is {preprocess!r}, but must be callable on a PIL image.")
    classes = tuple(str(word) for word in ([] if isinstance(classes, str) else classes))
    if not classes:
        raise ValueError("classes must be a list of the class names, in the order of the logits.")
    found_prefix, found_grid = _token_geometry(model)
    target = Target(
        name=name,
        model=model.eval(),
        preprocess=preprocess,
        classes=classes,
        digest=tensor_digest({k: v for k, v in model.state_dict().items() if torch.is_tensor(v)}),
        layouts=dict(layouts or {}),
        prefix_tokens=found_prefix if prefix_tokens is None else prefix_tokens,
        grid=found_grid if grid is None else tuple(grid),
        class_token=getattr(model, "cls_token", True) is not None,
    )
    _check_overrides(target)
    return target


def nearest(word: str, words: Iterable[str], count: int = 5) -> str:
    """Return the `count` words most similar to `word`, quoted, for an error message."""
    close = difflib.get_close_matches(word, list(words), n=count, cutoff=0.0)
    return ", ".join(repr(found) for found in close)


def _check_overrides(target: Target) -> None:
    for layer, layout in target.layouts.items():
        target.module(layer)
        if layout not in LAYOUTS:
            raise ValueError(f"layouts[{layer!r}] is {layout!r}; use one of {', '.join(LAYOUTS)}.")
    if target.prefix_tokens is None and target.grid is not None:
        raise ValueError(
            f"grid is {target.grid}, so prefix_tokens must be given, too (0 for none)."
        )
    if target.prefix_tokens is not None and target.prefix_tokens < 0:
        raise ValueError(f"prefix_tokens is {target.prefix_tokens}; it must be 0 or more.")
    if target.grid is not None and (len(target.grid) != 2 or min(target.grid) < 1):
        raise ValueError(f"grid is {target.grid}; give (rows, columns), both at least 1.")


def _token_geometry(model: nn.Module) -> tuple[int | None, tuple[int, int] | None]:
    """Return prefix tokens and grid of torchvision's and timm's transformers, else None twice."""
    torchvision = sys.modules.get("torchvision.models")  # imported if the model is one of its own
    if torchvision and isinstance(model, torchvision.VisionTransformer):
        side = model.image_size // model.patch_size
        return 1, (side, side)
    prefix = getattr(model, "num_prefix_tokens", None)
    grid = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    if prefix is None or grid is None:
        return None, None
    return int(prefix), (int(grid[0]), int(grid[1]))


def _stable_repr(thing: object) -> str:
    """Return the repr without memory addresses, which differ from one run to the next."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(thing))


def _test_image() -> Image.Image:
    """Return a fixed colour image with ramps and edges, larger than most networks' input."""
    ramp, disc = Image.linear_gradient("L"), Image.radial_gradient("L")
    return Image.merge("RGB", (ramp, ramp.rotate(90), disc)).resize((400, 300))


# The input as an image ------------------------------------------------------------------------


def denormalize(target: Target, image: Image.Image, x: Tensor) -> Image.Image:
    """Return the preprocessed image with its normalisation undone.

    Preprocessing may be any callable, but normalisation is affine in each pixel's colour. The
    preprocessed versions of a black and a white image of the same size therefore determine it, and
    also which pixels (padding) do not depend on the image.

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
    black, white = (
        target.preprocess(Image.new("RGB", image.size, colour)) for colour in ("black", "white")
    )
    span = white - black
    colour = torch.where(span == 0, 0.0, (x - black) / torch.where(span == 0, 1.0, span))
    pixels = (colour.clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
    return Image.fromarray(pixels.cpu().contiguous().numpy())
