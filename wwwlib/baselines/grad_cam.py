"""Grad-CAM: a heatmap of a class from the gradients of its logit.

Each map of a layer is weighted by the spatial mean of the gradient of the class's logit; the sum
over all neurons, clamped at zero, is the heatmap. Before a linear head it equals the class
activation map (Zhou et al., CVPR 2016) up to a factor. Unlike WWW's heatmaps it involves no named
neurons. Tokens are arranged on their patch grid, so that the class token is left out.

Selvaraju, Cogswell, Das, Vedantam, Parikh and Batra, "Grad-CAM: Visual Explanations from Deep
Networks via Gradient-based Localization", ICCV 2017.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from wwwlib.activations import Activations
from wwwlib.contributions import forward, resolve_classes
from wwwlib.targets import LOGITS, Target

Score = Callable[[Activations], Tensor]


def grad_cam(target: Target, x: Tensor, layer: str, classes: int | Tensor | None = None) -> Tensor:
    """Compute the Grad-CAM heatmap of a class.

    Parameters
    ----------
    target : Target
        The network; neither it nor any ``.grad`` is changed.
    x : Tensor
        (B, 3, H, W) preprocessed images.
    layer : str
        A name from ``target.layers()`` with maps or patch tokens.
    classes : int or Tensor, optional
        One class for all images or (B,) of them; the predicted ones by default.

    Returns
    -------
    Tensor
        (B, h, w), non-negative, on the layer's grid; `maps.resize` scales it to the image.

    Raises
    ------
    ValueError
        If the layer or a class does not exist, or no gradient reaches the layer.
    """

    def class_logit(output: Activations) -> Tensor:
        return output.raw.gather(1, resolve_classes(classes, output.raw)[:, None]).sum()

    return gradient_heatmap(target, x, layer, LOGITS, class_logit)


def gradient_heatmap(target: Target, x: Tensor, layer: str, source: str, score: Score) -> Tensor:
    """Compute the Grad-CAM heatmap of any score of a layer's output.

    Parameters
    ----------
    target, x, layer
        As for `grad_cam`; result and errors likewise.
    source : str
        The layer from which the score is computed.
    score : callable
        Maps the `Activations` of `source` to a scalar, summed over images.
    """
    a, gradient = _maps_and_gradient(target, x, layer, source, score)
    return (gradient.mean((2, 3), keepdim=True) * a).sum(1).clamp(min=0)


def depends_on(target: Target, x: Tensor, source: str, layer: str) -> bool:
    """Check whether the neurons of `source` depend on the maps of `layer`, on images x.

    After the last attention block a class token depends on no patch token: there the gradient,
    and with it Grad-CAM, is zero.
    """
    _, gradient = _maps_and_gradient(target, x, layer, source, lambda output: output.z.sum())
    return bool(gradient.any())


def _maps_and_gradient(
    target: Target, x: Tensor, layer: str, source: str, score: Score
) -> tuple[Tensor, Tensor]:
    """Return a layer's maps (B, N, h, w), and the gradient of the score with respect to them."""
    with torch.inference_mode(False), torch.enable_grad():
        captured = forward(target, x.detach().clone().requires_grad_(), [layer, source])[1]
        output = captured[layer]
        if not output.raw.requires_grad:
            raise ValueError(f"No gradient passes through the layer {layer!r}; choose another.")
        value = score(captured[source])
    (gradient,) = torch.autograd.grad(value, output.raw, materialize_grads=True)
    return output.maps.detach(), output.to_maps(gradient)
