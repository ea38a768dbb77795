"""Examine a network on two fixed images: its input, the form of its outputs, its fingerprint.

A network is run once when it is wrapped, so that inputs that are not RGB, outputs that are no
logits, and class tokens that the head does not read are found before anything depends on them.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from functools import cache, partial

import torch
from PIL import Image
from torch import Tensor, nn

from wwwlib.images.batches import preprocessed, stack
from wwwlib.registry import one_of
from wwwlib.store import tensor_digest

OUTPUTS = ("softmax", "sigmoid")
_NUMBERS = 4  # of a fingerprint


@cache
def fixed_images() -> tuple[Image.Image, ...]:
    """Return two fixed RGB images, one wide and one tall, with a spectrum like photographs."""
    generator, images = torch.Generator().manual_seed(0), []
    for size in ((400, 300), (300, 400)):
        image = Image.new("RGB", size)
        for cells in (128, 64, 32, 16, 8, 4, 2):
            noise = torch.randint(256, (cells, cells, 3), dtype=torch.uint8, generator=generator)
            octave = Image.fromarray(noise.numpy()).resize(size, Image.Resampling.BICUBIC)
            image = Image.blend(image, octave, 0.4)
        images.append(image)
    return tuple(images)


def fixed_batch(preprocess: Callable, name: str) -> Tensor:
    """Return the preprocessed fixed images, (2, 3, H, W).

    Raises
    ------
    ValueError
        If preprocessing raises, or its result is not a tensor (3, H, W) of one size.
    """
    rows = [preprocessed(preprocess, image, f"{name}'s test image") for image in fixed_images()]
    _, x = stack(list(enumerate(rows)))
    if x.shape[1] != 3:
        raise ValueError(
            f"The preprocessing of {name} gives {x.shape[1]} channels, but images are explained as "
            "RGB: it must give a tensor (3, H, W)."
        )
    return x


class Adapter(nn.Module):
    """A network whose outputs are turned into one tensor of logits (B, C).

    Parameters
    ----------
    network : nn.Module
        Returns a tensor (B, C) or (B, C, 1, 1), or one inside a tuple, a dictionary or an object
        with an attribute `logits`.
    undo : {None, "softmax", "sigmoid"}
        What the network ends with: its inverse is applied.
    """

    def __init__(self, network: nn.Module, undo: str | None = None):
        super().__init__()
        self.network, self.undo = network, undo

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, C)."""
        y = output_tensor(self.network(x))
        if self.undo is None:
            return y
        tiny = torch.finfo(y.dtype).tiny
        log = y.clamp(min=tiny).log()
        return log if self.undo == "softmax" else log - (1 - y).clamp(min=tiny).log()

    def extra_repr(self) -> str:
        """Return the arguments, for the key of artifacts."""
        return f"undo={self.undo}"


def output_tensor(output: object) -> Tensor:
    """Return the tensor of scores (B, C) among the outputs of a network.

    Raises
    ------
    ValueError
        If there is none, or more than one.
    """
    if isinstance(output, Tensor):
        flat = output.ndim > 2 and output[0].numel() == output.shape[1]  # (B, C, 1, 1)
        return output.flatten(1) if flat else output
    parts = getattr(output, "logits", None)
    if parts is None and isinstance(output, Mapping):
        parts = output.get("logits", [*output.values()])
    parts = [*output] if parts is None and isinstance(output, tuple | list) else parts
    parts = [parts] if isinstance(parts, Tensor) else parts
    if parts and len(parts) == 1 and isinstance(parts[0], Tensor):
        return output_tensor(parts[0])
    raise ValueError(f"returns a {type(output).__name__} without named logits; return them alone")


def adapted(model: nn.Module, x: Tensor, classes: int, name: str, outputs: str) -> nn.Module:
    """Return the model, in an `Adapter` if its outputs on the images x are not logits (B, C).

    Raises
    ------
    ValueError
        If the outputs cannot be read as logits of the classes; the message says what to pass.
    """
    one_of("outputs", outputs, OUTPUTS)
    raw = run(model, torch.cat([x, -8 * x, 64 * x]), name)  # logits would not stay in [0, 1]
    try:
        y = output_tensor(raw)
    except ValueError as error:
        raise ValueError(f"{name} {error}.") from None
    if y.shape[1:] != (classes,) or not y.is_floating_point() or y.layout != torch.strided:
        raise ValueError(
            f"{name} returns {y.dtype} of shape {tuple(y.shape)} for 6 images, but there are "
            f"{classes} class names; pass a classifier, and a name for each real logit."
        )
    if classes == 1 and outputs == "softmax":
        raise ValueError(f"{name} has a single output, whose softmax is 1; pass outputs='sigmoid'.")
    positive, total = bool((y >= 0).all()) and not (y == y[0]).all(), y.sum(-1)
    within = positive and bool((y <= 1).all())
    sums = positive and bool(((total - total[0]).abs() < 0.01 * total[0]).all())  # percent, too
    if within and outputs == "softmax" and not sums:
        raise ValueError(
            f"The outputs of {name} lie in [0, 1] and do not add up to 1, as after a sigmoid; pass "
            "outputs='sigmoid' if its classes do not exclude each other, or a model without it."
        )
    undo = outputs if (sums if outputs == "softmax" else within) else None
    if undo == "softmax":
        warnings.warn(
            f"The outputs of {name} are taken for probabilities, since they are never negative and "
            f"add up to {total[0]:.3g}; what is explained is their logarithms.",
            stacklevel=3,
        )
    return model if undo is None and y is raw else Adapter(model, undo).eval()


def own_copy(model: nn.Module, x: Tensor) -> Tensor:
    """Copy images for a model that may change them, in the precision of its weights."""
    like = next((p for p in model.parameters() if p.is_floating_point()), x)
    return x.to(like, copy=True)


def run(model: nn.Module, x: Tensor, name: str) -> object:
    """Return the outputs of a model for images, of which it gets its own copy.

    Raises
    ------
    ValueError, RuntimeError
        If the model fails; if it runs out of memory.
    """
    own = own_copy(model, x)
    try:
        with torch.no_grad():
            return model(own)
    except torch.OutOfMemoryError as error:
        raise RuntimeError(
            f"Not even {len(x)} images fit into the memory of {own.device} beside {name}; free "
            "some, or use another device."
        ) from error
    except Exception as error:  # any network
        raise ValueError(
            f"{name} raises {type(error).__name__} for images of shape {tuple(x.shape)} ({error}); "
            "preprocess must give what the network takes."
        ) from error


def reads_class_token(model: nn.Module, x: Tensor, prefix: int) -> bool:
    """Whether the logits depend on the first token of the last layer that returns tokens.

    Parameters
    ----------
    model : nn.Module
        With logits (B, C).
    x : Tensor
        (B, 3, H, W).
    prefix : int
        Number of tokens before the patch tokens.
    """
    if not prefix:
        return False
    last: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and output.ndim == 3 and output.shape[1] > prefix:
            last[:] = [output]

    try:
        with ExitStack() as stack, torch.enable_grad():
            for module in model.modules():
                stack.enter_context(module.register_forward_hook(keep))
            y = model(own_copy(model, x).requires_grad_())
            score = (y * torch.linspace(-1, 1, y.shape[1]).to(y)).sum()
            (slope,) = torch.autograd.grad(score, last, materialize_grads=True)
    except (RuntimeError, ValueError):  # no such layer, or no gradient: as in most transformers
        return True
    return bool(slope[:, 0].any() or not slope.any())  # weights of zero show nothing


def identity(model: nn.Module, preprocess: Callable, name: str) -> tuple[str, list[float]]:
    """Return what identifies inputs and outputs: a digest, and the `fingerprint` of the logits.

    The digest is of the preprocessed fixed images and of a small and a large one, since some
    preprocessing treats these in another way.

    Raises
    ------
    ValueError
        If preprocessing the same image twice gives different results, or as `fingerprint`.
    """
    x, again = (fixed_batch(preprocess, name) for _ in range(2))
    inputs = {"x": x}
    if tensor_digest(inputs) != tensor_digest({"x": again}):
        raise ValueError(f"{name}'s preprocessing is random; remove randomness.")
    for size in ((48, 36), (1200, 900)):
        with suppress(ValueError):  # where it takes no images of that size
            inputs[str(size)] = preprocessed(preprocess, fixed_images()[0].resize(size), name)
    return tensor_digest(inputs), fingerprint(model, x, name)


def fingerprint(model: nn.Module, x: Tensor, name: str) -> list[float]:
    """Return a few numbers that change with anything that changes the logits (B, C) of images x.

    They are rounded to about a thousandth of the largest logit, more than the rounding of another
    batch size or number of threads, less than nearly any change of the network.

    Raises
    ------
    ValueError
        If the logits of an image differ by chance, or with the other images of its batch.
    """
    several = (x, 2 * x, x[-1:])  # what limits large activations changes the second one
    y, large, alone = (output_tensor(run(model, one, name)).double().cpu() for one in several)
    size = y.abs().max().item()
    if not math.isfinite(size) or not size:
        return [size]
    if (y[-1:] - alone).abs().max() > 0.01 * size:
        raise ValueError(
            f"The logits of {name} for an image depend on chance, or on the other images of the "
            "batch; switch dropout and batch statistics off in evaluation mode."
        )
    generator = torch.Generator().manual_seed(0)
    y = torch.cat([y, large.nan_to_num(0.0, 0.0, 0.0)])
    weights = torch.randn(y.numel(), _NUMBERS, generator=generator, dtype=torch.float64)
    numbers = y.flatten() @ weights / math.sqrt(y.numel())
    return [round(number, 3 - math.floor(math.log10(size))) + 0.0 for number in numbers.tolist()]


def same_fingerprint(one: list[float], other: list[float]) -> bool:
    """Whether two fingerprints are equal up to the rounding of another device."""
    size = max(map(abs, [*one, *other]), default=0.0)
    close = partial(math.isclose, rel_tol=0, abs_tol=0.02 * size)
    return len(one) == len(other) and all(map(close, one, other))
