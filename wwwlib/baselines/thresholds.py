"""The activation that only a small share of all positions exceeds, for each neuron, exactly.

With P positions in all images together it is the (floor(share P) + 1)-th highest value. A running
list of that many, half a per cent of the activations or one, is all that a pass keeps. Network
Dissection and MILAN cut their regions out there.
"""

from collections.abc import Sequence
from functools import partial
from math import floor

import torch
from torch import Tensor

from wwwlib.activations import capture
from wwwlib.exemplars import stream
from wwwlib.images import ImageSet
from wwwlib.store import Store
from wwwlib.targets import Target


def thresholds(
    target: Target,
    images: ImageSet,
    layers: Sequence[str],
    share: float,
    batch_size: int = 64,
    workers: int = 0,
    store: Store | None = None,
    progress: bool = True,
) -> dict[str, Tensor]:
    """Return {layer: (N,)} the least value that at most a share of all positions exceeds.

    Parameters
    ----------
    target : Target
    images : ImageSet
    layers : sequence of str
        Names from ``target.layers()``; all are read in one pass.
    share : float
        In (0, 1).
    batch_size, workers, progress
        See `exemplars.stream`.
    store : Store, optional
        Keeps the result.
    """
    layers = list(layers)
    make = partial(_pass, target, images, layers, share, (batch_size, workers, progress))
    if store is None:
        return {layer: value.cpu() for layer, value in make(None).items()}
    key = {"target": target.key(), "images": images.fingerprint, "layers": layers, "share": share}
    return store.fetch("dissection-thresholds", key, lambda slot: (make(slot), {})).tensors


@torch.inference_mode()
def _pass(target, images, layers, share, options, slot) -> dict[str, Tensor]:
    def step(state: dict, indices: Tensor, x: Tensor) -> dict:
        with capture(target, layers) as taken:
            target.model(x)
        highest = {}  # a new dictionary, so that an interrupt leaves the old state whole
        for layer in layers:
            a = taken[layer].maps.float()
            positions = len(images) * a.shape[2] * a.shape[3]
            kept = floor(share * positions + 1e-9) + 1  # .005 * 200 is a little less than 1
            values = a.transpose(0, 1).flatten(1).nan_to_num(-torch.inf, torch.inf, -torch.inf)
            if layer in state:
                values = torch.cat([state[layer], values], 1)
            highest[layer] = values.topk(min(kept, values.shape[1]), 1).values
        return highest

    state = stream(target, images, step, slot, None, *options, label="thresholds")
    return {layer: state[layer][:, -1].clone() for layer in layers}
