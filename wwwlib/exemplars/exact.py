"""Sums that come out the same to the last bit, in whatever order and by whomever they are added.

Floating-point addition rounds, so its result depends on the order, and an accelerator's atomic
additions take another order each time. Here every number is cut at two fixed places into a coarse
and a fine part, each a multiple of a power of two small enough that no addition of parts rounds.
Addition of parts is then commutative and associative, which is what lets shards be merged freely.
"""

import torch
from torch import Tensor

# Sums of 2**24 numbers below 2**9 stay exact, as do 2**13 below 2**20; what is cut off is less
# than 2**-50. Larger sums round as usual: they lose the guarantee, not their meaning.
COARSE, FINE = 2.0**20, 2.0**49


def parts(values: Tensor) -> Tensor:
    """Cut numbers (B, N) into coarse and fine parts (B, 2, N), in float64."""
    values = values.double()
    coarse = (values * COARSE).round() / COARSE
    fine = ((values - coarse) * FINE).round() / FINE
    return torch.stack([coarse, fine], dim=1)


def whole(sums: Tensor) -> Tensor:
    """Return the sums (C, N) that added parts (C, 2, N) stand for."""
    return sums.sum(dim=1)
