"""Contributions of neurons to a class: first-order Taylor, ablation, and linear heads.

``w_i(x) = |f_c(x) - f_c(x; a_i <- 0)|`` (WWW, Eq. 3) is computed in three ways. `ablation` follows
the definition, with one forward pass per neuron. `taylor` is the first-order approximation, the sum
over all positions of a_i * d f_c / d a_i, for all neurons and images in one backward pass.
`linear_head` is W[c] * z: where only pooling and one linear layer follow, all three are equal, and
the signed values plus the bias sum to the logit. `contribute` uses `linear_head` where `head` shows
it to be exact and `taylor` elsewhere.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from wwwlib.activations import LOCK, Activations, capture
from wwwlib.targets import LOGITS, Target
from wwwlib.targets.examine import fixed_batch, own_copy

Classes = int | Tensor | None  # one for all images, one for each, or None: the predicted ones
Linear = tuple[Tensor, Tensor]  # weight (C, N) and bias (C,)


@dataclass(frozen=True, eq=False)
class Contributions:
    """Contributions of the neurons of one layer for a batch of images.

    Attributes
    ----------
    w : Tensor
        (B, N) contributions, in units of the logit; non-negative unless signed.
    classes : Tensor
        (B,) int64, the class c of each image.
    logits : Tensor
        (B, C) of the same forward pass.
    exact : bool
        Whether w equals ablation (a linear head follows) or approximates it to first order.
    activations : Activations
        Output of the layer in the same forward pass, detached.
    gradient : Tensor or None
        Of the class's logit with respect to that output; None if a linear head gave w.
    """

    w: Tensor
    classes: Tensor
    logits: Tensor
    exact: bool
    activations: Activations
    gradient: Tensor | None = None

    @property
    def maps(self) -> Tensor:
        """Signed contributions ``a_i * d f_c / d a_i`` of the positions (B, N, h, w).

        Class and register tokens have no position, and are left out.
        """
        if self.gradient is None:
            raise ValueError("A linear head gave w without a gradient, so pass linear=False.")
        return self.activations.to_maps(self.activations.raw * self.gradient)


def contribute(
    target: Target,
    x: Tensor,
    layer: str,
    classes: Classes = None,
    signed: bool = False,
    linear: Linear | Literal[False] | None = None,
) -> Contributions:
    """Compute contributions of a layer: exact before a linear head, else to first order.

    Parameters
    ----------
    target : Target
        The network, in evaluation mode. Its weights and their ``.grad`` are left unchanged.
    x : Tensor
        (B, 3, H, W) preprocessed images.
    layer : str
        A name from ``target.layers()``; a logit contributes only to itself.
    classes : int or Tensor, optional
        One class for all images or (B,) classes, in [0, C); by default the predicted classes.
    signed : bool
        Keep the sign: positive values increase the logit.
    linear : (weight, bias) or False, optional
        The result of `head`, which saves its forward passes; False for no linear head. By default
        `head` is called with the images `x`.

    Returns
    -------
    Contributions

    Raises
    ------
    ValueError
        If the layer or a class does not exist, the network is in training mode, or a prediction
        is needed where the logits are not finite. Activations that are not finite are kept.

    References
    ----------
    WWW, Eq. 3.
    """
    return contribute_all(target, x, [layer], classes, signed, {layer: linear})[layer]


def contribute_all(
    target: Target,
    x: Tensor,
    layers: Iterable[str],
    classes: Classes = None,
    signed: bool = False,
    linear: Mapping[str, Linear | Literal[False] | None] | None = None,
) -> dict[str, Contributions]:
    """Compute contributions of several layers with one forward and at most one backward pass.

    Parameters
    ----------
    layers : iterable of str
        Names from ``target.layers()``.
    linear : mapping of str to (weight, bias) or False, optional
        As in `contribute`, by layer.
    target, x, classes, signed
        As in `contribute`.

    Returns
    -------
    dict of str to Contributions
    """
    layers = tuple(dict.fromkeys(layers))
    given = {layer: (linear or {}).get(layer) for layer in layers}
    heads = {layer: head(target, layer, x) if it is None else it for layer, it in given.items()}
    deep = [layer for layer in layers if not heads[layer]]
    # With gradients even in no_grad or inference mode, if they are wanted.
    with torch.inference_mode(False), torch.set_grad_enabled(bool(deep)):
        x = own_copy(target.model, x.detach()).requires_grad_(bool(deep))
        logits, captured = forward(target, x, layers)
        c = resolve_classes(classes, logits)
        gradients = _gradients(logits, c, captured, deep)
        for layer in (n for n, known in gradients.items() if known is None):
            gradients[layer] = torch.zeros_like(captured[layer].raw)
            # Off the path to f_c; if the logits change without the layer, its gradient is cut.
            with torch.no_grad(), replaced_output(target, layer, torch.zeros_like):
                change = (forward(target, x, [])[0] - logits).gather(1, c[:, None])
            if change.abs().max() > 1e-6 * logits.abs().max():
                raise ValueError(f"No gradient passes through {layer!r} (detached); use ablation.")
    found = {}
    for layer in layers:
        activations = replace(captured[layer], raw=captured[layer].raw.detach())
        gradient = gradients.get(layer)
        if own := heads[layer]:
            w = linear_head(activations.z, own[0], c, signed=True)
        else:
            w = _per_neuron(activations, activations.raw * gradients[layer])
        w = w if signed else w.abs()
        found[layer] = Contributions(w, c, logits.detach(), gradient is None, activations, gradient)
    return found


def taylor(
    target: Target, x: Tensor, layer: str, classes: Classes = None, signed: bool = False
) -> Tensor:
    """Compute first-order contributions ``|sum over positions of a_i * d f_c / d a_i|``, (B, N).

    The sum runs over all positions, class and register tokens included. Parameters and errors are
    those of `contribute`.

    References
    ----------
    WWW, Eq. 3; the paper's code keeps the sign (`signed=True`), its text does not.
    """
    return contribute(target, x, layer, classes, signed, linear=False).w


def ablation(
    target: Target,
    x: Tensor,
    layer: str,
    classes: Classes = None,
    neurons: Sequence[int] | Tensor | None = None,
    signed: bool = False,
    batch_size: int = 64,
) -> Tensor:
    """Compute contributions by setting each neuron to zero at all positions.

    Parameters
    ----------
    target, x, layer, classes, signed
        As in `contribute`.
    neurons : sequence of int, optional
        Neurons to ablate, in [0, N); by default all N.
    batch_size : int
        Images per forward pass, at least B.

    Returns
    -------
    Tensor
        (B, N), or (B, len(neurons)) in their order.

    Raises
    ------
    ValueError
        As `contribute`, and if a neuron does not exist.

    References
    ----------
    WWW, Eq. 3.
    """
    logit, count = _masked_forward(target, x, layer, classes)
    full, differences = logit(torch.ones(len(x), count, dtype=torch.bool)), []
    for some in checked_neurons(neurons, count, layer).split(max(1, batch_size // len(x))):
        mask = torch.ones(len(some), len(x), count, dtype=torch.bool)
        mask[torch.arange(len(some)), :, some] = False
        differences.append(full - logit(mask.flatten(0, 1)).view(len(some), len(x)))
    w = torch.cat(differences).T
    return w if signed else w.abs()


def masked_forward(
    target: Target, x: Tensor, layer: str, classes: Classes = None, fill: Tensor | float = 0.0
) -> Callable[[Tensor], Tensor]:
    """Return a function from masks of neurons to the logit of the class.

    It is the value function of the coalitional game behind `baselines.shapley`; `ablation`
    evaluates it with one neuron left out at a time.

    Parameters
    ----------
    target, x, layer, classes
        As in `contribute`.
    fill : Tensor or float
        What masked neurons are set to, (N,) or one number.

    Returns
    -------
    callable
        Maps a mask (R * B, N), 0 where a neuron is set to `fill` at all its positions, to (R * B,)
        logits; row j belongs to image j mod B.
    """
    return _masked_forward(target, x, layer, classes, fill)[0]


def linear_head(z: Tensor, weight: Tensor, classes: int | Tensor, signed: bool = False) -> Tensor:
    """Compute exact contributions ``|W[c] * z|`` in front of a linear layer.

    Parameters
    ----------
    z : Tensor
        (B, N) neuron activations.
    weight : Tensor
        (C, N) weight of the linear layer.
    classes : int or Tensor
        One class for all images or (B,) classes, in [0, C).
    signed : bool
        Keep the sign; the values then sum to the logit minus the bias.

    Returns
    -------
    Tensor
        (B, N).

    Raises
    ------
    ValueError
        If the shapes do not match or a class does not exist.

    References
    ----------
    WWW, Eq. 3.

    Examples
    --------
    >>> z, weight = torch.tensor([[2.0, 1.0]]), torch.tensor([[0.5, -3.0]])
    >>> linear_head(z, weight, 0)
    tensor([[1., 3.]])
    >>> linear_head(z, weight, 0, signed=True)
    tensor([[ 1., -3.]])
    """
    if z.ndim != 2 or weight.ndim != 2 or z.shape[1] != weight.shape[1]:
        shapes = f"z {tuple(z.shape)} and weight {tuple(weight.shape)}"
        raise ValueError(f"{shapes} do not match (B, N) and (C, N).")
    w = weight[_checked_classes(classes, len(z), len(weight), weight.device)] * z
    return w if signed else w.abs()


def head(target: Target, layer: str, x: Tensor | None = None) -> Linear | None:
    """Find the linear layer behind a layer, if the logits are ``W z + b``.

    The logits must follow from the layer's z for images, for four times their activations, and for
    noise: an activation function, a normalisation, a skip connection, another pooling, or a limit
    to large activations in between is detected, whatever the modules are called.

    Parameters
    ----------
    target : Target
    layer : str
        A name from ``target.layers()``.
    x : Tensor, optional
        (B, 3, H, W) preprocessed images, of which eight are used; by default two fixed ones.

    Returns
    -------
    (weight, bias) or None
        (C, N) and (C,), sharing memory with the model; the identity for the logits themselves.
        None if anything else follows the layer, or its values differ from W z + b.
    """
    seeded = torch.Generator().manual_seed(0)
    x = fixed_batch(target.preprocess, target.name) if x is None else x
    x = x[:8].to(target.device)  # enough to refute a head
    with torch.no_grad():
        logits, captured = forward(target, x, [layer])
        real = captured[layer]
        candidates = list(_linear_layers(target.model, logits.shape[1], real.neurons))
        if logits.shape[1] == (n := real.neurons):
            candidates.append((torch.eye(n).to(logits), logits.new_zeros(n)))
        noise, raw = (torch.randn(one.shape, generator=seeded).to(one) for one in (x, real.raw))

        def tried(images: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
            # A copy: `out += identity` of a residual block would change what z is computed from.
            with replaced_output(target, layer, lambda _: raw.clone()):
                return forward(target, images, [])[0], replace(real, raw=raw).z

        pairs = [(logits, real.z), tried(x, 4 * real.raw), tried(noise, raw)]
    return next((c for c in candidates if all(_is_head(*pair, *c) for pair in pairs)), None)


def forward(target: Target, x: Tensor, layers: Iterable[str]) -> tuple[Tensor, Mapping]:
    """Run the network once and return its logits and the captured layers.

    Raises
    ------
    ValueError
        If `x` is not a batch of images, or the network is in training mode.
    """
    if x.ndim != 4 or not len(x):
        raise ValueError(f"x has shape {tuple(x.shape)}; expected (B, 3, H, W) with B >= 1.")
    if target.model.training:
        raise ValueError(
            f"{target.name} is in training mode, where images of a batch influence each other and "
            "dropout is random; call target.model.eval() first."
        )
    with capture(target, (*layers, LOGITS)) as captured:
        target.model(x)
    return captured[LOGITS].raw, captured


@contextmanager
def replaced_output(
    target: Target, layer: str, change: Callable[[Tensor], Tensor]
) -> Iterator[None]:
    """Replace the output of a layer by a function of it, in a context."""
    with LOCK, target.module(layer).register_forward_hook(lambda _, __, output: change(output)):
        yield


def resolve_classes(classes: Classes, logits: Tensor) -> Tensor:
    """Return one class per image, (B,) int64: `classes` if given, else the predicted ones.

    Raises
    ------
    ValueError
        If a class does not exist, or a prediction is needed and the logits are not finite.
    """
    if classes is not None:
        return _checked_classes(classes, len(logits), logits.shape[1], logits.device)
    broken = (~logits.isfinite()).any(1).nonzero()[:, 0].tolist()
    if broken:
        raise ValueError(f"The logits of image {broken[0]} are not finite; pass classes=.")
    return logits.argmax(1)


def _checked_classes(classes: int | Tensor, size: int, count: int, device: torch.device) -> Tensor:
    c = torch.as_tensor(classes, device=device)
    if c.is_floating_point() or c.dtype == torch.bool or c.shape not in ((), (size,)):
        raise ValueError(
            f"classes is {c.dtype} of shape {tuple(c.shape)}; give one integer for all or one for "
            f"each of the {size} images."
        )
    if c.numel() and not 0 <= c.min() <= c.max() < count:
        raise ValueError(
            f"classes contains {c.min()} to {c.max()}, but there are classes 0 to {count - 1}; an "
            "image without a label needs its predicted class."
        )
    return c.long().expand(size).clone()  # a copy: autograd cannot keep an inference tensor


def checked_neurons(neurons: Sequence[int] | Tensor | None, count: int, layer: str) -> Tensor:
    """Return indices of neurons, all by default; ValueError if one does not exist."""
    index = torch.arange(count) if neurons is None else torch.as_tensor(neurons).long().cpu()
    wrong = index[(index < 0) | (index >= count)].tolist()
    if wrong or not len(index):
        raise ValueError(f"neurons has {wrong}; give some of 0 to {count - 1} in {layer!r}.")
    return index


def _gradients(logits: Tensor, classes: Tensor, captured: Mapping, layers: list[str]) -> dict:
    """Return d f_c / d raw by layer; images are independent, so one sum gives them all."""
    if not layers:
        return {}
    for layer in layers:
        if not (logits.requires_grad and captured[layer].raw.requires_grad):
            raise ValueError(f"No gradient passes through {layer!r} (detached); use ablation.")
    score = logits.gather(1, classes[:, None]).sum()
    raws = [captured[layer].raw for layer in layers]
    try:
        return dict(zip(layers, torch.autograd.grad(score, raws, allow_unused=True), strict=True))
    except RuntimeError as error:
        if "inplace" not in str(error):
            raise
        raise ValueError(
            f"No gradient passes through {' or '.join(map(repr, layers))}, since the "
            "network changes in place what its own gradient needs; use ablation."
        ) from error


def _neuron_axis(activations: Activations) -> int:
    return 1 if activations.layout in ("BNHW", "BN") else -1


def _per_neuron(activations: Activations, values: Tensor) -> Tensor:
    """Sum over positions; `Activations.to_maps` would leave out prefix tokens."""
    values = values.movedim(_neuron_axis(activations), 1)
    return values.reshape(len(values), activations.neurons, -1).sum(2)


def _masked_forward(
    target: Target, x: Tensor, layer: str, classes: Classes, fill: Tensor | float = 0.0
) -> tuple[Callable[[Tensor], Tensor], int]:
    """Return the function of `masked_forward` and the number of neurons."""
    x = x.detach()
    with torch.no_grad():
        logits, captured = forward(target, x, [layer])
    c, activations = resolve_classes(classes, logits), captured[layer]
    axis, ndim, size = _neuron_axis(activations), activations.raw.ndim, len(x)
    count = activations.neurons
    fill = torch.as_tensor(fill).to(activations.raw).expand(count)
    fill = fill.reshape(-1, *[1] * (ndim - 1 - axis % ndim))

    def logit(mask: Tensor) -> Tensor:
        if mask.ndim != 2 or mask.shape[1] != count or len(mask) % size:
            raise ValueError(
                f"The mask has shape {tuple(mask.shape)}; expected (R * {size}, {count}): rows for "
                f"{size} images, a column for each neuron of {layer!r}."
            )
        zero = mask.to(x.device) == 0
        zero = zero.reshape(-1, *[1] * (ndim - 2), count).movedim(-1, axis)
        rounds = len(mask) // size

        def filled(a: Tensor) -> Tensor:  # not multiplied: nan times zero is not zero
            return torch.where(zero, fill.to(a), a)

        with torch.no_grad(), replaced_output(target, layer, filled):
            logits, _ = forward(target, x.repeat(rounds, 1, 1, 1), [])
        return logits.gather(1, c.repeat(rounds)[:, None])[:, 0]

    return logit, count


def _is_head(logits: Tensor, z: Tensor, weight: Tensor, bias: Tensor) -> bool:
    """Whether the logits are ``W z + b``, up to rounding relative to the size of the terms."""
    size = z.abs() @ weight.abs().T + bias.abs()
    error = (logits - z @ weight.T - bias).abs()
    return bool((error <= torch.finfo(z.dtype).eps ** 0.5 * size).all())


def _linear_layers(model: nn.Module, classes: int, neurons: int) -> Iterator[Linear]:
    """Yield weight and bias of linear layers and 1 x 1 convolutions of this shape, last first."""
    for module in reversed(list(model.modules())):
        if isinstance(module, nn.Linear) or (
            isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1) and module.groups == 1
        ):
            weight = module.weight.detach().flatten(1)
            if weight.shape == (classes, neurons) and weight.any():  # zero weights prove nothing
                bias = weight.new_zeros(classes) if module.bias is None else module.bias.detach()
                yield weight, bias
