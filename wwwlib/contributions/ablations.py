"""The network run again with neurons set to zero: one by one, or any set of them."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from wwwlib.contributions.passes import forward, neuron_axis, replaced, resolve
from wwwlib.targets import Target


def ablation(
    target: Target,
    x: Tensor,
    layer: str,
    classes: int | Tensor | None = None,
    neurons: Sequence[int] | Tensor | None = None,
    signed: bool = False,
    batch_size: int = 64,
) -> Tensor:
    """Contributions by setting each neuron to zero everywhere and running the network again.

    Parameters
    ----------
    target, x, layer, classes, signed
        As in `contribute`.
    neurons : sequence of int, optional
        The neurons to ablate, in [0, N); all N if left out.
    batch_size : int
        Images per forward pass, and so memory; at least the B of `x` are run at once.

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
    logit, count = game(target, x, layer, classes)
    index = chosen(neurons, count, layer)
    full, falls = logit(torch.ones(len(x), count, dtype=torch.bool)), []
    for some in index.split(max(1, batch_size // len(x))):
        mask = torch.ones(len(some), len(x), count, dtype=torch.bool)
        mask[torch.arange(len(some)), :, some] = False
        falls.append(full - logit(mask.flatten(0, 1)).view(len(some), len(x)))
    w = torch.cat(falls).T
    return w if signed else w.abs()


def masked_forward(
    target: Target, x: Tensor, layer: str, classes: int | Tensor | None = None
) -> Callable[[Tensor], Tensor]:
    """Make a function from "which neurons may speak" to the logit of the class.

    It is the game that `ablation` plays one neuron at a time, and Shapley values over all
    coalitions: captum's ``ShapleyValueSampling(logit).attribute(torch.ones(len(x), N))``.

    Parameters
    ----------
    target, x, layer, classes
        As in `contribute`.

    Returns
    -------
    callable
        From a mask (R * B, N), with 0 where a neuron is set to zero at all its positions, to
        (R * B,) logits; row j belongs to image j mod B.
    """
    return game(target, x, layer, classes)[0]


def chosen(neurons: Sequence[int] | Tensor | None, count: int, layer: str) -> Tensor:
    """Return neurons of [0, count) as int64 on the CPU, all of them for None."""
    index = torch.arange(count) if neurons is None else torch.as_tensor(neurons).long().cpu()
    wrong = index[(index < 0) | (index >= count)].tolist()
    if wrong or not len(index):
        raise ValueError(
            f"neurons holds {wrong or 'nothing'}; give some of 0 to {count - 1}, the neurons of "
            f"{layer!r}."
        )
    return index


def game(target: Target, x: Tensor, layer: str, classes) -> tuple[Callable, int]:
    """Return what `masked_forward` returns, and the number of neurons."""
    x = x.detach()
    with torch.no_grad():
        logits, taken = forward(target, x, [layer])
    c, seen = resolve(classes, logits), taken[layer]
    axis, rank, count, size = neuron_axis(seen), seen.raw.ndim, seen.neurons, len(x)

    def logit(mask: Tensor) -> Tensor:
        if mask.ndim != 2 or mask.shape[1] != count or len(mask) % size:
            raise ValueError(
                f"The mask has shape {tuple(mask.shape)}; expected (R * {size}, {count}): rows for "
                f"{size} images, a column for each neuron of {layer!r}."
            )
        silent = mask.to(x.device) == 0
        silent = silent.reshape(-1, *[1] * (rank - 2), count).movedim(-1, axis)
        rounds = len(mask) // size
        # Filled, not multiplied: nan and infinity times zero would not be zero.
        with torch.no_grad(), replaced(target, layer, lambda a: a.masked_fill(silent, 0)):
            logits, _ = forward(target, x.repeat(rounds, 1, 1, 1), [])
        return logits.gather(1, c.repeat(rounds)[:, None])[:, 0]

    return logit, count
