"""What the three ways share: a checked forward pass, its classes, and an edited one."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from wwwlib.activations import Activations, capture
from wwwlib.targets import LOGITS, Target


def forward(target: Target, x: Tensor, layers: Iterable[str]) -> tuple[Tensor, Mapping]:
    """Run the network once and return its logits and the captured layers.

    Raises
    ------
    ValueError
        If `x` is no batch of images, or the network is in training mode.
    """
    if x.ndim != 4 or not len(x):
        raise ValueError(f"x has shape {tuple(x.shape)}; expected (B, 3, H, W) with B >= 1.")
    if target.model.training:
        raise ValueError(
            f"{target.name} is in training mode, where images of a batch influence each other and "
            "dropout is random; call target.model.eval() first."
        )
    with capture(target, (*layers, LOGITS)) as taken:
        target.model(x)
    return taken[LOGITS].raw, taken


@contextmanager
def replaced(target: Target, layer: str, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let the network go on with something else than a layer's output."""
    hook = target.module(layer).register_forward_hook(lambda _, __, output: change(output))
    try:
        yield
    finally:
        hook.remove()


def neuron_axis(seen: Activations) -> int:
    """Return the axis of `seen.raw` along which its neurons lie."""
    return 1 if seen.layout in ("BNHW", "BN") else -1


def resolve(classes: int | Tensor | None, logits: Tensor) -> Tensor:
    """Return the class of each image, the predicted one where none is given."""
    if classes is not None:
        return checked(classes, len(logits), logits.shape[1], logits.device)
    blind = (~logits.isfinite()).any(1).nonzero()[:, 0].tolist()
    if blind:
        raise ValueError(
            f"The logits of image {blind[0]} of the batch are not finite, so there is no predicted "
            "class; pass classes= or leave the image out."
        )
    return logits.argmax(1)


def checked(classes: int | Tensor, size: int, count: int, device: torch.device) -> Tensor:
    """Return (size,) int64 classes in [0, count), or say what is wrong with those given."""
    c = torch.as_tensor(classes, device=device)
    if c.is_floating_point() or c.dtype == torch.bool or c.shape not in ((), (size,)):
        raise ValueError(
            f"classes is {c.dtype} of shape {tuple(c.shape)}; give one integer for all or one for "
            f"each of the {size} images."
        )
    if c.numel() and not 0 <= c.min() <= c.max() < count:
        raise ValueError(
            f"classes holds {c.min()} to {c.max()}, but there are classes 0 to {count - 1}; an "
            "image without a label needs its predicted class."
        )
    return c.long().expand(size).clone()  # a copy: autograd cannot keep an inference tensor
