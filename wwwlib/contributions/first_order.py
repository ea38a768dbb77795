"""Contributions of a batch: one forward pass, and one backward pass where no linear head is."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from wwwlib.activations import Activations
from wwwlib.contributions.heads import Linear, head, linear_head
from wwwlib.contributions.passes import forward, neuron_axis, resolve
from wwwlib.targets import Target


@dataclass(frozen=True, eq=False)
class Contributions:
    """What the neurons of one layer contributed to one class for each image of a batch.

    Attributes
    ----------
    w : Tensor
        (B, N) contributions, in units of the logit; non-negative unless they were asked signed.
    classes : Tensor
        (B,) int64, the class c of each image.
    logits : Tensor
        (B, C) of the same forward pass.
    exact : bool
        Whether w equals ablation (a linear head follows) or approximates it to first order.
    activations : Activations
        The layer of the same forward pass, without its graph: the maps that go with w.
    """

    w: Tensor
    classes: Tensor
    logits: Tensor
    exact: bool
    activations: Activations


def contribute(
    target: Target,
    x: Tensor,
    layer: str,
    classes: int | Tensor | None = None,
    signed: bool = False,
    linear: Linear | Literal[False] | None = None,
) -> Contributions:
    """Contributions of a layer: exact where one linear layer follows, else to first order.

    Parameters
    ----------
    target : Target
        The network, in evaluation mode. Neither it nor anybody's ``.grad`` is changed.
    x : Tensor
        (B, 3, H, W) preprocessed images.
    layer : str
        A name from ``target.layers()``; the logits contribute only to themselves.
    classes : int or Tensor, optional
        One class for all or (B,) of them, in [0, C); the predicted ones if left out.
    signed : bool
        Keep the sign: positive values speak for the class.
    linear : (weight, bias) or False, optional
        What `head` returned, to spare its two small forward passes when the same layer is asked
        again; False for no linear head. It is looked for if left out.

    Returns
    -------
    Contributions

    Raises
    ------
    ValueError
        If the layer or a class does not exist, the network is in training mode, or a prediction
        is needed where the logits are not finite; not-finite activations show as they are.

    References
    ----------
    WWW, Eq. 3.
    """
    found = {} if linear is None else {layer: linear}
    return contribute_all(target, x, [layer], classes, signed, found)[layer]


def contribute_all(
    target: Target,
    x: Tensor,
    layers: Iterable[str],
    classes: int | Tensor | None = None,
    signed: bool = False,
    linear: Mapping[str, Linear | Literal[False] | None] | None = None,
) -> dict[str, Contributions]:
    """Contributions of several layers from one forward pass and at most one backward pass.

    Parameters
    ----------
    layers : iterable of str
        Names from ``target.layers()``.
    linear : mapping of str to (weight, bias) or False, optional
        As in `contribute`, for each layer.
    target, x, classes, signed
        As in `contribute`.
    """
    layers = tuple(dict.fromkeys(layers))
    known = {layer: (linear or {}).get(layer) for layer in layers}
    heads = {layer: head(target, layer) if it is None else it for layer, it in known.items()}
    deep = [layer for layer in layers if not heads[layer]]
    with _differentiable(x, bool(deep)) as x:
        logits, taken = forward(target, x, layers)
        c = resolve(classes, logits)
        gradients = dict(zip(deep, _gradients(logits, c, taken, deep), strict=True))
    answers = {}
    for layer in layers:
        seen = replace(taken[layer], raw=taken[layer].raw.detach())
        if layer in gradients:
            w = _per_neuron(seen, seen.raw * gradients[layer])
            w = w if signed else w.abs()
        else:
            w = linear_head(seen.z, heads[layer][0], c, signed)
        answers[layer] = Contributions(w, c, logits.detach(), layer not in gradients, seen)
    return answers


def taylor(
    target: Target,
    x: Tensor,
    layer: str,
    classes: int | Tensor | None = None,
    signed: bool = False,
) -> Tensor:
    """First-order contributions ``|sum over positions of a_i * d f_c / d a_i|``, shape (B, N).

    Every position counts, class and register tokens too. Parameters and errors are those of
    `contribute`.

    References
    ----------
    WWW, Eq. 3; the paper's code keeps the sign (`signed=True`), its text does not.
    """
    return contribute(target, x, layer, classes, signed, linear=False).w


@contextmanager
def _differentiable(x: Tensor, wanted: bool) -> Iterator[Tensor]:
    """Hand out images that start a graph even where the caller or the weights want none."""
    if not wanted:
        with torch.no_grad():
            yield x.detach()
    else:
        with torch.inference_mode(False), torch.enable_grad():
            yield x.detach().clone().requires_grad_()


def _gradients(logits: Tensor, classes: Tensor, taken: Mapping, layers: list[str]):
    """Return d f_c / d raw of each layer; images are independent, so their sum has them all."""
    if not layers:
        return ()
    for layer in layers:
        if not (logits.requires_grad and taken[layer].raw.requires_grad):
            raise ValueError(
                f"No gradient passes through the layer {layer!r}: the network detaches it or runs "
                "it without gradients; use ablation there."
            )
    score = logits.gather(1, classes[:, None]).sum()
    raws = [taken[layer].raw for layer in layers]
    return torch.autograd.grad(score, raws, materialize_grads=True)  # zero off the path to f_c


def _per_neuron(seen: Activations, values: Tensor) -> Tensor:
    """Sum over all but image and neuron; `Activations.to_maps` would leave prefix tokens out."""
    return values.movedim(neuron_axis(seen), 1).reshape(len(values), seen.neurons, -1).sum(2)
