"""The running state of one layer during a pass: a sorted top K, extremes, and sums by class.

A batch updates it and is forgotten. The order is by value and then by image index, and sums are
exact, so neither depends on how the images were cut into batches and shards, or on who saw which.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from wwwlib.exemplars.exact import parts, whole
from wwwlib.exemplars.record import CONSTANT, NOT_FINITE, OK, Exemplars


@dataclass(frozen=True)
class Running:
    """What the pass remembers about one layer; the fields are the checkpoint's tensors."""

    index: Tensor
    value: Tensor
    low: Tensor
    high: Tensor
    finite: Tensor
    class_sum: Tensor
    class_abs: Tensor
    class_count: Tensor

    @staticmethod
    def empty(neurons, k, classes, device):
        """Return the state before the first image."""
        full = torch.full
        return Running(
            index=full((neurons, k), -1, device=device),
            value=full((neurons, k), -torch.inf, device=device),
            low=full((neurons,), torch.inf, device=device),
            high=full((neurons,), -torch.inf, device=device),
            finite=full((neurons,), 0, device=device),
            class_sum=full((classes, 2, neurons), 0.0, dtype=torch.float64, device=device),
            class_abs=full((classes, 2, neurons), 0.0, dtype=torch.float64, device=device),
            class_count=full((classes,), 0, device=device),
        )

    @staticmethod
    def of(state, layer):
        """Return a layer's part of the state of a pass, or None before the first batch."""
        if f"{layer}/index" not in state:
            return None
        return Running(**{f.name: state[f"{layer}/{f.name}"] for f in fields(Running)})

    def as_state(self, layer):
        """Return this as a layer's part of the state of a pass."""
        return {f"{layer}/{f.name}": getattr(self, f.name) for f in fields(self)}

    def update(self, indices, z, members):
        """Take in a batch: `indices` (B,), `z` (B,N), `members` (B,) class of each image."""
        finite = z.isfinite()
        value = torch.where(finite, z, -torch.inf).T
        index = torch.where(finite, indices[:, None], -1).T
        # A stable sort keeps earlier images before later ones of the same value; topk does not.
        value, order = torch.cat([self.value, value], 1).sort(dim=1, descending=True, stable=True)
        k = self.index.shape[1]
        known = parts(torch.where(finite, z, 0.0))
        size = parts(torch.where(finite, z, 0.0).abs())
        return Running(
            index=torch.cat([self.index, index], 1).gather(1, order[:, :k]),
            value=value[:, :k].contiguous(),
            # Adding 0.0 makes one of the two zeros, between which a minimum is free to choose.
            low=torch.minimum(self.low, torch.where(finite, z, torch.inf).amin(0) + 0.0),
            high=torch.maximum(self.high, torch.where(finite, z, -torch.inf).amax(0) + 0.0),
            finite=self.finite + finite.sum(0),
            class_sum=self.class_sum.index_add(0, members, known),
            class_abs=self.class_abs.index_add(0, members, size),
            class_count=self.class_count + torch.bincount(members, minlength=len(self.class_count)),
        )

    def merge(self, other):
        """Join what was learnt from other images; in any order and grouping the result is equal."""
        index = torch.cat([self.index, other.index], 1)
        value = torch.cat([self.value, other.value], 1)
        index, order = index.sort(dim=1)
        value, best = value.gather(1, order).sort(dim=1, descending=True, stable=True)
        k = self.index.shape[1]
        return Running(
            index=index.gather(1, best[:, :k]),
            value=value[:, :k].contiguous(),
            low=torch.minimum(self.low, other.low),
            high=torch.maximum(self.high, other.high),
            finite=self.finite + other.finite,
            class_sum=self.class_sum + other.class_sum,
            class_abs=self.class_abs + other.class_abs,
            class_count=self.class_count + other.class_count,
        )

    def finish(self, images):
        """Return the finished record, on the CPU."""
        status = torch.full_like(self.finite, OK, dtype=torch.int8)
        status[self.low == self.high] = CONSTANT
        status[self.finite < self.index.shape[1]] = NOT_FINITE
        sums = whole(self.class_sum), whole(self.class_abs)
        kept = (self.index, self.value, status, *sums, self.class_count)
        return Exemplars(*(tensor.cpu() for tensor in kept), images=images)
