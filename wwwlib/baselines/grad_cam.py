"""Grad-CAM: where a class was seen, without neurons that could be named. It rivals heatmaps.

The gradient of the class's logit is averaged over a map and weighs it; the sum over all neurons,
clamped at zero, is the map of the class (Selvaraju et al., ICCV 2017). Before a linear head it is
the class activation map. Tokens are read on their grid, as everywhere in the house.
"""

import torch
from torch import Tensor

from wwwlib.contributions.passes import forward, resolve
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
    with torch.inference_mode(False), torch.enable_grad():
        logits, taken = forward(target, x.detach().clone().requires_grad_(), [layer])
    seen = taken[layer]
    if not seen.raw.requires_grad:
        raise ValueError(f"No gradient passes through the layer {layer!r}; choose another.")
    score = logits.gather(1, resolve(classes, logits)[:, None]).sum()
    (gradient,) = torch.autograd.grad(score, seen.raw, materialize_grads=True)
    a, slope = seen.maps.detach(), seen.to_maps(gradient)
    return (slope.mean((2, 3), keepdim=True) * a).sum(1).clamp(min=0)
