"""Grad-CAM: where a class was seen, without neurons that could be named. It rivals heatmaps.

The gradient of the class's logit is averaged over a map and weighs it; the sum over all neurons,
clamped at zero, is the map of the class (Selvaraju et al., ICCV 2017). Before a linear head it is
the class activation map. Tokens are read on their grid, as everywhere in the house.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from wwwlib.activations import Activations
from wwwlib.contributions import forward, resolve_classes
from wwwlib.targets import Target


def grad_cam(target: Target, x: Tensor, layer: str, classes: int | Tensor | None = None) -> Tensor:
    """Draw where a layer saw a class.

    Parameters
    ----------
    target : Target
        The network; neither it nor anybody's ``.grad`` is changed.
    x : Tensor
        (B, 3, H, W) preprocessed images.
    layer : str
        A name from ``target.layers()`` with maps or patch tokens.
    classes : int or Tensor, optional
        One class for all or (B,) of them; the predicted ones if left out.

    Returns
    -------
    Tensor
        (B, h, w), non-negative, on the layer's grid; `maps.resize` lays it on the image.

    Raises
    ------
    ValueError
        If the layer or a class does not exist, or no gradient reaches the layer.
    """

    def score(taken: Activations, logits: Tensor) -> Tensor:
        return logits.gather(1, resolve_classes(classes, logits)[:, None]).sum()

    return weighted(target, x, layer, layer, score)


def weighted(
    target: Target,
    x: Tensor,
    layer: str,
    source: str,
    score: Callable[[Activations, Tensor], Tensor],
) -> Tensor:
    """Draw where a layer saw what raises a score of another layer, or of the logits.

    Parameters
    ----------
    target, x, layer
        As for `grad_cam`, and so are the result and the errors.
    source : str
        The layer that the score reads.
    score : callable
        From that layer's `Activations` and the logits (B, C) to one number, summed over images.
    """
    a, slope = _slopes(target, x, layer, source, score)
    return (slope.mean((2, 3), keepdim=True) * a).sum(1).clamp(min=0)


def reaches(target: Target, x: Tensor, layer: str, source: str) -> bool:
    """Tell whether any neuron of another layer depends on a layer's maps, on images x.

    Behind the last attention a class token depends on no patch token: there Grad-CAM is zero.
    """
    return bool(_slopes(target, x, layer, source, lambda taken, _: taken.z.sum())[1].any())


def _slopes(target, x, layer, source, score) -> tuple[Tensor, Tensor]:
    """Return a layer's maps (B, N, h, w), and the gradient of the score with respect to them."""
    with torch.inference_mode(False), torch.enable_grad():
        logits, taken = forward(target, x.detach().clone().requires_grad_(), [layer, source])
    seen = taken[layer]
    if not seen.raw.requires_grad:
        raise ValueError(f"No gradient passes through the layer {layer!r}; choose another.")
    with torch.inference_mode(False), torch.enable_grad():
        value = score(taken[source], logits)
    (gradient,) = torch.autograd.grad(value, seen.raw, materialize_grads=True)
    return seen.maps.detach(), seen.to_maps(gradient)
