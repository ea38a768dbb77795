"""Directions of a layer's activation space as a layer of their own: sparse autoencoders and others.

A dictionary decomposes the activation of each position into codes times directions. Its codes
become a virtual layer, such as "layer4@sae", that is captured, named, drawn and ablated like any
other: behind the layer a hook adds ``(c' - c) @ directions``, with c' the codes as they come out of
the virtual layer. While these are unchanged the output is, too; their gradient is that of the
output along each direction, and a code set to zero takes its direction's part away.
"""

from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wwwlib.store import digest, tensor_digest
from wwwlib.targets.examine import fixed_batch, run
from wwwlib.targets.layout import Activations, read
from wwwlib.targets.target import LOGITS, Target


class Dictionary(Protocol):
    """M directions of a space of D neurons, and how strongly activations have each.

    Attributes
    ----------
    directions : Tensor, shape (M, D)
        What a code of one adds to the activation.
    bias : Tensor, shape (D,)
        The reconstruction of codes of zero.
    names : sequence of str, optional
        What each direction stands for, such as the concept of a probe. An atlas takes these names
        over, and tests them, in place of naming the directions; without names it may be missing.
    """

    directions: Tensor
    bias: Tensor

    def encode(self, a: Tensor) -> Tensor:
        """Return codes (P, M) of the activations (P, D) of P positions."""


def with_directions(
    target: Target, layer: str, dictionary: Dictionary, name: str = "directions"
) -> Target:
    """Add the codes of a dictionary to a target, as the virtual layer "<layer>@<name>".

    Parameters
    ----------
    target : Target
        It stays as it is; the new one has a copy of its network.
    layer : str
        Its channels or token dimensions are the D neurons; its pixels or patches are the positions.
        Class and register tokens have no code.
    dictionary : Dictionary
        Its tensors, plain settings and codes of random activations are part of the target's key;
        if it has nothing but tensors and such settings, means of codes, which are the same on any
        processor.
    name : str
        What follows the "@".

    Returns
    -------
    Target
        Contributions of the virtual layer are ``codes * (directions @ gradient)``. Their sum, and
        the part of bias, reconstruction error and prefix tokens, is the layer's own signed sum.

    Raises
    ------
    ValueError
        If the layer does not exist, has such directions already, is not called exactly once, its
        output does not have D neurons, or there are not M names or codes.
    """
    virtual = f"{layer}@{name}"
    if layer == LOGITS or virtual in target.virtual:
        raise ValueError(f"{virtual!r} cannot be added; give a hidden layer, and a new name.")
    directions, bias = dictionary.directions.detach(), dictionary.bias.detach()
    output = _output(target, layer)
    if not directions.shape[1:] == bias.shape == (output.neurons,):
        shapes = f"directions {tuple(directions.shape)} and bias {tuple(bias.shape)}"
        raise ValueError(
            f"{output!r} of {target.name} does not fit {shapes}, (M, D) and (D,); give those of "
            "this layer, or its layout by layouts= of targets.wrap."
        )
    names = getattr(dictionary, "names", None)
    names = (names,) if isinstance(names, str) else tuple(() if names is None else names)
    written = [one for one in names if isinstance(one, str) and one.strip()]
    if names and not len(written) == len(names) == len(directions):
        raise ValueError(
            f"{len(names)} names, {names[:3]} first, are not one text for each of the "
            f"{len(directions)} directions; give all of them a name, or none."
        )
    scale = 10.0 ** torch.arange(-1, 4).repeat_interleave(64)[:, None]
    draws = scale * torch.randn(len(scale), len(bias), generator=torch.Generator().manual_seed(0))
    codes, shape = dictionary.encode(bias + draws.to(bias)), (len(draws), len(directions))
    if (found := getattr(codes, "shape", type(codes).__name__)) != shape:
        raise ValueError(f"encode returns {found} for {len(draws)} positions, not codes {shape}.")
    state = {**vars(dictionary), **getattr(dictionary, "state_dict", dict)()}
    own = {n: value for n, value in state.items() if torch.is_tensor(value)}
    plain = {n: v for n, v in state.items() if isinstance(v, bool | int | float | str | None)}
    tensors = {"directions": directions, "bias": bias, **{f"its {n}": v for n, v in own.items()}}
    means = [f"{one:.4g}" for one in codes.double().abs().unflatten(0, (5, -1)).mean((1, 2))]
    if state.keys() - own.keys() - plain.keys() - {"names"}:  # settings that may not show in means
        tensors["codes"] = codes.detach()
    model, layers = deepcopy((target.model, {**target.virtual, virtual: nn.Identity()}))
    made = replace(
        target,
        model=model,
        digest=digest([target.digest, virtual, plain, means, tensor_digest(tensors)]),
        layouts={**target.layouts, virtual: output.layout.replace("BHWN", "BNHW")},
        virtual=layers,
        given={**target.given, virtual: names},
    )
    hook = _Codes(dictionary, layers[virtual], output.layout, output.prefix)
    made.module(layer).register_forward_hook(hook)
    return made


@dataclass(eq=False)
class _Codes:
    """The hook that passes codes through the virtual layer, and adds what changed in them.

    Whoever copies the network copies the virtual layers with it, as a copy of the target does.
    """

    dictionary: Dictionary
    virtual: nn.Module
    layout: str
    before: int

    def __deepcopy__(self, memo: dict) -> "_Codes":
        return replace(self, virtual=deepcopy(self.virtual, memo))

    def __call__(self, module: nn.Module, _: Any, output: Tensor) -> Tensor:
        if not self.virtual._forward_hooks:
            return output  # nothing reads the codes, so that none are computed
        axis = 1 if self.layout in ("BNHW", "BHWN") else -1  # of the codes
        a = output.detach().movedim(1 if self.layout == "BNHW" else -1, -1)[:, self.before :]
        codes = self.dictionary.encode(a.flatten(0, -2)).detach().unflatten(0, a.shape[:-1])
        codes = codes.to(output).movedim(-1, axis).requires_grad_(torch.is_grad_enabled())
        used = self.virtual(codes)
        if used is codes and not codes.requires_grad:
            return output  # no hook has changed the codes
        change = (used - codes.detach()).movedim(axis, -1)
        change = change @ self.dictionary.directions.detach().to(output)
        change = F.pad(change, (0, 0, self.before, 0)) if self.before else change
        return output + (change.movedim(-1, 1) if self.layout == "BNHW" else change)


def _output(target: Target, layer: str) -> Activations:
    """Return a layer's output for the fixed images."""
    found: list[object] = []
    note = target.module(layer).register_forward_hook(lambda _, __, out: found.append(out))
    try:
        x = fixed_batch(target.preprocess, target.name).to(target.device)
        run(target.model, x, target.name)
    finally:
        note.remove()
    if len(found) != 1:
        called = f"The layer {layer!r} of {target.name} is called {len(found)} times"
        raise ValueError(f"{called} for a batch, not once; choose the layer around it.")
    return read(target, layer, target.module(layer), found[0], x.shape)
