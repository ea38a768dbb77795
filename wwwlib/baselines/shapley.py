"""Shapley values of neurons (captum), a reference for contributions (WWW, Eq. 3)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from wwwlib.contributions import checked_neurons, forward, masked_forward
from wwwlib.registry import require, whole_number
from wwwlib.targets import Target


def values(
    target: Target,
    x: Tensor,
    layer: str,
    classes: int | Tensor | None = None,
    neurons: Sequence[int] | Tensor | None = None,
    signed: bool = False,
    samples: int = 25,
    seed: int = 0,
    batch_size: int = 64,
) -> Tensor:
    """Estimate Shapley values of neurons by sampling permutations.

    Ablation removes one neuron from a complete layer and the Taylor term is a local slope; a
    Shapley value averages the effect of adding a neuron over all orders of the neurons, so that
    redundant neurons share their joint effect.

    Parameters
    ----------
    target, x, layer, classes, signed
        As in `contribute`.
    neurons : sequence of int, optional
        The players, in [0, N); by default all N. Other neurons stay unchanged.
    samples : int
        Number of permutations, at least 1; each costs one forward pass per player and image.
    seed : int
        Seed of the permutations; the global random state is left unchanged.
    batch_size : int
        Images per forward pass, at least B.

    Returns
    -------
    Tensor
        (B, N), or (B, len(neurons)) in their order. The signed values of an image sum to its logit
        minus the logit with all players set to zero.

    Raises
    ------
    ValueError
        As `ablation`, and if `samples` is less than 1.
    ImportError
        If captum is not installed (extra "baselines").

    References
    ----------
    Castro et al. 2009, implemented by captum's ``ShapleyValueSampling``.
    """
    whole_number("samples", samples)
    logit = masked_forward(target, x, layer, classes)
    with torch.no_grad():
        count = forward(target, x, [layer])[1][layer].neurons
    players = checked_neurons(neurons, count, layer)

    def value(active: Tensor) -> Tensor:
        mask = active.new_ones(len(active), count)
        mask[:, players] = active
        return logit(mask)

    method = require("captum.attr", "baselines").ShapleyValueSampling(value)
    every = torch.ones(len(x), len(players), dtype=x.dtype, device=x.device)
    at_once = max(1, batch_size // len(x))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        w = method.attribute(every, n_samples=samples, perturbations_per_eval=at_once)
    w = w.to(x.dtype)  # captum sums in single precision
    return w if signed else w.abs()
