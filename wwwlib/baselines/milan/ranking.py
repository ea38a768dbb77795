"""Exemplars as MILAN ranks them: by the highest position of a map, not by the mean of all.

So a small thing that excites a neuron anywhere counts, and every exemplar has a region to show. It
matters most in transformers, whose exemplars the rest of the house ranks by the class token.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from wwwlib.activations import capture
from wwwlib.exemplars import Exemplars, stream
from wwwlib.exemplars.running import Running
from wwwlib.images import ImageSet
from wwwlib.store import Store
from wwwlib.targets import LOGITS, Target


def collect(
    target: Target,
    images: ImageSet,
    layers: Sequence[str],
    k: int = 15,
    batch_size: int = 64,
    workers: int = 0,
    store: Store | None = None,
    progress: bool = True,
) -> dict[str, Exemplars]:
    """Find the k images of every neuron whose maps reach highest.

    Parameters
    ----------
    target : Target
    images : ImageSet
        The probe set.
    layers : sequence of str
        Names from ``target.layers()``, read in one pass.
    k : int
        At most the number of images.
    batch_size, workers, progress
        See `exemplars.stream`.
    store : Store, optional
        Keeps the result.

    Returns
    -------
    dict of str to Exemplars
        Values and class sums are of the maps' highest positions; classes are the predicted ones.

    Raises
    ------
    ValueError
        If k is out of range, or a layer does not exist.
    """
    if isinstance(layers, str):
        raise ValueError(f"layers is the string {layers!r}: give a list of names, [{layers!r}].")
    if not 1 <= k <= len(images):
        raise ValueError(f"k is {k}, but {images.name!r} has {len(images)} images; give 1 to that.")
    layers, options = list(dict.fromkeys(layers)), (batch_size, workers, progress)
    if store is None:
        return _records(_pass(target, images, layers, k, options, None), layers, len(images))
    key = {"target": target.key(), "images": images.fingerprint, "layers": layers, "k": k}
    kept = store.fetch(
        "milan-exemplars",
        key,
        lambda slot: (_pass(target, images, layers, k, options, slot), {}),
    )
    return _records(kept.tensors, layers, len(images))


@torch.inference_mode()
def _pass(target, images, layers, k, options, slot) -> dict[str, Tensor]:
    """Return the running state of all layers after the last image."""

    def step(state: dict, indices: Tensor, x: Tensor) -> dict:
        with capture(target, (*layers, LOGITS)) as taken:
            target.model(x)
        state, members = dict(state), taken[LOGITS].z.argmax(1)
        for layer in layers:
            peak = taken[layer].maps.float().amax((2, 3))
            running = Running.of(state, layer)
            if running is None:
                running = Running.empty(peak.shape[1], k, len(target.classes), peak.device)
            state |= running.update(indices.to(peak.device), peak, members).as_state(layer)
        return state

    return stream(target, images, step, slot, None, *options, label="MILAN's exemplars")


def _records(state: dict[str, Tensor], layers: list[str], images: int) -> dict[str, Exemplars]:
    """Return the finished record of each layer."""
    return {layer: Running.of(state, layer).finish(images) for layer in layers}
