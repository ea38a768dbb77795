"""The activations of every neuron on every probe image, for methods that look at all of them.

Exemplars need the best images of a neuron alone; CLIP-Dissect's other similarity functions and
FALCON's groups need each image's.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from wwwlib.activations import capture
from wwwlib.exemplars import stream
from wwwlib.images import ImageSet
from wwwlib.store import Slot, Store
from wwwlib.targets import Target

_KIND = "activations"


def activations(
    target: Target,
    images: ImageSet,
    layers: Sequence[str],
    batch_size: int = 64,
    workers: int = 0,
    progress: bool = True,
    store: Store | None = None,
) -> dict[str, Tensor]:
    """Return the neuron activations z (I, N) of each layer on all probe images, on the CPU.

    All layers that the store does not hold are read in one pass.

    Parameters
    ----------
    target : Target
    images : ImageSet
        The probe set.
    layers : sequence of str
        Layer names; the final layer is "logits".
    batch_size, workers, progress
        See `exemplars.stream`.
    store : Store, optional
        Keeps them, layer by layer.
    """
    layers, options = list(dict.fromkeys(layers)), (batch_size, workers, progress)
    if store is None:
        return _pass(target, images, layers, None, options)
    key = {"target": target.key(), "images": images.fingerprint}
    found = {layer: store.load(_KIND, {**key, "layer": layer}) for layer in layers}
    missing = sorted(layer for layer in layers if found[layer] is None)

    def make(slot: Slot) -> tuple[dict[str, Tensor], dict]:
        made = _pass(target, images, missing, slot, options)
        for layer in missing[1:]:
            store.save(_KIND, {**key, "layer": layer}, {"z": made[layer]}, {})
        return {"z": made[missing[0]]}, {}

    for layer in missing:
        found[layer] = store.fetch(_KIND, {**key, "layer": layer}, make)
    return {layer: found[layer].tensors["z"] for layer in layers}


@torch.inference_mode()
def _pass(target, images, layers, slot, options) -> dict[str, Tensor]:
    """Read all layers in one pass."""

    def step(state: dict, indices: Tensor, x: Tensor) -> dict:
        """Fill in rows; taken again, when memory ran out, a step writes the same."""
        with capture(target, layers) as taken:
            target.model(x)
        filled = {}
        for layer in layers:
            z = taken[layer].z.float().cpu()
            rows = state[layer].cpu() if state else z.new_zeros(len(images), z.shape[1])
            rows[indices.cpu()] = z
            filled[layer] = rows
        return filled

    identity = {"layers": layers}  # a kill may leave behind a pass that asked for others
    return stream(target, images, step, slot, identity, *options, label="activations")
