"""States of passes: how those of adjacent images merge, and sums that do not round.

Floating-point addition rounds, so its result depends on the order, and an accelerator's atomic
additions take another order each time. Sums over images are therefore exact: `exact_parts` cuts
each number at two fixed places into a coarse and a fine part, each a multiple of a power of two
small enough that no addition of parts rounds. Adding parts is commutative and associative.
"""

import numpy as np
import torch
from torch import Tensor

State = dict[str, Tensor]

_COARSE, _FINE = 2.0**20, 2.0**49  # where exact sums cut numbers


def concatenate(one: State, other: State) -> State:
    """Merge states whose tensors have one row for each image, in their order."""
    return {name: torch.cat([tensor, other[name]]) for name, tensor in one.items()}


def exact_parts(values: Tensor) -> Tensor:
    """Cut numbers (B, ...) into coarse and fine parts (B, 2, ...) in float64, to be added exactly.

    Sums of 2**24 numbers below 2**9 are exact to 2**-50 each, as are those of 2**13 below 2**20;
    larger sums round as usual. A sum of parts (2, ...) stands for its sum over the first axis.
    """
    values = values.double()
    coarse = (values * _COARSE).round() / _COARSE
    fine = ((values - coarse) * _FINE).round() / _FINE
    return torch.stack([coarse, fine], dim=1)


def class_sums(values: Tensor, classes: Tensor) -> State:
    """Sum values exactly by class, for the classes that occur.

    Parameters
    ----------
    values : Tensor
        (B, ...), finite.
    classes : Tensor
        (B,) int64.

    Returns
    -------
    dict of Tensor
        "classes" (R,) ascending, their "count" (R,), and the parts of each "sum" (R, 2, ...); the
        other functions on class sums take a state that has these and possibly more.
    """
    present, place, count = classes.unique(return_inverse=True, return_counts=True)
    sums = torch.zeros(len(present), 2, *values.shape[1:], dtype=torch.float64).to(values.device)
    sums = sums.index_add(0, place, exact_parts(values))
    return {"classes": present, "count": count, "sum": sums}


def merge_class_sums(one: State, other: State) -> State:
    """Merge what `class_sums` returned for disjoint images."""
    present, place = torch.cat([one["classes"], other["classes"]]).unique(return_inverse=True)
    first, second = place.split([len(one["classes"]), len(other["classes"])])
    merged = {"classes": present}
    for name in ("count", "sum"):
        total = one[name].new_zeros(len(present), *one[name].shape[1:])
        merged[name] = total.index_copy_(0, first, one[name]).index_add_(0, second, other[name])
    return merged


def class_totals(state: State, number: int) -> State:
    """Return the sums (C, ...) float64 and image counts (C,) int64 of classes 0 to C - 1."""
    totals = {}
    for name, own in {"sum": state["sum"].sum(1), "count": state["count"]}.items():
        rows = own.numpy(force=True)
        # Rows of NumPy's zeros take no time and no memory until they are written.
        dense = np.zeros((number, *rows.shape[1:]), rows.dtype)
        dense[state["classes"].numpy(force=True)] = rows
        totals[name] = torch.from_numpy(dense)
    return totals
