"""Similarity r of right predictions, the distribution in which an explanation places its own r.

On most networks nearly every r is close to 1, errors included, so its value alone says little: an
`Explanation` states how many right predictions of the same network have a higher one.
"""

import warnings
from collections.abc import Mapping

import torch
from torch import Tensor

from wwwlib import maps
from wwwlib.atlas.explain import without_bias
from wwwlib.contributions import Contributions, contribute_all
from wwwlib.distributed import Pass, State, concatenate, run
from wwwlib.images import ImageSet, subset
from wwwlib.store import tensor_digest
from wwwlib.targets import Target

_IMAGES = 200  # at most so many are tested
_TOP = 8  # r is computed for 1 to 8 neurons per track


def similarity_when_right(
    target: Target,
    images: ImageSet,
    class_w: Mapping[str, Tensor],
    count: Tensor,
    heads: Mapping[str, Tensor | None],
    signed: bool = False,
    **options: object,
) -> dict[str, Tensor]:
    """Compute r of right predictions, the distribution in which `Atlas.explain` places an r.

    An image that is part of its class mean is similar to it for that reason: each image is
    compared with the mean of the other images of its class.

    Parameters
    ----------
    target : Target
    images : ImageSet
        The images behind `class_w`; about 200 of those with a label are used, evenly spaced in the
        order of their classes.
    class_w, count
        As `class_contributions` returns them.
    heads : mapping of str to Tensor or None
        Weight (C, N) of the linear head behind each layer.
    signed : bool
        Whether contributions keep their sign.
    **options
        Fields of `distributed.Options`.

    Returns
    -------
    dict of str to Tensor
        `LayerRecord.right_r` of each layer; empty without labels.
    """
    labels = torch.tensor([-1 if label is None else label for label in images.labels])
    known = labels.argsort(stable=True)[(labels < 0).sum() :]
    spread = torch.linspace(0, len(known) - 1, min(len(known), _IMAGES)).round().long()
    if not len(spread):
        return {}
    chosen = known[spread].sort().values

    def step(layers: list[str], indices: Tensor, x: Tensor) -> dict[str, State]:
        own, size = labels[chosen[indices]], tuple(x.shape[-2:])
        linear = {layer: without_bias(heads[layer], x.device) for layer in layers}
        found = contribute_all(target, x, layers, own.to(x.device), signed, linear)
        return {
            layer: {"r": _to_others(one, own, class_w[layer], count, size)}
            for layer, one in found.items()
        }

    key = {"signed": signed, "class_w": tensor_digest(dict(class_w))}
    some, about = subset(images, chosen.tolist()), ("right-similarity", key)
    p = Pass(target, some, list(class_w), step, concatenate, *about, label="similarity to classes")
    found = {layer: state["r"] for layer, state in run(p, **options).items()}
    return {n: r[~r.isnan().all(1)].T.sort(1).values.contiguous() for n, r in found.items()}


@torch.no_grad()
def _to_others(
    found: Contributions, labels: Tensor, class_w: Tensor, count: Tensor, size: tuple[int, int]
) -> Tensor:
    """Return r (B, 8) of images with the others of their class; nan where predictions are wrong."""
    a, w = found.activations.maps.cpu(), found.w.double().cpu()
    a = a.to(torch.promote_types(a.dtype, torch.float32))
    n = count[labels].double().unsqueeze(1)
    others = (n * class_w[labels] - w) / (n - 1)
    right = (found.logits.argmax(1).cpu() == labels) & a.flatten(1).isfinite().all(1)
    right &= w.isfinite().all(1) & others.isfinite().all(1)
    r = torch.full((len(labels), _TOP), torch.nan, dtype=torch.float64)
    a, tracks = a[right], (w[right], others[right])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of heatmaps of zeros, whose r is nan
        for k in range(_TOP):
            r[right, k] = maps.similarity(
                *(maps.heatmap(a, v, k + 1, size) for v in tracks)
            ).double()
    return r
