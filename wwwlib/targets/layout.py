"""The layout of a layer's output: channels first, channels last, tokens, or vectors.

`activations.capture` and `with_directions` both decide by `read` which axis has the neurons.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from wwwlib.targets.target import LOGITS, Target

_CHANNELS_FIRST = (nn.Conv2d, nn.BatchNorm2d, nn.GroupNorm, nn.MaxPool2d, nn.AvgPool2d)
_CHANNELS_LAST = (nn.Linear, nn.LayerNorm)
Size = tuple[int, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Activations:
    """The output of one layer for a batch.

    Attributes
    ----------
    layer : str
        Name of the layer.
    raw : Tensor
        The unchanged output with its autograd graph; later in-place modules do not alter it.
    layout : {"BNHW", "BHWN", "BTN", "BN"}
        The axes of `raw`.
    prefix : int
        "BTN": number of tokens before the patch tokens.
    grid : (int, int) or None
        "BTN": rows and columns of the patch tokens.
    class_token : bool
        "BTN": whether the first prefix token represents the whole image.
    """

    layer: str
    raw: Tensor
    layout: str
    prefix: int = 0
    grid: tuple[int, int] | None = None
    class_token: bool = True

    def __repr__(self) -> str:
        return f"Activations({self.layer!r}: {self.layout} {tuple(self.raw.shape)})"

    @property
    def neurons(self) -> int:
        """Number N of channels, token dimensions or classes."""
        return self.raw.shape[1 if self.layout in ("BNHW", "BN") else -1]

    @property
    def maps(self) -> Tensor:
        """Activation maps a, shape (B, N, h, w); vectors become maps of one cell (WWW, 3.3)."""
        return self.to_maps(self.raw)

    @property
    def z(self) -> Tensor:
        """Neuron activations z, shape (B, N).

        The spatial mean of maps; the class token of tokens, or the mean over patches where there
        is none; vectors unchanged.
        """
        if self.layout == "BN":
            return self.raw
        if self.layout == "BTN" and self.prefix and self.class_token:
            return self.raw[:, 0]
        return self.maps.mean((2, 3))

    def to_maps(self, raw: Tensor) -> Tensor:
        """Arrange a tensor shaped like `raw`, such as its gradient, as maps (B, N, h, w)."""
        if self.layout == "BNHW":
            return raw
        if self.layout == "BHWN":
            return raw.permute(0, 3, 1, 2)
        if self.layout == "BTN":
            return raw[:, self.prefix :].transpose(1, 2).unflatten(2, self.grid)
        return raw[:, :, None, None]


def read(target: Target, layer: str, module: nn.Module, output: object, size: Size) -> Activations:
    """Determine the layout of a layer's output.

    Parameters
    ----------
    target : Target
        Its `layouts`, `prefix_tokens` and `grid` take precedence.
    layer : str
        Name of the layer.
    module : nn.Module
        The layer; its submodules decide where the shape of the output is ambiguous.
    output : object
        The layer's output.
    size : tuple of int
        Shape (B, 3, H, W) of the network's input.

    Raises
    ------
    ValueError
        If the output is not one tensor of a known layout; the message gives its shape and the
        argument to pass.
    """
    if not isinstance(output, Tensor) or not output.is_floating_point():
        kind = getattr(output, "dtype", type(output).__name__)
        raise ValueError(
            f"The layer {layer!r} of {target.name} returns a {kind}, not one tensor of floats; "
            "choose a layer inside it or around it that returns one."
        )
    shape = tuple(output.shape)

    def fail(reason: str) -> ValueError:
        return ValueError(f"Layer {layer!r} of {target.name} returns the shape {shape}, {reason}.")

    if layer == LOGITS and shape[1:] != (len(target.classes),):
        raise fail(f"but there are {len(target.classes)} class names; pass one a logit")
    if not shape or shape[0] != size[0]:
        raise fail(f"whose first axis is not the batch of {size[0]}; choose a layer around it")
    layout = target.layouts.get(layer) or {2: "BN", 3: "BTN"}.get(len(shape))
    if layout is None and len(shape) == 4:
        layout = _map_layout(target, layer, module, shape, size, fail)
    if layout is None or len(layout) != len(shape):
        raise fail(f"which is not {layout or 'BN, BTN, BNHW or BHWN'}; choose another one")
    if layout != "BTN":
        return Activations(layer, output, layout)
    if any(hasattr(part, "unroll") for part in target.network.modules()):  # Hiera
        raise fail("whose tokens are not in the order of the patches; choose another layer")
    prefix, grid = _token_grid(target, shape[1], size[2:], fail)
    return Activations(layer, output, layout, prefix, grid, target.class_token)


def _map_layout(
    target: Target, layer: str, module: nn.Module, shape: Size, size: Size, fail: Any
) -> str:
    """Distinguish (B, N, h, w) from (B, h, w, N).

    Maps have the proportions of the input, unless strides differ down and across. The type of the
    module decides where it works channels first. Where both fit, what it contains decides: linear
    layers and layer norms alone work channels last; everything else is read channels first, as is
    usual in PyTorch. For activation functions in a sequence, the layer before them decides. Where
    strides are uneven, convolutions set the size of the second axis.
    """
    around = target.network.get_submodule(layer.rpartition(".")[0])
    if isinstance(around, nn.Sequential) and "activation" in type(module).__module__:
        children = [*around.children()]
        earlier = children[: children.index(module)]
        known = (part for part in earlier if isinstance(part, _CHANNELS_FIRST + _CHANNELS_LAST))
        module = [module, *known][-1]
    parts = [*module.modules()]
    conv = any(isinstance(part, _CHANNELS_FIRST) for part in parts)
    patches = target.grid and target.grid[0] * target.grid[1]
    tokens = {patches, patches and patches + (target.prefix_tokens or 0)} - {None}
    heads = getattr(around, "num_heads", 0)
    if heads == shape[1] or (not conv and (heads == shape[3] or tokens & {*shape[1:]})):
        raise fail("with positions inside attention heads; choose the block around it")
    last = any(type(part) in _CHANNELS_LAST for part in parts)
    first_fits, last_fits = _fits(shape[2:], size[2:]), _fits(shape[1:3], size[2:])
    strides = (getattr(part, "stride", None) for part in target.network.modules())
    uneven = any(isinstance(step, tuple) and len({*step}) > 1 for step in strides)
    if isinstance(module, _CHANNELS_FIRST):
        if first_fits or uneven:
            return "BNHW"
        raise fail(
            f"without the proportions of the input {tuple(size[2:])}; choose the block around it, "
            f"or pass layouts={{{layer!r}: 'BNHW'}} if its positions are those of the image"
        )
    if first_fits and last_fits:
        return "BHWN" if last and not conv else "BNHW"
    if uneven and not first_fits and _is_convolutional(module if conv else target.network, shape):
        return "BNHW"
    if first_fits or last_fits:
        return "BNHW" if first_fits else "BHWN"
    raise fail(f"without two axes in the proportions of the input {tuple(size[2:])}; pass layouts=")


def _is_convolutional(module: nn.Module, shape: tuple[int, ...]) -> bool:
    """Whether convolutions without layer norms make as many channels as the second axis has."""
    widths = {part.out_channels for part in module.modules() if isinstance(part, nn.Conv2d)}
    normed = any(isinstance(part, nn.LayerNorm) for part in module.modules())
    return not normed and shape[1] in widths and shape[3] not in widths


def _fits(cells: tuple[int, ...], pixels: tuple[int, ...]) -> bool:
    """Return whether h x w cells cover H x W pixels evenly, up to one cell."""
    (h, w), (height, width) = cells, pixels
    return abs(h * width - w * height) < max(height, width)


def _token_grid(target: Target, tokens: int, size: Size, fail: Any) -> tuple[int, tuple[int, int]]:
    """Return prefix and grid of a layer with this many tokens, from the target's attributes."""
    prefix, grid = target.prefix_tokens, target.grid
    # The grids that have the proportions of the input, as the end of a message.
    fitting = [(n, found) for n in range(9) if (found := _grid(tokens - n, *size))]
    offers = [f"prefix_tokens={n}, grid={found}" for n, found in fitting if max(found) > 1]
    hint = f", such as {' or '.join(offers)}" if offers else ""
    if prefix is None:
        raise fail(f"which may be tokens; give prefix_tokens= and grid={hint}")
    for before in (prefix, 0) if grid else (prefix,):
        # Stages that merge patches keep the proportions of the grid.
        if found := _grid(tokens - before, *(grid or size)):
            return before, found
    if grid is None:
        raise fail(f"and {tokens} - {prefix} patch tokens fit no input {tuple(size)}; pass grid=")
    raise fail(
        f"but {prefix} prefix tokens and the grid {grid} make {prefix + grid[0] * grid[1]}; "
        f"correct them with prefix_tokens= and grid={hint}"
    )


def _grid(patches: int, rows: int, columns: int) -> tuple[int, int] | None:
    """Return the grid of so many patches in the proportions rows : columns, None without one."""
    scale = (max(patches, 0) / (rows * columns)) ** 0.5
    h, w = round(rows * scale), round(columns * scale)
    return (h, w) if h and w and h * w == patches and h * columns == w * rows else None
