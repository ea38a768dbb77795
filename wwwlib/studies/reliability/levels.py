"""Images grouped by equal doubt: the one thing that every measure of doubt is computed from.

Tied images have no order, so a measure is the expectation over all their orders. That needs only
how many images, and how many errors, each level of doubt holds; and a bootstrap sample is the same
levels with other counts. All functions work on a batch of such samples at once.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

BLOCK = 2**22  # resampled counts held at once: 32 MiB


@dataclass(frozen=True, eq=False)
class Levels:
    """S samples of images, sorted into G levels of equal doubt, most doubtful first.

    Attributes
    ----------
    size, wrong : Tensor of float64, shape (S, G)
        Number of images, and of errors, at each level.
    """

    size: Tensor
    wrong: Tensor

    def hits(self, rejected: Tensor) -> Tensor:
        """Return (S, R) expected errors among the (R,) or (S, R) most doubtful images."""
        edge, found = _running(self.size), _running(self.wrong)
        m = rejected.to(edge).expand(len(edge), -1).contiguous()
        right = torch.searchsorted(edge, m).clamp(1, edge.shape[1] - 1)
        start, end = edge.gather(1, right - 1), edge.gather(1, right)
        before, after = found.gather(1, right - 1), found.gather(1, right)
        return before + (m - start) / (end - start).clamp(min=1) * (after - before)

    def auroc(self) -> Tensor:
        """Return (S,) probabilities that an error is doubted more than a success, ties half."""
        right = self.size - self.wrong
        less = right.sum(1, keepdim=True) - right.cumsum(1) + right / 2
        return (self.wrong * less).sum(1) / (self.wrong.sum(1) * right.sum(1))

    def risks(self) -> Tensor:
        """Return (S, n): expected error rate among the 1, 2, ..., n least doubtful images."""
        n = int(self.size[0].sum())
        kept = torch.arange(1, n + 1, dtype=self.size.dtype, device=self.size.device)
        return (self.wrong.sum(1, keepdim=True) - self.hits(n - kept)) / kept

    def aurc(self) -> Tensor:
        """Return (S,) mean risks over all coverages."""
        return self.risks().mean(1)


def levels(doubt: Tensor, wrong: Tensor, counts: Tensor | None = None) -> Levels:
    """Sort (n,) images into levels; `counts` (S, n) says how often each is in each sample."""
    value, group = doubt.unique(return_inverse=True)
    group = len(value) - 1 - group
    if counts is None:
        counts = torch.ones(1, len(doubt), dtype=torch.float64, device=doubt.device)
    empty = counts.new_zeros(len(counts), len(value))
    return Levels(
        empty.index_add(1, group, counts), empty.index_add(1, group, counts * wrong.to(counts))
    )


def resamples(n: int, samples: int, seed: int) -> Iterator[Tensor]:
    """Yield bootstrap samples of n images in blocks, as (S, n) float64 counts."""
    generator = torch.Generator().manual_seed(seed)
    for first in range(0, samples, rows := max(1, BLOCK // n)):
        count = min(rows, samples - first)
        drawn = torch.randint(n, (count, n), generator=generator)
        counts = torch.zeros(count, n, dtype=torch.float64)
        yield counts.scatter_add(1, drawn, torch.ones_like(counts))


def interval(values: Tensor, level: float) -> Tensor:
    """Return the (2, ...) percentile interval of (S, ...) resampled values; nan is left out."""
    tail = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    return values.double().nanquantile(tail, dim=0)


def checked(doubt: Tensor, wrong: Tensor) -> tuple[Tensor, Tensor]:
    """Return doubt as float64 and wrong as bool, on the CPU, or say what does not fit."""
    doubt, wrong = torch.as_tensor(doubt), torch.as_tensor(wrong)
    if doubt.ndim != 1 or doubt.shape != wrong.shape or not len(doubt):
        raise ValueError(
            f"doubt has shape {tuple(doubt.shape)} and wrong {tuple(wrong.shape)}; expected the "
            "same (n,) twice, n at least 1."
        )
    if wrong.dtype != torch.bool and not ((wrong == 0) | (wrong == 1)).all():
        raise ValueError("wrong holds other values than 0 and 1; say for each image if it errs.")
    doubt = doubt.detach().double().cpu()
    if unknown := int(doubt.isnan().sum()):
        raise ValueError(
            f"doubt is nan for {unknown} of {len(doubt)} images; leave these out, or say how much "
            "to doubt what cannot be compared."
        )
    return doubt, wrong.detach().bool().cpu()


def _running(counts: Tensor) -> Tensor:
    """Return running totals (S, G + 1), from 0."""
    return torch.cat([counts.new_zeros(len(counts), 1), counts.cumsum(1)], 1)
