"""Beam search: the likeliest whole descriptions of a decoder, many neurons at once.

Each beam holds the best unfinished and finished descriptions so far. A finished one keeps its
probability and competes on; at the last word only an end may follow, so that every description is
whole. With a beam as wide as there are descriptions this is exhaustive search.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from wwwlib.baselines.milan.networks import END, START, State

Step = Callable[..., tuple[Tensor, State]]


@torch.inference_mode()
def beam_search(
    step: Step, state: State, memory: Tensor, beam: int = 50, length: int = 8
) -> tuple[Tensor, Tensor]:
    """Find the likeliest descriptions of N neurons.

    Parameters
    ----------
    step : callable
        ``step(word, state, memory) -> log p (B, V), state``, such as `Decoder.step`.
    state : (Tensor, Tensor)
        (N, W) each, as `Decoder.begin` returns it.
    memory : Tensor
        (N, K, W).
    beam : int
        Descriptions kept for each neuron, at least 1.
    length : int
        Most words of a description, its end among them; at least 2.

    Returns
    -------
    tokens : Tensor of int64, shape (N, beam, length)
        Best first; `END` fills what is left behind the end.
    total : Tensor, shape (N, beam)
        log p of each; -inf where there are fewer descriptions than the beam has room for.

    Raises
    ------
    ValueError
        If `beam` or `length` is too small.
    """
    if beam < 1 or length < 2:
        raise ValueError(
            f"beam = {beam} and length = {length}; a search needs a beam of at least 1 and room "
            "for a word and its end, 2."
        )
    neurons = len(memory)
    tokens = torch.full((neurons, 1, 1), START, device=memory.device)
    total = memory.new_zeros(neurons, 1)
    for position in range(length):
        log_p, state = step(tokens[:, :, -1].flatten(), state, memory)
        log_p = log_p.unflatten(0, (neurons, -1)).clone()
        _close(log_p, tokens, only_end=position == length - 1)
        total, parent, word = _best(total[:, :, None] + log_p, beam)
        tokens = torch.cat([_follow(tokens, parent), word[:, :, None]], 2)
        wide = parent + torch.arange(neurons, device=parent.device)[:, None] * log_p.shape[1]
        state = tuple(part[wide.flatten()] for part in state)
        memory = memory[wide.flatten()]
    return tokens[:, :, 1:], total


def _close(log_p: Tensor, tokens: Tensor, only_end: bool) -> None:
    """Let nothing but an end follow an end, for free, and nothing else the last word; in place."""
    log_p[:, :, START] = -torch.inf
    ended = tokens[:, :, -1] == END
    ends = log_p[:, :, END].masked_fill(ended, 0)
    barred = torch.ones_like(ended) if only_end else ended
    log_p.masked_fill_(barred[:, :, None], -torch.inf)
    log_p[:, :, END] = ends


def _best(total: Tensor, beam: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the best of (N, B, V) totals: value, row and word of each; of equals the first."""
    words = total.shape[2]
    value, index = total.flatten(1).sort(dim=1, descending=True, stable=True)
    value, index = value[:, :beam], index[:, :beam]
    return value, index // words, index % words


def _follow(tokens: Tensor, parent: Tensor) -> Tensor:
    """Return the words (N, beam, l) so far of each one's parent."""
    return tokens.gather(1, parent[:, :, None].expand(-1, -1, tokens.shape[2]))
