"""Exact contributions W[c] * z, and the proof that a layer's z determines the logits linearly."""

from collections.abc import Iterator
from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor, nn

from wwwlib.contributions.passes import checked, forward, replaced
from wwwlib.targets import Target

Linear = tuple[Tensor, Tensor]  # weight (C, N) and bias (C,)


def linear_head(z: Tensor, weight: Tensor, classes: int | Tensor, signed: bool = False) -> Tensor:
    """Exact contributions ``|W[c] * z|`` in front of a linear layer.

    Parameters
    ----------
    z : Tensor
        (B, N) neuron activations.
    weight : Tensor
        (C, N), the linear layer's.
    classes : int or Tensor
        One class for all or (B,) of them, in [0, C).
    signed : bool
        Keep the sign; the values then sum to the logit less the bias.

    Returns
    -------
    Tensor
        (B, N).

    Raises
    ------
    ValueError
        If the shapes do not fit together or a class does not exist.

    References
    ----------
    WWW, Eq. 3.
    """
    if z.ndim != 2 or weight.ndim != 2 or z.shape[1] != weight.shape[1]:
        raise ValueError(
            f"z {tuple(z.shape)} and weight {tuple(weight.shape)} do not fit: expected (B, N) and "
            "(C, N)."
        )
    w = weight[checked(classes, len(z), len(weight), weight.device)] * z
    return w if signed else w.abs()


def head(target: Target, layer: str) -> Linear | None:
    """Find the linear layer behind a layer, if its z determines the logits: ``W z + b``.

    Names prove nothing. The layer's output is replaced by noise, and the logits must follow: a
    ReLU, a normalisation, a skip connection or another pooling on the way shows at once.

    Returns
    -------
    (weight, bias) or None
        (C, N) and (C,), sharing memory with the model; the identity for the logits themselves.
        None where the layer is followed by anything else.
    """
    noise = torch.Generator().manual_seed(0)
    with torch.no_grad():
        logits, taken = forward(target, _probe(target, noise), [layer])
        seen = taken[layer]
        raw = torch.randn(seen.raw.shape, generator=noise).to(seen.raw)
        candidates = list(_linear_layers(target.model, logits.shape[1], seen.neurons))
        if logits.shape[1] == seen.neurons:
            candidates.append((torch.eye(seen.neurons).to(logits), logits.new_zeros(seen.neurons)))
        # A copy: `out += identity` of a residual block would change what z is read from.
        with replaced(target, layer, lambda _: raw.clone()):
            logits, _ = forward(target, _probe(target, noise), [])
    z = replace(seen, raw=raw).z
    return next((found for found in candidates if _follows(logits, z, *found)), None)


def _follows(logits: Tensor, z: Tensor, weight: Tensor, bias: Tensor) -> bool:
    """Whether the logits are ``W z + b``, up to rounding beside the size of their terms."""
    size = z.abs() @ weight.abs().T + bias.abs()
    return bool(
        ((logits - z @ weight.T - bias).abs() <= torch.finfo(z.dtype).eps ** 0.5 * size).all()
    )


def _linear_layers(model: nn.Module, classes: int, neurons: int) -> Iterator[Linear]:
    """Yield weight and bias of linear layers and 1 x 1 convolutions of this shape, last first."""
    for module in reversed(list(model.modules())):
        if isinstance(module, nn.Linear) or (
            isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1
        ):
            weight = module.weight.detach().flatten(1)
            if weight.shape == (classes, neurons) and weight.any():  # zeros would follow anything
                bias = weight.new_zeros(classes) if module.bias is None else module.bias.detach()
                yield weight, bias


def _probe(target: Target, generator: torch.Generator) -> Tensor:
    """Return two images of noise of the size, type and device that the network takes."""
    shape = target.preprocess(Image.new("RGB", (256, 256))).shape
    like = next((p for p in target.model.parameters() if p.is_floating_point()), torch.empty(0))
    return torch.randn(2, *shape, generator=generator).to(like)
