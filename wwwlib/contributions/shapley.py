"""Sampled Shapley values, the measure of what first order and ablation leave out.

Ablation silences one neuron while all others speak, and first order asks only for the slope there.
A Shapley value averages what a neuron adds over all orders in which neurons may begin to speak, so
that two neurons which say the same share what either could do alone. `agreement` tells how far one
way of counting is from another.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from wwwlib.contributions.ablations import chosen, game
from wwwlib.targets import Target


def shapley(
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
    """Contributions as Shapley values, sampled over random orders of the neurons.

    Parameters
    ----------
    target, x, layer, classes, signed
        As in `contribute`.
    neurons : sequence of int, optional
        The players, in [0, N); all N if left out. Neurons that do not play always speak.
    samples : int
        Orders drawn, at least 1; each costs one forward pass per player and image.
    seed : int
        Which orders; the caller's random state is left alone.
    batch_size : int
        Images per forward pass; at least the B of `x` are run at once.

    Returns
    -------
    Tensor
        (B, N), or (B, len(neurons)) in their order. The signed values of an image sum to its logit
        less the logit where all players are silent.

    Raises
    ------
    ValueError
        As `ablation`, and if `samples` is less than 1.

    References
    ----------
    Castro et al. 2009, by captum's ``ShapleyValueSampling``.
    """
    from captum.attr import ShapleyValueSampling  # a second to import, for few who ask

    if samples < 1:
        raise ValueError(f"samples is {samples}; a Shapley value needs at least 1 order.")
    logit, count = game(target, x, layer, classes)
    players = chosen(neurons, count, layer)

    def worth(speaking: Tensor) -> Tensor:
        mask = speaking.new_ones(len(speaking), count)
        mask[:, players] = speaking
        return logit(mask)

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        w = ShapleyValueSampling(worth).attribute(
            torch.ones(len(x), len(players), dtype=x.dtype, device=x.device),
            n_samples=samples,
            perturbations_per_eval=max(1, batch_size // len(x)),
        )
    w = w.to(x.dtype)  # captum adds up in single precision
    return w if signed else w.abs()


@dataclass(frozen=True, eq=False)
class Agreement:
    """How far contributions are from a reference, image by image.

    Attributes
    ----------
    rank : Tensor
        (B,) Spearman's rank correlation over neurons in [-1, 1]; nan where either is constant.
    error : Tensor
        (B,) summed absolute differences over the reference's summed absolute values; nan where
        the reference is zero.
    """

    rank: Tensor
    error: Tensor


def agreement(w: Tensor, reference: Tensor) -> Agreement:
    """Compare contributions with a reference.

    Parameters
    ----------
    w, reference : Tensor
        (B, N) contributions of the same neurons to the same classes.

    Returns
    -------
    Agreement

    Raises
    ------
    ValueError
        If the shapes differ or are not (B, N).
    """
    if w.shape != reference.shape or w.ndim != 2:
        raise ValueError(
            f"The contributions have shapes {tuple(w.shape)} and {tuple(reference.shape)}; "
            "expected twice the same (B, N)."
        )
    u, v = (_ranks(one) - (one.shape[1] - 1) / 2 for one in (w, reference))
    rank = (u * v).sum(1) / (u.square().sum(1) * v.square().sum(1)).sqrt()
    error = (w - reference).abs().sum(1).double() / reference.abs().sum(1).double()
    return Agreement(rank, error.where(error.isfinite(), torch.nan))


def _ranks(values: Tensor) -> Tensor:
    """Return ranks from 0 in float64, equal values sharing the mean of theirs."""
    values = values.contiguous()  # searchsorted warns, and copies, if it is not
    order = values.sort(1).values.contiguous()
    low = torch.searchsorted(order, values)
    high = torch.searchsorted(order, values, right=True)
    return (low + high - 1).double() / 2
