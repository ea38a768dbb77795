"""Exemplars: for every neuron the K probe images with the highest activation (D_rep).

One pass keeps a sorted list of K images per neuron and exact sums by class, so memory depends on
neurons and K, not on the number of images. The result is that of sorting everything at once.
`papermill_runs/collect.py` is a program that fills the store ahead of the notebooks.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from wwwlib.activations import capture
from wwwlib.distributed import Pass, State, class_sums, class_totals, merge_class_sums, run
from wwwlib.images import ImageSet, match_labels
from wwwlib.registry import one_of, whole_number
from wwwlib.targets import LOGITS, Target

OK, CONSTANT, NOT_FINITE = 0, 1, 2
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, eq=False)
class Exemplars:
    """The probe images that activate every neuron of a layer most (D_rep).

    Attributes
    ----------
    index : Tensor of int64, shape (N, K)
        Image indices, best first; equal values in the order of their indices. -1 where a neuron
        had no finite activation left.
    value : Tensor of float32, shape (N, K)
        Their neuron activations z; -inf beside an index of -1.
    status : Tensor of int8, shape (N,)
        `OK`, `CONSTANT` (the same value on every image) or `NOT_FINITE` (fewer than K finite
        values).
    class_sum, class_abs : Tensor of float64, shape (C, N)
        Sums of z and of ``|z|`` over the images of each class.
    class_count : Tensor of int64, shape (C,)
        Images of each class: by label where an image has one of the network's, else by prediction.
    images : int
        Number of images in the probe set.
    """

    index: Tensor
    value: Tensor
    status: Tensor
    class_sum: Tensor
    class_abs: Tensor
    class_count: Tensor
    images: int

    def first(self, k: int) -> "Exemplars":
        """Return the first k exemplars of each neuron; ValueError if there are fewer."""
        if not 1 <= k <= self.index.shape[1]:
            count = self.index.shape[1]
            raise ValueError(f"k is {k}, but {count} exemplars were collected; collect more.")
        return replace(self, index=self.index[:, :k], value=self.value[:, :k])


def collect(
    target: Target,
    images: ImageSet,
    layers: Sequence[str],
    k: int = 40,
    precision: str = "float32",
    depth: int | None = None,
    **options: object,
) -> dict[str, Exemplars]:
    """Find the exemplars of every neuron of the given layers.

    Parameters
    ----------
    target : Target
    images : ImageSet
        The probe set, D_probe. Labels are matched with the network's classes by name, see
        `images.match_labels`.
    layers : sequence of str
        Layer names; the final layer is "logits". All are captured in one pass.
    k : int
        Exemplars per neuron, at most the number of probe images; the paper's code uses 40.
    precision : {"float32", "bfloat16", "float16"}
        What the network computes in (PyTorch's autocast); sums are in float64 all the same. Less
        than float32 is faster on most accelerators, and changes a few exemplars.
    depth : int, optional
        Keep so many images per neuron in place of k, for `concepts.stability`.
    **options
        Fields of `distributed.Options`.

    Returns
    -------
    dict of str to Exemplars

    Raises
    ------
    ValueError
        If k is no whole number, less than 1 or more than there are images, or a layer, precision
        or decoder does not exist.

    Warns
    -----
    UserWarning
        If k is more than a fifth of the images, most of which then do not show what a neuron
        responds to; or if classes of the images are not among the network's.

    References
    ----------
    WWW, section 3.2.
    """
    one_of("precision", precision, PRECISIONS)
    k, images = check_k(k, images), match_labels(images, target)
    depth = depth or k
    key = {"k": depth} | ({} if precision == "float32" else {"precision": precision})
    labels = torch.tensor([-1 if label is None else label for label in images.labels])
    step = partial(_step, target, labels, PRECISIONS[precision])
    merge, finish = partial(_merge, depth), partial(_finish, depth, len(target.classes))
    ranking = Pass(target, images, layers, step, merge, "exemplars", key, finish, "exemplars")
    found = run(ranking, **options)
    return {layer: Exemplars(**own, images=len(images)) for layer, own in found.items()}


def check_k(k: int, images: ImageSet, warn: bool = True) -> int:
    """Return k as int; raise the errors of `collect` about it, and give its warning."""
    k = whole_number("k", k)
    if len(images) < k:
        raise ValueError(f"k = {k} exceeds the {len(images)} images of {images.name!r}; give less.")
    if warn and k > 1 and k > len(images) / 5:
        warnings.warn(
            f"k = {k} exemplars are {k / len(images):.0%} of the {len(images)} images of "
            f"{images.name!r}; few neurons respond to so many, so names say little: give k = "
            f"{max(1, len(images) // 20)} (5 %) or more images.",
            stacklevel=3,
        )
    return k


def _state(indices: Tensor, z: Tensor, classes: Tensor) -> State:
    """Return the state of a batch: candidates in order of index, extremes, and sums by class."""
    finite = z.isfinite()
    known = torch.where(finite, z, 0.0)
    value = torch.where(finite, z, -torch.inf)
    return {
        "index": torch.where(finite, indices.to(z.device)[:, None], -1).T,
        "value": value.T,
        # Adding 0.0 makes one of the two zeros, between which a minimum is free to choose.
        "low": torch.where(finite, z, torch.inf).amin(0) + 0.0,
        "high": value.amax(0) + 0.0,
        "finite": finite.sum(0),
        **class_sums(torch.stack([known, known.abs()], 1), classes),
    }


def _best(k: int, value: Tensor, index: Tensor) -> State:
    """Keep the k best candidates, of which equal ones are in order of index."""
    # A stable sort keeps earlier images before later ones of the same value; topk does not.
    value, order = value.sort(dim=1, descending=True, stable=True)
    return {"value": value[:, :k].contiguous(), "index": index.gather(1, order[:, :k])}


def _merge(k: int, one: State, other: State) -> State:
    """Merge the states of adjacent images, those of the earlier ones first."""
    value, index = (torch.cat([one[name], other[name]], 1) for name in ("value", "index"))
    return {
        **_best(k, value, index),
        "low": torch.minimum(one["low"], other["low"]),
        "high": torch.maximum(one["high"], other["high"]),
        "finite": one["finite"] + other["finite"],
        **merge_class_sums(one, other),
    }


def _finish(k: int, classes: int, state: State) -> State:
    parts = (state | {"sum": state["sum"][:, :, i]} for i in (0, 1))
    sums, sizes = (class_totals(part, classes) for part in parts)
    status = torch.full_like(state["finite"], OK, dtype=torch.int8)
    status[state["low"] == state["high"]] = CONSTANT
    status[state["finite"] < k] = NOT_FINITE
    of_classes = {"class_sum": sums["sum"], "class_abs": sizes["sum"], "class_count": sums["count"]}
    return {**_best(k, state["value"], state["index"]), "status": status, **of_classes}


@torch.inference_mode()
def _step(
    target: Target, labels: Tensor, dtype: torch.dtype, layers: Sequence[str], i: Tensor, x: Tensor
) -> dict[str, State]:
    lower, classes = dtype is not torch.float32, labels[i]
    predicted = classes < 0
    read = (*layers, LOGITS) if predicted.any() else layers
    with torch.autocast(x.device.type, dtype, lower), capture(target, read) as captured:
        target.model(x)
    if predicted.any():
        classes[predicted] = captured[LOGITS].z.argmax(1).cpu()[predicted]
    classes = classes.to(x.device)
    return {layer: _state(i, captured[layer].z.float(), classes) for layer in layers}
